//! A controller and its API through the product's own binary, on loopback.
//! Nothing here needs root or a hypervisor.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A controller with data of its own; ends with the value.
struct Controller {
    folder: TempDir,
    process: Child,
    api: String,
}

fn free_address() -> String {
    // Given back at once; nobody else takes it in the blink until it is used.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Runs until the controller is ready; `Err` with its output if it ends before.
fn start(folder: &Path, more: &[&str]) -> Result<(Child, String), Output> {
    let api = free_address();
    let mut process = Command::new(LIFEBOAT)
        .args(["controller", "run", "--data-folder"])
        .arg(folder.join("data"))
        .args(["--api-address", &api, "--agent-address", &free_address()])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut seen = String::new();
    while log.read_line(&mut seen).unwrap() > 0 {
        if seen.contains("the controller is ready") {
            // The log has to go somewhere until the end.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Ok((process, api));
        }
    }
    let status = process.wait().unwrap();
    Err(Output { status, stdout: vec![], stderr: seen.into_bytes() })
}

impl Controller {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, api) = start(folder.path(), &[]).expect("the controller starts");
        let controller = Self { folder, process, api };
        let data = controller.data();
        let saved = controller.run(&[
            "controller",
            "admin-token",
            "--save",
            "--api-address",
            &controller.api,
            "--data-folder",
            data.to_str().unwrap(),
        ]);
        assert!(saved.status.success(), "{saved:?}");
        controller
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(LIFEBOAT);
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// What a command that must succeed prints for programs.
    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Exit code and error code of a command that must fail.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        failed(&self.run(&[&["--json"], arguments].concat()))
    }

    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Exit code and error code, from the last line that a failed command wrote.
