//! Other people's tools agree with a view.

use std::{env, fs, os::unix::fs::FileExt, path::Path, process::Command, sync::Arc};

use nbd::server::{Exports, Listener, Server, ServerOptions};
use replica::{
    adopt::{self, Condition},
    export::{self, ImageFormat},
    geometry::{Cycle, DiskNumber},
    medium::folder::Folder,
    offline_copy::ImageKind,
    view::View,
    writer::{Writer, WriterOptions},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::model::{self, Change, DISKS, Image};

fn have(tools: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| !env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?}");
    false
}

async fn run(tool: &'static str, arguments: Vec<String>) -> String {
    let shown = format!("{tool} {arguments:?}");
    let output = spawn_blocking(move || Command::new(tool).args(arguments).output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {text} {errors}");
    text
}

/// A store with two points, and the older one's contents.
fn store(scratch: &TempDir) -> (Writer, View, Image) {
    let folder = Folder::create(scratch.path().join("machine")).unwrap();
    let mut writer = Writer::open(Arc::new(folder), model::small()).unwrap();
    let mut image = model::blank();
    let mut older = image.clone();
    for round in 0..2_u8 {
        writer.begin(&DISKS).unwrap();
        for seed in 0..6_u8 {
            let page = u64::from(seed * 7 + round);
            let change = Change::Write { disk: 0, page, pages: 3, seed: seed + round * 9 };
            change.apply(&mut writer).unwrap();
            change.apply_to(&mut image);
        }
        writer.seal(model::facts(round.into())).unwrap();
        if round == 0 {
            older = image.clone();
        }
    }
    let view = writer.store().view(Cycle(1), DiskNumber(0)).unwrap();
    (writer, view, older)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_read_a_point_as_it_was() {
    if !have(&["qemu-img", "qemu-io", "nbdcopy", "nbdinfo", "fio"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (_writer, view, image) = store(&scratch);
    let raw = scratch.path().join("expected.raw");
    fs::write(&raw, &image[0]).unwrap();
    let socket = scratch.path().join("nbd.sock");
    let exports = Exports::new();
    exports.insert("", Arc::new(view)).unwrap();
    let listener = Listener::unix(&socket, 0o600).await.unwrap();
    let server = Server::start(listener, exports, ServerOptions::default());
    let uri = format!("nbd+unix:///?socket={}", text(&socket));
    let compare = ["compare", "-f", "raw", "-F", "raw", &text(&raw), &uri];
    run("qemu-img", compare.map(String::from).to_vec()).await;
    let copy = scratch.path().join("copy.raw");
    run("nbdcopy", vec![uri.clone(), text(&copy)]).await;
    assert!(fs::read(&copy).unwrap() == image[0], "nbdcopy: bytes differ");
    let map = run("nbdinfo", vec!["--map".into(), uri.clone()]).await;
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
    let page = image[0].chunks(4096).position(|page| page[0] != 0 && page == [page[0]; 4096]);
    let page = page.expect("a page of one byte");
    let pattern = image[0][page * 4096];
    let read = format!("read -P {pattern} {} 4096", page * 4096);
    let told = run("qemu-io", ["-r", "-f", "raw", "-c", &read, &uri].map(String::from).to_vec());
    let told = told.await;
    assert!(!told.contains("Pattern verification failed"), "{told}");
    let job = ["--name=view", "--ioengine=nbd", "--rw=randread", "--bs=4k", "--iodepth=8"];
    let mut job = job.map(String::from).to_vec();
    job.extend([format!("--uri={uri}"), "--number_ios=500".into(), "--numjobs=2".into()]);
    let told = run("fio", job).await;
    assert!(told.contains("err= 0"), "{told}");
    server.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_are_what_the_point_was() {
    let scratch = tempfile::tempdir().unwrap();
    let (_writer, view, image) = store(&scratch);
    let raw = scratch.path().join("point.raw");
    let (copied, target) = (view.clone(), raw.clone());
    spawn_blocking(move || export::to_raw(&copied, &target).unwrap()).await.unwrap();
    assert!(fs::read(&raw).unwrap() == image[0]);
    if !have(&["qemu-img"]) {
        return;
    }
    for (format, name) in [(ImageFormat::Qcow2, "qcow2"), (ImageFormat::Vhdx, "vhdx")] {
        let path = scratch.path().join(name);
        export::to_image(view.clone(), format, &path).await.unwrap();
        let compare = ["compare", "-f", "raw", "-F", name, &text(&raw), &text(&path)];
        run("qemu-img", compare.map(String::from).to_vec()).await;
        let again = export::to_image(view.clone(), format, &path).await;
        assert!(again.is_err(), "an image that exists is left alone");
    }
}

/// Images of real formats, as the base of a disk.
#[test]
fn images_are_adopted_where_they_lie() {
    if !have(&["qemu-img"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let qemu_img = |arguments: &[&str]| {
        let output = Command::new("qemu-img").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // Sparse, and ends inside a page.
    let size = 5 << 20 | 512;
    let mut image = vec![0; size];
    for (number, chunk) in image.chunks_mut(96 * 1024).enumerate().filter(|(n, _)| n % 3 != 1) {
        blake3::Hasher::new().update(&[number as u8]).finalize_xof().fill(chunk);
    }
    let raw = fs::File::create(at("raw")).unwrap();
    raw.set_len(size as u64).unwrap();
    for (number, chunk) in image.chunks(96 * 1024).enumerate().filter(|(n, _)| n % 3 != 1) {
        raw.write_all_at(chunk, number as u64 * 96 * 1024).unwrap();
    }
    let [raw, qcow2, packed, layered] =
        ["raw", "qcow2", "packed", "layered"].map(|name| text(&at(name)));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &raw, &qcow2]);
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &packed]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &qcow2, "-F", "qcow2", &layered]);
    for (path, why) in [(&packed, "compressed"), (&layered, "backing file")] {
        let refused = adopt::layout(Path::new(path), ImageKind::Qcow2).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }

    let folder = Folder::create(at("machine")).unwrap();
    let mut writer = Writer::open(Arc::new(folder), WriterOptions::new(1)).unwrap();
    for (path, kind) in [(&raw, ImageKind::Raw), (&qcow2, ImageKind::Qcow2)] {
        let layout = adopt::layout(Path::new(path), kind).unwrap();
        writer.begin(&[layout.size]).unwrap();
        let mut read = 0;
        writer
            .adopt(DiskNumber(0), &layout, |bytes| {
                read += bytes;
                true
            })
            .unwrap();
        assert!(read < size as u64, "holes are passed over: {read}");
        let point = writer.seal(model::facts(1)).unwrap().cycle;
        let view = writer.store().view(point, DiskNumber(0)).unwrap();
        let found = view.read_to_vec(0, view.size()).unwrap();
        assert!(found[..size] == image, "{path} differs");
        assert!(found[size..].iter().all(|byte| *byte == 0));
    }
    let adopted = writer.store().adopted();
    assert!(adopted.iter().all(|file| file.condition == Condition::Unchanged), "{adopted:?}");
    fs::File::options().write(true).open(&raw).unwrap().write_all_at(b"x", 9).unwrap();
    assert_eq!(writer.store().adopted()[0].condition, Condition::Changed);
}
