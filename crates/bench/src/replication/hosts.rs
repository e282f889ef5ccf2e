//! Two hosts, with certificates as the controller's authority issues them.

use agent::peer::Passport;
use anyhow::Result;
use domain::id::HostId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use uuid::Uuid;
use wire::tls::{Credentials, host_uri};

/// The source's host and the target's.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    pub(crate) source: Passport,
    pub(crate) target: Passport,
}

impl Hosts {
    pub(crate) fn make() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Lifeboat authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::from_ca_cert_pem(&authority, key)?;
        let passport = |number| -> Result<Passport> {
            let host = HostId::new(Uuid::from_u128(number));
            let credentials = issue(host, &issuer)?;
            Ok(Passport { host, authority: authority.clone(), credentials })
        };
        Ok(Self { source: passport(1)?, target: passport(2)? })
    }
}

fn issue(host: HostId, issuer: &Issuer<'_, KeyPair>) -> Result<Credentials> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Lifeboat host {host}"));
    params.subject_alt_names = vec![SanType::URI(host_uri(host).try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok(Credentials { certificate, key: key.serialize_pem() })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
