//! Who is who: TLS 1.3 with certificates of the controller's own authority.
//!
//! Addresses change, so nobody is recognised by one. The controller's
//! certificate carries the fixed name [`CONTROLLER_NAME`], an agent's carries
//! `lifeboat://host/ID` as a URI. Before its first certificate, an agent knows
//! the authority by the fingerprint inside its enrolment token.

use std::sync::Arc;

use domain::id::HostId;
use domain::token::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme, WantsVerifier,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// The name in the controller's certificate that agents insist on.
pub const CONTROLLER_NAME: &str = "controller.lifeboat.internal";

const HOST_URI: &str = "lifeboat://host/";

/// What proves who one is: a certificate chain and its key, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The chain, leaf first.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not what was expected in it.
    #[error("read the {what}")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// The library refuses them.
    #[error("use the {what}")]
    Unusable {
        /// Which of them.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsError {
    fn unusable(
        what: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Unusable { what, source }
    }
}

/// The cryptography that every connection uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| TlsError::Pem { what: "private key", source })
}

fn roots(authority: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority, "authority's certificate")? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::unusable("authority's certificate")(error.into()))?;
    }
    Ok(Arc::new(roots))
}

/// For the controller's port for agents. A client without a certificate gets
/// in, since it may want to enrol; one with a foreign certificate does not.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn agent_port(credentials: &Credentials, authority: &str) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::unusable("authority's certificate")(error.into()))?;
    server_of(verifier, credentials, "controller's certificate")
}

/// A server that speaks TLS 1.3 and asks its clients who they are.
fn server_of(
    clients: Arc<dyn ClientCertVerifier>,
    credentials: &Credentials,
    what: &'static str,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::unusable("TLS 1.3")(error.into()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            certificates(&credentials.certificate, what)?,
            private_key(&credentials.key)?,
        )
        .map_err(|error| TlsError::unusable(what)(error.into()))?;
    // Tickets that a peer never reads turn its close into a reset, which
    // throws away the last message; and nobody resumes here.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For the controller's REST API: any client, TLS 1.3 or 1.2.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn api_port(credentials: &Credentials) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::unusable("TLS")(error.into()))?
        .with_no_client_auth()
        .with_single_cert(
            certificates(&credentials.certificate, "controller's certificate")?,
            private_key(&credentials.key)?,
        )
        .map_err(|error| TlsError::unusable("controller's certificate")(error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// For an enrolled agent: it believes the authority and shows its certificate.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn enrolled_agent(
    credentials: &Credentials,
    authority: &str,
) -> Result<ClientConfig, TlsError> {
    show(credentials, client()?.with_root_certificates(roots(authority)?))
}

/// Begins a client that speaks TLS 1.3.
fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::unusable("TLS 1.3")(error.into()))
}

/// A client that shows an agent's certificate.
fn show(
    credentials: &Credentials,
    client: ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<ClientConfig, TlsError> {
    client
        .with_client_auth_cert(
            certificates(&credentials.certificate, "agent's certificate")?,
            private_key(&credentials.key)?,
        )
        .map_err(|error| TlsError::unusable("agent's certificate")(error.into()))
}

/// For an agent's port for other agents: both sides show certificates of the
/// authority. Which host the other is, [`host_of`] tells.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn peer_port(credentials: &Credentials, authority: &str) -> Result<ServerConfig, TlsError> {
    server_of(members(authority)?, credentials, "agent's certificate")
}

/// Who has a certificate of the authority.
fn members(authority: &str) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider())
        .build()
        .map_err(|error| TlsError::unusable("authority's certificate")(error.into()))
}

/// For an agent that connects to the agent of `peer`: nobody else is believed,
/// whatever its address.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn peer_agent(
    credentials: &Credentials,
    authority: &str,
    peer: HostId,
) -> Result<ClientConfig, TlsError> {
    let chain = members(authority)?;
    let one_host = Arc::new(OneHost { chain, peer });
    show(credentials, client()?.dangerous().with_custom_certificate_verifier(one_host))
}

/// The name that an agent gives when it connects to another; certificates are
/// not compared with it.
#[must_use]
pub fn peer_name() -> ServerName<'static> {
    ServerName::try_from("agent.lifeboat.internal").expect("the constant is a DNS name")
}

/// For an agent that enrols: it believes the authority with this fingerprint,
/// whose certificate the controller sends along in its chain.
///
/// # Errors
/// When the library refuses TLS 1.3.
pub fn enrolling_agent(authority: Fingerprint) -> Result<ClientConfig, TlsError> {
    Ok(client()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority { authority }))
        .with_no_client_auth())
}

/// The name that a client insists on when it connects to a controller.
#[must_use]
pub fn controller_name() -> ServerName<'static> {
    ServerName::try_from(CONTROLLER_NAME).expect("the constant is a DNS name")
}

/// The fingerprint by which an authority is known.
#[must_use]
pub fn fingerprint(authority: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(authority.as_ref()).into()
}

/// The URI in the certificate of a host's agent.
#[must_use]
pub fn host_uri(host: HostId) -> String {
    format!("{HOST_URI}{host}")
}

/// Which host a verified certificate stands for; none when it is not an
/// agent's.
#[must_use]
pub fn host_of(certificate: &CertificateDer<'_>) -> Option<HostId> {
    use x509_parser::extensions::GeneralName;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(HOST_URI)?.parse().ok(),
        _ => None,
    })
}

/// Believes an agent's certificate of the authority if it is that host's.
#[derive(Debug)]
struct OneHost {
    /// Agents' certificates are good for both roles, and carry no DNS name: the
    /// chain is verified as of a client.
    chain: Arc<dyn ClientCertVerifier>,
    peer: HostId,
}

impl ServerCertVerifier for OneHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match host_of(end_entity) {
            Some(host) if host == self.peer => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Believes a chain whose last certificate has the fingerprint, and then
/// verifies it in the ordinary way with that certificate as the only root.
#[derive(Debug)]
struct PinnedAuthority {
    authority: Fingerprint,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.authority)
            .ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
