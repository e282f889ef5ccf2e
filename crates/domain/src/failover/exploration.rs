//! Every state that two sites, their agents, the controller and the wires
//! between them can get into, by operations and by faults, is visited, and in
//! each of them is asked what must hold.
//!
//! What is modelled: a site's power, its connection to the controller and its
//! agent's restarts; commands under way, late, doubled and lost, as long as
//! their connection lives, and shortly after it was cut; each side's own disks
//! (*whole*), its *points*, and whether they have all that was written (*fresh*).
//! The controller acts on nothing that is not durable, so that its crash is the
//! same as two cut connections. What the
//! controller and the agents decide is the product's own code: [`apply`],
//! [`permit`], [`Standing::told`], [`heed`] and [`may_start`]. Somebody who
//! vouches that a site is without power is right about that.
//!
//! Epochs are replaced by their ranks, since only their order counts, and at most
//! two commands are under way at once: so the number of states is finite, and
//! within these bounds none is left out.
//!
//! What is not modelled: tests, pauses, resynchronisations and disabling; a peer
//! that answers instead of the controller; a controller that acts on what is not
//! durable, or is restored from an old copy; somebody who vouches and is wrong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;

use crate::failover::fence::{Alone, Decision, Epoch, Fenced, Known, Told, heed, may_start};
use crate::failover::operation::{Operation, permit};
use crate::failover::route::Route;
use crate::failover::standing::{Change, Event, Kind, Phase, Return, Side, Standing, State, apply};
use crate::protection::Replication;
use crate::site::SiteKind;

/// So many commands are under way at once.
const WIRE_MAX: usize = 2;

/// What is wrong with the system, to see that the exploration finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// The target is started before the source is fenced.
    StartBeforeFence,
    /// An agent heeds commands of any epoch.
    EpochIgnored,
    /// An agent starts what was its own without asking.
    StartsOnReturn,
    /// The policy is the one that has its price.
    StartIfLastActive,
    /// Commands outlive the connection that they were sent on.
    LateCommands,
    /// A link that is cut is taken for a site that is lost.
    CutTakenForLoss,
    /// A planned failover brings over what was written before the fence only.
    SyncBeforeFence,
    /// Points are dropped before the disks stand for themselves.
    DropPointsFirst,
    /// The old disks become a replica at once, before the commit.
    ReverseTooEarly,
    /// A lost source cannot be given up while the machine returns to it.
    NoWayOutOfReturn,
}

/// A command under way: an epoch, and whether it is the hearer's.
type Command = (Epoch, bool);

/// In no order: what was sent first may be heard last.
type Wire = [Option<Command>; WIRE_MAX];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Site {
    power: bool,
    linked: bool,
    known: Known,
    runs: bool,
    whole: bool,
    points: bool,
    fresh: bool,
    wire: Wire,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    standing: Standing,
    home: Site,
    away: Site,
    /// A planned failover has lost what was written.
    lost: bool,
}

impl World {
    fn begin() -> Self {
        let site = |ours| Site {
            power: true,
            linked: true,
            known: Known { epoch: Epoch::FIRST, ours },
            runs: ours,
            whole: ours,
            points: false,
            fresh: ours,
            wire: [None; WIRE_MAX],
        };
        let (home, away) = (site(true), site(false));
        Self { standing: Standing::enabling(), home, away, lost: false }
    }

    fn site(&self, side: Side) -> &Site {
        match side {
            Side::Home => &self.home,
            Side::Away => &self.away,
        }
    }

    fn site_mut(&mut self, side: Side) -> &mut Site {
        match side {
            Side::Home => &mut self.home,
            Side::Away => &mut self.away,
        }
    }

    fn heard(&self, side: Side) -> bool {
        let site = self.site(side);
        site.power && site.linked
    }

    fn both_heard(&self) -> bool {
        self.heard(Side::Home) && self.heard(Side::Away)
    }

    fn start(&mut self, side: Side) {
        let planned = matches!(
            self.standing.state,
            State::FailingOver { kind: Kind::Planned, phase: Phase::Starting, .. }
        );
        let to_target = side == self.standing.target();
        let site = self.site_mut(side);
        if site.runs || !(site.whole || site.points) {
            return;
        }
        site.runs = true;
        // From now on, what this side has is what there is.
        if !site.fresh {
            site.fresh = true;
            self.site_mut(side.other()).fresh = false;
            self.lost |= planned && to_target;
        }
    }

