//! Points that machines at other hosts are made of: kept, and served to those
//! hosts alone, until they are returned.
//!
//! What was lent is written down before it is answered; after a restart of the
//! agent it is kept and served again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::{HostId, ProtectionId};
use futures::SinkExt as _;
use nbd::server::{ServerOptions, serve_connection};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;
use wire::command::{Answer, Loan};
use wire::data::{Borrow, KeeperMessage, Lent};

use super::files::{Filed, Files};
use super::serve::Offer;
use super::{point, serve};
use crate::keep::Keepers;
use crate::keep::session::{Borrower, refuse};

/// The folder of the files in the agent's state folder.
pub const FOLDER: &str = "loans";
/// Version of the files' format.
const FORMAT: u16 = 1;
/// Disks that are read at the same time; each has one or two connections.
const CONNECTIONS: usize = 4096;
/// How long a borrower may take to read what the point tells.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What is written down of a loan, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoanFile {
    format: u16,
    recovery: Uuid,
    protection: Uuid,
    point: u32,
    to: Uuid,
}

impl Filed for LoanFile {
    const FORMAT: u16 = FORMAT;

    fn id(&self) -> Uuid {
        self.recovery
    }
}

impl From<&Loan> for LoanFile {
    fn from(loan: &Loan) -> Self {
        let Loan { recovery, protection, point, to } = *loan;
        let (protection, to) = (protection.uuid(), to.uuid());
        Self { format: FORMAT, recovery, protection, point, to }
    }
}

impl From<&LoanFile> for Loan {
    fn from(file: &LoanFile) -> Self {
        let LoanFile { recovery, protection, point, to, .. } = *file;
        Self { recovery, protection: ProtectionId::new(protection), point, to: HostId::new(to) }
    }
}

/// What a host has lent, by the folder of its files.
///
/// # Errors
/// [`Code::DataFolderUnusable`].
pub fn lent(folder: PathBuf) -> Result<Vec<Loan>, Fault> {
    Ok(Files::<LoanFile>::in_folder(folder).all()?.iter().map(Loan::from).collect())
}

/// What this host has lent. Clones share it.
#[derive(Clone)]
pub struct Loans(Arc<Inner>);

struct Inner {
    files: Files<LoanFile>,
    keepers: Keepers,
    lent: Mutex<HashMap<Uuid, Arc<Lending>>>,
    slots: Semaphore,
    /// Held by whoever lends or takes back.
    turn: tokio::sync::Mutex<()>,
}

/// A loan, and what is served for it once anybody has asked.
struct Lending {
    loan: Loan,
    offer: OnceCell<(Offer, Lent)>,
    ended: CancellationToken,
}

impl Lending {
    fn of(loan: Loan) -> Arc<Self> {
        Arc::new(Self { loan, offer: OnceCell::new(), ended: CancellationToken::new() })
    }

    async fn offer(&self, keepers: &Keepers) -> Result<&(Offer, Lent), Fault> {
        let open = async || {
            let Loan { protection, point, .. } = self.loan;
            let doing = format!("lend point {point}");
            let (folder, facts) = point::find(keepers, &doing, protection, point).await?;
            let targets = facts.targets(&doing)?;
            let offer = serve::offer("of the protection", &folder, point, &targets).await?;
            let point::Facts { configuration, disks } = facts;
            Ok((offer, Lent { disks, configuration }))
        };
        self.offer.get_or_try_init(open).await
    }
}

impl Loans {
    /// Reads what was lent before, and pins it.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`].
    pub fn open(folder: PathBuf, keepers: Keepers) -> Result<Self, Fault> {
        let files: Files<LoanFile> = Files::in_folder(folder);
        let loans = files.all()?;
        let lent = loans.iter().map(|file| {
            let loan = Loan::from(file);
            pin(&keepers, &loan);
            (loan.recovery, Lending::of(loan))
        });
        let lent = Mutex::new(lent.collect());
        Ok(Self(Arc::new(Inner {
            files,
            keepers,
            lent,
            slots: Semaphore::new(CONNECTIONS),
            turn: tokio::sync::Mutex::default(),
        })))
    }

    /// Keeps a point for a machine that another host makes of it, durable on
    /// return. May be repeated; another wish for the same recovery takes its place.
    ///
    /// # Errors
    /// When there is no such point, or it cannot be written down.
    pub async fn lend(&self, loan: Loan) -> Result<Answer, Fault> {
        let _turn = self.0.turn.lock().await;
        if self.find(loan.recovery).is_some_and(|known| known.loan == loan) {
            return Ok(Answer::Done);
        }
        // Kept from now on, before it is looked for.
        pin(&self.0.keepers, &loan);
        let lending = Lending::of(loan);
        let found = lending.offer(&self.0.keepers).await.map(drop);
        let written = found.and_then(|()| self.0.files.keep(&LoanFile::from(&loan)));
        if let Err(fault) = written {
            match self.find(loan.recovery) {
                Some(known) => pin(&self.0.keepers, &known.loan),
                None => self.0.keepers.pins().unpin(loan.recovery),
            }
            return Err(fault);
        }
        info!(recovery = %loan.recovery, point = loan.point, to = %loan.to, "a point is lent");
        if let Some(former) = self.lock().insert(loan.recovery, lending) {
            former.ended.cancel();
        }
        Ok(Answer::Done)
    }

