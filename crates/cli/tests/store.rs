//! `lifeboat store` through the product's own binary, on stores that the
//! engine wrote, with other people's tools as witnesses.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::format::record::Consistency;
use replica::geometry::DiskNumber;
use replica::medium::folder::Folder;
use replica::writer::{SealFacts, Writer, WriterOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");
const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
const MIB: usize = 1 << 20;
/// The last one ends inside a page.
const SIZES: [usize; 2] = [8 * MIB, MIB + 512];

/// Disks as they should be.
type Model = [Vec<u8>; 2];

/// A store with machine `web`, whose configuration calls it `shop`.
struct Fixture {
    scratch: TempDir,
    /// At points 1 to 3.
    models: Vec<Model>,
}

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("store")).unwrap();
        let mut fixture = Self { scratch, models: Vec::new() };
        let mut writer = fixture.writer();
        let mut model: Model = SIZES.map(|size| vec![0; size]);
        let rounds: [&[(u16, usize, Vec<u8>)]; 3] = [
            &[(0, 0, noise(1, MIB)), (1, 0, noise(2, SIZES[1]))],
            &[(0, 64 << 10, noise(3, 128 << 10)), (0, 512 << 10, vec![0; 64 << 10])],
            // The same bytes as before, and new ones.
            &[(0, 0, noise(1, 64 << 10)), (0, 4 * MIB, noise(4, 100 << 10))],
        ];
        for (round, writes) in rounds.into_iter().enumerate() {
            writer.begin(&SIZES.map(|size| size as u64)).unwrap();
            for (disk, at, bytes) in writes {
                writer.write(DiskNumber(*disk), *at as u64, bytes).unwrap();
                model[usize::from(*disk)][*at..*at + bytes.len()].copy_from_slice(bytes);
            }
            let consistency = if round == 1 { Consistency::App } else { Consistency::Crash };
            writer.seal(facts(round as i64, consistency)).unwrap();
            fixture.models.push(model.clone());
        }
        drop(writer);
        // A second opening writes the index down, as a running agent has done
        // long before anything decays.
        drop(fixture.writer());
        fixture
    }

    fn writer(&self) -> Writer {
        let folder = Folder::create(self.machine()).unwrap();
        // Small segments, so that most are closed in order.
        let options = WriterOptions { segment_bytes: 1 << 20, ..WriterOptions::new(7) };
        Writer::open(Arc::new(folder), options).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn machine(&self) -> PathBuf {
        self.path("store/web")
    }

    /// A disk at a point, as a file for other tools.
    fn model_file(&self, point: usize, disk: usize) -> PathBuf {
        let path = self.path(&format!("model-{point}-{disk}.raw"));
        fs::write(&path, &self.models[point - 1][disk]).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(LIFEBOAT);
        command
            .arg("store")
            .args(arguments)
            .env("LIFEBOAT_STORE", self.path("store"))
            .env("TMPDIR", self.scratch.path())
            .current_dir(self.scratch.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that must succeed prints for people.
    fn read(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that must succeed prints for programs.
    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Exit code and error code of a command that must fail, and its cause.
    fn refused(&self, arguments: &[&str]) -> (i32, String, String) {
        failed(&self.run(&[&["--json"], arguments].concat()))
    }
}

fn failed(output: &Output) -> (i32, String, String) {
    assert!(!output.status.success(), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    let problem: Value = serde_json::from_str(error.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {error}"));
    let part = |name: &str| problem[name].as_str().unwrap().to_owned();
    assert!(!part("advice").is_empty() && !part("doing").is_empty(), "{problem}");
    (output.status.code().unwrap(), part("code"), part("cause"))
}

/// Asserts exit code and error code; returns the cause.
fn expect(refused: (i32, String, String), exit: i32, code: &str) -> String {
    let (found_exit, found_code, cause) = refused;
    assert_eq!((found_exit, found_code.as_str()), (exit, code), "{cause}");
    cause
}

fn facts(round: i64, consistency: Consistency) -> SealFacts {
    let configuration = format!("<domain><name>shop</name><uuid>{UUID}</uuid></domain>");
    SealFacts {
        instant: 1_795_000_000_000 + round * 60_000,
        consistency,
        origin: "agent kvm1 at east".into(),
        configuration: configuration.into_bytes(),
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that two images have the same bytes.
fn same(format: &str, one: &str, model: &Path) {
    tool("qemu-img", &["compare", "-f", format, "-F", "raw", one, model.to_str().unwrap()]);
}

/// `lifeboat store serve`, ready; ends with the value.
struct Serving {
    process: Child,
    told: Value,
}

impl Serving {
    fn start(fixture: &Fixture, arguments: &[&str]) -> Self {
        let mut command = fixture.command(&[&["--json", "serve"], arguments].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        while !text.ends_with("\n}\n") {
            assert!(lines.read_line(&mut text).unwrap() > 0, "it ended: {text}");
        }
        Self { process, told: serde_json::from_str(&text).unwrap() }
    }

    fn uri(&self, disk: usize) -> &str {
        self.told["disks"][disk]["uri"].as_str().unwrap()
    }

    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for a condition, not for ever.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn machines_and_points_are_listed_and_a_broken_machine_hides_nobody() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("store/broken/seg")).unwrap();
    fs::create_dir_all(fixture.path("store/lost+found")).unwrap();
    let machines = fixture.ask(&["list"]);
    let [broken, web] = machines["items"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&broken["name"], &broken["state"]["is"]), (&json!("broken"), &json!("unreadable")));
    assert_eq!((&web["machine_name"], &web["points"]), (&json!("shop"), &json!(3)));
    assert_eq!(web["newest"]["instant"], "2026-11-18T11:08:40Z");
    assert_eq!(web["state"]["is"], "whole");
    let table = fixture.read(&["list"]);
    assert!(table.contains("cannot be opened") && table.contains("shop"), "{table}");

    for name in ["web", "shop", UUID, "./store/web"] {
        let points = fixture.ask(&["points", name]);
        let points = points["items"].as_array().unwrap();
        assert_eq!(points.len(), 3, "{name}");
        assert_eq!(points[1]["consistency"], "application");
        assert_eq!(points[0]["disks_bytes"], json!(SIZES));
        // Point 1 alone has what point 2 wrote over.
        let freed = points[0]["freed_bytes"].as_u64().unwrap();
        assert!((128 << 10..512 << 10).contains(&freed), "{freed}");
        assert_eq!(points[2]["freed_bytes"], 0);
    }
    // The machine may be left out where it is the only one: here it is not.
    expect(fixture.refused(&["points"]), 3, "LB4004");
    fs::remove_dir_all(fixture.path("store/broken")).unwrap();
    assert_eq!(fixture.ask(&["points"])["items"].as_array().unwrap().len(), 3);
    let own = fixture.text("store/web");
    assert_eq!(fixture.ask(&["--store", &own, "list"])["items"][0]["name"], "web");

    let shown = fixture.ask(&["show", "web"]);
    assert_eq!((&shown["sealed"], &shown["indexed"]), (&json!(3), &json!(3)));
    assert_eq!((&shown["uuid"], &shown["generation"]), (&json!(UUID), &json!(7)));
    assert_eq!(fixture.ask(&["show", "web", "latest-app"])["point"], 2);
    let xml = fixture.read(&["show", "web", "1", "--configuration"]);
    assert_eq!(xml.into_bytes(), facts(0, Consistency::Crash).configuration);
    assert!(fixture.read(&["show"]).contains("agent kvm1 at east"));
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let fixture = Fixture::new();
    let cause = expect(fixture.refused(&["points", "nobody"]), 3, "LB5002");
    assert!(cause.contains("web"), "{cause}");
    expect(fixture.refused(&["points", "./nowhere"]), 7, "LB5001");
    let cause = expect(fixture.refused(&["show", "web", "9"]), 3, "LB5003");
    assert!(cause.contains("from 1 to 3"), "{cause}");
    expect(fixture.refused(&["diff", "web", "1", "2", "--disk", "5"]), 3, "LB5003");
    expect(fixture.refused(&["--store", "/no/such/store", "list"]), 7, "LB5001");
    assert_eq!(fixture.run(&["show", "web", "newest"]).status.code(), Some(2));
    fs::create_dir(fixture.path("empty")).unwrap();
    assert_eq!(fixture.ask(&["--store", "empty", "list"]), json!({ "items": [] }));
}

#[test]
fn differences_are_those_of_the_bytes() {
    let fixture = Fixture::new();
    let diff = fixture.ask(&["diff", "web", "1", "latest"]);
    let stretches = &diff["disks"][0]["stretches"];
    let expected = json!([
        { "start": 64 << 10, "length": 128 << 10 },
        { "start": 512 << 10, "length": 64 << 10 },
        { "start": 4 * MIB, "length": 100 << 10 },
    ]);
    assert_eq!((stretches, &diff["disks"][1]["bytes"]), (&expected, &json!(0)));
    assert_eq!(diff["bytes"], (128 << 10) + (64 << 10) + (100 << 10));
    let written = fixture.ask(&["diff", "web", "2", "3", "--written", "--disk", "0"]);
    assert_eq!(written["bytes"], (64 << 10) + (100 << 10));
    assert_eq!(fixture.ask(&["diff", "web", "1", "2", "--disk", "1"])["bytes"], 0);
    assert!(fixture.read(&["diff", "web", "3", "3"]).contains("Nothing differs"));
    // Against itself as if it were somebody else's: whole blocks.
    let store = fixture.text("store");
    let other = fixture.ask(&["diff", "web", "1", "2", "--with", &store]);
    assert_eq!(other["bytes"], (128 << 10) + (64 << 10));
    let newest = fixture.ask(&["diff", "web", "3", "--with", &store, "--with-machine", "shop"]);
    assert_eq!((&newest["bytes"], &newest["to"]), (&json!(0), &json!(3)));
}

#[test]
fn a_point_is_served_at_once_to_other_peoples_tools() {
    let fixture = Fixture::new();
    let socket = fixture.text("nbd.sock");
    let serving = Serving::start(&fixture, &["web", "2", "--unix", &socket]);
    for (disk, size) in SIZES.into_iter().enumerate() {
        let info: Value =
            serde_json::from_str(&tool("nbdinfo", &["--json", serving.uri(disk)])).unwrap();
        assert_eq!(info["exports"][0]["export-size"], size);
        assert_eq!(info["exports"][0]["is_read_only"], true);
        same("raw", serving.uri(disk), &fixture.model_file(2, disk));
    }
    let copy = fixture.path("copy.raw");
    tool("nbdcopy", &[serving.uri(1), copy.to_str().unwrap()]);
    assert_eq!(fs::read(copy).unwrap(), fixture.models[1][1]);
    serving.stop();
    assert!(!fixture.path("nbd.sock").exists());

    // With one disk, that is what clients get who name none.
    let disk = fixture.model_file(3, 0);
    fixture.ask(&["import", "one", "--disk", disk.to_str().unwrap()]);
    let serving = Serving::start(&fixture, &["one", "latest", "--tcp", "127.0.0.1:0"]);
    let unnamed = serving.uri(0).trim_end_matches("disk0");
    assert!(unnamed.starts_with("nbd://127.0.0.1:"), "{unnamed}");
    same("raw", unnamed, &disk);
    serving.stop();
    let cause = expect(
        fixture.refused(&["serve", "web", "1", "--unix", disk.to_str().unwrap()]),
        7,
        "LB1003",
    );
    assert!(cause.contains("is no socket"), "{cause}");
}

#[test]
fn the_network_gets_disks_encrypted_or_not_at_all() {
    let fixture = Fixture::new();
    let open = ["serve", "web", "1", "--tcp", "0.0.0.0:0"];
    expect(fixture.refused(&open), 4, "LB5015");
    certificates(&fixture);
    let (certificate, key, clients) = (
        fixture.text("server-cert.pem"),
        fixture.text("server-key.pem"),
        fixture.text("ca-cert.pem"),
    );
    let tls = |key: &str| -> Vec<String> {
        ["--tls-certificate", &certificate, "--tls-key", key, "--tls-clients", &clients]
            .map(str::to_owned)
            .to_vec()
    };
    let wrong = tls(&certificate);
    let wrong: Vec<&str> = open.into_iter().chain(wrong.iter().map(String::as_str)).collect();
    expect(fixture.refused(&wrong), 7, "LB5017");

    let right = tls(&key);
    let right: Vec<&str> = ["web", "1", "--tcp", "127.0.0.1:0"]
        .into_iter()
        .chain(right.iter().map(String::as_str))
        .collect();
    let serving = Serving::start(&fixture, &right);
    assert!(serving.uri(0).starts_with("nbds://127.0.0.1:"));
    let address = serving.uri(0).trim_start_matches("nbds://").trim_end_matches("/disk0");
    let port = address.rsplit(':').next().unwrap();
    let credentials =
        format!("tls-creds-x509,id=tls,endpoint=client,dir={}", fixture.scratch.path().display());
    let image = format!(
        "driver=nbd,host=localhost,port={port},export=disk0,tls-creds=tls,tls-hostname=localhost"
    );
    let model = fixture.model_file(1, 0);
    let model = format!("driver=raw,file.driver=file,file.filename={}", model.display());
    tool("qemu-img", &["compare", "--object", &credentials, "--image-opts", &image, &model]);
    // Nobody gets in without a certificate, nor in the clear.
    fs::create_dir(fixture.path("bare")).unwrap();
    fs::copy(fixture.path("ca-cert.pem"), fixture.path("bare/ca-cert.pem")).unwrap();
    let with = |folder: &Path| {
        let folder = folder.display();
        format!("nbds://localhost:{port}/disk0?tls-certificates={folder}")
    };
    let gets_in = |uri: String| Command::new("nbdinfo").arg(uri).output().unwrap().status.success();
    assert!(gets_in(with(fixture.scratch.path())));
    assert!(!gets_in(with(&fixture.path("bare"))));
    assert!(!gets_in(format!("nbd://localhost:{port}/disk0")));
    serving.stop();

    let insecure = ["web", "1", "--tcp", "0.0.0.0:0", "--insecure"];
    let serving = Serving::start(&fixture, &insecure);
    assert!(serving.uri(1).starts_with("nbd://") && !serving.uri(1).contains("0.0.0.0"));
    serving.stop();
}

/// The files that QEMU expects in a folder.
fn certificates(fixture: &Fixture) {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose,
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(fixture.path("ca-cert.pem"), authority.pem()).unwrap();
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(fixture.path(&format!("{name}-cert.pem")), certificate.pem()).unwrap();
        fs::write(fixture.path(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn an_exported_point_is_the_point_and_comes_back_as_it_was() {
    let fixture = Fixture::new();
    for format in ["raw", "qcow2", "vhdx"] {
        let folder = fixture.text(format);
        let told = fixture.ask(&["export", "web", "2", &folder, "--format", format]);
        assert_eq!(told["disks"].as_array().unwrap().len(), 2);
        for disk in 0..2 {
            let image = format!("{folder}/disk{disk}.{format}");
            same(format, &image, &fixture.model_file(2, disk));
        }
        let copy: Value =
            serde_json::from_slice(&fs::read(format!("{folder}/copy.json")).unwrap()).unwrap();
        let hash = blake3::hash(&fixture.models[1][1]).to_hex().to_string();
        assert_eq!((&copy["machine"], &copy["disks"][1]["blake3"]), (&json!("web"), &json!(hash)));

        let machine = format!("from-{format}");
        let made = fixture.ask(&["import", &machine, "--from", &folder]);
        assert_eq!((&made["point"], &made["consistency"]), (&json!(1), &json!("application")));
        let store = fixture.text("store");
        let with = ["--with", &store, "--with-machine", &machine];
        let diff = fixture.ask(&[&["diff", "web", "2"][..], &with].concat());
        assert_eq!(diff["bytes"], 0, "{format}");
        let xml = fixture.read(&["show", &machine, "--configuration"]);
        assert_eq!(xml.into_bytes(), facts(1, Consistency::App).configuration);
    }
    // Onto a later point: only what differs is stored.
    let again = fixture.ask(&["import", "web", "--from", &fixture.text("qcow2")]);
    assert_eq!(again["point"], 4);
    let arrived = again["arrived_bytes"].as_u64().unwrap();
    assert!((1..300 << 10).contains(&arrived), "{arrived}");
    assert_eq!(fixture.ask(&["diff", "web", "2", "4"])["bytes"], 0);
    expect(fixture.refused(&["export", "web", "1", &fixture.text("raw")]), 4, "LB5010");
    expect(fixture.refused(&["export", "web", "1", "/proc/nowhere"]), 7, "LB5009");
}

#[test]
fn images_of_any_kind_become_points_and_wrong_ones_do_not() {
    let fixture = Fixture::new();
    let model = fixture.model_file(3, 0);
    let (qcow2, overlay) = (fixture.text("a.qcow2"), fixture.text("overlay.qcow2"));
    tool(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", "-c", model.to_str().unwrap(), &qcow2],
    );
    let xml = fixture.text("web.xml");
    fs::write(&xml, "<domain><name>fresh</name></domain>").unwrap();
    let made = fixture.ask(&["import", "new", "--disk", &qcow2, "--configuration", &xml]);
    assert_eq!(made["origin"], "images a.qcow2");
    let diff = fixture.ask(&[
        "diff",
        "web",
        "3",
        "--disk",
        "0",
        "--with",
        &fixture.text("store"),
        "--with-machine",
        "fresh",
    ]);
    assert_eq!(diff["bytes"], 0);
    // Taken at its word, a raw image that looks like qcow2 is raw.
    fixture.ask(&["import", "bytes", "--disk", &qcow2, "--disk-format", "raw"]);
    let length = fs::metadata(&qcow2).unwrap().len();
    assert_eq!(fixture.ask(&["show", "bytes"])["newest"]["disks_bytes"], json!([length]));

    tool("qemu-img", &["create", "-f", "qcow2", "-b", &qcow2, "-F", "qcow2", &overlay]);
    let cause = expect(fixture.refused(&["import", "no", "--disk", &overlay]), 1, "LB5011");
    assert!(cause.contains("stands on"), "{cause}");
    expect(fixture.refused(&["import", "no", "--disk", &fixture.text("nothing.raw")]), 1, "LB5011");
    fs::write(fixture.path("short.qcow2"), b"QFI\xfb and no more").unwrap();
    expect(fixture.refused(&["import", "no", "--disk", &fixture.text("short.qcow2")]), 1, "LB5012");
    // Without the tools, only raw images are of use.
    let out = fixture.text("out");
    for command in [&["import", "no", "--disk", &qcow2][..], &["export", "web", "1", &out]] {
        let mut without = fixture.command(&[&["--json"], command].concat());
        let output = without.env("PATH", "/nonexistent").output().unwrap();
        expect(failed(&output), 1, "LB5012");
    }
    assert!(!fixture.path("out").exists());
    assert!(!fixture.path("store/no").exists());

    let copy = fixture.text("copy");
    fixture.ask(&["export", "web", "3", &copy, "--format", "raw"]);
    let image = File::options().write(true).open(format!("{copy}/disk0.raw")).unwrap();
    image.write_all_at(b"x", 5 * MIB as u64).unwrap();
    let cause = expect(fixture.refused(&["import", "web", "--from", &copy]), 1, "LB5014");
    assert!(cause.contains("disk 0"), "{cause}");
    assert_eq!(fixture.ask(&["points", "web"])["items"].as_array().unwrap().len(), 3);
    fs::remove_file(format!("{copy}/copy.json")).unwrap();
    expect(fixture.refused(&["import", "web", "--from", &copy]), 1, "LB5013");
}

#[test]
fn images_can_stay_where_they_are() {
    let fixture = Fixture::new();
    let image = fixture.model_file(3, 0);
    let image_text = image.to_str().unwrap();
    fixture.ask(&["import", "copied", "--disk", image_text]);
    let point = fixture.ask(&["import", "kept", "--disk", image_text, "--in-place"]);
    assert!(point["arrived_bytes"].as_u64().unwrap() < MIB as u64 / 8, "{point}");
    let adopted = || fixture.ask(&["show", "kept"])["adopted"][0]["condition"].clone();
    assert_eq!(adopted(), "unchanged");
    fixture.ask(&["verify", "kept"]);
    let stretches = fixture.ask(&[
        "diff",
        "kept",
        "latest",
        "latest",
        "--with",
        &fixture.text("store"),
        "--with-machine",
        "copied",
    ]);
    assert_eq!(stretches["bytes"], 0, "{stretches}");

    flip(&image, 4 * MIB as u64 + 77);
    assert_eq!(adopted(), "changed since it was adopted");
    let cause = expect(fixture.refused(&["verify", "kept"]), 1, "LB5005");
    assert!(cause.contains("disk 0"), "{cause}");
    // Only the block that was changed is lost, and a copy mends it.
    fixture.ask(&["repair", "kept", "--from", &fixture.text("store/copied")]);
    fixture.ask(&["verify", "kept"]);
}

#[test]
fn damage_is_named_and_mended_from_a_copy() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask(&["verify", "web"])["whole"], true);
    assert_eq!(fixture.ask(&["verify", "web", "--sample", "3", "--rate", "10M"])["whole"], true);
    fixture.ask(&["export", "web", "3", &fixture.text("copy"), "--format", "raw"]);
    fs::create_dir(fixture.path("other")).unwrap();
    let (other, copy) = (fixture.text("other"), fixture.text("copy"));
    fixture.ask(&["--store", &other, "import", "web", "--from", &copy]);

    // In the payload of the first record of the first segment.
    flip(&first_segment(&fixture), 4096 + 64 + 1000);
    let output = fixture.run(&["--json", "verify", "web"]);
    let cause = expect(failed(&output), 1, "LB5005");
    assert!(cause.contains("disk 0 is damaged from byte 0 to 65536"), "{cause}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let damage = &report["damages"][0];
    assert_eq!((&report["damaged"], &damage["disk"]), (&json!(1), &json!(0)));
    assert_eq!((&damage["first_point"], &damage["last_point"]), (&json!(1), &json!(2)));
    // Damaged bytes are never given out as good.
    expect(fixture.refused(&["export", "web", "1", &fixture.text("bad")]), 1, "LB5005");
    assert!(!fixture.path("bad").exists());

    let mended = fixture.ask(&["repair", "web", "--from", &other]);
    assert_eq!((&mended["mended"], &mended["left"]), (&json!(1), &json!([])));
    assert_eq!(fixture.ask(&["verify", "web"])["whole"], true);
    fixture.ask(&["export", "web", "1", &fixture.text("good"), "--format", "raw"]);
    assert_eq!(fs::read(fixture.path("good/disk0.raw")).unwrap(), fixture.models[0][0]);

    // What no copy has is left, and said.
    flip(&first_segment(&fixture), 4096 + (64 + 65536) + 64 + 1000);
    let output = fixture.run(&["--json", "repair", "web", "--from", &other]);
    expect(failed(&output), 1, "LB5005");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["mended"], &report["left"][0]["start"]), (&json!(0), &json!(65536)));
}

#[test]
fn a_store_that_lost_acknowledged_records_is_read_and_not_written() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    for round in 3..5 {
        writer.begin(&SIZES.map(|size| size as u64)).unwrap();
        writer.write(DiskNumber(0), 0, &noise(round, 64 << 10)).unwrap();
        writer.seal(facts(round as i64, Consistency::Crash)).unwrap();
    }
    drop(writer);
    let newest = fs::read_dir(fixture.machine().join("seg")).unwrap();
    let newest = newest.map(|entry| entry.unwrap().path()).max().unwrap();
    flip(&newest, 4096 + 64 + 1000);
    let listed = fixture.ask(&["list"]);
    assert_eq!(listed["items"][0]["state"]["is"], "damaged", "{listed}");
    expect(fixture.refused(&["verify", "web"]), 1, "LB5005");
    let cause = expect(fixture.refused(&["hold", "web", "1"]), 1, "LB5005");
    assert!(cause.contains("lost acknowledged records"), "{cause}");
    fixture.ask(&["export", "web", "3", &fixture.text("good"), "--format", "raw"]);
    assert_eq!(fs::read(fixture.path("good/disk0.raw")).unwrap(), fixture.models[2][0]);
}

fn first_segment(fixture: &Fixture) -> PathBuf {
    let names = fs::read_dir(fixture.machine().join("seg")).unwrap();
    names.map(|entry| entry.unwrap().path()).min().unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn one_writer_at_a_time_and_readers_all_the_while() {
    let fixture = Fixture::new();
    let writer = fixture.writer();
    for command in [
        &["hold", "web", "1"][..],
        &["drop", "web", "1", "--yes"],
        &["reclaim", "web"],
        &["repair", "web", "--from", &fixture.text("store")],
        &["import", "web", "--disk", fixture.model_file(1, 0).to_str().unwrap()],
    ] {
        let cause = expect(fixture.refused(command), 4, "LB5004");
        assert!(cause.contains("another process writes"), "{cause}");
    }
    assert_eq!(fixture.ask(&["verify", "web"])["whole"], true);
    drop(writer);
    assert_eq!(fixture.ask(&["hold", "web", "1"])["hold"]["by"], "operator");
}

#[test]
fn points_are_dropped_unless_something_keeps_them() {
    let fixture = Fixture::new();
    fixture.ask(&["hold", "web", "1"]);
    let cause = expect(fixture.refused(&["drop", "web", "1", "2", "--yes"]), 4, "LB5008");
    assert!(cause.contains("an operator holds it"), "{cause}");
    expect(fixture.refused(&["drop", "web", "latest", "--yes"]), 4, "LB5008");
    // Nobody is there to confirm it.
    expect(fixture.refused(&["drop", "web", "2"]), 4, "LB4006");
    assert_eq!(fixture.ask(&["release", "web", "1"])["hold"]["by"], "nothing");
    let dropped = fixture.ask(&["drop", "web", "1", "2", "--yes"]);
    assert_eq!(dropped["dropped"], json!([1, 2]));
    assert!(dropped["dead_bytes"].as_u64().unwrap() > 128 << 10, "{dropped}");
    assert!(fixture.ask(&["reclaim", "web"])["freed_bytes"].is_u64());
    assert_eq!(fixture.ask(&["verify", "web"])["whole"], true);
    let disk = fixture.text("left");
    fixture.ask(&["export", "web", "latest", &disk, "--format", "raw"]);
    assert_eq!(fs::read(fixture.path("left/disk0.raw")).unwrap(), fixture.models[2][0]);
}

#[test]
fn what_is_killed_or_interrupted_leaves_no_point_no_image_and_no_process() {
    let fixture = Fixture::new();
    let (raw, image) = (fixture.path("big.raw"), fixture.text("big.qcow2"));
    let mut file = File::create(&raw).unwrap();
    let part = noise(5, MIB);
    for number in 0..192_u8 {
        file.write_all(&part).unwrap();
        // No two parts alike.
        file.seek(SeekFrom::Current(-1)).unwrap();
        file.write_all(&[number]).unwrap();
    }
    tool("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), &image]);
    interrupted_export(&fixture, &raw);
    let segments = |machine: &str| -> u64 {
        let folder = fs::read_dir(fixture.path("store").join(machine).join("seg"));
        let files = folder.into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    };
    let serving = || {
        let lines = fs::read_dir("/proc").unwrap().flatten();
        let lines = lines.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines
            .filter(|line| line.starts_with(b"qemu-nbd"))
            .any(|line| line.windows(image.len()).any(|part| part == image.as_bytes()))
    };
    for (machine, signal) in [
        ("killed", nix::sys::signal::Signal::SIGKILL),
        ("interrupted", nix::sys::signal::Signal::SIGINT),
    ] {
        let mut import = fixture
            .command(&["--json", "import", machine, "--disk", &image])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("the import's first megabytes", || segments(machine) > 2 << 20);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(import.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        if signal == nix::sys::signal::Signal::SIGINT {
            expect(failed(&import.wait_with_output().unwrap()), 1, "LB5016");
            assert!(!fixture.path("store/interrupted").exists());
        } else {
            assert!(!import.wait().unwrap().success());
            assert_eq!(fixture.ask(&["points", machine]), json!({ "items": [] }));
            let small = fixture.model_file(1, 0);
            fixture.ask(&["import", machine, "--disk", small.to_str().unwrap()]);
            assert_eq!(fixture.ask(&["verify", machine])["whole"], true);
        }
        eventually("the end of qemu-nbd", || !serving());
    }
}

/// It leaves neither folder nor image.
fn interrupted_export(fixture: &Fixture, image: &Path) {
    fixture.ask(&["import", "big", "--disk", image.to_str().unwrap()]);
    let folder = fixture.text("interrupted-export");
    let export = fixture
        .command(&["--json", "export", "big", "1", &folder])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the export's folder", || fixture.path("interrupted-export").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(export.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    expect(failed(&export.wait_with_output().unwrap()), 1, "LB5016");
    assert!(!fixture.path("interrupted-export").exists());
}
