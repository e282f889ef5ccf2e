//! Our server and other people's clients.

use std::{fs, sync::Arc};

use nbd::{
    memory::{BLOCK, MemoryExport},
    protocol::chunk::StatusExtent,
    server::{Exports, Listener, Server, ServerOptions},
};
use serde_json::Value;

use crate::{
    peer::{attempt, have, run, text},
    support::{Certificates, Served, pattern},
};

const MIB: u64 = 1 << 20;

/// 8 MiB: data, hole, data, hole.
fn patchy() -> (MemoryExport, Vec<u8>) {
    let disk = MemoryExport::new(8 * MIB).described("a patchy disk");
    disk.fill(0, &pattern(MIB as usize, 1));
    disk.fill(4 * MIB, &pattern(2 * MIB as usize + 512, 2));
    let contents = disk.contents(0, 8 * MIB);
    (disk, contents)
}

#[tokio::test]
async fn qemu_img_reads_maps_and_compares() {
    if !have(&["qemu-img"]) {
        return;
    }
    let (disk, contents) = patchy();
    let served = Served::one(disk.read_only()).await;
    let uri = served.uri("disk");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.raw");

    let info = run("qemu-img", &["info", "--output=json", &uri]).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 8 * MIB);

    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]).await;
    let map: Value = serde_json::from_str(&map).unwrap();
    let shape: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| (extent["start"].as_u64().unwrap(), extent["data"].as_bool().unwrap()))
        .collect();
    let end_of_data = 6 * MIB + BLOCK;
    assert_eq!(shape, [(0, true), (MIB, false), (4 * MIB, true), (end_of_data, false)]);

    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, text(&copy)]).await;
    assert!(fs::read(&copy).unwrap() == contents, "bytes differ");
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, text(&copy)]).await;
    fs::write(&copy, vec![1; contents.len()]).unwrap();
    let arguments = ["compare", "-f", "raw", "-F", "raw", &uri, text(&copy)];
    assert_eq!(attempt("qemu-img", &arguments).await.status.code(), Some(1));
}

