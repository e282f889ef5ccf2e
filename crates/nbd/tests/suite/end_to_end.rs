//! Our client against our server.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Certificates, Served, pattern};
use bytes::{BufMut, Bytes, BytesMut};
use nbd::{
    client::{Address, Client, ClientError, ClientOptions, ClientTls, LossCause, ReadExtent},
    memory::{BLOCK, MemoryExport},
    protocol::{
        chunk::StatusExtent,
        constants::{BASE_ALLOCATION, CommandFlags, HeaderStyle, TransmissionFlags},
        errno::Errno,
        facts::ExportFacts,
        request::{Command, Request},
    },
    server::{
        ConnectionError, Durability, Export, ExportError, ExportResult, Exports, Extent, Limits,
        ListenError, Listener, Server, ServerOptions, ZeroEffort, ZeroMode, serve_connection,
    },
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const STYLES: [HeaderStyle; 3] =
    [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended];

fn with_style(headers: HeaderStyle) -> ClientOptions {
    ClientOptions { headers, ..ClientOptions::default().context(BASE_ALLOCATION) }
}

/// No test may hang: what takes longer than this is a failure.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

#[tokio::test]
async fn what_is_written_is_read_in_every_style() {
    for style in STYLES {
        let served = Served::one(MemoryExport::new(1 << 20)).await;
        let client = served.client(with_style(style)).await;
        assert_eq!(client.info().style, style);
        let data = pattern(200_001, 1);
        client.write(77, data.clone().into(), Durability::OnReturn).await.unwrap();
        client
            .write_zeroes(1000, 70_000, ZeroMode::MayPunch, ZeroEffort::Any, Durability::Cached)
            .await
            .unwrap();
        client.trim(150_000, 10, Durability::Cached).await.unwrap();
        client.flush().await.unwrap();
        client.cache(0, 4096).await.unwrap();
        let mut expected = data;
        expected[1000 - 77..1000 - 77 + 70_000].fill(0);
        expected[150_000 - 77..150_010 - 77].fill(0);
        let read = client.read(77, expected.len() as u32).await.unwrap();
        assert!(read == expected, "{style:?}: bytes differ");
        client.disconnect().await;
        assert_eq!(served.server.shut_down().await.cut, 0);
    }
}

#[tokio::test]
async fn holes_are_not_sent_when_chunks_are_spoken() {
    let disk = MemoryExport::new(8 * BLOCK);
    disk.fill(2 * BLOCK, &pattern(BLOCK as usize, 2));
    let served = Served::one(disk).await;
    for style in STYLES {
        let client = served.client(with_style(style)).await;
        let extents = client.read_sparse(0, 8 * BLOCK as u32).await.unwrap();
        let shape: Vec<_> = extents
            .iter()
            .map(|extent| (matches!(extent, ReadExtent::Hole { .. }), extent.len() / BLOCK))
            .collect();
        let expected = match style {
            HeaderStyle::Simple => vec![(false, 8)],
            _ => vec![(true, 2), (false, 1), (true, 5)],
        };
        assert_eq!(shape, expected, "{style:?}");
    }
}

#[tokio::test]
async fn maps_tell_holes_and_changes() {
    let dirty = "qemu:dirty-bitmap:b";
    let map = vec![StatusExtent { length: BLOCK, flags: 1 }, StatusExtent::data(7 * BLOCK)];
    let disk = MemoryExport::new(8 * BLOCK).with_map(dirty, map);
    disk.fill(2 * BLOCK, b"x");
    let served = Served::one(disk).await;
    for style in [HeaderStyle::Structured, HeaderStyle::Extended] {
        let options = with_style(style).context(dirty);
        let client = served.client(options).await;
        let mut shape = Vec::new();
        for context in [BASE_ALLOCATION, dirty] {
            let mut walk = client.walk(context, BLOCK / 2, 7 * BLOCK);
            while let Some(extent) = walk.next().await.unwrap() {
                shape.push((extent.offset * 2 / BLOCK, extent.length * 2 / BLOCK, extent.flags));
            }
        }
        assert_eq!(shape, [(1, 3, 3), (4, 2, 0), (6, 9, 3), (1, 1, 1), (2, 13, 0)], "{style:?}");
    }
    let client = served.client(with_style(HeaderStyle::Simple)).await;
    let refused = client.block_status(0, BLOCK).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotSent { .. }), "{refused}");
}

