//! The client's side of haggling as a machine over bytes.
//!
//! ```text
//! Greeting ─▶ [StartTls] ─▶ [Extended ─▶ [Structured]] ─▶ [SetMeta] ─▶ Go ─▶ Connected
//!                                      │                               └▶ ExportName ─▶ Connected
//!                                      ├─ goal List ─────────▶ Exports
//!                                      └─ goal ListContexts ─▶ Contexts
//! ```
//!
//! What stands in brackets happens only when it is wished for, or when the
//! step before was refused. GO falls back to EXPORT_NAME where a server does
//! not know it. The oldstyle handshake is refused.

use bytes::{Buf, BufMut, BytesMut};

use super::{
    Violation,
    constants::{
        ClientFlags, EXPORT_NAME_PADDING, HandshakeFlags, HeaderStyle, MAGIC_INIT, MAGIC_OPTION,
        TransmissionFlags,
    },
    cursor::Cursor,
    facts::BlockSizes,
    option::{ExportQuery, MetaQuery, OptionRequest, info},
    option_reply::{Info, OptionError, OptionReply, OptionReplyHeader},
};

/// Most entries of a list, and most replies to one option, that we accept.
const MAX_REPLIES: usize = 10_000;

/// What the client is after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Take an export.
    Connect {
        /// Its name; empty means the default.
        export: String,
        /// Metadata contexts to choose. Which of them the server has, the
        /// result tells.
        contexts: Vec<String>,
    },
    /// Learn which exports there are, and leave.
    List,
    /// Learn which metadata contexts there are, and leave.
    ListContexts {
        /// The export's name.
        export: String,
        /// Names, or `namespace:`; empty means all.
        queries: Vec<String>,
    },
}

/// Whether the connection is to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WishedEncryption {
    /// In the clear.
    None,
    /// With TLS, or not at all: never falls back.
    Required,
}

/// A metadata context that server and client agreed upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaContext {
    /// Its number in block status replies of this connection.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// What the server said about the export that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size in bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// What requests must keep to; the default when the server said nothing.
    pub block_sizes: BlockSizes,
    /// A sentence for people; may be empty.
    pub description: String,
    /// Headers of requests and replies.
    pub style: HeaderStyle,
    /// Metadata contexts that may be asked for.
    pub contexts: Vec<MetaContext>,
}

/// An export of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedExport {
    /// Its name.
    pub name: String,
    /// A sentence for people; may be empty.
    pub description: String,
}

/// Why haggling failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server broke the protocol.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// The server refused an option that we cannot do without.
    #[error("the server refused to {doing}: {error:?} {message}")]
    Refused {
        /// What we had asked it to do.
        doing: &'static str,
        /// Its reason.
        error: OptionError,
        /// Its words; may be empty.
        message: String,
    },
    /// The server speaks only the oldstyle or unfixed newstyle handshake.
    #[error("the server does not speak the fixed newstyle handshake")]
    OldStyle,
}

/// What to do next. What was appended to the output must be sent first.
#[derive(Debug)]
pub enum Step {
    /// Read more bytes.
    Read,
    /// Call again: input may hold another reply.
    Again,
    /// Begin TLS, then call [`ClientHandshake::encrypted`].
    StartTls,
    /// The transmission phase begins.
    Connected(ExportInfo),
    /// The list, for [`Goal::List`]. Close the connection.
    Exports(Vec<ListedExport>),
    /// The list, for [`Goal::ListContexts`]. Close the connection.
    Contexts(Vec<String>),
}

/// The machine.
#[derive(Debug)]
pub struct ClientHandshake {
    goal: Goal,
    encryption: WishedEncryption,
    headers: HeaderStyle,
    no_zeroes: bool,
    phase: Phase,
    replies: usize,
    info: ExportInfo,
    told_size: bool,
    exports: Vec<ListedExport>,
    contexts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Greeting,
    StartTls,
    Extended,
    Structured,
    SetMeta,
    Go,
    ExportName,
    List,
    ListContexts,
}

impl ClientHandshake {
    /// Begins; the server speaks first. `headers` is the most that is asked
    /// for: a server may grant less.
    #[must_use]
    pub fn new(goal: Goal, encryption: WishedEncryption, headers: HeaderStyle) -> Self {
        Self {
            goal,
            encryption,
            headers,
            no_zeroes: false,
            phase: Phase::Greeting,
            replies: 0,
            info: ExportInfo {
                size: 0,
                flags: TransmissionFlags::empty(),
                block_sizes: BlockSizes::DEFAULT,
                description: String::new(),
                style: HeaderStyle::Simple,
                contexts: Vec::new(),
            },
            told_size: false,
            exports: Vec::new(),
            contexts: Vec::new(),
        }
    }

