//! The connection to the keeper of a machine's points.

use std::time::Duration;

use domain::fault::{Code, Fault, chain};
use futures::{SinkExt as _, StreamExt as _};
use replica::format::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use wire::data::{
    Ask, Begin, Hello, KeeperMessage, Open, Seal, Sealed, ShipperCodec, ShipperFrame,
    ShipperMessage, Welcome, digests_from_text,
};
use wire::frame::FrameError;

use super::throttle::{Line, Throttle};

/// How long the keeper may take for an answer: it may have to write down
/// gigabytes.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);
/// How long the network may take to accept anything more.
const SEND_LIMIT: Duration = Duration::from_secs(90);

/// What carries a connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// An open connection to a keeper.
pub struct Sender {
    channel: Framed<Box<dyn Stream>, ShipperCodec>,
    /// For messages.
    to: String,
    throttle: Throttle,
    /// What all machines of this host share.
    line: Line,
    /// Bytes that were sent.
    sent: u64,
}

impl Sender {
    /// Says hello.
    ///
    /// # Errors
    /// The keeper refuses or is gone.
    pub async fn greet(
        stream: Box<dyn Stream>,
        to: String,
        hello: Hello,
    ) -> Result<(Self, Welcome), Fault> {
        let channel = Framed::new(stream, ShipperCodec::default());
        let mut sender =
            Self { channel, to, throttle: Throttle::default(), line: Line::default(), sent: 0 };
        match sender.ask(ShipperMessage::Hello(hello)).await? {
            KeeperMessage::Welcome(welcome) => Ok((sender, welcome)),
            other => Err(sender.out_of_turn(&other)),
        }
    }

    /// Sends no more than so many bytes a second from now on.
    pub fn limit(&mut self, bytes_per_second: Option<u64>) {
        self.throttle.limit = bytes_per_second;
    }

    /// Sends no more than its share of a line from now on.
    pub fn share(&mut self, line: Line) {
        self.line = line;
    }

    /// Bytes that were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Says that it is still there.
    ///
    /// # Errors
    /// The keeper is gone.
    pub async fn idle(&mut self) -> Result<(), Fault> {
        self.ask(ShipperMessage::Idle).await.map(drop)
    }

    /// Begins an attempt; its number.
    ///
    /// # Errors
    /// The keeper refuses or is gone.
    pub async fn begin(&mut self, disks: Vec<u64>) -> Result<Open, Fault> {
        match self.ask(ShipperMessage::Begin(Begin { disks })).await? {
            KeeperMessage::Begun(open) => Ok(open),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Goes on with what is open; none if nothing is.
    ///
    /// # Errors
    /// The keeper refuses or is gone.
    pub async fn resume(&mut self, disks: Vec<u64>) -> Result<Option<Open>, Fault> {
        match self.ask(ShipperMessage::Resume(Begin { disks })).await? {
            KeeperMessage::Begun(open) => Ok(Some(open)),
            KeeperMessage::NothingOpen => Ok(None),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// The keeper refuses or is gone; the attempt is of no use then.
    pub async fn sync(&mut self) -> Result<Open, Fault> {
        match self.ask(ShipperMessage::Sync).await? {
            KeeperMessage::Synced(open) => Ok(open),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Makes a point.
    ///
    /// # Errors
    /// The keeper refuses or is gone; it may be a point all the same.
    pub async fn seal(&mut self, wish: Seal) -> Result<Sealed, Fault> {
        match self.ask(ShipperMessage::Seal(wish)).await? {
            KeeperMessage::Sealed(sealed) => Ok(sealed),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Digests of nodes of a level of the newest point; of level 0, blocks.
    ///
    /// # Errors
    /// The keeper refuses or is gone.
    pub async fn digests(
        &mut self,
        disk: u16,
        level: u8,
        ranges: Vec<(u64, u64)>,
    ) -> Result<Vec<Digest>, Fault> {
        let wanted: u64 = ranges.iter().map(|(_, count)| *count).sum();
        let question = Ask { disk, ranges, level };
        match self.ask(ShipperMessage::Ask(question)).await? {
            KeeperMessage::Answers { digests } => {
                let found = digests_from_text(&digests);
                let right = found.filter(|found| found.len() as u64 == wanted);
                let right = right.ok_or_else(|| self.violated("its digests make no sense"))?;
                Ok(right.into_iter().map(Digest).collect())
            }
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Sends data, which is not answered.
    ///
    /// # Errors
    /// The keeper is gone, or has refused.
    pub async fn send(&mut self, frame: ShipperFrame) -> Result<(), Fault> {
        let size = match &frame {
            ShipperFrame::Pages(pages) => pages.stored.len() as u64 + 44,
            ShipperFrame::Zero(_) | ShipperFrame::Discard(_) => 36,
            ShipperFrame::Message(_) => 64,
        };
        self.throttle.wait(size).await;
        self.line.wait(size).await;
        self.sent += size;
        let sent = timeout(SEND_LIMIT, self.channel.feed(frame)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.last_word(error).await),
            Err(_) => Err(self.lost("it takes nothing any more".into())),
        }
    }

    async fn ask(&mut self, message: ShipperMessage) -> Result<KeeperMessage, Fault> {
        self.send(ShipperFrame::Message(message)).await?;
        match timeout(SEND_LIMIT, self.channel.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.last_word(error).await),
            Err(_) => return Err(self.lost("it takes nothing any more".into())),
        }
        match timeout(ANSWER_LIMIT, self.channel.next()).await {
            Err(_) => Err(self.lost(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
            Ok(None) => Err(self.lost("it closed the connection".into())),
            Ok(Some(Err(error))) => Err(self.lost(chain(&error))),
            Ok(Some(Ok(KeeperMessage::Refused(refused)))) => {
                Err(crate::connection::dial::refusal(refused))
            }
            Ok(Some(Ok(answer))) => Ok(answer),
        }
    }

    /// A keeper that refuses says why before it closes.
    async fn last_word(&mut self, error: FrameError) -> Fault {
        match timeout(Duration::from_secs(2), self.channel.next()).await {
            Ok(Some(Ok(KeeperMessage::Refused(refused)))) => {
                crate::connection::dial::refusal(refused)
            }
            _ => self.lost(chain(&error)),
        }
    }

    fn lost(&self, cause: String) -> Fault {
        Fault::new(
            Code::PeerUnreachable,
            format!("ship to host {}", self.to),
            cause,
            "Shipping goes on by itself once the host can be reached.",
        )
    }

    fn violated(&self, cause: &str) -> Fault {
        Fault::new(
            Code::ProtocolViolated,
            format!("ship to host {}", self.to),
            cause,
            "Check that both hosts run a released version of Lifeboat.",
        )
    }

    fn out_of_turn(&self, answer: &KeeperMessage) -> Fault {
        let kind = format!("{answer:?}");
        let kind = kind.split(['(', ' ']).next().unwrap_or_default();
        self.violated(&format!("it said {kind} out of turn"))
    }
}