    /// Epochs by rank.
    fn ranked(mut self) -> Self {
        let commands = self.home.wire.iter().chain(&self.away.wire).flatten();
        let mut epochs = [self.standing.epoch; 3 + WIRE_MAX];
        epochs[1] = self.home.known.epoch;
        epochs[2] = self.away.known.epoch;
        epochs[3..].iter_mut().zip(commands).for_each(|(place, (epoch, _))| *place = *epoch);
        epochs.sort_unstable();
        let rank = |epoch: Epoch| {
            let lower = epochs.iter().take_while(|other| **other < epoch);
            let mut last = None;
            let distinct = lower.filter(|other| last.replace(**other) != Some(**other));
            Epoch::new(distinct.count() as u64 + 1)
        };
        self.standing.epoch = rank(self.standing.epoch);
        for site in [&mut self.home, &mut self.away] {
            site.known.epoch = rank(site.known.epoch);
            site.wire.iter_mut().flatten().for_each(|(epoch, _)| *epoch = rank(*epoch));
            site.wire.sort_unstable();
        }
        self
    }
}

/// Who makes a step happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The product, or an operator.
    Us,
    /// A fault.
    Fault,
    /// Somebody mends what failed: power, link, controller.
    Mended(Option<Side>),
}

struct Model {
    defect: Defect,
    /// What stands away.
    away: SiteKind,
}

/// What happens in a step.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "shown in the way to what does not hold")]
enum Name {
    Begin,
    Power(Side, bool),
    Linked(Side, bool),
    AgentRestarts(Side),
    Writes(Side),
    Hears(Side, Command),
    Asks(Side),
    IsAlone(Side),
    Sent(Side, Command),
    Effect(&'static str),
    Happens(Event),
}

type Steps = Vec<(By, Name, World)>;

impl Model {
    fn steps(&self, world: &World) -> Steps {
        let mut steps = Vec::new();
        self.faults(world, &mut steps);
        for side in Side::BOTH {
            self.agent(world, side, &mut steps);
        }
        self.operator(world, &mut steps);
        self.controller(world, &mut steps);
        steps.into_iter().map(|(by, name, world)| (by, name, world.ranked())).collect()
    }

    fn faults(&self, world: &World, steps: &mut Steps) {
        let mut step = |by, name, change: &dyn Fn(&mut World)| {
            let mut next = world.clone();
            change(&mut next);
            steps.push((by, name, next));
        };
        for side in Side::BOTH {
            let site = world.site(side);
            if !site.power {
                step(By::Mended(Some(side)), Name::Power(side, true), &|world| {
                    world.site_mut(side).power = true;
                });
                continue;
            }
            step(By::Fault, Name::Power(side, false), &|world| {
                self.disconnect(world, side);
                let site = world.site_mut(side);
                // Of a site without power, the link makes no difference.
                (site.power, site.linked, site.runs) = (false, true, false);
            });
            if site.wire != [None; WIRE_MAX] {
                step(By::Fault, Name::AgentRestarts(side), &|world| self.disconnect(world, side));
            }
            if site.linked {
                // What has arrived is still heard.
                step(By::Fault, Name::Linked(side, false), &|world| {
                    world.site_mut(side).linked = false;
                });
            } else {
                step(By::Mended(None), Name::Linked(side, true), &|world| {
                    self.disconnect(world, side);
                    world.site_mut(side).linked = true;
                });
            }
        }
    }

    /// What was sent on a connection ends with it.
    fn disconnect(&self, world: &mut World, side: Side) {
        if self.defect != Defect::LateCommands {
            world.site_mut(side).wire = [None; WIRE_MAX];
        }
    }