#[tokio::test]
async fn exports_are_listed_and_chosen_by_name() {
    let exports = Exports::new();
    for (name, size) in [("a", 512), ("b", 1024)] {
        let disk = MemoryExport::new(size).described(format!("disk {name}"));
        exports.insert(name, Arc::new(disk)).unwrap();
    }
    assert!(exports.insert("a", Arc::new(MemoryExport::new(1))).is_err(), "taken");
    exports.set_default("b");
    let served = Served::several(exports, ServerOptions::default()).await;
    let options = ClientOptions::default();
    let list = Client::list(&served.address(), &options).await.unwrap();
    let shown: Vec<_> =
        list.iter().map(|export| format!("{}={}", export.name, export.description)).collect();
    assert_eq!(shown, ["a=disk a", "b=disk b"]);
    for (name, size) in [("a", 512), ("b", 1024), ("", 1024)] {
        let client = served.client(ClientOptions::export(name)).await;
        assert_eq!(client.info().size, size, "{name:?}");
    }
    let error = Client::connect(&served.address(), ClientOptions::export("c")).await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownExport"), "{error:?}");
    let contexts =
        Client::list_contexts(&served.address(), &ClientOptions::export("a")).await.unwrap();
    assert_eq!(contexts, [BASE_ALLOCATION]);
}

/// Reads wait until the test lets them; it sees how many there are.
struct Gated {
    gate: Semaphore,
    waiting: AtomicUsize,
    most: AtomicUsize,
    arrivals: Mutex<Vec<u64>>,
    arrived: Notify,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            arrivals: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    async fn until_waiting(&self, count: usize) {
        while self.waiting.load(Ordering::SeqCst) < count {
            self.arrived.notified().await;
        }
    }
}

struct GatedExport(Arc<Gated>);

impl Export for GatedExport {
    fn facts(&self) -> ExportFacts {
        ExportFacts::writable(1 << 30)
    }

    async fn read(&self, offset: u64, length: u32) -> ExportResult<Vec<Extent>> {
        let gated = &self.0;
        let waiting = gated.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        gated.most.fetch_max(waiting, Ordering::SeqCst);
        gated.arrived.notify_one();
        // Offset 0 does not wait: it overtakes.
        if offset > 0 {
            gated.gate.acquire().await.unwrap().forget();
        }
        gated.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(vec![Extent::Hole(length.into())])
    }

