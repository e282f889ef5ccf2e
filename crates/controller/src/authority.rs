//! The controller's own certificate authority.
//!
//! It is made at the first start. Agents believe it and nobody else; whoever
//! has its key can be any host, so it never leaves the data folder.

use std::net::IpAddr;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::token::Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use tracing::info;
use wire::tls::Credentials;

use crate::data_folder::DataFolder;

const AUTHORITY_LIFE: time::Duration = time::Duration::days(20 * 365);
/// The controller's own certificate is made anew at each start.
const CONTROLLER_LIFE: time::Duration = time::Duration::days(825);
/// Clocks of hosts differ. Of a short life only a tenth is given, or a
/// certificate would be old when it is issued.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    fingerprint: Fingerprint,
}

/// A certificate that was issued to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The chain, PEM.
    pub certificate: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// When it ends.
    pub expires: OffsetDateTime,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// What the agent sent is not a request.
    #[error("the certificate signing request cannot be used")]
    Request(#[source] rcgen::Error),
    /// The authority cannot sign.
    #[error("sign a certificate")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// Reads the authority of a data folder; makes it when there is none.
    ///
    /// # Errors
    /// [`Code::AuthorityUnusable`] when half of it is missing or it is damaged.
    pub fn open(folder: &DataFolder, now: OffsetDateTime) -> Result<Self, Fault> {
        let (certificate, key) = (folder.authority_certificate(), folder.authority_key());
        if !certificate.exists() {
            let (new_certificate, new_key) = make(now).map_err(|e| unusable(folder, &e))?;
            folder
                .keep_authority(&new_certificate, &new_key)
                .map_err(|error| unusable(folder, &error))?;
            info!(certificate = %certificate.display(), "made the certificate authority");
        }
        let certificate = std::fs::read_to_string(certificate).map_err(|e| unusable(folder, &e))?;
        let key = std::fs::read_to_string(key).map_err(|e| unusable(folder, &e))?;
        Self::from_pem(certificate, &key).map_err(|error| unusable(folder, &error))
    }

    fn from_pem(
        certificate: String,
        key: &str,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let key = KeyPair::from_pem(key)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err("the key is not that of the certificate".into());
        }
        let fingerprint = wire::tls::fingerprint(&der);
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { issuer, certificate, fingerprint })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// By which agents know the authority before they have its certificate.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A certificate for an agent, for the key in its request. Nothing else of
    /// the request is heeded.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue_to_host(
        &self,
        host: HostId,
        request: &str,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, IssueError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(request).map_err(IssueError::Request)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Lifeboat host {host}"));
        let uri = wire::tls::host_uri(host).try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Agents also connect to one another, in both roles.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - CLOCK_SKEW.min(life / 10);
        params.not_after = now + life;
        let serial: [u8; 16] = rand::random();
        params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
        let expires = params.not_after;
        request.params = params;
        let certificate = request.signed_by(&self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued {
            certificate: certificate.pem(),
            serial: hexadecimal(&positive(serial)),
            expires,
        })
    }

    /// What the controller shows to agents and API clients that know it under
    /// these names.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue_to_controller(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<Credentials, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Lifeboat controller");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
            })
            .collect::<Result<_, rcgen::Error>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + CONTROLLER_LIFE;
        let leaf = params.signed_by(&key, &self.issuer)?.pem();
        // The authority goes along: an agent that enrols knows its fingerprint.
        let chain = format!("{leaf}{}", self.certificate);
        Ok(Credentials { certificate: chain, key: key.serialize_pem() })
    }
}

/// A new authority: its certificate and key, PEM.
fn make(now: OffsetDateTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Lifeboat authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + AUTHORITY_LIFE;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A serial number without sign bit and leading zero, as DER writes it, so
/// that it reads back as it was drawn.
const fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unusable(folder: &DataFolder, error: &dyn std::fmt::Display) -> Fault {
    Fault::new(
        Code::AuthorityUnusable,
        format!("use the certificate authority {}", folder.authority_certificate().display()),
        error.to_string(),
        "Restore authority.pem and authority.key from a backup of the data folder. Without them, every host must be enrolled anew.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issued_certificate_names_its_host_and_reads_back() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let (certificate, key) = make(now).unwrap();
        let authority = Authority::from_pem(certificate, &key).unwrap();
        let agent_key = KeyPair::generate().unwrap();
        let request =
            CertificateParams::default().serialize_request(&agent_key).unwrap().pem().unwrap();
        let host = HostId::new(uuid::Uuid::from_u128(7));
        let issued =
            authority.issue_to_host(host, &request, Duration::from_secs(3600), now).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(wire::tls::host_of(&der), Some(host));
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(hexadecimal(parsed.raw_serial()), issued.serial);
        assert_eq!(parsed.validity().not_after.timestamp(), issued.expires.unix_timestamp());
        assert!(matches!(
            authority.issue_to_host(host, "nonsense", Duration::from_secs(1), now),
            Err(IssueError::Request(_))
        ));
    }

    #[test]
    fn an_authority_is_made_once_and_half_of_one_is_not_made_whole() {
        let root = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let folder = DataFolder::open(root.path()).unwrap();
        let first = Authority::open(&folder, now).unwrap().fingerprint();
        assert_eq!(Authority::open(&folder, now).unwrap().fingerprint(), first);
        std::fs::remove_file(folder.authority_key()).unwrap();
        let fault = Authority::open(&folder, now).map(|_| ()).unwrap_err();
        assert_eq!(fault.code, Code::AuthorityUnusable);
    }
}
