//! Keys and certificate signing requests.

use rcgen::{CertificateParams, KeyPair};

/// Draws a key; returns it and a request for a certificate of it, both PEM.
/// The controller decides what stands in the certificate.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem(), request))
}
