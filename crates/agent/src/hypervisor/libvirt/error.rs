//! What libvirt said, and what follows from it.

use virt_sys as sys;

use super::xml::XmlError;

/// What libvirt said, or what is wrong with its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibvirtError {
    /// A call failed.
    #[error("{message}")]
    Call {
        /// libvirt's `virErrorNumber`.
        number: u32,
        /// libvirt's words.
        message: String,
    },
    /// It died while it began a backup, and holds a job since of which it knows
    /// nothing more: it can neither be asked about nor ended.
    #[error("libvirt holds on to a backup that it was beginning when it died")]
    LostJob,
    /// The hypervisor is one that the agent does not work with.
    #[error("the hypervisor is {0}, and the agent works with QEMU")]
    NotQemu(String),
    /// The XML makes no sense to us.
    #[error(transparent)]
    Xml(#[from] XmlError),
}

impl LibvirtError {
    /// Whether the object is gone, which is no error while one looks around.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::Call {
                number: sys::VIR_ERR_NO_DOMAIN
                    | sys::VIR_ERR_NO_NETWORK
                    | sys::VIR_ERR_NO_STORAGE_POOL,
                ..
            }
        )
    }

    /// Whether the guest agent did not answer, as opposed to not doing what it
    /// was asked to.
    #[must_use]
    pub const fn is_silence_of_the_guest_agent(&self) -> bool {
        matches!(
            self,
            Self::Call {
                number: sys::VIR_ERR_AGENT_UNRESPONSIVE
                    | sys::VIR_ERR_AGENT_UNSYNCED
                    | sys::VIR_ERR_AGENT_COMMAND_TIMEOUT,
                ..
            }
        )
    }

    /// Whether the machine is not in the state that the call needs, such as off
    /// where it must run.
    #[must_use]
    pub const fn is_about_the_state(&self) -> bool {
        matches!(self, Self::Call { number: sys::VIR_ERR_OPERATION_INVALID, .. })
    }

    /// Whether libvirt found something in itself that should not be.
    #[must_use]
    pub const fn is_internal(&self) -> bool {
        matches!(self, Self::Call { number: sys::VIR_ERR_INTERNAL_ERROR, .. })
    }

    /// Whether a checkpoint is gone.
    #[must_use]
    pub const fn is_gone_checkpoint(&self) -> bool {
        matches!(self, Self::Call { number: sys::VIR_ERR_NO_DOMAIN_CHECKPOINT, .. })
    }

    /// Whether a checkpoint's bitmap is missing or cannot be trusted.
    #[must_use]
    pub const fn is_broken_checkpoint(&self) -> bool {
        matches!(self, Self::Call { number: sys::VIR_ERR_CHECKPOINT_INCONSISTENT, .. })
    }

    /// Whether the same call may succeed later with nothing else changed: the
    /// daemon could not be reached, or the machine was busy.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Call {
                number: sys::VIR_ERR_OPERATION_TIMEOUT
                    | sys::VIR_ERR_OPERATION_ABORTED
                    | sys::VIR_ERR_RPC
                    | sys::VIR_ERR_SYSTEM_ERROR
                    | sys::VIR_ERR_NO_CONNECT
                    | sys::VIR_ERR_NO_MEMORY,
                ..
            }
        )
    }

    /// Whether it is sure that the guest agent did not do what it was asked to.
    #[must_use]
    pub const fn is_refusal_by_the_guest_agent(&self) -> bool {
        matches!(
            self,
            Self::Call {
                number: sys::VIR_ERR_AGENT_COMMAND_FAILED
                    | sys::VIR_ERR_OPERATION_INVALID
                    | sys::VIR_ERR_OPERATION_UNSUPPORTED
                    | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
                    | sys::VIR_ERR_CONFIG_UNSUPPORTED,
                ..
            }
        )
    }

    /// Whether no hypervisor can ever be found under the URI, as opposed to
    /// one that is not there at the moment.
    #[must_use]
    pub const fn is_about_the_uri(&self) -> bool {
        matches!(
            self,
            Self::Call {
                number: sys::VIR_ERR_NO_CONNECT
                    | sys::VIR_ERR_INVALID_ARG
                    | sys::VIR_ERR_CONFIG_UNSUPPORTED
                    | sys::VIR_ERR_NO_SUPPORT
                    | sys::VIR_ERR_INTERNAL_ERROR,
                ..
            } | Self::NotQemu(_)
        )
    }
}