    /// TLS runs now; the next option is appended to `out`.
    pub fn encrypted(&mut self, out: &mut BytesMut) {
        self.ask_for_headers(out);
    }

    /// Takes at most one message from `input`.
    ///
    /// # Errors
    /// A [`HandshakeError`], after which the connection must be closed.
    pub fn advance(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Step, HandshakeError> {
        match self.phase {
            Phase::Greeting => self.greeting(input, out),
            Phase::ExportName => self.export_name(input),
            phase => {
                let Some(header) = OptionReplyHeader::decode(input)? else {
                    return Ok(Step::Read);
                };
                if input.len() < OptionReplyHeader::SIZE + header.length as usize {
                    return Ok(Step::Read);
                }
                input.advance(OptionReplyHeader::SIZE);
                let data = input.split_to(header.length as usize);
                if header.option != self.question(phase).number() {
                    return Err(violation("it answers an option that was not asked"));
                }
                self.replies += 1;
                if self.replies > MAX_REPLIES {
                    return Err(HandshakeError::Violation(Violation::TooLong {
                        what: "list of option replies",
                        length: self.replies as u64,
                        limit: MAX_REPLIES as u64,
                    }));
                }
                self.reply(phase, OptionReply::decode(header.kind, &data)?, out)
            }
        }
    }

    fn greeting(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Step, HandshakeError> {
        let Some((bytes, _)) = input.split_at_checked(18) else {
            return Ok(Step::Read);
        };
        let mut cursor = Cursor::new("greeting", bytes);
        let magic = cursor.u64()?;
        if magic != MAGIC_INIT {
            return Err(HandshakeError::Violation(Violation::Magic {
                what: "greeting",
                found: magic,
            }));
        }
        let second = cursor.u64()?;
        let flags = HandshakeFlags::from_bits_retain(cursor.u16()?);
        if second != MAGIC_OPTION || !flags.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            return Err(HandshakeError::OldStyle);
        }
        input.advance(18);
        let mut answer = ClientFlags::FIXED_NEWSTYLE;
        self.no_zeroes = flags.contains(HandshakeFlags::NO_ZEROES);
        answer.set(ClientFlags::NO_ZEROES, self.no_zeroes);
        out.put_u32(answer.bits());
        match self.encryption {
            WishedEncryption::Required => self.ask(Phase::StartTls, out),
            WishedEncryption::None => self.ask_for_headers(out),
        }
        Ok(Step::Again)
    }

    fn reply(
        &mut self,
        phase: Phase,
        reply: OptionReply,
        out: &mut BytesMut,
    ) -> Result<Step, HandshakeError> {
        match (phase, reply) {
            (Phase::StartTls, OptionReply::Ack) => return Ok(Step::StartTls),
            (Phase::Extended, OptionReply::Ack) => {
                self.info.style = HeaderStyle::Extended;
                self.ask_for_goal(out);
            }
            (Phase::Extended, OptionReply::Refused { .. }) => self.ask(Phase::Structured, out),
            (Phase::Structured, OptionReply::Ack) => {
                self.info.style = HeaderStyle::Structured;
                self.ask_for_goal(out);
            }
            (Phase::Structured, OptionReply::Refused { .. }) => self.ask_for_goal(out),
            (Phase::SetMeta, OptionReply::MetaContext { id, name }) => {
                if self.info.contexts.iter().any(|known| known.id == id) {
                    return Err(violation("two metadata contexts have one number"));
                }
                self.info.contexts.push(MetaContext { id, name });
            }
            (Phase::SetMeta, OptionReply::Ack) => self.ask(Phase::Go, out),
            // An old server without contexts serves its export all the same.
            (Phase::SetMeta, OptionReply::Refused { error: OptionError::Unsupported, .. }) => {
                self.info.contexts.clear();
                self.ask(Phase::Go, out);
            }
            (Phase::Go, OptionReply::Info(info)) => self.learn(info)?,
            (Phase::Go, OptionReply::Ack) => {
                if !self.told_size {
                    return Err(violation("GO was granted without the export's size"));
                }
                return Ok(Step::Connected(self.info.clone()));
            }
            (Phase::Go, OptionReply::Refused { error: OptionError::Unsupported, .. }) => {
                self.ask(Phase::ExportName, out)
            }
            (Phase::List, OptionReply::Server { name, details }) => {
                self.exports.push(ListedExport { name, description: details });
            }
            (Phase::List, OptionReply::Ack) => {
                OptionRequest::Abort.encode(out);
                return Ok(Step::Exports(std::mem::take(&mut self.exports)));
            }
            (Phase::ListContexts, OptionReply::MetaContext { name, .. }) => {
                self.contexts.push(name);
            }
            (Phase::ListContexts, OptionReply::Ack) => {
                OptionRequest::Abort.encode(out);
                return Ok(Step::Contexts(std::mem::take(&mut self.contexts)));
            }
            (phase, OptionReply::Refused { error, message }) => {
                return Err(HandshakeError::Refused { doing: phase.verb(), error, message });
            }
            _ => return Err(violation("it does not fit its option")),
        }
        Ok(Step::Again)
    }

    fn learn(&mut self, info: Info) -> Result<(), Violation> {
        match info {
            Info::Export { size, flags } => {
                self.info.size = size;
                self.info.flags = flags;
                self.told_size = true;
            }
            Info::BlockSize(sizes) => self.info.block_sizes = sizes.check()?,
            Info::Description(text) => self.info.description = text,
            Info::Name(_) | Info::Unknown(_) => {}
        }
        Ok(())
    }

    fn export_name(&mut self, input: &mut BytesMut) -> Result<Step, HandshakeError> {
        let padding = if self.no_zeroes { 0 } else { EXPORT_NAME_PADDING };
        if input.len() < 10 + padding {
            return Ok(Step::Read);
        }
        let mut cursor = Cursor::new("EXPORT_NAME reply", input);
        self.info.size = cursor.u64()?;
        self.info.flags = TransmissionFlags::from_bits_retain(cursor.u16()?);
        input.advance(10 + padding);
        Ok(Step::Connected(self.info.clone()))
    }

    fn ask_for_headers(&mut self, out: &mut BytesMut) {
        match (&self.goal, self.headers) {
            (Goal::List, _) | (_, HeaderStyle::Simple) => self.ask_for_goal(out),
            (_, HeaderStyle::Structured) => self.ask(Phase::Structured, out),
            (_, HeaderStyle::Extended) => self.ask(Phase::Extended, out),
        }
    }

    fn ask_for_goal(&mut self, out: &mut BytesMut) {
        let phase = match &self.goal {
            Goal::Connect { contexts, .. } => {
                if contexts.is_empty() || self.info.style == HeaderStyle::Simple {
                    Phase::Go
                } else {
                    Phase::SetMeta
                }
            }
            Goal::List => Phase::List,
            Goal::ListContexts { .. } => Phase::ListContexts,
        };
        self.ask(phase, out);
    }

    fn ask(&mut self, phase: Phase, out: &mut BytesMut) {
        self.phase = phase;
        self.replies = 0;
        self.question(phase).encode(out);
    }

    fn question(&self, phase: Phase) -> OptionRequest {
        let (name, names) = match &self.goal {
            Goal::Connect { export, contexts } => (export.clone(), contexts.clone()),
            Goal::List => (String::new(), Vec::new()),
            Goal::ListContexts { export, queries } => (export.clone(), queries.clone()),
        };
        let meta = |export, queries| MetaQuery { export, queries };
        match phase {
            Phase::Greeting | Phase::List => OptionRequest::List,
            Phase::StartTls => OptionRequest::StartTls,
            Phase::Extended => OptionRequest::ExtendedHeaders,
            Phase::Structured => OptionRequest::StructuredReply,
            Phase::SetMeta => OptionRequest::SetMetaContext(meta(name, names)),
            Phase::ListContexts => OptionRequest::ListMetaContext(meta(name, names)),
            Phase::Go => OptionRequest::Go(ExportQuery {
                name,
                wanted: vec![info::DESCRIPTION, info::BLOCK_SIZE],
            }),
            Phase::ExportName => OptionRequest::ExportName(name),
        }
    }
}

impl Phase {
    fn verb(self) -> &'static str {
        match self {
            Self::Greeting => "greet",
            Self::StartTls => "start TLS",
            Self::Extended => "use extended headers",
            Self::Structured => "use structured replies",
            Self::SetMeta => "choose metadata contexts",
            Self::Go | Self::ExportName => "open the export",
            Self::List => "list its exports",
            Self::ListContexts => "list metadata contexts",
        }
    }
}

fn violation(why: &'static str) -> HandshakeError {
    HandshakeError::Violation(Violation::Value { what: "option reply", why })
}
