//! Our client and other people's servers.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use nbd::{
    client::{Client, ClientError, ClientOptions, ClientTls, Durability, ZeroEffort, ZeroMode},
    protocol::{
        constants::{BASE_ALLOCATION, HeaderStyle},
        errno::Errno,
    },
};
use tokio::time::timeout;

use crate::{
    peer::{Peer, have, run, text},
    support::{Certificates, pattern},
};

const MIB: u64 = 1 << 20;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), work).await.expect("it takes too long")
}

async fn shape(client: &Client, context: &str) -> Vec<(u64, u64, u64)> {
    let mut walk = client.walk(context, 0, client.info().size);
    let mut shape = Vec::new();
    while let Some(extent) = walk.next().await.unwrap() {
        shape.push((extent.offset, extent.length, extent.flags));
    }
    shape
}

#[tokio::test]
async fn qemu_nbd_tells_allocation_and_dirty_bitmaps() {
    if !have(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let image = text(&image);
    run("qemu-img", &["create", "-q", "-f", "qcow2", image, "8M"]).await;
    run("qemu-io", &["-c", "write -P 1 0 1M", image]).await;
    run("qemu-img", &["bitmap", "--add", image, "b"]).await;
    run("qemu-io", &["-c", "write -P 2 512k 128k", "-c", "write -P 3 4M 64k", image]).await;
    let peer = Peer::qemu_nbd(&["-r", "-f", "qcow2", "-A", "-B", "b", image]).await;

    let dirty = "qemu:dirty-bitmap:b";
    for headers in [HeaderStyle::Structured, HeaderStyle::Extended] {
        let options = ClientOptions {
            headers,
            ..ClientOptions::default().context(BASE_ALLOCATION).context(dirty)
        };
        let client = peer.client(options).await;
        assert_eq!(client.info().style, headers, "qemu 8.2 and later speak both");
        assert_eq!(client.info().contexts.len(), 2);
        assert_eq!(
            shape(&client, BASE_ALLOCATION).await,
            [
                (0, MIB, 0),
                (MIB, 3 * MIB, 3),
                (4 * MIB, 65536, 0),
                (4 * MIB + 65536, 4 * MIB - 65536, 3)
            ]
        );
        assert_eq!(
            shape(&client, dirty).await,
            [
                (0, 524_288, 0),
                (524_288, 131_072, 1),
                (655_360, 3_538_944, 0),
                (4 * MIB, 65_536, 1),
                (4 * MIB + 65_536, 4 * MIB - 65_536, 0)
            ]
        );
        let mut expected = vec![0u8; 8 << 20];
        expected[..1 << 20].fill(1);
        expected[512 << 10..640 << 10].fill(2);
        expected[4 << 20..(4 << 20) + 65_536].fill(3);
        let read = client.read(0, 8 << 20).await.unwrap();
        assert!(read == expected, "{headers:?}: bytes differ");
        let error = client.write(0, Bytes::from_static(b"x"), Durability::Cached).await;
        assert!(matches!(error, Err(ClientError::NotSent { .. })));
        client.disconnect().await;
    }
    let options = ClientOptions::default().context("qemu:dirty-bitmap:");
    let found = Client::list_contexts(&peer.address(), &options).await.unwrap();
    assert_eq!(found, [dirty]);
    let exports = Client::list(&peer.address(), &ClientOptions::default()).await.unwrap();
    assert_eq!(exports.len(), 1);
}

/// Writes, zeroes, trims and reads what a server must keep.
async fn exercise(client: &Client) {
    let data = pattern(3 * MIB as usize, 9);
    let writes = data.chunks(100_000).enumerate().map(|(number, part)| {
        let part = Bytes::copy_from_slice(part);
        client.write(number as u64 * 100_000, part, Durability::Cached)
    });
    for written in soon(join_all(writes)).await {
        written.unwrap();
    }
    client
        .write_zeroes(MIB, 65_536, ZeroMode::KeepAllocated, ZeroEffort::Any, Durability::OnReturn)
        .await
        .unwrap();
    client.trim(7 * MIB, MIB, Durability::Cached).await.unwrap();
    client.flush().await.unwrap();
    let mut expected = data;
    expected[MIB as usize..][..65_536].fill(0);
    let read = soon(client.read(0, expected.len() as u32)).await.unwrap();
    assert!(read == expected, "bytes differ");
}

#[tokio::test]
async fn writable_servers_keep_what_we_write() {
    if !have(&["qemu-nbd", "qemu-img", "nbdkit"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    fs::write(&image, vec![0; 8 << 20]).unwrap();
    let qemu = Peer::qemu_nbd(&["-f", "raw", "--discard=unmap", text(&image)]).await;
    let nbdkit = Peer::nbdkit(&["memory", "8M"]).await;
    for headers in [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended] {
        for peer in [&qemu, &nbdkit] {
            let options = ClientOptions { headers, ..ClientOptions::default() };
            let client = peer.client(options).await;
            exercise(&client).await;
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn a_slow_server_has_many_requests_in_flight() {
    if !have(&["nbdkit"]) {
        return;
    }
    let peer = Peer::nbdkit(&["--filter=delay", "memory", "8M", "rdelay=200ms"]).await;
    let client = peer.client(ClientOptions::default()).await;
    let begun = Instant::now();
    let reads = (0..16).map(|number| client.read(number * 4096, 4096));
    for read in soon(join_all(reads)).await {
        read.unwrap();
    }
    // One after the other they would take 3.2 s.
    assert!(begun.elapsed() < Duration::from_millis(1600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_servers_errors_name_the_request() {
    if !have(&["nbdkit"]) {
        return;
    }
    let arguments = ["--filter=error", "memory", "8M", "error=ENOSPC", "error-pwrite-rate=100%"];
    let peer = Peer::nbdkit(&arguments).await;
    let client = peer.client(ClientOptions::default()).await;
    let error = client.write(4096, Bytes::from_static(&[1; 512]), Durability::Cached).await;
    let error = error.unwrap_err();
    assert!(error.to_string().starts_with("write 512 bytes at 4096: "), "{error}");
    assert!(matches!(error, ClientError::Server { errno: Errno::NoSpace, .. }), "{error:?}");
    client.read(4096, 512).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_killed_server_fails_what_is_in_flight_at_once() {
    if !have(&["nbdkit"]) {
        return;
    }
    let mut peer = Peer::nbdkit(&["--filter=delay", "memory", "8M", "rdelay=600"]).await;
    let client = peer.client(ClientOptions::default()).await;
    let reads: Vec<_> = (0..8)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.read(number * 4096, 4096).await })
        })
        .collect();
    // A write passes the waiting reads: then they are in flight.
    client.write(0, Bytes::from_static(&[1; 512]), Durability::Cached).await.unwrap();
    peer.kill().await;
    for (number, read) in (0..).zip(reads) {
        let error = soon(read).await.unwrap().unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert_eq!(error.operation().offset, number * 4096);
    }
}

#[tokio::test]
async fn encrypted_servers_are_used() {
    if !have(&["nbdkit", "qemu-nbd"]) {
        return;
    }
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    certificates.write_pem(folder.path());
    let pem = text(folder.path());
    let image = folder.path().join("disk.raw");
    fs::write(&image, vec![0; 8 << 20]).unwrap();

    let directory = format!("--tls-certificates={pem}");
    let arguments = ["--tls=require", &directory, "--tls-verify-peer", "memory", "8M"];
    let nbdkit = Peer::nbdkit(&arguments).await;
    let object = format!("tls-creds-x509,id=tls0,dir={pem},endpoint=server,verify-peer=yes");
    let arguments = ["-f", "raw", "--object", &object, "--tls-creds", "tls0", text(&image)];
    let qemu = Peer::qemu_nbd(&arguments).await;
    for peer in [nbdkit, qemu] {
        let tls = ClientTls {
            config: certificates.client_config(),
            server: "localhost".try_into().unwrap(),
        };
        let options = ClientOptions { tls: Some(tls), ..ClientOptions::default() };
        let client = peer.client(options).await;
        exercise(&client).await;
        soon(client.disconnect()).await;
        let clear = soon(Client::connect(&peer.address(), ClientOptions::default())).await;
        assert!(clear.is_err(), "the server insists on TLS");
    }
}