    /// What was lent is needed no more. May be repeated; what was not lent is as
    /// good as returned.
    ///
    /// # Errors
    /// When points cannot be dropped, or it cannot be written down; the loan lasts
    /// then.
    pub async fn end(&self, recovery: Uuid, drop_points: bool) -> Result<Answer, Fault> {
        let _turn = self.0.turn.lock().await;
        let Some(lending) = self.find(recovery) else { return Ok(Answer::Done) };
        let Loan { protection, point, .. } = lending.loan;
        lending.ended.cancel();
        self.0.keepers.pins().unpin(recovery);
        let ended = async {
            if drop_points && let Some(keeper) = self.0.keepers.get(protection) {
                keeper.drop_all().await?;
            }
            self.0.files.forget(recovery)
        };
        if let Err(fault) = ended.await {
            // It lasts, and is served again.
            pin(&self.0.keepers, &lending.loan);
            self.lock().insert(recovery, Lending::of(lending.loan));
            return Err(fault);
        }
        self.lock().remove(&recovery);
        info!(%recovery, point, "a lent point is returned");
        Ok(Answer::Done)
    }

    /// Serves a borrower, which is the host `peer`, until one of the two ends it.
    pub async fn serve<S>(&self, borrower: Borrower<S>, peer: HostId)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Borrower { wish: Borrow { recovery }, mut channel } = borrower;
        let Ok(_slot) = self.0.slots.try_acquire() else {
            return refuse(channel, peer, too_many(peer)).await;
        };
        let Some(lending) = self.find(recovery).filter(|lending| lending.loan.to == peer) else {
            return refuse(channel, peer, not_lent(recovery, peer)).await;
        };
        let (Offer { exports, .. }, lent) = match lending.offer(&self.0.keepers).await {
            Ok(offer) => offer,
            Err(fault) => return refuse(channel, peer, fault).await,
        };
        let answer = KeeperMessage::Lent(lent.clone());
        if !matches!(timeout(ANSWER_LIMIT, channel.send(&answer)).await, Ok(Ok(()))) {
            return;
        }
        let parts = channel.into_parts();
        if !parts.read_buf.is_empty() {
            debug!(%peer, "a borrower spoke before it was its turn");
            return;
        }
        let options = ServerOptions::default();
        tokio::select! {
            end = serve_connection(parts.io, exports, &options, &lending.ended) => {
                debug!(%peer, ?end, "a borrower's connection ended");
            }
            () = lending.ended.cancelled() => debug!(%peer, "what was lent is returned"),
        }
    }

    fn find(&self, recovery: Uuid) -> Option<Arc<Lending>> {
        self.lock().get(&recovery).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Lending>>> {
        // Changes are insertions and removals; none stops half-way.
        self.0.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No policy drops the point from now on.
fn pin(keepers: &Keepers, loan: &Loan) {
    keepers.pins().pin(loan.recovery, loan.protection, loan.point);
}

fn too_many(peer: HostId) -> Fault {
    Fault::new(
        Code::PeerRefused,
        format!("lend a point to host {peer}"),
        format!("{CONNECTIONS} disks of lent points are read from this host already"),
        "Commit or complete failovers that run from points of this host; it is tried again by itself.",
    )
}

fn not_lent(recovery: Uuid, peer: HostId) -> Fault {
    Fault::new(
        Code::PeerRefused,
        format!("lend a point to host {peer}"),
        format!("nothing was lent to it for recovery {recovery}"),
        "Run the operation anew; a machine that runs there from a point that was returned must be discarded.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../../tests/golden/loan-1.json");

    #[test]
    fn a_loan_is_written_down_and_pins_its_point_again() {
        let folder = tempfile::tempdir().unwrap();
        let golden: LoanFile = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(serde_json::to_string_pretty(&golden).unwrap(), GOLDEN.trim());
        let loan = Loan::from(&golden);
        assert_eq!(LoanFile::from(&loan), golden);
        Files::in_folder(folder.path().to_owned()).keep(&golden).unwrap();
        let keepers = Keepers::new(folder.path());
        let loans = Loans::open(folder.path().to_owned(), keepers.clone()).unwrap();
        assert!(loans.find(loan.recovery).is_some());
        assert_eq!(keepers.pins().of(loan.protection).len(), 1);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_lent_and_what_was_not_lent_is_returned() {
        let folder = tempfile::tempdir().unwrap();
        let keepers = Keepers::new(&folder.path().join("store"));
        let loans = Loans::open(folder.path().join(FOLDER), keepers.clone()).unwrap();
        let loan = Loan::from(&serde_json::from_str::<LoanFile>(GOLDEN).unwrap());
        let refused = loans.lend(loan).await.unwrap_err();
        assert_eq!(refused.code, Code::NotKeptHere);
        assert_eq!(keepers.pins().of(loan.protection), []);
        assert_eq!(loans.end(loan.recovery, true).await, Ok(Answer::Done));
    }
}