    fn agent(&self, world: &World, side: Side, steps: &mut Steps) {
        let site = world.site(side);
        if !site.power {
            return;
        }
        if site.runs && world.site(side.other()).fresh {
            let mut next = world.clone();
            next.site_mut(side.other()).fresh = false;
            steps.push((By::Us, Name::Writes(side), next));
        }
        for (number, command) in site.wire.iter().enumerate() {
            let Some(command) = command else { continue };
            let mut next = world.clone();
            next.site_mut(side).wire[number] = None;
            self.hear(&mut next, side, *command);
            steps.push((By::Us, Name::Hears(side, *command), next));
        }
        if site.runs {
            return;
        }
        let mut next = world.clone();
        let name = if world.heard(side) {
            // A late answer does what a late command does.
            let Some(told) = self.told(world, side) else { return };
            self.consider(&mut next, side, Told::ByController(told));
            Name::Asks(side)
        } else {
            self.consider(&mut next, side, Told::Nothing);
            Name::IsAlone(side)
        };
        if next != *world {
            steps.push((By::Us, name, next));
        }
    }

    fn told(&self, world: &World, side: Side) -> Option<Known> {
        if self.defect == Defect::StartBeforeFence {
            let ours = world.standing.active() == side;
            return Some(Known { epoch: world.standing.epoch, ours });
        }
        world.standing.told(side)
    }

    fn hear(&self, world: &mut World, side: Side, (epoch, ours): Command) {
        let command = Known { epoch, ours };
        let heeded = match self.defect {
            Defect::EpochIgnored => Ok(command),
            _ => heed(world.site(side).known, command),
        };
        let Ok(known) = heeded else { return };
        world.site_mut(side).known = known;
        if known.ours {
            world.start(side);
        } else {
            world.site_mut(side).runs = false;
        }
    }

    /// An agent that finds the machine stopped considers to start it.
    fn consider(&self, world: &mut World, side: Side, told: Told) {
        let known = world.site(side).known;
        let alone = match self.defect {
            Defect::StartIfLastActive => Alone::StartIfLastActive,
            _ => Alone::StayDown,
        };
        let (known, decision) = match self.defect {
            Defect::StartsOnReturn if known.ours => (known, Decision::Start("a defect")),
            _ => may_start(known, told, alone),
        };
        world.site_mut(side).known = known;
        if matches!(decision, Decision::Start(_)) {
            world.start(side);
        }
    }

    fn operator(&self, world: &World, steps: &mut Steps) {
        let standing = &world.standing;
        for operation in Operation::ALL {
            // Tests and settings change nothing that is modelled, and Disable
            // ends all that is.
            let left_out = matches!(
                operation,
                Operation::TestFailover
                    | Operation::CompleteTest
                    | Operation::Pause
                    | Operation::Resume
                    | Operation::Resynchronise
                    | Operation::ChangeSettings
                    | Operation::Disable
            );
            let returning = matches!(standing.state, State::Returning { .. });
            if left_out || (self.defect == Defect::NoWayOutOfReturn && returning) {
                continue;
            }
            if operation == Operation::Cancel {
                if permit(operation, standing, &Replication::Steady, self.route(world)).is_ok() {
                    self.happens(world, &Event::TakingBack, steps);
                }
            } else {
                self.happens(world, &Event::Asked(operation), steps);
            }
        }
    }

    /// What jobs and reconcilers do.
    fn controller(&self, world: &World, steps: &mut Steps) {
        let standing = &world.standing;
        let (source, target) = (standing.source, standing.target());
        // The intent is told to whoever it concerns, again and again.
        for side in Side::BOTH.into_iter().filter(|side| world.heard(*side)) {
            let site = world.site(side);
            let told = self.told(world, side);
            if let Some(told) = told.filter(|told| site.known != *told || site.runs != told.ours) {
                send(world, side, (told.epoch, told.ours), steps);
            }
        }
        match standing.state {
            State::Enabling => self.happens(world, &Event::ReplicationBegun, steps),
            State::InitialReplication | State::ReverseReplicating => {
                self.first_point(world, steps);
            }
            State::Protected => replicate(world, steps),
            State::FailingOver { kind, phase, .. } => self.fail_over(world, kind, phase, steps),
            State::Returning { phase: Return::Fencing, .. } => {
                for fenced in self.fences(world, target) {
                    self.happens(world, &Event::TargetFenced(fenced), steps);
                }
            }
            State::Returning { phase: Return::Starting, .. } => {
                if world.heard(source) && world.site(source).runs {
                    self.happens(world, &Event::SourceRuns, steps);
                }
            }
            State::CommitPending { change: Change::Point, .. } => {
                self.happens(world, &Event::PointChanged, steps);
            }
            State::CommitPending { change: Change::Commit, .. } => {
                self.commit(world, target, steps);
            }
            State::CommitPending { change: Change::None, .. }
                if self.defect == Defect::ReverseTooEarly =>
            {
                let mut next = world.clone();
                next.site_mut(source).whole = false;
                steps.push((By::Us, Name::Effect("the old disks are given up"), next));
            }
            State::AwaitingCompletion { .. }
            | State::CommitPending { .. }
            | State::Committed
            | State::Disabling { .. } => {}
        }
    }

