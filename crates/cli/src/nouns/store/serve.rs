//! `lifeboat store serve`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::fault::{Code, Fault, chain};
use nbd::server::{Exports, Listener, Server, ServerOptions};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use replica::format::manifest::Point;
use replica::geometry::DiskNumber;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Serialize;

use super::faults;
use super::long::interruption;
use super::place::{Opened, Place, PointWish};
use crate::failure::Failure;
use crate::output;

/// What stays as it is in the query of an NBD URI.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: String,
    /// The point; `hold` it first where an agent might drop it meanwhile
    point: PointWish,
    /// Serve on a unix socket, for this user alone
    #[arg(long, value_name = "PATH", required_unless_present = "tcp", conflicts_with = "tcp")]
    unix: Option<PathBuf>,
    /// Serve on a TCP address, such as 127.0.0.1:10809; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// The server's certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires_all = ["tcp", "tls_key", "tls_clients"])]
    tls_certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The authority whose certificates clients must show, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_clients: Option<PathBuf>,
    /// Let anybody who reaches the address read the disks, in the clear
    #[arg(long, requires = "tcp", conflicts_with = "tls_certificate")]
    insecure: bool,
}

#[derive(Debug, Serialize)]
struct ServeView {
    machine: String,
    point: u32,
    disks: Vec<DiskView>,
}

#[derive(Debug, Serialize)]
struct DiskView {
    disk: u16,
    export: String,
    size_bytes: u64,
    uri: String,
}

pub(super) async fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(Some(&arguments.machine))?;
    let point = machine.point(arguments.point)?;
    let doing = format!("serve {} of {}", point.cycle, machine.told());
    let tls = tls(&doing, arguments)?;
    check_exposure(&doing, arguments, tls.is_some())?;
    let exports = offer(&doing, &machine, &point)?;
    let encrypted = tls.is_some();
    let interrupted = interruption();
    let listener = listen(&doing, arguments).await?;
    let server =
        Server::start(listener, exports, ServerOptions { tls, ..ServerOptions::default() });
    let uri = |export: &str| match (&arguments.unix, server.tcp_address()) {
        (Some(path), _) => unix_uri(path, export),
        (None, address) => tcp_uri(address, encrypted, export),
    };
    let disks = (0_u16..).zip(point.disks.iter()).map(|(number, size)| {
        let export = format!("disk{number}");
        DiskView { disk: number, uri: uri(&export), export, size_bytes: *size }
    });
    let view = ServeView {
        machine: machine.folder.name.clone(),
        point: point.cycle.0,
        disks: disks.collect(),
    };
    show(place, &view);
    interrupted.await;
    server.shut_down().await;
    Ok(())
}

fn show(place: &Place, view: &ServeView) {
    if place.json {
        return output::json(view);
    }
    println!("Point {} of {} is served, read-only, until ctrl-c:", view.point, view.machine);
    for disk in &view.disks {
        println!("  {}", disk.uri);
    }
    if let Some(first) = view.disks.first() {
        println!("Look at it with: nbdinfo '{}'", first.uri);
        println!("Copy it with:    qemu-img convert -p -O qcow2 '{}' disk0.qcow2", first.uri);
    }
}

fn offer(doing: &str, machine: &Opened, point: &Point) -> Result<Exports, Fault> {
    let exports = Exports::new();
    for number in 0..u16::try_from(point.disks.len()).unwrap_or(u16::MAX) {
        let view = machine.store.view(point.cycle, DiskNumber(number));
        let view = view.map_err(|error| faults::store(doing, &error))?;
        exports
            .insert(format!("disk{number}"), Arc::new(view))
            .map_err(|error| Fault::internal(doing, &error))?;
    }
    if point.disks.len() == 1 {
        exports.set_default("disk0");
    }
    Ok(exports)
}

async fn listen(doing: &str, arguments: &Arguments) -> Result<Listener, Fault> {
    let listener = match (&arguments.unix, arguments.tcp) {
        (Some(path), _) => Listener::unix(path, 0o600).await,
        (None, Some(address)) => Listener::tcp(address).await,
        (None, None) => return Err(Fault::internal(doing, &"no address was asked for")),
    };
    listener.map_err(|error| {
        Fault::new(
            Code::AddressUnusable,
            doing,
            chain(&error),
            "Choose another address or path, or end who has it: ss -ltnp, ss -lxp",
        )
    })
}

fn check_exposure(doing: &str, arguments: &Arguments, encrypted: bool) -> Result<(), Fault> {
    let Some(address) = arguments.tcp else { return Ok(()) };
    if encrypted || arguments.insecure || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(Fault::new(
        Code::EncryptionNeeded,
        doing,
        format!(
            "anybody who reaches {address} could read the disks, and what is read could be seen on the way"
        ),
        "Give --tls-certificate, --tls-key and --tls-clients; or serve on 127.0.0.1 and go through ssh; or give --insecure if you know that nobody else is there.",
    ))
}

fn tls(doing: &str, arguments: &Arguments) -> Result<Option<Arc<ServerConfig>>, Fault> {
    let (Some(certificate), Some(key), Some(clients)) =
        (&arguments.tls_certificate, &arguments.tls_key, &arguments.tls_clients)
    else {
        return Ok(None);
    };
    let wrong = |file: &Path, cause: &dyn std::fmt::Display| {
        Fault::new(
            Code::ServingTlsUnusable,
            doing,
            format!("{}: {cause}", file.display()),
            "Give PEM files: the server's certificate with its chain, its key, and the authority of the clients.",
        )
    };
    let read = |file: &Path| fs::read(file).map_err(|error| wrong(file, &error));
    let certificates = |file: &Path| -> Result<Vec<CertificateDer<'static>>, Fault> {
        let pem = read(file)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(found) if found.is_empty() => Err(wrong(file, &"it holds no certificate")),
            found => found.map_err(|error| wrong(file, &error)),
        }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(clients)? {
        roots.add(authority).map_err(|error| wrong(clients, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let verifier = verifier.map_err(|error| wrong(clients, &error))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, &error))?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, private)
        .map_err(|error| wrong(certificate, &error))?;
    Ok(Some(Arc::new(config)))
}

fn unix_uri(path: &Path, export: &str) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let path = path.to_string_lossy();
    format!("nbd+unix:///{export}?socket={}", utf8_percent_encode(&path, QUERY))
}

fn tcp_uri(address: Option<SocketAddr>, encrypted: bool, export: &str) -> String {
    let scheme = if encrypted { "nbds" } else { "nbd" };
    let host = |address: SocketAddr| match address.ip().is_unspecified() {
        // All addresses of this host: its name is the best that is known.
        true => nix::unistd::gethostname()
            .map_or_else(|_| "HOST".into(), |name| name.to_string_lossy().into_owned()),
        false if address.is_ipv6() => format!("[{}]", address.ip()),
        false => address.ip().to_string(),
    };
    let address = address.map(|address| format!("{}:{}", host(address), address.port()));
    format!("{scheme}://{}/{export}", address.unwrap_or_default())
}
