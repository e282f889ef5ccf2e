//! What the tests of this crate share.

use std::{path::PathBuf, sync::Arc};

use nbd::{
    client::{Address, Client, ClientOptions},
    server::{Export, Exports, Listener, Server, ServerOptions},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;

/// A server on a unix socket in a folder of its own.
pub struct Served {
    pub server: Server,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Served {
    pub async fn one(export: impl Export) -> Self {
        Self::with(export, ServerOptions::default()).await
    }

    pub async fn with(export: impl Export, options: ServerOptions) -> Self {
        let exports = Exports::new();
        exports.insert("disk", Arc::new(export)).unwrap();
        exports.set_default("disk");
        Self::several(exports, options).await
    }

    pub async fn several(exports: Exports, options: ServerOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("nbd.sock");
        let listener = Listener::unix(&socket, 0o600).await.unwrap();
        Self { server: Server::start(listener, exports, options), socket, _folder: folder }
    }

    pub fn address(&self) -> Address {
        Address::unix(&self.socket)
    }

    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    pub async fn client(&self, options: ClientOptions) -> Client {
        Client::connect(&self.address(), options).await.unwrap()
    }
}

/// Bytes that tell where they are and do not repeat soon.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// An authority and certificates of it for a server and a client.
pub struct Certificates {
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    server: (rcgen::Certificate, rcgen::KeyPair),
    client: (rcgen::Certificate, rcgen::KeyPair),
}

impl Certificates {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let leaf = |usage| {
            let key = rcgen::KeyPair::generate().unwrap();
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.extended_key_usages = vec![usage];
            // QEMU refuses leaf certificates without key encipherment.
            params.key_usages = vec![
                rcgen::KeyUsagePurpose::DigitalSignature,
                rcgen::KeyUsagePurpose::KeyEncipherment,
            ];
            let certificate = params.signed_by(&key, &authority).unwrap();
            (certificate, key)
        };
        let server = leaf(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let client = leaf(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        Self { authority, server, client }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    pub fn server_config(&self) -> Arc<ServerConfig> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Self::provider())
                .build()
                .unwrap();
        let (chain, key) = identity(&self.server);
        let config = ServerConfig::builder_with_provider(Self::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    pub fn client_config(&self) -> Arc<ClientConfig> {
        let (chain, key) = identity(&self.client);
        let config = ClientConfig::builder_with_provider(Self::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// The folder that qemu, nbdkit and libnbd expect.
    pub fn write_pem(&self, folder: &std::path::Path) {
        let files = [
            ("ca-cert.pem", self.authority.pem()),
            ("server-cert.pem", self.server.0.pem()),
            ("server-key.pem", self.server.1.serialize_pem()),
            ("client-cert.pem", self.client.0.pem()),
            ("client-key.pem", self.client.1.serialize_pem()),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
}

fn identity(
    (certificate, key): &(rcgen::Certificate, rcgen::KeyPair),
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    (vec![certificate.der().clone()], key.into())
}