    fn fail_over(&self, world: &World, kind: Kind, phase: Phase, steps: &mut Steps) {
        let (source, target) = (world.standing.source, world.standing.target());
        let early = self.defect == Defect::SyncBeforeFence;
        match (kind, phase) {
            (Kind::Planned, Phase::BeforeFence) => {
                self.happens(world, &Event::Synchronised, steps);
                if world.heard(source) && world.site(source).runs {
                    let mut next = world.clone();
                    next.site_mut(source).runs = false;
                    steps.push((By::Us, Name::Effect("the source is shut down"), next));
                } else if !early || world.site(target).fresh {
                    self.happens(world, &Event::EpochRaised, steps);
                }
                replicate(world, steps);
            }
            (Kind::Unplanned, Phase::BeforeFence) => {
                self.happens(world, &Event::EpochRaised, steps)
            }
            (_, Phase::Fencing) => {
                for fenced in self.fences(world, source) {
                    self.happens(world, &Event::SourceFenced(fenced), steps);
                }
            }
            (_, Phase::LastSync) => {
                replicate(world, steps);
                if early || world.site(target).fresh {
                    self.happens(world, &Event::SidesAgree, steps);
                }
            }
            (_, Phase::Starting) => {
                if world.heard(target) && world.site(target).runs {
                    self.happens(world, &Event::TargetRuns, steps);
                }
            }
        }
    }

    /// The proofs that a side is fenced in the current epoch.
    fn fences(&self, world: &World, side: Side) -> Vec<Fenced> {
        let (site, epoch) = (world.site(side), world.standing.epoch);
        let mut fences = Vec::new();
        if world.heard(side) && site.known == (Known { epoch, ours: false }) && !site.runs {
            fences.push(Fenced::Acknowledged(epoch));
        }
        let looks_lost = self.defect == Defect::CutTakenForLoss && !site.linked;
        if !site.power || looks_lost {
            fences.push(Fenced::Vouched { epoch, by: "ada".into() });
        }
        fences
    }

    fn route(&self, world: &World) -> Route {
        let there = Route { source: SiteKind::Managed, target: self.away };
        if world.standing.source == Side::Home { there } else { there.reversed() }
    }

    /// An event happens, if it can.
    fn happens(&self, world: &World, event: &Event, steps: &mut Steps) {
        let route = self.route(world);
        if let Ok(standing) = apply(&world.standing, event, &Replication::Steady, route) {
            let next = World { standing, ..world.clone() };
            steps.push((By::Us, Name::Happens(event.clone()), next));
        }
    }

    fn first_point(&self, world: &World, steps: &mut Steps) {
        let target = world.standing.target();
        if !world.both_heard() || !world.site(world.standing.source).whole {
            return;
        }
        if world.site(target).points {
            self.happens(world, &Event::FirstPoint, steps);
            return;
        }
        let mut next = world.clone();
        let site = next.site_mut(target);
        // Old disks become the base of the replica.
        (site.points, site.whole, site.fresh) = (true, false, true);
        steps.push((By::Us, Name::Effect("the first point arrives"), next));
    }

