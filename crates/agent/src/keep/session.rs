//! One connection of a shipper to the keeper of its machine.

use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use futures::{SinkExt as _, StreamExt as _};
use replica::digest::{Answers as _, Question};
use replica::geometry::DiskNumber;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tracing::{debug, info};
use wire::data::{
    Ask, Borrow, DIGESTS_MAX, KeeperCodec, KeeperMessage, Open, ShipperFrame, ShipperMessage,
    Welcome, digests_to_text,
};

use super::thread::{Order, PATIENCE, Voice, sealed_of, slow};
use super::{Keeper, Keepers};

/// A shipper that says nothing for so long is gone: it says at least that it is
/// idle.
pub const SILENCE_MAX: Duration = Duration::from_secs(180);
/// How long a shipper may take to read an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long a shipper that is refused has to read why.
const FAREWELL: Duration = Duration::from_secs(2);

/// Another agent that does not ship, but wishes to read what was lent to it.
pub struct Borrower<S> {
    /// What it said.
    pub wish: Borrow,
    /// Its connection, on which nothing was answered.
    pub channel: Framed<S, KeeperCodec>,
}

/// Serves a shipper, whose certificate says that it is `peer`, until it leaves; a
/// borrower is given back.
pub async fn serve<S>(
    keepers: &Keepers,
    host: HostId,
    peer: HostId,
    stream: S,
) -> Option<Borrower<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = Framed::new(stream, KeeperCodec::default());
    let mut session = Session { keepers, host, peer, keeper: None, generation: 0 };
    let fault = loop {
        let frame = match timeout(SILENCE_MAX, channel.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                debug!(%peer, %error, "a shipper's connection failed");
                return None;
            }
            Ok(None) | Err(_) => {
                debug!(%peer, "a shipper is gone");
                return None;
            }
        };
        if let ShipperFrame::Message(ShipperMessage::Borrow(wish)) = frame {
            return Some(Borrower { wish, channel });
        }
        let answer = match session.apply(frame).await {
            Ok(None) => continue,
            Ok(Some(answer)) => answer,
            Err(fault) => break fault,
        };
        if !matches!(timeout(ANSWER_LIMIT, channel.send(&answer)).await, Ok(Ok(()))) {
            return None;
        }
    };
    refuse(channel, peer, fault).await;
    None
}

/// Tells another agent why it is not served, and ends the connection.
pub async fn refuse<S>(mut channel: Framed<S, KeeperCodec>, peer: HostId, fault: Fault)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    info!(%peer, %fault, "another agent is refused");
    if channel.send(&KeeperMessage::Refused(fault.into())).await.is_ok() {
        // Closing with unread data resets the connection and loses the word.
        let drained = async { while let Some(Ok(_)) = channel.next().await {} };
        let _ = timeout(FAREWELL, drained).await;
    }
}

struct Session<'a> {
    keepers: &'a Keepers,
    host: HostId,
    peer: HostId,
    keeper: Option<(Keeper, Voice)>,
    /// What the shipper said that it has.
    generation: u64,
}

