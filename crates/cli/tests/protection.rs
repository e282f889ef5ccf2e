//! Protection through the product's own binary: a controller on loopback,
//! stand-ins for its agents, and `lifeboat` as operators use it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::message::Refused;
use wire::replication::{
    Duties, KeepingReport, Phase, PointMark, Replication, ShippingReport, Totals, Trouble,
    VerifiedDisk, VerifyReport,
};

mod stand_in;
use stand_in::{Identity, StandIn, enrol, machine, until};

const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A controller with two sites; ends with the value.
struct Stage {
    folder: TempDir,
    process: Child,
    api: String,
    agents: String,
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn start(folder: &TempDir, api: &str, agents: &str) -> Child {
    let mut process = Command::new(LIFEBOAT)
        .args(["controller", "run", "--data-folder"])
        .arg(folder.path().join("data"))
        .args(["--api-address", api, "--agent-address", agents])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("the controller is ready") {
        assert!(log.read_line(&mut seen).unwrap() > 0, "it does not start: {seen}");
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    process
}

impl Stage {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (api, agents) = (free_address(), free_address());
        let process = start(&folder, &api, &agents);
        let stage = Self { folder, process, api, agents };
        let data = stage.folder.path().join("data");
        let saved = stage.run(&[
            "controller",
            "admin-token",
            "--save",
            "--api-address",
            &stage.api,
            "--data-folder",
            data.to_str().unwrap(),
        ]);
        assert!(saved.status.success(), "{saved:?}");
        for site in ["east", "west"] {
            stage.ask(&["site", "create", site]);
        }
        stage
    }

    fn kill_and_start(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = start(&self.folder, &self.api, &self.agents);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(LIFEBOAT);
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Exit code, error code and cause of a command that must fail.
    fn refused(&self, arguments: &[&str]) -> (i32, String, String) {
        failed(&self.run(&[&["--json"], arguments].concat()))
    }

    fn host(
        &self,
        site: &str,
        name: &str,
        machines: Vec<wire::inventory::Machine>,
        peer: Option<&str>,
    ) -> Identity {
        let token = self.ask(&["token", "enrolment", "--site", site]);
        enrol(&self.agents, token["text"].as_str().unwrap(), name, machines, peer)
    }

    /// Two hosts that are connected; the first has the machines `web` and `db`.
    fn hosts(&self) -> (Identity, Identity) {
        let machines = vec![
            machine(1, "web", &[("vda", "qcow2"), ("vdb", "raw")]),
            machine(2, "db", &[("vda", "qcow2")]),
        ];
        let east = self.host("east", "kvm1", machines, Some(":7001"));
        let west =
            self.host("west", "kvm2", vec![machine(3, "db", &[])], Some("kvm2.example:7444"));
        (east, west)
    }

    fn sees(&self, machine: &str) {
        until("the inventory", || {
            self.run(&["machine", "show", machine]).status.success().then_some(())
        });
    }

    /// The metrics, as Prometheus fetches them.
    fn metrics(&self) -> String {
        let token = self.ask(&["token", "create", "prometheus", "--role", "reader"]);
        let authority = std::fs::read(self.folder.path().join("data/authority.pem")).unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let authority = reqwest::Certificate::from_pem(&authority).unwrap();
            let client =
                reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap();
            let url = format!("https://{}/api/v1/metrics", self.api);
            let answer = client.get(url).bearer_auth(token["text"].as_str().unwrap()).send().await;
            answer.unwrap().text().await.unwrap()
        })
    }