    fn commit(&self, world: &World, target: Side, steps: &mut Steps) {
        if !world.heard(target) {
            return;
        }
        let site = world.site(target);
        let drop_first = self.defect == Defect::DropPointsFirst;
        if site.points && (site.whole || drop_first) {
            let mut next = world.clone();
            next.site_mut(target).points = false;
            steps.push((By::Us, Name::Effect("points are dropped"), next));
        }
        if !site.whole {
            let mut next = world.clone();
            next.site_mut(target).whole = true;
            steps.push((By::Us, Name::Effect("the disks are hydrated"), next));
        }
        if site.whole && !site.points {
            self.happens(world, &Event::CommitDone, steps);
        }
    }
}

/// All that was written is brought to the target.
fn replicate(world: &World, steps: &mut Steps) {
    let (source, target) = (world.standing.source, world.standing.target());
    if world.both_heard() && world.site(source).fresh && !world.site(target).fresh {
        let mut next = world.clone();
        next.site_mut(target).fresh = true;
        steps.push((By::Us, Name::Effect("a point arrives"), next));
    }
}

fn send(world: &World, side: Side, command: Command, steps: &mut Steps) {
    let under_way = world.home.wire.iter().chain(&world.away.wire).flatten().count();
    let wire = &world.site(side).wire;
    let free = wire.iter().position(Option::is_none);
    if let Some(free) = free.filter(|_| under_way < WIRE_MAX && !wire.contains(&Some(command))) {
        let mut next = world.clone();
        next.site_mut(side).wire[free] = Some(command);
        steps.push((By::Us, Name::Sent(side, command), next));
    }
}

/// What must hold in every state.
fn check(world: &World) -> Result<(), &'static str> {
    let sites = [&world.home, &world.away];
    let has_copy = |site: &&Site| site.whole || site.points;
    if sites.iter().all(|site| site.runs) {
        return Err("the machine runs twice");
    }
    if sites.iter().any(|site| site.runs && !has_copy(site)) {
        return Err("the machine runs on disks that are gone");
    }
    if !sites.iter().any(has_copy) {
        return Err("no good copy is left");
    }
    if world.lost {
        return Err("a planned failover has lost what was written");
    }
    let standing = &world.standing;
    if standing.state == State::Protected && !world.site(standing.target()).points {
        return Err("it is said to be protected, and has no point");
    }
    if matches!(standing.state, State::CommitPending { change: Change::None, .. })
        && !has_copy(&world.site(standing.source))
    {
        return Err("an undo is offered, and the source has no disks");
    }
    Ok(())
}

/// Whether a machine stands where an operator can leave it.
fn is_good(world: &World) -> bool {
    let standing = &world.standing;
    let rests = matches!(
        standing.state,
        State::Protected
            | State::Committed
            | State::CommitPending { change: Change::None, .. }
            | State::ReverseReplicating
    );
    rests && world.site(standing.active()).runs
}

/// Whether a machine can be expected to run again though this side has no power
/// and never will.
fn survives_without(world: &World, lost: Side) -> bool {
    let (standing, left) = (&world.standing, lost.other());
    let site = world.site(left);
    let on_its_way = matches!(
        standing.state,
        State::Protected
            | State::FailingOver { .. }
            | State::AwaitingCompletion { .. }
            | State::Returning { .. }
            | State::CommitPending { change: Change::None | Change::Point, .. }
    );
    let only_lost = !world.site(lost).power && site.power;
    // Before the first point, a machine that runs is all that can be had.
    only_lost && (site.whole || site.points) && on_its_way
}

struct Explored {
    worlds: Vec<World>,
    /// From, to, by whom.
    steps: Vec<(u32, u32, By)>,
}

/// Visits all states.
///
/// # Errors
/// What does not hold, and the shortest way there.
fn explore(defect: Defect, away: SiteKind) -> Result<Explored, (&'static str, Vec<String>)> {
    let model = Model { defect, away };
    let begin = World::begin();
    let mut numbers = HashMap::from([(begin.clone(), 0_u32)]);
    let mut worlds = vec![begin];
    let mut came: Vec<(u32, Name)> = vec![(0, Name::Begin)];
    let mut steps = Vec::new();
    let mut at = 0;
    while at < worlds.len() {
        let from = u32::try_from(at).expect("so many states are not expected");
        for (by, name, world) in model.steps(&worlds[at]) {
            if let Some(to) = numbers.get(&world) {
                steps.push((from, *to, by));
                continue;
            }
            let to = u32::try_from(worlds.len()).expect("so many states are not expected");
            steps.push((from, to, by));
            came.push((from, name));
            check(&world).map_err(|what| (what, trace(&came, to)))?;
            numbers.insert(world.clone(), to);
            worlds.push(world);
        }
        at += 1;
    }
    Ok(Explored { worlds, steps })
}