impl Session<'_> {
    /// Does what a frame asks; the answer, if it asks for one.
    async fn apply(&mut self, frame: ShipperFrame) -> Result<Option<KeeperMessage>, Fault> {
        if let ShipperFrame::Message(ShipperMessage::Hello(hello)) = &frame {
            return self.welcome(hello).await.map(Some);
        }
        let (keeper, voice) = self.keeper.clone().ok_or_else(|| self.out_of_turn())?;
        let message = match frame {
            ShipperFrame::Pages(pages) => {
                return keeper.give(voice, Order::Pages(pages)).await.map(|()| None);
            }
            ShipperFrame::Zero(range) => {
                return keeper.give(voice, Order::Zero(range)).await.map(|()| None);
            }
            ShipperFrame::Discard(range) => {
                return keeper.give(voice, Order::Discard(range)).await.map(|()| None);
            }
            ShipperFrame::Message(message) => message,
        };
        let name = self.still(&keeper)?;
        let answer = timeout(PATIENCE, answer(&keeper, voice, message));
        answer.await.map_err(|_| slow(&name))?.map(Some)
    }

    async fn welcome(&mut self, hello: &wire::data::Hello) -> Result<KeeperMessage, Fault> {
        let protection = hello.protection();
        let refuse = |cause: String, advice: &str| {
            Fault::new(
                Code::PeerRefused,
                format!("take changes of protection {protection} from host {}", self.peer),
                cause,
                advice,
            )
        };
        let Some(keeper) = self.keepers.get(protection) else {
            return Err(refuse(
                "no points of it are kept here".into(),
                "This host learns its duties from the controller; if it cannot reach it, mend that.",
            ));
        };
        let duty = keeper.duty();
        if duty.source != self.peer {
            return Err(refuse(
                format!("its changes come from host {}", duty.source),
                "Another host was made the source of this machine since.",
            ));
        }
        if hello.generation < duty.generation {
            return Err(Fault::new(
                Code::StoreFenced,
                format!("take changes of machine {}", duty.name),
                format!("generation {} is over: {} is current", hello.generation, duty.generation),
                "The source learns the new generation from the controller.",
            ));
        }
        let voice = keeper.enter();
        let open: Option<Open> = match keeper.is_importing() {
            // What it will have is not there yet; nobody waits for that.
            true => None,
            false => {
                let open = timeout(PATIENCE, keeper.ask(voice, Order::Open)).await;
                open.map_err(|_| slow(&duty.name))??
            }
        };
        let newest = keeper.store().and_then(|store| store.newest());
        let newest = newest.as_ref().map(sealed_of);
        self.keeper = Some((keeper, voice));
        self.generation = hello.generation;
        Ok(KeeperMessage::Welcome(Welcome { host: self.host.uuid(), newest, open }))
    }

    /// Makes sure that the duty has not changed since hello: what was sent comes
    /// to nothing if it has. The machine's name.
    fn still(&self, keeper: &Keeper) -> Result<String, Fault> {
        let duty = keeper.duty();
        let known = self.keepers.get(duty.protection).is_some_and(|known| known.is(keeper));
        if known && duty.source == self.peer && self.generation >= duty.generation {
            return Ok(duty.name);
        }
        Err(Fault::new(
            Code::PeerRefused,
            format!("take changes of machine {}", duty.name),
            "its protection has ended or changed",
            "The source learns its duties from the controller.",
        ))
    }

    fn out_of_turn(&self) -> Fault {
        Fault::new(
            Code::ProtocolViolated,
            format!("take changes from host {}", self.peer),
            "it did not say hello",
            "Check that both hosts run a released version of Lifeboat.",
        )
    }
}

async fn answer(
    keeper: &Keeper,
    voice: Voice,
    message: ShipperMessage,
) -> Result<KeeperMessage, Fault> {
    Ok(match message {
        ShipperMessage::Begin(begin) => KeeperMessage::Begun(
            keeper.ask(voice, |answer| Order::Begin(begin.disks, answer)).await?,
        ),
        ShipperMessage::Resume(begin) => {
            match keeper.ask(voice, |answer| Order::Resume(begin.disks, answer)).await? {
                Some(open) => KeeperMessage::Begun(open),
                None => KeeperMessage::NothingOpen,
            }
        }
        ShipperMessage::Ask(question) => {
            KeeperMessage::Answers { digests: digests(keeper, question).await? }
        }
        ShipperMessage::Sync => KeeperMessage::Synced(keeper.ask(voice, Order::Sync).await?),
        ShipperMessage::Seal(wish) => {
            KeeperMessage::Sealed(keeper.ask(voice, |answer| Order::Seal(wish, answer)).await?)
        }
        // A greeting and a borrower's wish were seen to before.
        ShipperMessage::Idle | ShipperMessage::Hello(_) | ShipperMessage::Borrow(_) => {
            KeeperMessage::Idle
        }
    })
}

/// Digests of the newest point, as text; a disk that it does not have is all
/// zeroes.
async fn digests(keeper: &Keeper, question: Ask) -> Result<String, Fault> {
    let duty = keeper.duty();
    let doing = format!("compare machine {}", duty.name);
    let total: u64 = question.ranges.iter().map(|(_, count)| *count).sum();
    if total > DIGESTS_MAX || question.level > 8 {
        return Err(Fault::new(
            Code::ProtocolViolated,
            doing,
            format!("{total} digests of level {} were asked for at once", question.level),
            "Check that both hosts run a released version of Lifeboat.",
        ));
    }
    let keeper = keeper.clone();
    let found = spawn_blocking(move || {
        let zeroes = |count: u64| vec![replica::format::Digest::default(); count as usize];
        let store = keeper.store();
        let newest = store.as_ref().and_then(|store| Some((store, store.newest()?.cycle)));
        let view = newest.and_then(|(store, at)| store.view(at, DiskNumber(question.disk)).ok());
        let mut digests = Vec::new();
        for (first, count) in question.ranges {
            match &view {
                None => digests.extend(zeroes(count)),
                Some(view) => {
                    let question = Question { level: question.level, first, count };
                    digests.extend(view.answer(&question)?);
                }
            }
        }
        Ok(digests)
    });
    let found: Result<_, replica::error::StoreError> =
        found.await.map_err(|error| Fault::internal(&doing, &error))?;
    let found = found.map_err(|error| {
        super::fault::of_store(&duty.name, std::path::Path::new("its store"), &error)
    })?;
    Ok(digests_to_text(found.into_iter().map(|digest| digest.0)))
}