    async fn write(&self, offset: u64, _: Bytes, _: Durability) -> ExportResult<()> {
        self.0.arrivals.lock().unwrap().push(offset);
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_quick_request_overtakes_a_slow_one() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let client = served.client(ClientOptions::default()).await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.read(4096, 512).await }
    });
    soon(gated.until_waiting(1)).await;
    soon(client.read(0, 512)).await.unwrap();
    assert!(!slow.is_finished());
    gated.gate.add_permits(1);
    soon(slow).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_in_flight_are_bounded_on_the_server() {
    let gated = Gated::new();
    let options = ServerOptions {
        limits: Limits { max_requests: 4, ..Limits::default() },
        ..ServerOptions::default()
    };
    let served = Served::with(GatedExport(Arc::clone(&gated)), options).await;
    let client = served.client(ClientOptions::default()).await;
    let reads: Vec<_> = (1..=20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.read(number * 512, 512).await })
        })
        .collect();
    soon(gated.until_waiting(4)).await;
    gated.gate.add_permits(20);
    for read in reads {
        soon(read).await.unwrap().unwrap();
    }
    assert_eq!(gated.most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_export_sees_writes_in_the_order_of_arrival() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let mut wire = BytesMut::from(OPENING);
    for number in 0..500u64 {
        let length = 512 + (number * 37) % 60_000;
        let request = Request {
            command: Command::Write,
            flags: CommandFlags::empty(),
            cookie: number,
            offset: number,
            length,
        };
        request.encode(HeaderStyle::Simple, &mut wire);
        wire.put_bytes(0, length as usize);
    }
    soon(stream.write_all(&wire)).await.unwrap();
    let mut replies = vec![0; 28 + 500 * 16];
    soon(stream.read_exact(&mut replies)).await.unwrap();
    let arrivals = gated.arrivals.lock().unwrap().clone();
    assert_eq!(arrivals, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_caller_that_gives_up_disturbs_nobody() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let options = ClientOptions { max_requests: 2, ..ClientOptions::default() };
    let client = served.client(options).await;
    for round in 1..=10 {
        let read = tokio::spawn({
            let client = client.clone();
            async move { client.read(4096, 512).await }
        });
        soon(gated.until_waiting(1)).await;
        read.abort();
        gated.gate.add_permits(1);
        assert!(soon(client.read(0, 512)).await.is_ok(), "round {round}");
    }
}

/// Fails reads, lies about lengths, or both.
struct Faulty;

impl Export for Faulty {
    fn facts(&self) -> ExportFacts {
        ExportFacts::read_only(1 << 20)
    }

    async fn read(&self, offset: u64, _: u32) -> ExportResult<Vec<Extent>> {
        match offset {
            0 => Err(ExportError::new(Errno::Io, "block 7 of disk vda is damaged").at(100)),
            _ => Ok(vec![Extent::Hole(1)]),
        }
    }

    async fn block_status(
        &self,
        _: &str,
        _: u64,
        _: u64,
        _: usize,
    ) -> ExportResult<Vec<StatusExtent>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn errors_carry_number_words_and_place() {
    let served = Served::one(Faulty).await;
    for style in STYLES {
        let client = served.client(with_style(style)).await;
        let error = client.read(0, 512).await.unwrap_err();
        let expected = match style {
            HeaderStyle::Simple => "read 512 bytes at 0: the server answered EIO",
            _ => "read 512 bytes at 0: the server answered EIO (block 7 of disk vda is damaged)",
        };
        assert_eq!(error.to_string(), expected);
        let ClientError::Server { at, .. } = error else { panic!("{error}") };
        assert_eq!(at, (style > HeaderStyle::Simple).then_some(100));
        let error = client.read(512, 512).await.unwrap_err();
        assert!(error.to_string().contains("EIO"), "a lying export: {error}");
        if style > HeaderStyle::Simple {
            let error = client.block_status(0, 512).await.unwrap_err();
            assert!(error.to_string().contains("EIO"), "an export without extents: {error}");
        }
        let error = client.write(0, Bytes::from_static(b"x"), Durability::Cached).await;
        assert!(matches!(error, Err(ClientError::NotSent { .. })));
        let error = client.read(1 << 20, 1).await;
        assert!(matches!(error, Err(ClientError::NotSent { .. })));
    }
}

#[tokio::test]
async fn a_cut_connection_fails_every_request_in_flight_at_once() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let client = served.client(ClientOptions::default()).await;
    let reads: Vec<_> = (1..=100)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.read(number * 512, 512).await })
        })
        .collect();
    soon(gated.until_waiting(64)).await;
    soon(served.server.cut()).await;
    for (number, read) in (1..).zip(reads) {
        let error = soon(read).await.unwrap().unwrap_err();
        let ClientError::Lost { operation, .. } = &error else { panic!("{error}") };
        assert_eq!(operation.offset, number * 512);
    }
    assert!(client.is_lost());
    let error = soon(client.read(512, 512)).await.unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert!(!served.socket.exists(), "the socket's file is gone");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let options = ClientOptions { stall: Duration::from_millis(200), ..ClientOptions::default() };
    let client = served.client(options).await;
    let error = soon(client.read(512, 512)).await.unwrap_err();
    let ClientError::Lost { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(**source, LossCause::Stalled { .. }), "{source}");
}