fn trace(came: &[(u32, Name)], to: u32) -> Vec<String> {
    let mut way = Vec::new();
    let mut at = to;
    while at != 0 {
        let (from, name) = &came[at as usize];
        way.push(format!("{name:?}"));
        at = *from;
    }
    way.reverse();
    way
}

impl Explored {
    /// The states from which no good one is reached by steps that `may` be taken.
    fn stuck(&self, may: impl Fn(By) -> bool) -> Vec<&World> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.worlds.len()];
        for (from, to, _) in self.steps.iter().filter(|(_, _, by)| may(*by)) {
            before[*to as usize].push(*from);
        }
        let good = self.worlds.iter().enumerate().filter(|(_, world)| is_good(world));
        let mut queue: VecDeque<usize> = good.map(|(number, _)| number).collect();
        let mut out: HashSet<usize> = queue.iter().copied().collect();
        while let Some(at) = queue.pop_front() {
            for from in &before[at] {
                if out.insert(*from as usize) {
                    queue.push_back(*from as usize);
                }
            }
        }
        let stuck = self.worlds.iter().enumerate().filter(|(number, _)| !out.contains(number));
        stuck.map(|(_, world)| world).collect()
    }

    /// A state without a way out, if there is one: when all is mended, or when
    /// one side never returns.
    fn without_way_out(&self) -> Option<String> {
        let stuck = self.stuck(|by| by != By::Fault);
        if let Some(world) = stuck.first() {
            return Some(format!("all mended: {world:#?}"));
        }
        Side::BOTH.into_iter().find_map(|lost| {
            let stuck = self.stuck(|by| by != By::Fault && by != By::Mended(Some(lost)));
            let mut stuck = stuck.into_iter().filter(|world| survives_without(world, lost));
            stuck.next().map(|world| format!("{lost:?} lost: {world:#?}"))
        })
    }
}

fn nothing_goes_wrong(away: SiteKind) {
    let explored = match explore(Defect::None, away) {
        Ok(explored) => explored,
        Err((what, trace)) => panic!("{what}:\n{}", trace.join("\n")),
    };
    println!("{} states, {} steps", explored.worlds.len(), explored.steps.len());
    assert!(explored.worlds.len() > 10_000, "the model does not move");
    if let Some(stuck) = explored.without_way_out() {
        panic!("no way out, {stuck}");
    }
}

#[test]
fn no_faults_and_operations_run_a_machine_twice_spoil_it_or_leave_no_way_out() {
    nothing_goes_wrong(SiteKind::Managed);
}

#[test]
fn nor_do_they_with_a_cloud_provider() {
    nothing_goes_wrong(SiteKind::CloudProvider);
}

#[test]
fn the_exploration_finds_each_defect() {
    let table = [
        (Defect::StartBeforeFence, "the machine runs twice"),
        (Defect::EpochIgnored, "the machine runs twice"),
        (Defect::StartsOnReturn, "the machine runs twice"),
        (Defect::StartIfLastActive, "the machine runs twice"),
        (Defect::LateCommands, "the machine runs twice"),
        (Defect::CutTakenForLoss, "the machine runs twice"),
        (Defect::SyncBeforeFence, "a planned failover has lost what was written"),
        (Defect::DropPointsFirst, "the machine runs on disks that are gone"),
        (Defect::ReverseTooEarly, "an undo is offered, and the source has no disks"),
    ];
    for (defect, expected) in table {
        let (what, trace) = explore(defect, SiteKind::Managed)
            .err()
            .unwrap_or_else(|| panic!("{defect:?}: not found"));
        println!(
            "{defect:?}: {what}:
  {}",
            trace.join(
                "
  "
            )
        );
        assert_eq!(
            what,
            expected,
            "{defect:?}:
{}",
            trace.join(
                "
"
            )
        );
    }
}

#[test]
fn the_exploration_finds_a_state_without_a_way_out() {
    let explored = explore(Defect::NoWayOutOfReturn, SiteKind::Managed)
        .map_err(|(what, _)| what)
        .ok()
        .unwrap();
    let stuck = explored.without_way_out().expect("no state is stuck");
    assert!(stuck.starts_with("Home lost"), "{stuck}");
}
