//! Machines from recovery points: started where the points are, with no
//! controller, through deaths of the agent, and never on two sides.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use ::agent::commands::control::Client;
use anyhow::{Context as _, Result, ensure};
use domain::fault::Fault;
use domain::id::{MachineUuid, ProtectionId};
use lab::product::duties::{PROTECTION, keeping, replicate_alone, tell};
use lab::product::{Agent, Deployment, Points, binary};
use lab::{Guest, Lab, Site, Size as _, guest, wait_for};
use serde_json::Value;
use wire::command::{Answer, Command, Downed, Work};

const SOON: Duration = Duration::from_secs(60);
/// For so long an agent is away.
const AWAY: Duration = Duration::from_secs(4);
const BACK: &str = "018f0000-0000-7000-8000-000000000002";
const RECOVERED: &str = "/var/lib/lifeboat/recovered";
/// Where libvirt keeps the variables of the machine's firmware.
const VARIABLES: &str = "/var/lib/libvirt/qemu/nvram/web_VARS.fd";
const MARK: &[u8] = b"set by its owner";

#[tokio::test]
async fn a_machine_is_recovered_where_its_points_are() -> Result<()> {
    const STORY: &str = "a machine is recovered where its points are";
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50).uefi();
    let web = lab.east().boot(web).await?;
    let machine = uuid_of(&web).await?;
    mark_variables(&lab.east().outside(VARIABLES))?;
    controller.stop().await?;
    replicate_alone(&lab, &mut east, &mut west, &web).await?;
    let points = Points::at(lab.west());
    wait_for("ten points", SOON * 2, async || Ok((points.of("web")?.len() >= 10).then_some(())))
        .await?;

    a_test_beside_it_leaves_nothing_behind(&lab, &west, &points).await?;
    let missing =
        cli(lab.west(), &["recover", "web", "--network", "52:54:00:00:00:01=nowhere", "--yes"])
            .await;
    ensure!(format!("{missing:?}").contains("LB7055"), "{missing:?}");

    // The site is lost; what was acknowledged up to the newest point is there.
    let acknowledged = web.acknowledged()?;
    wait_for("a point with all that was acknowledged", SOON, async || {
        let newest = *points.of("web")?.last().context("a point")?;
        Ok((points.is_a_state("web", newest, 2)? >= acknowledged).then_some(()))
    })
    .await?;
    lab.east().cut_power().await?;
    let newest = *points.of("web")?.last().context("a point")?;
    let saved = points.is_a_state("web", newest, 2)?;
    let begun = Instant::now();
    let told = cli(lab.west(), &["recover", "web", "--yes"]).await?;
    println!("recovered within {} ms: {told}", begun.elapsed().as_millis());
    ensure!(told["alive_by"] == "guest_agent", "{told}");
    let web = lab.west().guest("web");
    web.acknowledges(20).await?;
    let found = web.boot_check()?;
    ensure!(found.is_clean() && found.last == saved, "{found}, and the point has {saved}");
    ensure!(uuid_of(&web).await? == machine, "it has another UUID");
    let west_folder = lab.west().outside(RECOVERED);
    let own = fs::read_dir(&west_folder)?.next().context("its folder")??.path();
    ensure!(fs::read(own.join("qemu/nvram.fd"))?.ends_with(MARK), "the variables of its firmware");

    // The agent dies under it: its reads wait, and go on.
    let read_all = "echo 3 > /proc/sys/vm/drop_caches; cat /dev/vda /dev/vdb > /dev/null";
    west.kill().await?;
    let begun = Instant::now();
    let words = ["/bin/busybox", "sh", "-c", read_all];
    tokio::try_join!(web.exec(&words), async {
        tokio::time::sleep(AWAY).await;
        west.start().await
    })?;
    ensure!(begun.elapsed() > AWAY, "it read all without the agent");
    println!("it read all of its disks {} ms after the agent died", begun.elapsed().as_millis());
    ensure!(web.check().await?.is_clean(), "what it reads from the point");
    web.acknowledges(20).await?;

    // Its disks become its own, and the point is needed no more.
    cli(lab.west(), &["hydrate", "web"]).await?;
    let listed = cli(lab.west(), &["recovered"]).await?;
    ensure!(listed["items"][0]["stage"] == "standing", "{listed}");
    west.stop().await?;
    web.acknowledges(20).await?;
    ensure!(web.check().await?.is_clean(), "with no agent");
    west.start().await?;
    let refused = cli(lab.west(), &["discard", "web", "--yes"]).await;
    ensure!(format!("{refused:?}").contains("LB7060"), "{refused:?}");
    ensure!(fs::read_dir(&west_folder)?.count() == 1, "one machine's disks");

    a_fenced_machine_stays_down(&lab, &west, machine).await?;
    a_host_alone_starts_what_its_policy_says(&lab, &mut west, machine).await?;
    drop(east);
    west.stop().await?;
    lab.stop().await
}