#[tokio::test]
async fn qemu_img_maps_a_disk_larger_than_32_bits() {
    if !have(&["qemu-img"]) {
        return;
    }
    let disk = MemoryExport::new(1 << 44);
    disk.fill((1 << 40) + 7, b"needle");
    let served = Served::one(SparseMap(disk)).await;
    let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &served.uri("disk")]).await;
    let map: Value = serde_json::from_str(&map).unwrap();
    let data: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|extent| extent["data"] == true)
        .map(|extent| (extent["start"].as_u64().unwrap(), extent["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(data, [(1 << 40, BLOCK)]);
}

/// The memory disk looks at every block; this one knows where its needle is.
struct SparseMap(MemoryExport);

impl nbd::server::Export for SparseMap {
    fn facts(&self) -> nbd::protocol::facts::ExportFacts {
        nbd::protocol::facts::ExportFacts::read_only(self.0.size())
    }

    async fn read(
        &self,
        offset: u64,
        length: u32,
    ) -> nbd::server::ExportResult<Vec<nbd::server::Extent>> {
        self.0.read(offset, length).await
    }

    async fn block_status(
        &self,
        _: &str,
        offset: u64,
        length: u64,
        _: usize,
    ) -> nbd::server::ExportResult<Vec<StatusExtent>> {
        let needle = 1 << 40;
        Ok(vec![if offset < needle {
            StatusExtent::hole(length.min(needle - offset))
        } else if offset < needle + BLOCK {
            StatusExtent::data(needle + BLOCK - offset)
        } else {
            StatusExtent::hole(length)
        }])
    }
}

#[tokio::test]
async fn qemu_boots_an_overlay_on_a_read_only_view() {
    if !have(&["qemu-img", "qemu-io"]) {
        return;
    }
    let (disk, contents) = patchy();
    let served = Served::one(disk.read_only()).await;
    let folder = tempfile::tempdir().unwrap();
    let overlay = folder.path().join("overlay.qcow2");
    let flat = folder.path().join("flat.raw");
    let uri = served.uri("disk");
    let create = ["create", "-q", "-f", "qcow2", "-b", &uri, "-F", "raw", text(&overlay)];
    run("qemu-img", &create).await;
    run("qemu-io", &["-c", "write -P 0xab 1M 64k", "-c", "write -z 4M 64k", text(&overlay)]).await;
    run("qemu-img", &["convert", "-O", "raw", text(&overlay), text(&flat)]).await;
    let mut expected = contents;
    expected[MIB as usize..][..BLOCK as usize].fill(0xab);
    expected[4 * MIB as usize..][..BLOCK as usize].fill(0);
    assert!(fs::read(&flat).unwrap() == expected, "bytes differ");
    let refused = attempt("qemu-io", &["-f", "raw", "-c", "write 0 512", &uri]).await;
    assert!(!refused.status.success(), "the view is read-only");
}

#[tokio::test]
async fn qemu_io_writes_zeroes_trims_and_flushes() {
    if !have(&["qemu-io"]) {
        return;
    }
    let disk = Arc::new(MemoryExport::new(8 * MIB));
    let exports = Exports::new();
    exports.insert("disk", Arc::clone(&disk)).unwrap();
    let served = Served::several(exports, ServerOptions::default()).await;
    let commands = [
        "write -P 0xab 0 2M",
        "write -P 0xcd -f 3000k 3k",
        "aio_write -P 0x11 6M 1M",
        "aio_write -P 0x22 5M 1M",
        "aio_flush",
        "write -z -u 64k 64k",
        "write -z 256k 4k",
        "discard 1M 512k",
        "flush",
        "read -P 0xab 0 64k",
        "read -P 0 64k 64k",
        "read -P 0x22 5M 1M",
    ];
    let uri = served.uri("disk");
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&uri);
    let out = run("qemu-io", &arguments).await;
    assert!(!out.contains("failed"), "{out}");
    let mut expected = vec![0; 8 * MIB as usize];
    let mut put = |at: usize, length: usize, byte| expected[at..at + length].fill(byte);
    put(0, 2 << 20, 0xab);
    put(3000 << 10, 3 << 10, 0xcd);
    put(6 << 20, 1 << 20, 0x11);
    put(5 << 20, 1 << 20, 0x22);
    put(64 << 10, 64 << 10, 0);
    put(256 << 10, 4 << 10, 0);
    put(1 << 20, 512 << 10, 0);
    assert!(disk.contents(0, 8 * MIB) == expected, "bytes differ");
}

#[tokio::test]
async fn nbdinfo_understands_what_we_say() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let dirty = "qemu:dirty-bitmap:b";
    let (disk, _) = patchy();
    let map = vec![StatusExtent { length: MIB, flags: 1 }, StatusExtent::data(7 * MIB)];
    let exports = Exports::new();
    exports.insert("disk", Arc::new(disk.with_map(dirty, map))).unwrap();
    exports.insert("other", Arc::new(MemoryExport::new(512))).unwrap();
    exports.set_default("disk");
    let served = Served::several(exports, ServerOptions::default()).await;

    let info = run("nbdinfo", &["--json", &served.uri("disk")]).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["protocol"], "newstyle-fixed");
    assert_eq!(info["structured"], true);
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 8 * MIB);
    assert_eq!(export["description"], "a patchy disk");
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation", dirty]));
    for (key, expected) in [
        ("is_read_only", false),
        ("can_multi_conn", true),
        ("can_flush", true),
        ("can_fua", true),
        ("can_trim", true),
        ("can_zero", true),
        ("can_fast_zero", true),
        ("can_df", true),
        ("can_cache", true),
    ] {
        assert_eq!(export[key], expected, "{key}");
    }
    assert_eq!(export["block_size_maximum"], 32 * MIB);

    let list = run("nbdinfo", &["--json", "--list", &served.uri("")]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let names: Vec<_> = list["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| export["export-name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["disk", "other"]);

    for (context, expected) in [
        ("base:allocation", vec![(0, 0), (MIB, 3), (4 * MIB, 0), (6 * MIB + BLOCK, 3)]),
        (dirty, vec![(0, 1), (MIB, 0)]),
    ] {
        let map = format!("--map={context}");
        let map = run("nbdinfo", &["--json", &map, &served.uri("")]).await;
        let map: Value = serde_json::from_str(&map).unwrap();
        let shape: Vec<_> = map
            .as_array()
            .unwrap()
            .iter()
            .map(|extent| (extent["offset"].as_u64().unwrap(), extent["type"].as_u64().unwrap()))
            .collect();
        assert_eq!(shape, expected, "{context}");
    }
}

