//! The server's side of haggling as a machine over bytes.
//!
//! ```text
//!            greeting sent
//!                 │
//!        ClientFlags ──client flags──▶ Options ◀─┐
//!                                       │  │  └──┘ any other option
//!             STARTTLS ─ Step::StartTls ┘  ├─ ABORT ─────────────▶ Step::Abort
//!            (TLS, then Options again)     └─ GO / EXPORT_NAME ──▶ Step::Transmit
//! ```
//!
//! With TLS configured, every option except STARTTLS and ABORT is refused
//! until TLS runs (spec, "FORCEDTLS mode"): no name of an export is told in
//! the clear. STARTTLS forgets all that was negotiated before it.

use bytes::{Buf, BufMut, BytesMut};

use super::{
    Violation,
    constants::{
        ClientFlags, EXPORT_NAME_PADDING, HandshakeFlags, HeaderStyle, MAGIC_INIT, MAGIC_OPTION,
        TransmissionFlags,
    },
    facts::ExportFacts,
    option::{ExportQuery, MetaQuery, OptionHeader, OptionRequest, info, number},
    option_reply::{Info, OptionError, OptionReply},
};

/// Most options that one client may send. A real one sends fewer than ten.
const MAX_OPTIONS: u32 = 1024;

/// What a server has to offer.
pub trait Directory {
    /// How the server gets back at an export that a client took.
    type Handle;

    /// The export called `name`; empty means the default.
    fn open(&self, name: &str) -> Option<(ExportFacts, Self::Handle)>;

    /// Names and descriptions, for LIST.
    fn list(&self) -> Vec<(String, String)>;
}

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS is not configured.
    Off,
    /// TLS is configured and has not begun.
    Awaited,
    /// TLS runs.
    On,
}

/// What a client and a server agreed upon.
#[derive(Debug)]
pub struct Agreement<H> {
    /// The export that the client took.
    pub export: H,
    /// What it was told about it.
    pub facts: ExportFacts,
    /// The abilities it was told, `HAS_FLAGS` and `SEND_DF` included.
    pub flags: TransmissionFlags,
    /// Headers of requests and replies.
    pub style: HeaderStyle,
    /// Numbers and names of the metadata contexts that it chose.
    pub contexts: Vec<(u32, String)>,
}

/// What to do next. What was appended to the output must be sent first.
#[derive(Debug)]
pub enum Step<H> {
    /// Read more bytes.
    Read,
    /// Call again: input may hold another option.
    Again,
    /// Begin TLS, then tell [`ServerHandshake::encrypted`].
    StartTls,
    /// Haggling is over.
    Transmit(Agreement<H>),
    /// The client leaves, or asked for what cannot be refused in words.
    Abort,
}

/// The machine.
#[derive(Debug)]
pub struct ServerHandshake {
    phase: Phase,
    encryption: Encryption,
    padding: bool,
    options: u32,
    style: HeaderStyle,
    /// The export for which contexts were set, and those.
    chosen: Option<(String, Vec<(u32, String)>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    ClientFlags,
    Options,
}

impl ServerHandshake {
    /// Begins; the greeting is appended to `out`.
    #[must_use]
    pub fn new(encryption: Encryption, out: &mut BytesMut) -> Self {
        out.put_u64(MAGIC_INIT);
        out.put_u64(MAGIC_OPTION);
        out.put_u16((HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES).bits());
        Self {
            phase: Phase::ClientFlags,
            encryption,
            padding: true,
            options: 0,
            style: HeaderStyle::Simple,
            chosen: None,
        }
    }

    /// TLS runs now.
    pub fn encrypted(&mut self) {
        self.encryption = Encryption::On;
        self.style = HeaderStyle::Simple;
        self.chosen = None;
    }

