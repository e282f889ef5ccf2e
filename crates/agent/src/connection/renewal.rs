//! Renewing the certificate, well before it ends.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use tracing::{info, warn};
use wire::message::AgentMessage;

use crate::connection::request;
use crate::identity::{Identity, StateFolder};

/// Where a renewal stands on this connection.
#[derive(Debug, Default)]
pub(super) enum Renewal {
    /// Nothing was asked for.
    #[default]
    Idle,
    /// A certificate was asked for this key.
    Asked { key: String },
    /// Nothing more is asked for on this connection.
    Done,
}

impl Renewal {
    /// Asks for a certificate when two thirds of the present one's life are
    /// over.
    pub(super) fn begin_if_due(
        &mut self,
        identity: &Identity,
        now: OffsetDateTime,
    ) -> Option<AgentMessage> {
        if !matches!(self, Self::Idle) || !is_due(&identity.credentials.certificate, now) {
            return None;
        }
        match request::new_key() {
            Ok((key, request)) => {
                *self = Self::Asked { key };
                Some(AgentMessage::Renew { request })
            }
            Err(error) => {
                warn!(%error, "cannot ask for a new certificate");
                *self = Self::Done;
                None
            }
        }
    }

    /// Takes the new certificate. When it cannot be kept, the present one
    /// stands, and the next connection tries again. Whether it was taken.
    pub(super) fn finish(
        &mut self,
        certificate: String,
        identity: &mut Identity,
        folder: &StateFolder,
    ) -> bool {
        let Self::Asked { key } = std::mem::replace(self, Self::Done) else { return false };
        let mut renewed = identity.clone();
        renewed.credentials.certificate = certificate;
        renewed.credentials.key = key;
        match folder.keep_identity(&renewed) {
            Ok(()) => {
                *identity = renewed;
                *self = Self::Idle;
                info!("the certificate was renewed");
                true
            }
            Err(fault) => {
                warn!(%fault, "cannot keep the new certificate");
                false
            }
        }
    }
}

/// Whether two thirds of a certificate's life are over. One that cannot be
/// read is due: a fresh one can only be better.
fn is_due(certificate: &str, now: OffsetDateTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return true };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else { return true };
    let validity = parsed.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    now.unix_timestamp() >= begin + (end - begin) / 3 * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use time::Duration;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let begin = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = begin;
        params.not_after = begin + Duration::days(90);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let due = |days| is_due(&pem, begin + Duration::days(days));
        assert_eq!([due(0), due(59), due(60), due(91)], [false, false, true, true]);
        assert!(is_due("nonsense", begin));
    }
}
