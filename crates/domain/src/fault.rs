//! Errors that an operator meets: a code, what was being done to what, the
//! cause, and advice.
//!
//! Every [`Code`] has a page in `docs/errors/`, which `cargo xtask ci` checks
//! and `lifeboat explain CODE` prints.

use std::fmt;

/// An error as an operator reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Names the kind of error for good; documented under this code.
    pub code: Code,
    /// What was being done to what: `enrol this host at 192.0.2.1:7443`.
    pub doing: String,
    /// Why it did not work.
    pub cause: String,
    /// The way out.
    pub advice: String,
}

impl Fault {
    /// An error of this kind.
    pub fn new(
        code: Code,
        doing: impl Into<String>,
        cause: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { code, doing: doing.into(), cause: cause.into(), advice: advice.into() }
    }
}

impl Fault {
    /// A defect of ours, which an operator can only report.
    pub fn internal(doing: impl Into<String>, error: &dyn fmt::Display) -> Self {
        Self::new(
            Code::Internal,
            doing,
            error.to_string(),
            "This is a defect of Lifeboat; please report it.",
        )
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl fmt::Display for Fault {
    /// One line; a person's terminal is given the four parts on their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}: {}. {}", self.code, self.doing, self.cause, self.advice)
    }
}

impl std::error::Error for Fault {}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an error, stable for ever: programs and pages refer to it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code that is shown so; none if this version has none like that.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }

            /// The code as shown: `LB` and four digits.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The configuration file cannot be read.
    ConfigUnreadable = "LB1001",
    /// The configuration has an unknown key or a value that makes no sense.
    ConfigInvalid = "LB1002",
    /// Somebody else listens at the address, or it is not ours.
    AddressUnusable = "LB1003",
    /// The data folder cannot be made, read or written.
    DataFolderUnusable = "LB1004",
    /// Another process works in the data folder.
    DataFolderInUse = "LB1005",
    /// The database is damaged or made by a newer Lifeboat.
    DatabaseUnusable = "LB1006",
    /// The controller's certificate authority is missing or damaged.
    AuthorityUnusable = "LB1007",
    /// The hypervisor's URI makes no sense.
    HypervisorUriUnknown = "LB2001",
    /// The hypervisor does not answer.
    HypervisorNotAnswering = "LB2002",
    /// libvirt or QEMU is older than what the agent works with.
    HypervisorTooOld = "LB2003",
    /// The controller never issued the enrolment token.
    EnrolmentTokenUnknown = "LB3001",
    /// The enrolment token was used before.
    EnrolmentTokenUsed = "LB3002",
    /// The enrolment token is too old.
    EnrolmentTokenExpired = "LB3003",
    /// The enrolment token was withdrawn.
    EnrolmentTokenWithdrawn = "LB3004",
    /// A host of that name exists at the site.
    HostNameTaken = "LB3005",
    /// The other side's certificate was not issued by this controller.
    CertificateForeign = "LB3006",
    /// The host was revoked.
    HostRevoked = "LB3007",
    /// Nobody answers at the controller's address.
    ControllerUnreachable = "LB3008",
    /// What answers is not the controller that the token is for.
    ControllerNotTrusted = "LB3009",
    /// The host is enrolled already.
    AlreadyEnrolled = "LB3010",
    /// The host is not enrolled.
    NotEnrolled = "LB3011",
    /// The two sides have no version of the protocol in common.
    ProtocolMismatch = "LB3012",
    /// Another agent connected with the same certificate.
    Superseded = "LB3013",
    /// What the agent sent makes no sense to the controller.
    ProtocolViolated = "LB3014",
    /// The request has no valid token.
    NotAuthenticated = "LB4001",
    /// The token's role does not include the operation.
    NotPermitted = "LB4002",
    /// There is no such thing.
    NotFound = "LB4003",
    /// Several things have that name.
    Ambiguous = "LB4004",
    /// The name is taken.
    NameTaken = "LB4005",
    /// The request makes no sense.
    RequestInvalid = "LB4006",
    /// Something else still belongs to it.
    StillInUse = "LB4007",
    /// Its state does not allow the operation.
    StateForbids = "LB4008",
    /// The API does not answer, or it is not a controller.
    ApiUnreachable = "LB4009",
    /// The client does not know which controller to talk to, or how.
    ClientNotConfigured = "LB4010",
    /// The store's folder is not there, is none, or cannot be looked into.
    StoreFolderUnusable = "LB5001",
    /// The store has no such machine.
    StoredMachineUnknown = "LB5002",
    /// The machine's store has no such point, or the point no such disk.
    PointUnknown = "LB5003",
    /// Another process writes to the machine's store.
    StoreInUse = "LB5004",
    /// Bytes of the store are not what was written.
    StoreDamaged = "LB5005",
    /// Too little room is left.
    StoreFull = "LB5006",
    /// A writer of a later generation took over.
    StoreFenced = "LB5007",
    /// Something keeps the point from being dropped.
    PointKept = "LB5008",
    /// The file system refuses to read or write the store.
    StoreFailed = "LB5009",
    /// There is something where something new was to be made.
    TargetTaken = "LB5010",
    /// A disk image cannot be read.
    ImageUnreadable = "LB5011",
    /// A program that is needed is missing or fails.
    ToolFailed = "LB5012",
    /// The folder is no whole offline copy.
    CopyUnusable = "LB5013",
    /// An offline copy's bytes are not those that were copied.
    CopyMismatch = "LB5014",
    /// A disk would be served to the network in the clear.
    EncryptionNeeded = "LB5015",
    /// The command was interrupted.
    Interrupted = "LB5016",
    /// Certificates or a key for serving cannot be used.
    ServingTlsUnusable = "LB5017",
    /// A newer Lifeboat wrote the store.
    StoreTooNew = "LB5018",
    /// Something stands in the way of protecting the machine.
    ProtectionBlocked = "LB6001",
    /// The policy makes no sense.
    PolicyInvalid = "LB6002",
    /// An agent of the protection is not connected.
    SideNotReachable = "LB6003",
    /// Source and replica are not the same.
    ReplicaDiffers = "LB6004",
    /// Source and replica could not be compared.
    NotVerified = "LB6005",
    /// The agent of another host does not answer.
    PeerUnreachable = "LB6050",
    /// What answers at another host's address is not that host.
    PeerNotTrusted = "LB6051",
    /// The agent that keeps a machine's points does not take them from us.
    PeerRefused = "LB6052",
    /// A machine's disks cannot be captured.
    CaptureFailed = "LB6053",
    /// A job or snapshot of somebody else is in the way of a capture.
    CaptureBlocked = "LB6054",
    /// The room for what a guest overwrites during a capture is used up.
    ScratchFull = "LB6055",
    /// The hypervisor has no such machine any more.
    MachineGone = "LB6056",
    /// libvirt died while it began a backup, and lets none begin since.
    CaptureJobLost = "LB6057",
    /// A step of a job took longer than its limit.
    StepTooLong = "LB7001",
    /// The controller ended again and again while a step ran.
    StepInterrupted = "LB7002",
    /// What a job did cannot be read by this version.
    JobUnreadable = "LB7003",
    /// A job did not do what was asked.
    JobNotDone = "LB7004",
    /// An agent is at too many commands at once.
    TooManyCommands = "LB7050",
    /// The machine belongs to another side since.
    EpochStale = "LB7051",
    /// Another machine has the name or the UUID.
    MachineInTheWay = "LB7052",
    /// The host knows nothing of such a recovery.
    RecoveryUnknown = "LB7053",
    /// There is no room for a machine's disks.
    RecoveryFolderFull = "LB7054",
    /// A network is missing on the host.
    NetworkMissing = "LB7055",
    /// The machine cannot be made on this host.
    MachineNotPortable = "LB7056",
    /// The hypervisor did not do what it was asked to.
    HypervisorRefused = "LB7057",
    /// A machine that was started gives no sign of life.
    NoSignOfLife = "LB7058",
    /// A machine did not shut down in time.
    MachineStaysUp = "LB7059",
    /// A machine's disks are its own by now.
    DisksStand = "LB7060",
    /// The host does not keep or ship the machine.
    NotKeptHere = "LB7061",
    /// The machine runs, and must be off.
    MachineRuns = "LB7062",
    /// A machine was stopped, since it belongs to another side.
    FencedMachineStopped = "LB7063",
    /// A machine's disks could not be made its own.
    HydrationFailed = "LB7064",
    /// This host's agent does not run.
    AgentNotRunning = "LB7065",
    /// A defect of Lifeboat.
    Internal = "LB9001",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_distinct_and_in_order() {
        let texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.is_sorted_by(|a, b| a < b), "{texts:?}");
    }
}