#[tokio::test]
async fn shutdown_answers_what_is_in_flight() {
    let gated = Gated::new();
    let served = Served::one(GatedExport(Arc::clone(&gated))).await;
    let client = served.client(ClientOptions::default()).await;
    let read = tokio::spawn({
        let client = client.clone();
        async move { client.read(512, 512).await }
    });
    soon(gated.until_waiting(1)).await;
    let down = tokio::spawn(served.server.shut_down());
    while served.socket.exists() {
        tokio::task::yield_now().await;
    }
    gated.gate.add_permits(1);
    soon(read).await.unwrap().unwrap();
    assert_eq!(soon(down).await.unwrap().cut, 0);
    assert!(soon(client.read(0, 512)).await.unwrap_err().is_lost());
}

#[tokio::test]
async fn shutdown_waits_for_a_bounded_time() {
    let gated = Gated::new();
    let options = ServerOptions { drain: Duration::from_millis(50), ..ServerOptions::default() };
    let served = Served::with(GatedExport(Arc::clone(&gated)), options).await;
    let client = served.client(ClientOptions::default()).await;
    let read = tokio::spawn(async move { client.read(512, 512).await });
    soon(gated.until_waiting(1)).await;
    assert_eq!(soon(served.server.shut_down()).await.cut, 1);
    assert!(soon(read).await.unwrap().unwrap_err().is_lost());
}

#[tokio::test]
async fn a_removed_export_lets_its_clients_go() {
    let served = Served::one(MemoryExport::new(1 << 20)).await;
    let client = served.client(ClientOptions::default()).await;
    client.read(0, 512).await.unwrap();
    assert!(served.server.exports().remove("disk"));
    while served.server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(soon(client.read(0, 512)).await.unwrap_err().is_lost());
    assert!(Client::connect(&served.address(), ClientOptions::default()).await.is_err());
}

#[tokio::test]
async fn clients_beyond_the_limit_are_closed() {
    let options = ServerOptions { max_connections: 2, ..ServerOptions::default() };
    let served = Served::with(MemoryExport::new(1 << 20), options).await;
    let first = served.client(ClientOptions::default()).await;
    let _second = served.client(ClientOptions::default()).await;
    let address = served.address();
    let third = Client::connect(&address, ClientOptions::default());
    assert!(soon(third).await.is_err());
    first.disconnect().await;
    while served.server.connections() > 1 {
        tokio::task::yield_now().await;
    }
    served.client(ClientOptions::default()).await;
}

#[tokio::test]
async fn disconnecting_frees_all_clones() {
    let served = Served::one(MemoryExport::new(1 << 20)).await;
    let client = served.client(ClientOptions::default()).await;
    let clone = client.clone();
    soon(client.disconnect()).await;
    let error = soon(clone.read(0, 512)).await.unwrap_err();
    let ClientError::Lost { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, LossCause::Disconnected));
}

#[tokio::test]
async fn tls_works_and_is_not_optional() {
    let certificates = Certificates::new();
    let options =
        ServerOptions { tls: Some(certificates.server_config()), ..ServerOptions::default() };
    let disk = MemoryExport::new(8 << 20);
    let data = pattern(8 << 20, 3);
    disk.fill(0, &data);
    let exports = Exports::new();
    exports.insert("disk", Arc::new(disk)).unwrap();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = Server::start(listener, exports, options);
    let address = Address::tcp("127.0.0.1", server.tcp_address().unwrap().port());
    let tls =
        ClientTls { config: certificates.client_config(), server: "localhost".try_into().unwrap() };
    let options = ClientOptions { tls: Some(tls.clone()), ..ClientOptions::export("disk") };
    let client = soon(Client::connect(&address, options.clone())).await.unwrap();
    let read = soon(client.read(0, 8 << 20)).await.unwrap();
    assert!(read == data, "bytes differ");
    soon(client.disconnect()).await;
    assert_eq!(soon(Client::list(&address, &options)).await.unwrap().len(), 1);

    let clear = soon(Client::connect(&address, ClientOptions::export("disk"))).await;
    assert!(format!("{:?}", clear.unwrap_err()).contains("TlsRequired"));
    let stranger = ClientTls { config: Certificates::new().client_config(), ..tls };
    let options = ClientOptions { tls: Some(stranger), ..options };
    assert!(soon(Client::connect(&address, options.clone())).await.is_err());

    let plain = Served::one(MemoryExport::new(512)).await;
    let refused = soon(Client::connect(&plain.address(), options)).await;
    assert!(refused.is_err(), "a client that wants TLS does not go on without");
}