/// Leaves a mark among the variables of a firmware, at a place that has none.
fn mark_variables(file: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    file.seek(SeekFrom::End(-(MARK.len() as i64)))?;
    Ok(file.write_all(MARK)?)
}

async fn a_test_beside_it_leaves_nothing_behind(
    lab: &Lab,
    west: &Agent,
    points: &Points,
) -> Result<()> {
    let before = points.of("web")?.len();
    let told = cli(lab.west(), &["recover", "web", "--test", "web-test"]).await?;
    ensure!(told["alive_by"] == "guest_agent", "{told}");
    let test = lab.west().guest("web-test");
    let report = test.boot_check()?;
    ensure!(report.is_clean() && report.last > 0, "{report}");
    ensure!(test.xml().await?.contains("link state='down'"), "its NIC is disconnected");
    wait_for("points while the test runs", SOON, async || {
        Ok((points.of("web")?.len() > before + 2).then_some(()))
    })
    .await?;
    cli(lab.west(), &["discard", "web-test", "--yes"]).await?;
    let listed = cli(lab.west(), &["recovered"]).await?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "{listed}");
    ensure!(!lab.west().guests().await?.contains(&"web-test".to_owned()), "it is defined");
    let left: Vec<_> = fs::read_dir(lab.west().outside(RECOVERED))?.collect();
    ensure!(left.is_empty(), "{left:?}");
    let records = west.state_folder().join("recoveries");
    ensure!(fs::read_dir(records)?.count() == 0, "a record is left");
    Ok(())
}

async fn a_fenced_machine_stays_down(lab: &Lab, west: &Agent, machine: MachineUuid) -> Result<()> {
    let down = |how| Answer::Down { how };
    let fence = |epoch| Work::Fence { machine, epoch };
    ensure!(command(west, fence(1)).await?.is_err_and(|fault| is(&fault, "LB7051")), "a stale one");
    ensure!(command(west, fence(9)).await? == Ok(down(Downed::Forced)));
    ensure!(command(west, fence(9)).await? == Ok(down(Downed::WasOff)));
    let stale = command(west, Work::Start { machine, epoch: 8 }).await?;
    ensure!(stale.is_err_and(|fault| is(&fault, "LB7051")), "it started");
    let web = lab.west().guest("web");
    // It may be gone before virsh hears that it was started.
    let _ = lab.west().virsh(&["start", "web"]).await;
    wait_for("the end of a fenced machine, and word of it", SOON, async || {
        let told = west.log()?.contains("LB7063");
        Ok((told && !web.is_running().await?).then_some(()))
    })
    .await?;
    ensure!(command(west, Work::Start { machine, epoch: 10 }).await? == Ok(Answer::Done));
    web.acknowledges(10).await?;
    ensure!(web.boot_check()?.is_clean(), "after all that");
    let shut_down = Work::ShutDown { machine, within_seconds: 60, force: false };
    ensure!(command(west, shut_down).await? == Ok(down(Downed::InOrder)));
    Ok(())
}

/// The host was restarted, as far as its agent can see, and nobody can be asked.
async fn a_host_alone_starts_what_its_policy_says(
    lab: &Lab,
    west: &mut Agent,
    machine: MachineUuid,
) -> Result<()> {
    let web = lab.west().guest("web");
    let epochs = west.state_folder().join("epochs");
    let file = epochs.join(format!("{machine}.json"));
    let mut known: Value = serde_json::from_slice(&fs::read(&file)?)?;
    known["autostart"] = true.into();
    for (alone, runs) in [(false, false), (true, true)] {
        west.stop().await?;
        known["alone"] = alone.into();
        fs::write(&file, serde_json::to_vec(&known)?)?;
        fs::write(epochs.join("boot"), "an earlier start")?;
        west.start_as(&[], &["--alone-after-seconds", "1"]).await?;
        tokio::time::sleep(AWAY).await;
        ensure!(web.is_running().await? == runs, "alone: {alone}");
    }
    Ok(())
}