    /// Takes at most one message from `input`.
    ///
    /// # Errors
    /// After a [`Violation`] the connection must be closed.
    pub fn advance<D: Directory>(
        &mut self,
        directory: &D,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Step<D::Handle>, Violation> {
        match self.phase {
            Phase::ClientFlags => self.client_flags(input),
            Phase::Options => {
                let Some(header) = OptionHeader::decode(input)? else {
                    return Ok(Step::Read);
                };
                if input.len() < OptionHeader::SIZE + header.length as usize {
                    return Ok(Step::Read);
                }
                self.options += 1;
                if self.options > MAX_OPTIONS {
                    return Err(Violation::TooLong {
                        what: "option haggling",
                        length: self.options.into(),
                        limit: MAX_OPTIONS.into(),
                    });
                }
                input.advance(OptionHeader::SIZE);
                let data = input.split_to(header.length as usize);
                self.option(directory, header.number, &data, out)
            }
        }
    }

    fn client_flags<H>(&mut self, input: &mut BytesMut) -> Result<Step<H>, Violation> {
        let Some(flags) = input.first_chunk().map(|flags| u32::from_be_bytes(*flags)) else {
            return Ok(Step::Read);
        };
        input.advance(4);
        let flags = ClientFlags::from_bits(flags)
            .ok_or(Violation::Value { what: "client flags", why: "an unknown flag is set" })?;
        self.padding = !flags.contains(ClientFlags::NO_ZEROES);
        self.phase = Phase::Options;
        Ok(Step::Again)
    }

    fn option<D: Directory>(
        &mut self,
        directory: &D,
        option: u32,
        data: &[u8],
        out: &mut BytesMut,
    ) -> Result<Step<D::Handle>, Violation> {
        let mut answer = |reply: OptionReply| reply.encode(option, out);
        if self.encryption == Encryption::Awaited {
            match option {
                number::ABORT | number::STARTTLS => {}
                // It has no reply in which to refuse.
                number::EXPORT_NAME => return Ok(Step::Abort),
                _ => {
                    answer(refusal(OptionError::TlsRequired, "start TLS first"));
                    return Ok(Step::Again);
                }
            }
        }
        let request = match OptionRequest::decode(option, data) {
            Ok(request) => request,
            Err(violation) if option == number::EXPORT_NAME => return Err(violation),
            Err(violation) => {
                if option == number::SET_META_CONTEXT {
                    self.chosen = None;
                }
                answer(refusal(OptionError::Invalid, &violation.to_string()));
                return Ok(Step::Again);
            }
        };
        match request {
            OptionRequest::ExportName(name) => {
                let Some((facts, export)) = directory.open(&name) else {
                    return Ok(Step::Abort);
                };
                let agreement = self.agree(&name, facts, export);
                out.put_u64(agreement.facts.size);
                out.put_u16(agreement.flags.bits());
                if self.padding {
                    out.put_bytes(0, EXPORT_NAME_PADDING);
                }
                return Ok(Step::Transmit(agreement));
            }
            OptionRequest::Abort => {
                answer(OptionReply::Ack);
                return Ok(Step::Abort);
            }
            OptionRequest::List => {
                for (name, details) in directory.list() {
                    answer(OptionReply::Server { name, details });
                }
                answer(OptionReply::Ack);
            }
            OptionRequest::StartTls => match self.encryption {
                Encryption::Off => {
                    answer(refusal(OptionError::Policy, "TLS is not configured"));
                }
                Encryption::On => answer(refusal(OptionError::Invalid, "TLS runs already")),
                Encryption::Awaited => {
                    answer(OptionReply::Ack);
                    return Ok(Step::StartTls);
                }
            },
            OptionRequest::Info(query) => {
                if let Some((facts, _)) = find(directory, &query, &mut answer) {
                    self.tell(&query, &facts, &mut answer);
                }
            }
            OptionRequest::Go(query) => {
                if let Some((facts, export)) = find(directory, &query, &mut answer) {
                    self.tell(&query, &facts, &mut answer);
                    return Ok(Step::Transmit(self.agree(&query.name, facts, export)));
                }
            }
            OptionRequest::StructuredReply => match self.style {
                HeaderStyle::Simple => {
                    self.style = HeaderStyle::Structured;
                    answer(OptionReply::Ack);
                }
                HeaderStyle::Structured => {
                    answer(refusal(OptionError::Invalid, "negotiated already"));
                }
                HeaderStyle::Extended => answer(refusal(
                    OptionError::ExtendedHeadersRequired,
                    "extended headers are negotiated already",
                )),
            },
            OptionRequest::ExtendedHeaders => {
                if self.style == HeaderStyle::Extended {
                    answer(refusal(OptionError::Invalid, "negotiated already"));
                } else {
                    self.style = HeaderStyle::Extended;
                    answer(OptionReply::Ack);
                }
            }
            OptionRequest::ListMetaContext(query) => {
                let Some((facts, _)) = self.find_for_meta(directory, &query, &mut answer) else {
                    return Ok(Step::Again);
                };
                for name in facts.contexts {
                    if query.queries.is_empty() || query.queries.iter().any(|q| lists(q, &name)) {
                        answer(OptionReply::MetaContext { id: 0, name });
                    }
                }
                answer(OptionReply::Ack);
            }
            OptionRequest::SetMetaContext(query) => {
                // Even a failing SET replaces what was chosen before.
                self.chosen = None;
                let Some((facts, _)) = self.find_for_meta(directory, &query, &mut answer) else {
                    return Ok(Step::Again);
                };
                let chosen: Vec<(u32, String)> = (1..)
                    .zip(facts.contexts)
                    .filter(|(_, name)| query.queries.contains(name))
                    .collect();
                for (id, name) in &chosen {
                    answer(OptionReply::MetaContext { id: *id, name: name.clone() });
                }
                answer(OptionReply::Ack);
                self.chosen = Some((query.export, chosen));
            }
            OptionRequest::Unknown(_) => {
                answer(refusal(OptionError::Unsupported, "unknown option"));
            }
        }
        Ok(Step::Again)
    }

    fn flags(&self, facts: &ExportFacts) -> TransmissionFlags {
        let mut flags = facts.flags | TransmissionFlags::HAS_FLAGS;
        flags.set(TransmissionFlags::SEND_DF, self.style >= HeaderStyle::Structured);
        flags
    }

    fn agree<H>(&mut self, name: &str, facts: ExportFacts, export: H) -> Agreement<H> {
        // Contexts were set for one export; with another they are void.
        let contexts = match self.chosen.take() {
            Some((chosen_for, contexts)) if chosen_for == name => contexts,
            _ => Vec::new(),
        };
        Agreement { export, flags: self.flags(&facts), facts, style: self.style, contexts }
    }

    fn tell(&self, query: &ExportQuery, facts: &ExportFacts, answer: &mut impl FnMut(OptionReply)) {
        answer(OptionReply::Info(Info::Export { size: facts.size, flags: self.flags(facts) }));
        if query.wanted.contains(&info::NAME) {
            answer(OptionReply::Info(Info::Name(query.name.clone())));
        }
        if query.wanted.contains(&info::DESCRIPTION) && !facts.description.is_empty() {
            let description = facts.description.clone();
            answer(OptionReply::Info(Info::Description(description)));
        }
        if query.wanted.contains(&info::BLOCK_SIZE) {
            answer(OptionReply::Info(Info::BlockSize(facts.block_sizes)));
        }
        answer(OptionReply::Ack);
    }

    fn find_for_meta<D: Directory>(
        &self,
        directory: &D,
        query: &MetaQuery,
        answer: &mut impl FnMut(OptionReply),
    ) -> Option<(ExportFacts, D::Handle)> {
        if self.style == HeaderStyle::Simple {
            answer(refusal(OptionError::Invalid, "metadata contexts need structured replies"));
            return None;
        }
        if let Some(bad) = query.queries.iter().find(|query| !query.contains(':')) {
            let message = format!("the query {bad:?} names no namespace");
            answer(refusal(OptionError::Invalid, &message));
            return None;
        }
        let found = directory.open(&query.export);
        if found.is_none() {
            answer(no_such_export(&query.export));
        }
        found
    }
}

fn find<D: Directory>(
    directory: &D,
    query: &ExportQuery,
    answer: &mut impl FnMut(OptionReply),
) -> Option<(ExportFacts, D::Handle)> {
    let found = directory.open(&query.name);
    if found.is_none() {
        answer(no_such_export(&query.name));
    }
    found
}

/// Whether a query of LIST_META_CONTEXT finds the context `name`: its own
/// name, or the start of it up to a colon (`base:`, `qemu:dirty-bitmap:`).
fn lists(query: &str, name: &str) -> bool {
    query == name || (query.ends_with(':') && name.starts_with(query))
}

fn refusal(error: OptionError, message: &str) -> OptionReply {
    OptionReply::Refused { error, message: message.to_owned() }
}

fn no_such_export(name: &str) -> OptionReply {
    let message = format!("no export is called {name:?}");
    refusal(OptionError::UnknownExport, &message)
}