#[tokio::test]
async fn bytes_sent_before_tls_do_not_count_inside_it() {
    let certificates = Certificates::new();
    let options =
        ServerOptions { tls: Some(certificates.server_config()), ..ServerOptions::default() };
    let (near, mut far) = tokio::io::duplex(4096);
    let serving = tokio::spawn(async move {
        serve_connection(near, &Exports::new(), &options, &CancellationToken::new()).await
    });
    far.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x05\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0").await.unwrap();
    let end = soon(serving).await.unwrap();
    assert!(matches!(end, Err(ConnectionError::Violation(_))), "{end:?}");
}

#[tokio::test]
async fn sockets_of_the_dead_are_replaced_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind, as by a crash");
    let first = Listener::unix(&path, 0o600).await.unwrap();
    let second = Listener::unix(&path, 0o600).await;
    assert!(matches!(second, Err(ListenError::InUse { .. })), "{second:?}");
    drop(first);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let third = Listener::unix(&path, 0o600).await;
    assert!(matches!(third, Err(ListenError::NotASocket { .. })), "{third:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_costs_bounded_memory() {
    let options = ServerOptions {
        limits: Limits {
            max_bytes: 1 << 20,
            reply_stall: Duration::from_millis(300),
            ..Limits::default()
        },
        ..ServerOptions::default()
    };
    let disk = MemoryExport::new(32 << 20);
    disk.fill(0, &pattern(32 << 20, 4));
    let exports = Exports::new();
    exports.insert("", Arc::new(disk)).unwrap();
    let (near, mut far) = tokio::io::duplex(4096);
    let serving = tokio::spawn(async move {
        serve_connection(near, &exports, &options, &CancellationToken::new()).await
    });
    far.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").await.unwrap();
    let mut greeting = [0; 28];
    far.read_exact(&mut greeting).await.unwrap();
    // Reads of 1 MiB each, until the server takes no more.
    let read = *b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x10\0\0";
    let mut taken = 0;
    while let Ok(Ok(())) = timeout(Duration::from_millis(50), far.write_all(&read)).await {
        taken += 1;
        assert!(taken < 10_000, "the server reads on without bounds");
    }
    let end = soon(serving).await.unwrap();
    assert!(matches!(end, Err(ConnectionError::Stalled { .. })), "{end:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let options = ServerOptions {
        limits: Limits { handshake: Duration::from_millis(50), ..Limits::default() },
        ..ServerOptions::default()
    };
    let served = Served::with(MemoryExport::new(512), options).await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 18, "greeting only");
}

/// Up to the transmission phase, simple replies.
const OPENING: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk";

async fn survives(served: &Served, prefix: &[u8], garbage: &[u8]) {
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let _ = stream.write_all(prefix).await;
    let _ = stream.write_all(garbage).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
}

#[tokio::test]
async fn a_half_request_and_a_hang_up_harm_nobody() {
    let served = Served::one(MemoryExport::new(1 << 20)).await;
    let write = b"\x25\x60\x95\x13\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x10\0half";
    for end in 0..write.len() {
        survives(&served, OPENING, &write[..end]).await;
    }
    let client = served.client(ClientOptions::default()).await;
    assert_eq!(client.read(0, 4).await.unwrap().as_ref(), [0; 4], "half a write is no write");
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u64),
    Zero(u64, u64, ZeroMode),
    Trim(u64, u64),
    Read(u64, u64),
    Map,
}

const SIZE: u64 = 5 * BLOCK + 1234;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SIZE, 1..3 * BLOCK).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    prop_oneof![
        (range(), any::<u64>()).prop_map(|((at, len), seed)| Step::Write(at, len as usize, seed)),
        (range(), any::<bool>()).prop_map(|((at, len), keep)| {
            let mode = if keep { ZeroMode::KeepAllocated } else { ZeroMode::MayPunch };
            Step::Zero(at, len, mode)
        }),
        range().prop_map(|(at, len)| Step::Trim(at, len)),
        range().prop_map(|(at, len)| Step::Read(at, len)),
        Just(Step::Map),
    ]
}