#[tokio::test]
async fn a_source_gives_its_last_and_its_disks_are_used_again() -> Result<()> {
    const STORY: &str = "a source gives its last";
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50);
    let web = lab.east().boot(web).await?;
    let machine = uuid_of(&web).await?;
    controller.stop().await?;
    replicate_alone(&lab, &mut east, &mut west, &web).await?;
    let protection = ProtectionId::new(PROTECTION.parse()?);
    let points = Points::at(lab.west());
    wait_for("points", SOON, async || Ok((points.of("web")?.len() >= 3).then_some(()))).await?;

    // While it runs, with a comparison; then the last, after it was shut down.
    let synchronise = |compare| Work::Synchronise { protection, compare };
    let acknowledged = web.acknowledged()?;
    let first = point(command(&east, synchronise(true)).await?)?;
    ensure!(points.is_a_state("web", first.into(), 2)? >= acknowledged, "what was acknowledged");
    let shut_down = Work::ShutDown { machine, within_seconds: 60, force: false };
    ensure!(command(&east, shut_down).await? == Ok(Answer::Down { how: Downed::InOrder }));
    let fenced = command(&east, Work::Fence { machine, epoch: 2 }).await?;
    ensure!(fenced == Ok(Answer::Down { how: Downed::WasOff }), "{fenced:?}");
    let last = point(command(&east, synchronise(true)).await?)?;
    let all = web.acknowledged()?;
    ensure!(points.is_a_state("web", last.into(), 2)? >= all, "nothing is lost");
    let listed = command(&west, Work::ListPoints { protection }).await?;
    let Ok(Answer::Points { points: listed }) = listed else {
        anyhow::bail!("{listed:?}");
    };
    ensure!(listed.last().map(|mark| mark.point) == Some(last), "{listed:?}");

    // The old disks become the first point of the way back, with no copy.
    let keeping = keeping(BACK, &machine.to_string(), "web", &west.host_id()?);
    tell(&mut east, &[], &[keeping]).await?;
    let back = ProtectionId::new(BACK.parse()?);
    let adopt = Work::AdoptDisks { protection: back, machine, lost: false };
    let adopted = point(command(&east, adopt.clone()).await?)?;
    ensure!(point(command(&east, adopt).await?)? == adopted, "done once");
    let old = Points::at(lab.east());
    ensure!(old.is_a_state("web", adopted.into(), 2)? >= all, "the old disks");
    let store = lab.east().outside("/var/lib/lifeboat/store");
    let size = std::process::Command::new("du").arg("-sm").arg(&store).output()?;
    println!("the adopted store takes {}", String::from_utf8_lossy(&size.stdout).trim());

    // And the machine runs at the other side, with all of it.
    cli(lab.west(), &["recover", "web", "--point", &last.to_string(), "--yes"]).await?;
    let web = lab.west().guest("web");
    let found = web.boot_check()?;
    ensure!(found.is_clean() && found.last >= all, "{found}: {all} were acknowledged");
    let recovered = cli(lab.west(), &["discard", "web", "--yes"]).await;
    ensure!(recovered.is_ok(), "{recovered:?}");
    ensure!(lab.west().guests().await?.is_empty(), "nothing is left");

    // At the old side it may take the place of its former self, which comes back.
    let former = lab.east().virsh(&["dumpxml", "--inactive", "web"]).await?;
    cli(lab.east(), &["recover", "web", "--yes"]).await?;
    let web = lab.east().guest("web");
    web.acknowledges(10).await?;
    let found = web.boot_check()?;
    ensure!(found.is_clean() && found.last >= all, "{found}: {all} were acknowledged");
    web.shutdown().await?;
    let recovered = cli(lab.east(), &["recovered"]).await?;
    cli(lab.east(), &["hydrate", "web"]).await?;
    ensure!(command(&east, Work::Fence { machine, epoch: 9 }).await?.is_ok());
    println!("{recovered}");
    let own = lab.east().virsh(&["dumpxml", "--inactive", "web"]).await?;
    ensure!(!own.contains("nbd") && own.contains(RECOVERED), "{own}");
    let start = command(&east, Work::Start { machine, epoch: 10 }).await?;
    ensure!(start == Ok(Answer::Done), "{start:?}");
    web.acknowledges(10).await?;
    ensure!(web.boot_check()?.is_clean(), "from disks that were made its own while it was off");
    web.cut_power().await?;
    cli(lab.east(), &["recover", "web", "--yes"]).await?;
    cli(lab.east(), &["discard", "web", "--yes"]).await.err().context("two have the name")?;
    let newest = cli(lab.east(), &["recovered"]).await?;
    let id = newest["items"][1]["id"].as_str().context("an id")?;
    cli(lab.east(), &["discard", id, "--yes"]).await?;
    let again = lab.east().virsh(&["dumpxml", "--inactive", "web"]).await?;
    ensure!(again == own && again != former, "its former self:\n{again}");
    east.stop().await?;
    west.stop().await?;
    lab.stop().await
}

fn is(fault: &Fault, code: &str) -> bool {
    fault.code.as_str() == code
}

fn point(answer: Result<Answer, Fault>) -> Result<u32> {
    match answer {
        Ok(Answer::Point { point }) => Ok(point.point),
        other => anyhow::bail!("no point: {other:?}"),
    }
}

/// Has an agent do something, as a controller would.
async fn command(agent: &Agent, work: Work) -> Result<Result<Answer, Fault>> {
    let mut client = Client::connect(&agent.state_folder()).await?;
    let id = uuid::Uuid::now_v7();
    Ok(client.ask(Command { id, job: id, work }, |_| {}).await)
}

/// `lifeboat agent …` on a host, for programs.
async fn cli(site: &Site, words: &[&str]) -> Result<Value> {
    let mut command = site.command(binary()?);
    command.args(["--json", "agent"]).args(words).kill_on_drop(true);
    let output = command.output().await.context("run the CLI")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lifeboat agent {words:?}: {error}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn uuid_of(guest: &Guest) -> Result<MachineUuid> {
    Ok(guest.uuid().await?.parse()?)
}