#[tokio::test]
async fn nbdcopy_copies_both_ways() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let (disk, contents) = patchy();
    let target = Arc::new(MemoryExport::new(8 * MIB));
    let exports = Exports::new();
    exports.insert("source", Arc::new(disk.read_only())).unwrap();
    exports.insert("target", Arc::clone(&target)).unwrap();
    let served = Served::several(exports, ServerOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.raw");
    run("nbdcopy", &[&served.uri("source"), text(&file)]).await;
    assert!(fs::read(&file).unwrap() == contents, "bytes differ");
    run("nbdcopy", &["--flush", &served.uri("source"), &served.uri("target")]).await;
    assert!(target.contents(0, 8 * MIB) == contents, "bytes differ");
    assert_eq!(target.allocated(), 3 * MIB + BLOCK, "holes stay holes");
}

#[tokio::test]
async fn fio_reads_back_what_it_wrote() {
    if !have(&["fio"]) {
        return;
    }
    let served = Served::one(MemoryExport::new(16 * MIB)).await;
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("--uri={}", served.uri("disk"));
    let aux = format!("--aux-path={}", text(folder.path()));
    for (mode, block) in [("randwrite", "--bs=4k"), ("write", "--bssplit=512/50:68k/50")] {
        let mode = format!("--rw={mode}");
        let arguments = [
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            &mode,
            block,
            &aux,
            "--size=16m",
            "--iodepth=32",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--verify_state_save=0",
        ];
        let out = run("fio", &arguments).await;
        assert!(out.contains("err= 0"), "{out}");
    }
}

#[tokio::test]
async fn encrypted_clients_are_served() {
    if !have(&["nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    certificates.write_pem(folder.path());
    let (disk, contents) = patchy();
    let exports = Exports::new();
    exports.insert("disk", Arc::new(disk.read_only())).unwrap();
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let options =
        ServerOptions { tls: Some(certificates.server_config()), ..ServerOptions::default() };
    let server = Server::start(listener, exports, options);
    let port = server.tcp_address().unwrap().port();

    let pem = text(folder.path());
    let uri = format!("nbds://127.0.0.1:{port}/disk?tls-certificates={pem}");
    let info = run("nbdinfo", &["--json", &uri]).await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["TLS"], true);
    let copy = folder.path().join("copy.raw");
    run("nbdcopy", &[&uri, text(&copy)]).await;
    assert!(fs::read(&copy).unwrap() == contents, "nbdcopy: bytes differ");

    let object = format!("tls-creds-x509,id=tls0,dir={pem},endpoint=client");
    let image = format!(
        "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port},export=disk,tls-creds=tls0"
    );
    let arguments =
        ["convert", "--object", &object, "--image-opts", &image, "-O", "raw", text(&copy)];
    run("qemu-img", &arguments).await;
    assert!(fs::read(&copy).unwrap() == contents, "qemu-img: bytes differ");

    let clear = format!("nbd://127.0.0.1:{port}/disk");
    assert!(!attempt("nbdinfo", &[&clear]).await.status.success(), "TLS is not optional");
}