    fn shows(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.ask(&["protected", "show", "web"])).filter(&wanted))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failed(output: &Output) -> (i32, String, String) {
    assert!(!output.status.success(), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    let problem: Value = serde_json::from_str(error.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {error}"));
    let text = |part: &str| problem[part].as_str().unwrap().to_owned();
    (output.status.code().unwrap(), text("code"), text("cause"))
}

fn point(number: u32, age: i64) -> PointMark {
    PointMark {
        point: number,
        instant: OffsetDateTime::now_utc() - Duration::seconds(age),
        app_consistent: false,
        stored_bytes: 4096,
        hold: None,
    }
}

/// What a source tells of its only duty.
fn shipping(duties: &Duties, newest: Option<PointMark>) -> ShippingReport {
    ShippingReport {
        protection: duties.shipping[0].protection,
        phase: if newest.is_some() { Phase::Steady } else { Phase::Initial },
        trouble: None,
        remarks: vec![],
        newest,
        progress: None,
        rpo_worst_ms: Some(60_000),
        rpo_p99_ms: Some(31_000),
        totals: Totals { read: 3, sent: 2, points: 1 },
        last_cycle: None,
        resynchronised: None,
        verified: None,
    }
}

fn from_source(report: ShippingReport) -> Replication {
    Replication { shipping: vec![report], keeping: vec![] }
}

fn from_target(duties: &Duties, points: Vec<PointMark>) -> Replication {
    let report = KeepingReport {
        protection: duties.keeping[0].protection,
        folder: "/store/web".into(),
        count: points.len() as u64,
        points,
        used_bytes: 1 << 20,
        free_bytes: 100 << 30,
        trouble: None,
        import: None,
    };
    Replication { shipping: vec![], keeping: vec![report] }
}

/// Protects `web`, and has both sides tell of a first point.
fn protected(stage: &Stage, east: &StandIn, west: &StandIn) -> (Duties, Duties) {
    stage.sees("kvm1/web");
    // The site has one host.
    stage.ask(&["protect", "web", "--to", "west", "--exclude-disk", "vdb"]);
    let source = east.duties_until("the source's duties", |duties| !duties.shipping.is_empty());
    let target = west.duties_until("the target's duties", |duties| !duties.keeping.is_empty());
    east.tell(from_source(shipping(&source, Some(point(1, 1)))));
    west.tell(from_target(&target, vec![point(1, 1)]));
    stage.shows("the first point", |shown| {
        shown["kept"]["points"] == 1 && shown["totals"]["sent_bytes"] == 2
    });
    (source, target)
}

#[test]
fn policies_are_made_changed_and_refused_with_every_reason() {
    let stage = Stage::start();
    assert_eq!(stage.ask(&["policy", "show", "default"])["every_seconds"], 30);
    let gold = stage.ask(&[
        "policy",
        "create",
        "gold",
        "--every",
        "5s",
        "--keep-all",
        "2h",
        "--then-keep",
        "1h:1d",
        "--app-consistent",
        "1h",
        "--compression",
        "strong",
        "--bandwidth",
        "10M",
    ]);
    assert_eq!(
        (&gold["retention"], &gold["bytes_per_second"], &gold["app_consistent_seconds"]),
        (
            &json!({ "all_hours": 2, "tiers": [{ "slot_hours": 1, "hours": 24 }], "app_extra_hours": 24 }),
            &json!(10 << 20),
            &json!(3600)
        )
    );
    let changed = stage.ask(&["policy", "change", "gold", "--bandwidth", "0", "--name", "silver"]);
    assert_eq!(
        (&changed["bytes_per_second"], &changed["every_seconds"]),
        (&Value::Null, &json!(5))
    );
    let hours = stage.ask(&[
        "policy",
        "change",
        "silver",
        "--bandwidth-in",
        "Mon-Fri 8:00-18:00=2M",
        "--resynchronise-in",
        "daily 22:00-06:00",
    ]);
    assert_eq!(
        (&hours["calendar"], &hours["resynchronise_in"]),
        (
            &json!([{ "window": "mon-fri 08:00-18:00", "bytes_per_second": 2 << 20 }]),
            &json!(["daily 22:00-06:00"])
        )
    );
    let text = stage.run(&["policy", "show", "silver"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("mon-fri 08:00-18:00: 2.0 MiB/s"), "{text}");
    let always = ["policy", "change", "silver", "--no-calendar", "--resynchronise-at-once"];
    assert_eq!(stage.ask(&always)["resynchronise_in"], json!([]));
    let (exit, code, cause) =
        stage.refused(&["policy", "create", "odd", "--every", "1s", "--freeze-limit", "5m"]);
    assert_eq!((exit, code.as_str()), (4, "LB6002"));
    assert!(cause.contains("every 1 s") && cause.contains("freeze limit of 5 min"), "{cause}");
    assert_eq!(stage.refused(&["policy", "create", "silver"]).1, "LB4005");
    assert_eq!(stage.refused(&["policy", "show", "gold"]).1, "LB4003");
    stage.ask(&["policy", "delete", "silver", "--yes"]);
    let audit = stage.ask(&["audit", "list"]).to_string();
    for deed in ["policy create", "policy change", "policy delete"] {
        assert!(audit.contains(deed), "{deed} is not in {audit}");
    }
}

#[test]
fn everything_that_stands_in_the_way_is_told_before_anything_is_made() {
    let stage = Stage::start();
    let (east, _west) = stage.hosts();
    let deaf = stage.host("west", "deaf", vec![machine(1, "web-old", &[])], None);
    let _east = east.connect();
    let _deaf = deaf.connect();
    stage.sees("kvm1/web");
    stage.sees("deaf/web-old");

    let check = |arguments: &[&str]| {
        let all = [&["--json", "protect"], arguments, &["--check"]].concat();
        let found: Value = serde_json::from_slice(&stage.run(&all).stdout).unwrap();
        let told = |kind: &str| -> Vec<String> {
            let all = found[kind].as_array().unwrap().iter();
            all.map(|one| {
                assert!(!one["advice"].as_str().unwrap().is_empty());
                one["reason"].as_str().unwrap().to_owned()
            })
            .collect()
        };
        (found["possible"].as_bool().unwrap(), told("obstacles"), told("remarks"))
    };
    let (possible, obstacles, _) =
        check(&["kvm1/web", "--to", "deaf", "--policy", "none", "--exclude-disk", "vdz"]);
    assert!(!possible);
    assert_eq!(
        obstacles,
        [
            "there is no policy none",
            "it has no disk vdz to exclude",
            "the agent of deaf has not told where other agents reach it",
            "deaf has a machine with the same UUID: web-old"
        ]
    );
    let (_, obstacles, _) = check(&["kvm1/web", "--to", "kvm2"]);
    assert_eq!(obstacles, ["the agent of kvm2 never connected"]);
    let (_, obstacles, _) = check(&["kvm1/web", "--to", "kvm1"]);
    assert_eq!(obstacles, ["it runs on kvm1 itself"]);
    let (_, obstacles, _) = check(&["nobody", "--to", "nowhere"]);
    assert_eq!(obstacles, ["there is no machine nobody", "there is no host nowhere"]);
    let (possible, ..) = check(&["kvm1/web", "--to", "west"]);
    assert!(!possible, "no host of that site can take points");
    // By UUID it is at two hosts.
    let (_, obstacles, _) = check(&[&Uuid::from_u128(1).to_string(), "--to", "deaf"]);
    assert!(obstacles[0].contains("east/kvm1/web, west/deaf/web-old"), "{obstacles:?}");

    let _west = _west.connect();
    let (possible, _, remarks) =
        until("the target", || Some(check(&["kvm1/web", "--to", "kvm2"])).filter(|found| found.0));
    assert!(possible);
    assert!(
        remarks[0].starts_with("disk vdb is raw") && remarks[1].contains("room"),
        "{remarks:?}"
    );
    let (possible, ..) = check(&["kvm1/web", "--to", "west"]);
    assert!(possible, "of the site, the host that can take points is taken");
    assert_eq!(stage.refused(&["protect", "web", "--to", "kvm1"]).0, 4,);
    assert_eq!(stage.refused(&["protect", "web", "--to", "kvm1"]).1, "LB6001");
    assert_eq!(stage.ask(&["protected", "list"])["items"], json!([]), "nothing was made");

    // A reader looks, and changes nothing.
    let reader = stage.ask(&["token", "create", "eye", "--role", "reader"]);
    let as_reader = |arguments: &[&str]| {
        let token = reader["text"].as_str().unwrap();
        stage.command().env("LIFEBOAT_TOKEN", token).arg("--json").args(arguments).output().unwrap()
    };
    assert!(as_reader(&["protected", "list"]).status.success());
    assert_eq!(failed(&as_reader(&["protect", "web", "--to", "kvm2"])).1, "LB4002");
    assert_eq!(failed(&as_reader(&["policy", "create", "mine"])).1, "LB4002");
}

#[test]
fn duties_reach_both_sides_and_reports_become_health_and_survive_a_kill() {
    let mut stage = Stage::start();
    let (east_host, west_host) = stage.hosts();
    let (east, west) = (east_host.connect(), west_host.connect());
    let (source, target) = protected(&stage, &east, &west);

    let duty = &source.shipping[0];
    assert_eq!(
        (duty.name.as_str(), duty.target_address.as_deref(), duty.excluded_disks.as_slice()),
        ("web", Some("kvm2.example:7444"), &["vdb".to_owned()][..])
    );
    assert_eq!((target.keeping[0].generation, source.keeping.len()), (duty.generation, 0));
    let shown = stage.ask(&["protected", "show", "web"]);
    assert_eq!(
        (&shown["state"], &shown["replication"]["state"], &shown["health"]["level"]),
        (&json!("protected"), &json!("steady"), &json!("normal")),
        "{shown}"
    );
    assert!(shown["rpo"]["worst_24h_ms"].is_u64() && shown["rpo"]["measured_minutes"] != 0);
    assert_eq!(stage.ask(&["point", "list", "web"])["items"][0]["point"], 1);
    let metrics = stage.metrics();
    let labels = "{machine=\"web\",source=\"east/kvm1\",target=\"west/kvm2\"}";
    for line in ["health{} 0\n", "points{} 1\n", "sent_bytes{} 2\n", "rpo_seconds{} "] {
        let line = format!("lifeboat_protection_{}", line.replace("{}", labels));
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    assert_eq!(
        stage.refused(&["protect", "web", "--to", "kvm2"]).2,
        "the machine is protected already"
    );

    // Trouble is critical, with the agent's own words.
    let mut report = shipping(&source, Some(point(1, 400)));
    let fault = Refused {
        code: "LB6050".into(),
        doing: "ship machine web".into(),
        cause: "the wire is cut".into(),
        advice: "Mend the wire.".into(),
    };
    report.trouble = Some(Trouble { fault, since: OffsetDateTime::now_utc() });
    east.tell(from_source(report));
    let shown = stage.shows("trouble", |shown| shown["health"]["level"] == "critical");
    assert_eq!(shown["replication"]["code"], "LB6050");
    assert_eq!(shown["health"]["reasons"][0]["advice"], "Mend the wire.");
    assert!(stage.ask(&["host", "show", "kvm2"])["peer_address"] == "kvm2.example:7444");

    // What a host has no business to tell of changes nothing.
    let foreign = from_target(&target, vec![]);
    east.tell(foreign);

    // Intent, reports and points survive; agents are told again.
    drop((east, west));
    stage.kill_and_start();
    let shown = stage.ask(&["protected", "show", "web"]);
    assert_eq!(
        (&shown["kept"]["points"], &shown["replication"]["code"]),
        (&json!(1), &json!("LB6050"))
    );
    let east = east_host.connect();
    let again = east.duties_until("duties after the kill", |duties| !duties.shipping.is_empty());
    assert_eq!(again, source);
    east.tell(from_source(shipping(&again, Some(point(2, 1)))));
    stage.shows("recovery", |shown| shown["replication"]["state"] == "steady");
}

#[test]
fn wishes_are_sent_once_answered_once_and_refused_while_they_make_no_sense() {
    let stage = Stage::start();
    let (east, west) = stage.hosts();
    let (east, west) = (east.connect(), west.connect());
    let (source, _) = protected(&stage, &east, &west);

    stage.ask(&["policy", "create", "slow", "--every", "60s"]);
    stage.ask(&["protected", "change", "web", "--policy", "slow"]);
    east.duties_until("the policy", |duties| duties.shipping[0].policy.every_seconds == 60);
    stage.ask(&["policy", "change", "slow", "--every", "90s"]);
    east.duties_until("its change", |duties| duties.shipping[0].policy.every_seconds == 90);
    assert_eq!(stage.refused(&["policy", "delete", "slow", "--yes"]).1, "LB4007");

    stage.ask(&["protected", "pause", "web"]);
    east.duties_until("the pause", |duties| duties.shipping[0].paused);
    assert_eq!(stage.refused(&["protected", "pause", "web"]).1, "LB4008");
    assert_eq!(stage.refused(&["verify", "web"]).1, "LB4008");
    let shown = stage.ask(&["protected", "show", "web"]);
    assert_eq!(
        (&shown["replication"]["state"], &shown["health"]["level"]),
        (&json!("paused"), &json!("warning"))
    );
    stage.ask(&["protected", "resume", "web"]);
    east.duties_until("the resumption", |duties| !duties.shipping[0].paused);

    stage.ask(&["protected", "resynchronise", "web"]);
    let wish = east
        .duties_until("the wish", |duties| duties.shipping[0].resynchronise.is_some())
        .shipping[0]
        .resynchronise;
    assert_eq!(stage.refused(&["protected", "resynchronise", "web"]).1, "LB4008");
    let report = ShippingReport { resynchronised: wish, ..shipping(&source, Some(point(2, 1))) };
    east.tell(from_source(report));
    east.duties_until("its end", |duties| duties.shipping[0].resynchronise.is_none());

    // Verifications: asked for, waited for, kept, and judged by the exit code.
    let verify = |differing: Vec<(u64, u64)>| {
        let differs = !differing.is_empty();
        let waiting = stage
            .command()
            .args(["verify", "web"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let duties =
            east.duties_until("the wish to verify", |duties| duties.shipping[0].verify.is_some());
        let verified = VerifyReport {
            wish: duties.shipping[0].verify.unwrap(),
            point: Some(point(3, 1)),
            finished: OffsetDateTime::now_utc(),
            disks: vec![VerifiedDisk {
                disk: "vda".into(),
                bytes: 1 << 30,
                digest: "00ff".into(),
                differing,
            }],
            trouble: None,
        };
        let newest = Some(point(3, 1));
        east.tell(from_source(ShippingReport {
            verified: Some(verified),
            ..shipping(&source, newest)
        }));
        east.duties_until("its end", |duties| duties.shipping[0].verify.is_none());
        let ended = waiting.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(i32::from(differs)), "{ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    };
    let paper = verify(vec![]);
    for part in ["SAME", "00ff", "1073741824", "web", "kvm1", "kvm2"] {
        assert!(paper.contains(part), "{part} is not in {paper}");
    }
    assert_eq!(stage.ask(&["verify", "web", "--last"])["outcome"], "same");
    verify(vec![(65_536, 65_536)]);
    let last = stage.run(&["verify", "web", "--last"]);
    assert_eq!(last.status.code(), Some(1));
    let paper = String::from_utf8_lossy(&last.stdout);
    for part in ["DIFFERENT", "00ff", "65536", "admin", "kvm2"] {
        assert!(paper.contains(part), "{part} is not in {paper}");
    }
    assert!(String::from_utf8_lossy(&last.stderr).contains("LB6004"));
    stage.shows("the difference", |shown| shown["health"]["level"] == "critical");
    verify(vec![]);
    stage.shows("agreement", |shown| shown["health"]["level"] == "normal");

    let asked = stage.ask(&["verify", "web", "--no-wait"]);
    assert_eq!(asked["outcome"], "pending");
    assert_eq!(stage.refused(&["verify", "web"]).1, "LB4008", "one is under way");
}

#[test]
fn a_protection_ends_at_both_sides_or_by_force_and_says_what_stays() {
    let stage = Stage::start();
    let (east_host, west_host) = stage.hosts();
    let (east, west) = (east_host.connect(), west_host.connect());
    let (first, _) = protected(&stage, &east, &west);

    let disabled = stage.ask(&["protected", "disable", "web", "--yes"]);
    assert_eq!(disabled["finished"], false);
    assert!(disabled["left_behind"][0].as_str().unwrap().contains("/store/web"), "{disabled}");
    east.duties_until("the end", |duties| duties.shipping.is_empty());
    west.duties_until("the end", |duties| duties.keeping.is_empty());
    // Still told of by the source: not ended there.
    east.tell(from_source(shipping(&first, None)));
    west.tell(Replication::default());
    let shown = stage.ask(&["protected", "show", "web"]);
    assert_eq!(shown["state"], "disabling");
    assert_eq!(stage.refused(&["protected", "pause", "web"]).1, "LB4008");
    east.tell(Replication::default());
    until("the end of the protection", || {
        (stage.ask(&["protected", "list"])["items"] == json!([])).then_some(())
    });

    // At a time: both sides know, and nothing is wrong until then.
    stage.ask(&["protect", "web", "--to", "kvm2", "--at", "2100-01-01T00:00:00Z"]);
    let later = east.duties_until("a later duty", |duties| !duties.shipping.is_empty());
    assert!(later.shipping[0].not_before.is_some_and(|at| at.year() == 2100));
    assert_eq!(stage.ask(&["protected", "show", "web"])["state"], "enabling");
    stage.ask(&["protected", "disable", "web", "--force", "--yes"]);
    east.duties_until("its end", |duties| duties.shipping.is_empty());

    // Again: a writer of the former protection is overtaken.
    let (second, _) = protected(&stage, &east, &west);
    assert!(second.shipping[0].generation > first.shipping[0].generation);
    drop(west);
    until("the target to be gone", || {
        let host = stage.ask(&["host", "show", "kvm2"]);
        (host["reachability"]["state"] == "not-reachable").then_some(())
    });
    let (exit, code, cause) = stage.refused(&["protected", "disable", "web", "--yes"]);
    assert_eq!((exit, code.as_str()), (6, "LB6003"), "{cause}");
    assert_eq!(stage.refused(&["host", "remove", "kvm2", "--yes"]).1, "LB4007");
    let disabled = stage.ask(&["protected", "disable", "web", "--force", "--yes"]);
    assert_eq!(disabled["finished"], true);
    east.duties_until("the forced end", |duties| duties.shipping.is_empty());
    let west = west_host.connect();
    west.duties_until("nothing", |duties| duties.keeping.is_empty());
    assert_eq!(stage.refused(&["protected", "show", "web"]).1, "LB4003");
    let audit = stage.ask(&["audit", "list"]).to_string();
    for deed in ["protection create", "protection disable", "protection end"] {
        assert!(audit.contains(deed), "{deed} is not in {audit}");
    }
}