fn failed(output: &Output) -> (i32, String) {
    assert!(!output.status.success(), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    let problem: Value = serde_json::from_str(error.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {error}"));
    for part in ["doing", "cause", "advice"] {
        assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    (output.status.code().unwrap(), problem["code"].as_str().unwrap().to_owned())
}

fn expected(exit: i32, code: &str) -> (i32, String) {
    (exit, code.to_owned())
}

#[test]
fn sites_and_clouds_are_made_changed_and_deleted_and_nothing_else_is_touched() {
    let controller = Controller::start();
    let east = controller.ask(&["site", "create", "east", "--description", "here"]);
    assert_eq!((east["kind"].as_str(), east["hosts"].as_u64()), (Some("managed"), Some(0)));
    controller.ask(&["site", "create", "edge", "--kind", "standalone-host"]);
    assert_eq!(controller.refused(&["site", "create", "east"]), expected(4, "LB4005"));
    assert_eq!(controller.refused(&["site", "create", "no spaces"]), expected(4, "LB4006"));
    assert_eq!(controller.refused(&["site", "show", "nowhere"]), expected(3, "LB4003"));
    assert_eq!(
        controller.refused(&["cloud", "create", "c", "--site", "edge"]),
        expected(4, "LB4008")
    );
    controller.ask(&["site", "create", "west"]);
    for site in ["east", "west"] {
        controller.ask(&["cloud", "create", "gold", "--site", site]);
    }
    assert_eq!(controller.refused(&["cloud", "show", "gold"]), expected(3, "LB4004"));
    assert_eq!(controller.ask(&["cloud", "show", "west/gold"])["site"]["name"], "west");
    assert_eq!(controller.refused(&["site", "delete", "east", "--yes"]), expected(4, "LB4007"));
    // Nobody is there to confirm it.
    assert_eq!(controller.refused(&["cloud", "delete", "east/gold"]), expected(4, "LB4006"));
    controller.ask(&["cloud", "delete", "east/gold", "--yes"]);
    let renamed = controller.ask(&["site", "update", "east", "--name", "orient"]);
    assert_eq!(
        (renamed["id"].clone(), renamed["description"].clone()),
        (east["id"].clone(), json!("here"))
    );
    controller.ask(&["site", "delete", "orient", "--yes"]);
    let left: Vec<Value> = controller.ask(&["site", "list"])["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["name"].clone())
        .collect();
    assert_eq!(left, [json!("edge"), json!("west")]);
    let audit = controller.ask(&["audit", "list"]).to_string();
    for deed in ["site create", "site update", "site delete", "cloud create", "cloud delete"] {
        assert!(audit.contains(deed), "{deed} is not in {audit}");
    }
    controller.stop();
}

#[test]
fn a_role_may_do_what_it_includes_and_a_withdrawn_token_nothing() {
    let controller = Controller::start();
    controller.ask(&["site", "create", "east"]);
    let as_holder = |token: &str, arguments: &[&str]| {
        controller
            .command()
            .env("LIFEBOAT_TOKEN", token)
            .arg("--json")
            .args(arguments)
            .output()
            .unwrap()
    };
    for role in ["reader", "drill-operator", "operator"] {
        let made = controller.ask(&["token", "create", role, "--role", role]);
        let token = made["text"].as_str().unwrap();
        assert!(as_holder(token, &["site", "list"]).status.success());
        for forbidden in [
            &["site", "create", "mine"][..],
            &["token", "list"],
            &["token", "enrolment", "--site", "east"],
            &["audit", "list"],
        ] {
            assert_eq!(
                failed(&as_holder(token, forbidden)),
                expected(5, "LB4002"),
                "{forbidden:?}"
            );
        }
    }
    let made = controller.ask(&["token", "create", "brief", "--role", "reader"]);
    let token = made["text"].as_str().unwrap();
    assert_eq!(controller.refused(&["token", "create", "brief"]), expected(4, "LB4005"));
    controller.ask(&["token", "withdraw", "brief"]);
    assert_eq!(failed(&as_holder(token, &["site", "list"])), expected(5, "LB4001"));
    assert_eq!(controller.refused(&["token", "withdraw", "brief"]), expected(3, "LB4003"));
    assert_eq!(failed(&as_holder("lba.no.token", &["site", "list"])), expected(5, "LB4001"));
    // Health is for anybody.
    assert!(as_holder("lba.no.token", &["health"]).status.success());
    assert!(!controller.ask(&["token", "list"]).to_string().contains("lba."));
}

#[test]
fn what_cannot_start_says_why_and_leaves_nothing_half_made() {
    let root = tempfile::tempdir().unwrap();
    let ends = |more: &[&str]| {
        let more = [&["--json"], more].concat();
        let output = start(root.path(), &more).expect_err("it must not start");
        assert!(!root.path().join("data").exists(), "{more:?} made a data folder");
        failed(&output)
    };
    let config = root.path().join("controller.toml");
    let config_path = config.to_str().unwrap();
    assert_eq!(ends(&["--config", config_path]), expected(7, "LB1001"));
    fs::write(&config, "data_foldr = '/tmp'").unwrap();
    assert_eq!(ends(&["--config", config_path]), expected(7, "LB1002"));
    fs::write(&config, "certificate_life = 'soon'").unwrap();
    assert_eq!(ends(&["--config", config_path]), expected(7, "LB1002"));
    assert_eq!(ends(&["--certificate-life", "1s"]), expected(7, "LB1002"));

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let run = |arguments: &[&str]| {
        let base = ["--json", "controller", "run"];
        Command::new(LIFEBOAT).args(base).args(arguments).output().unwrap()
    };
    let keep_port = TcpListener::bind(&busy);
    let data = root.path().join("data");
    let data = data.to_str().unwrap();
    let on_busy_port = match keep_port {
        Ok(held) => {
            let output = run(&["--data-folder", data, "--api-address", &busy]);
            drop(held);
            output
        }
        Err(_) => run(&["--data-folder", data, "--api-address", &busy]),
    };
    assert_eq!(failed(&on_busy_port), expected(7, "LB1003"));
    assert!(!Path::new(data).exists());

    let (api, agents) = (free_address(), free_address());
    let addresses = ["--api-address", &api, "--agent-address", &agents];
    let unwritable = run(&[&["--data-folder", "/dev/null/data"], &addresses[..]].concat());
    assert_eq!(failed(&unwritable), expected(7, "LB1004"));
    let elsewhere = run(&["--data-folder", data, "--api-address", "192.0.2.1:7442"]);
    assert_eq!(failed(&elsewhere), expected(7, "LB1003"));

    let unknown_variable = Command::new(LIFEBOAT)
        .args(["--json", "controller", "check-config"])
        .env("LIFEBOAT_CONTROLLER_DATAFOLDER", "/tmp")
        .output()
        .unwrap();
    assert_eq!(failed(&unknown_variable), expected(7, "LB1002"));
}

#[test]
fn two_controllers_never_work_on_the_same_data_and_a_killed_one_leaves_it_free() {
    let mut controller = Controller::start();
    controller.ask(&["site", "create", "east"]);
    let second = start(controller.folder.path(), &["--json"]).expect_err("it must not start");
    assert_eq!(failed(&second), expected(7, "LB1005"));
    controller.process.kill().unwrap();
    controller.process.wait().unwrap();
    let gone = controller.run(&["--json", "site", "list"]);
    assert_eq!(failed(&gone), expected(6, "LB4009"));

    // SIGKILL loses nothing that was answered.
    let (process, api) = start(controller.folder.path(), &[]).expect("it starts again");
    controller.process = process;
    let url = format!("https://{api}");
    let east = controller.ask(&["--url", &url, "site", "show", "east"]);
    assert_eq!(east["name"], "east");
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("controller.toml");
    fs::write(
        &config,
        "api_address = '127.0.0.1:1'\nagent_address = '127.0.0.1:2'\npublic_names = ['file']",
    )
    .unwrap();
    let output = Command::new(LIFEBOAT)
        .args(["controller", "check-config", "--config"])
        .arg(&config)
        .args(["--agent-address", "127.0.0.1:4"])
        .env("LIFEBOAT_CONTROLLER_API_ADDRESS", "127.0.0.1:3")
        .env("LIFEBOAT_CONTROLLER_AGENT_ADDRESS", "127.0.0.1:3")
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&shown["api_address"], &shown["agent_address"], &shown["public_names"]),
        (&json!("127.0.0.1:3"), &json!("127.0.0.1:4"), &json!(["file"]))
    );
}

#[test]
fn an_agent_that_cannot_run_says_why_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("agent");
    let agent = |arguments: &[&str]| {
        Command::new(LIFEBOAT)
            .args(["--json", "agent"])
            .args(arguments)
            .arg("--state-folder")
            .arg(&state)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert_eq!(failed(&agent(&["run"])), expected(4, "LB3011"));
    assert_eq!(failed(&agent(&["enrol"])), expected(4, "LB4006"), "no controller is named");
    let named = ["enrol", "--controller", "127.0.0.1:1"];
    assert_eq!(failed(&agent(&named)), expected(4, "LB3001"), "no token is given");
    let token = root.path().join("token");
    let part = |letter: &str, length| letter.repeat(length);
    fs::write(&token, format!("lbe.{}.{}.{}", part("A", 22), part("A", 43), part("A", 43)))
        .unwrap();
    let token = token.to_str().unwrap();
    let uri = ["--hypervisor", "nonsense:///system", "--token-file", token];
    assert_eq!(failed(&agent(&[&named[..], &uri[..]].concat())), expected(7, "LB2001"));
    assert!(!state.exists());
    let status = agent(&["status"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["running"], false);
}

#[test]
fn errors_are_explained_and_shells_are_completed() {
    let run = |arguments: &[&str]| Command::new(LIFEBOAT).args(arguments).output().unwrap();
    let explained = run(&["explain", "lb3002"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("## What to do"));
    assert_eq!(failed(&run(&["--json", "explain", "LB0000"])), expected(3, "LB4003"));
    for shell in ["bash", "zsh", "fish"] {
        let completion = run(&["completion", shell]);
        assert!(String::from_utf8_lossy(&completion.stdout).contains("lifeboat"), "{shell}");
    }
    assert_eq!(run(&["no-such-noun"]).status.code(), Some(2));
}

/// Needs root, for a file system that can be filled without harm.
#[test]
fn a_full_disk_stops_changes_with_a_clear_error_and_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        eprintln!("SKIPPED a full disk: it needs root, to mount a small file system");
        return;
    }
    let small = SmallDisk::mount();
    let (process, api) = start(small.path(), &[]).expect("the controller starts");
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller { folder, process, api };
    let data = small.path().join("data");
    let saved = controller.run(&[
        "controller",
        "admin-token",
        "--save",
        "--api-address",
        &controller.api,
        "--data-folder",
        data.to_str().unwrap(),
    ]);
    assert!(saved.status.success(), "{saved:?}");
    controller.ask(&["site", "create", "before"]);

    let filler = small.path().join("filler");
    // Fails when the disk is full, which is what it is for.
    let _ = fs::write(&filler, vec![1; 4 << 20]);
    let mut made = Vec::new();
    let refused = (0..100).find_map(|number| {
        let name = format!("site{number}");
        let output = controller.run(&["--json", "site", "create", &name]);
        if output.status.success() {
            made.push(name);
            return None;
        }
        Some(failed(&output))
    });
    assert_eq!(refused, Some(expected(1, "LB1006")));
    // Looking goes on, and all that was answered is there.
    let sites = controller.ask(&["site", "list"]).to_string();
    assert!(made.iter().chain([&"before".to_owned()]).all(|name| sites.contains(name)), "{sites}");

    fs::remove_file(&filler).unwrap();
    controller.ask(&["site", "create", "after"]);
    controller.stop();
}

/// A file system of one MiB; gone with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, folder.path(), Some("tmpfs"), flags, Some("size=1m")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