async fn follows_the_model(style: HeaderStyle, steps: Vec<Step>) {
    let served = Served::one(MemoryExport::new(SIZE)).await;
    let client = served.client(with_style(style)).await;
    let mut model = vec![0u8; SIZE as usize];
    for step in steps {
        match step {
            Step::Write(at, len, seed) => {
                let data = pattern(len, seed);
                model[at as usize..][..len].copy_from_slice(&data);
                client.write(at, data.into(), Durability::Cached).await.unwrap();
            }
            Step::Zero(at, len, mode) => {
                model[at as usize..][..len as usize].fill(0);
                client
                    .write_zeroes(at, len, mode, ZeroEffort::Any, Durability::Cached)
                    .await
                    .unwrap();
            }
            Step::Trim(at, len) => {
                model[at as usize..][..len as usize].fill(0);
                client.trim(at, len, Durability::Cached).await.unwrap();
            }
            Step::Read(at, len) => {
                let read = client.read(at, len as u32).await.unwrap();
                assert!(read == model[at as usize..][..len as usize], "read {len} at {at}");
            }
            Step::Map if style == HeaderStyle::Simple => {}
            Step::Map => {
                let mut walk = client.walk(BASE_ALLOCATION, 0, SIZE);
                let mut next = 0;
                while let Some(extent) = walk.next().await.unwrap() {
                    assert_eq!(extent.offset, next, "a map leaves no gap");
                    next += extent.length;
                    let bytes = &model[extent.offset as usize..next as usize];
                    assert!(
                        extent.flags == 0 || bytes.iter().all(|byte| *byte == 0),
                        "a hole reads as zeroes"
                    );
                }
                assert_eq!(next, SIZE);
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_requests_follows_the_model(
        style in prop::sample::select(STYLES.as_slice()),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        runtime().block_on(soon(follows_the_model(style, steps)));
    }

    #[test]
    fn garbage_in_any_phase_harms_nobody(
        prefix in prop::sample::select(vec![
            Vec::new(),
            b"\0\0\0\x03".to_vec(),
            b"\0\0\0\x03IHAVEOPT".to_vec(),
            OPENING.to_vec(),
            [OPENING, b"\x25\x60\x95\x13"].concat(),
        ]),
        garbage in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        runtime().block_on(async {
            let served = Served::one(MemoryExport::new(1 << 20).read_only()).await;
            survives(&served, &prefix, &garbage).await;
            let client = served.client(ClientOptions::default()).await;
            assert!(client.info().flags.contains(TransmissionFlags::READ_ONLY));
            soon(client.read(0, 512)).await.unwrap();
        });
    }

    /// The other way: a server that talks nonsense after a good handshake.
    #[test]
    fn a_mad_server_fails_the_client_and_no_more(
        garbage in prop::collection::vec(any::<u8>(), 1..300),
        magic in prop::sample::select(vec![
            Vec::new(),
            b"\x67\x44\x66\x98".to_vec(),
            b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x01".to_vec(),
            b"\x66\x8e\x33\xef\0\x01\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x0c".to_vec(),
        ]),
    ) {
        runtime().block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let mad = tokio::spawn(async move {
                let mut read = [0; 1024];
                far.write_all(b"NBDMAGICIHAVEOPT\0\x03").await?;
                // Client flags, then the request for structured replies.
                far.read_exact(&mut read[..20]).await?;
                far.write_all(b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\0\0\0\x01\0\0\0\0").await?;
                far.read_exact(&mut read[..26]).await?;
                far.write_all(
                    b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x03\0\0\0\x0c\
                      \0\0\0\0\0\0\0\x10\0\0\0\x01\
                      \0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x01\0\0\0\0",
                ).await?;
                let _ = far.read(&mut read).await?;
                far.write_all(&magic).await?;
                far.write_all(&garbage).await
            });
            let client = soon(Client::over(near, with_style(HeaderStyle::Structured))).await;
            if let Ok(client) = client {
                let _ = soon(client.read(0, 512)).await;
            }
            let _ = soon(mad).await.unwrap();
        });
    }
}
