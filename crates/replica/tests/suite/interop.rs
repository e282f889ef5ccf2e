//! Other people's tools agree with a view.

use std::{env, fs, path::Path, process::Command, sync::Arc};

use nbd::server::{Exports, Listener, Server, ServerOptions};
use replica::{
    export::{self, ImageFormat},
    geometry::{Cycle, DiskNumber},
    medium::folder::Folder,
    view::View,
    writer::Writer,
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
    if !have(&["qemu-img", "nbdcopy", "nbdinfo"]) {
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
    let map = run("nbdinfo", vec!["--map".into(), uri]).await;
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
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
