//! Two sites with an agent each: what the controller shows is what is there,
//! again within ten seconds after whatever went wrong has ended.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::host::{Hypervisor, ReachabilityState};
use api::machine::{GuestAgent, Machine, PowerState, Protectability};
use lab::product::{Agent, Controller};
use lab::{East, Format, Lab, Network, Size as _, guest, wait_for};

/// The promise: right again within this, once the cause has ended.
const SOON: Duration = Duration::from_secs(10);
/// Until a host that fell silent is shown as such.
const NOTICED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_inventory_is_what_is_there() -> Result<()> {
    let story = "the inventory is what is there";
    if lab::skipped(story) {
        return Ok(());
    }
    let lab = Lab::start(story).await?;
    let mut controller = Controller::start(&lab).await?;
    controller.create_sites().await?;
    controller.say(&["cloud", "create", "gold", "--site", "east"]).await?;

    // One machine is there before its agent, one comes after.
    let web = guest("web").disk(64.mib()).disk_as(32.mib(), Format::Raw).workload(20);
    let web = lab.east().boot(web).await?;
    let mut east = Agent::enrolled(lab.east(), &controller, &["--cloud", "gold"]).await?;
    let mut west = Agent::enrolled(lab.west(), &controller, &[]).await?;
    let db = lab.west().boot(guest("db").disk(64.mib()).workload(20)).await?;

    everything_is_seen(&lab, &controller).await?;
    changes_are_seen_by_themselves(&lab, &controller).await?;
    the_controller_dies(&mut controller).await?;
    an_agent_dies(&lab, &controller, &mut east).await?;
    libvirtd_dies(&lab, &controller).await?;
    the_wan_is_cut_for_a_while(&lab, &controller).await?;
    a_site_loses_its_power(&lab, &controller, &mut east).await?;
    agents_need_no_root(&lab, &controller, &mut west).await?;

    for guest in [&web, &db] {
        guest.start().await.ok();
        let report = guest.check().await?;
        ensure!(report.is_clean(), "{report}");
    }
    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// What is shown, shortened to what the stories change.
fn shape(machines: &[Machine]) -> Vec<String> {
    machines
        .iter()
        .map(|machine| {
            let known = if machine.current { "" } else { ", as last known" };
            format!("{} at {}: {}{known}", machine.name, machine.host.name, machine.power)
        })
        .collect()
}

async fn shows(controller: &Controller<'_>, expected: &[&str], limit: Duration) -> Result<()> {
    let mut last = Vec::new();
    let shown = wait_for("show the machines", limit, async || {
        last = shape(&controller.machines().await?);
        Ok((last == expected).then_some(()))
    })
    .await;
    shown.with_context(|| format!("expected {expected:?}, last seen {last:?}"))
}

async fn host_is(
    controller: &Controller<'_>,
    name: &str,
    state: ReachabilityState,
    limit: Duration,
) -> Result<()> {
    wait_for(&format!("see host {name} {state:?}"), limit, async || {
        Ok((controller.host(name).await?.reachability.state == state).then_some(()))
    })
    .await
}

async fn everything_is_seen(lab: &Lab, controller: &Controller<'_>) -> Result<()> {
    shows(controller, &["db at west: running", "web at east: running"], SOON).await?;
    let web = wait_for("hear of the guest agent", SOON, async || {
        let web: Machine = controller.ask(&["machine", "show", "web"]).await?;
        Ok((web.guest_agent == GuestAgent::Connected).then_some(web))
    })
    .await?;
    let uuid = lab.east().virsh(&["domuuid", "web"]).await?;
    assert_eq!(web.uuid.to_string(), uuid.trim());
    let disks: Vec<_> = web
        .disks
        .iter()
        .map(|disk| (disk.format.as_str(), disk.bus.as_str(), disk.capacity_bytes))
        .collect();
    assert_eq!(disks, [("qcow2", "virtio", Some(64.mib())), ("raw", "virtio", Some(32.mib()))]);
    for disk in &web.disks {
        assert!(lab.east().outside(&disk.source).exists(), "{}", disk.source);
        assert!(disk.allocation_bytes.is_some_and(|bytes| bytes > 0), "{disk:?}");
    }
    let interfaces = lab.east().virsh(&["domiflist", "web"]).await?;
    assert_eq!(web.nics.len(), 1);
    assert!(interfaces.contains(&web.nics[0].mac), "{interfaces}");
    assert_eq!(web.nics[0].network, "default");
    match &web.protectability {
        Protectability::Protectable { capture, remarks } => {
            assert_eq!(capture.as_str(), "scan", "one disk is raw");
            assert_eq!(remarks.len(), 1, "{remarks:?}");
        }
        blocked @ Protectability::Blocked { .. } => panic!("{blocked:?}"),
    }

    let networks = controller.networks().await?;
    let east = networks.iter().find(|network| network.site.name == "east").context("a network")?;
    assert_eq!(east.subnets[0].cidr, "10.86.10.0/24");
    assert_eq!(east.subnets[0].dhcp[0].first, "10.86.10.100");
    assert!(east.active && east.current);
    let pools = controller.say(&["pool", "list"]).await?;
    assert_eq!(pools.matches("default").count(), 2, "{pools}");

    let host = controller.host("east").await?;
    assert_eq!(host.cloud.map(|cloud| cloud.name).as_deref(), Some("gold"));
    let facts = host.facts.context("the facts of the host")?;
    assert_eq!(facts.hostname, "east");
    let version = lab.east().virsh(&["version"]).await?;
    assert!(version.contains(&facts.libvirt) && version.contains(&facts.qemu), "{version}");
    assert_ne!(
        facts.hypervisor_uuid,
        controller.host("west").await?.facts.and_then(|f| f.hypervisor_uuid)
    );

    let metrics = metrics(controller).await?;
    for line in [
        r#"lifeboat_hosts{site="east",state="connected"} 1"#,
        r#"lifeboat_machines{site="west"} 1"#,
        "lifeboat_agents_connected 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    Ok(())
}

/// What a Prometheus server would be given.
async fn metrics(controller: &Controller<'_>) -> Result<String> {
    let token = controller.say(&["token", "create", "prometheus", "--role", "reader"]).await?;
    let script = format!(
        "curl --silent --show-error --fail --cacert /var/lib/lifeboat/controller/authority.pem \
         --header 'Authorization: Bearer {}' https://127.0.0.1:7442/api/v1/metrics",
        token.trim()
    );
    lab::run(controller.place().command("sh").args(["-c", &script]), "fetch the metrics").await
}

async fn changes_are_seen_by_themselves(lab: &Lab, controller: &Controller<'_>) -> Result<()> {
    lab.east().guest("web").shutdown().await?;
    shows(controller, &["db at west: running", "web at east: off"], SOON).await?;
    lab.east().guest("web").start().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await?;

    lab.west().define(guest("spare").disk(16.mib())).await?;
    let three = ["db at west: running", "spare at west: off", "web at east: running"];
    shows(controller, &three, SOON).await?;
    lab.west().guest("spare").remove().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await?;

    lab.west().add_network(&Network::isolated("drill", [10, 86, 30, 1].into())).await?;
    let drill = wait_for("see the new network", SOON, async || {
        let networks = controller.networks().await?;
        Ok(networks.into_iter().find(|network| network.name == "drill"))
    })
    .await?;
    assert_eq!((drill.reach.as_str(), drill.host.name.as_str()), ("isolated", "west"));

    // Neither our doing nor an event of the machine's: a disk is given away.
    lab.west().virsh(&["autostart", "db"]).await?;
    wait_for("see autostart", Duration::from_secs(40), async || {
        let db: Machine = controller.ask(&["machine", "show", "db"]).await?;
        Ok(db.autostart.then_some(()))
    })
    .await
}

async fn the_controller_dies(controller: &mut Controller<'_>) -> Result<()> {
    let before = shape(&controller.machines().await?);
    controller.kill().await?;
    let gone = controller.cli(&["--json", "machine", "list"]).await?;
    assert_eq!((gone.code, gone.problem()?.code.as_str()), (6, "LB4009"));
    controller.power_on().await?;
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    shows(controller, &before, SOON).await?;
    for host in ["east", "west"] {
        host_is(controller, host, ReachabilityState::Connected, SOON).await?;
    }
    Ok(())
}

async fn an_agent_dies(lab: &Lab, controller: &Controller<'_>, east: &mut Agent) -> Result<()> {
    east.kill().await?;
    host_is(controller, "east", ReachabilityState::NotReachable, NOTICED).await?;
    let hosts = controller.say(&["host", "list"]).await?;
    assert!(hosts.contains("not reachable since"), "{hosts}");
    shows(controller, &["db at west: running", "web at east: running, as last known"], SOON)
        .await?;
    // What happens in the meantime is not seen, and is not lost either.
    lab.east().define(guest("later").disk(16.mib())).await?;
    lab.east().guest("web").cut_power().await?;
    east.start().await?;
    let three = ["db at west: running", "later at east: off", "web at east: off"];
    shows(controller, &three, SOON).await?;
    lab.east().guest("later").remove().await?;
    lab.east().guest("web").start().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await
}

async fn libvirtd_dies(lab: &Lab, controller: &Controller<'_>) -> Result<()> {
    let web = lab.east().guest("web");
    web.acknowledges(1).await?;
    lab.east().kill_libvirtd().await?;
    wait_for("see that the hypervisor does not answer", NOTICED, async || {
        let lost = controller.host("east").await?.hypervisor;
        Ok(matches!(lost, Hypervisor::NotAnswering { .. }).then_some(()))
    })
    .await?;
    host_is(controller, "east", ReachabilityState::Connected, SOON).await?;
    shows(controller, &["db at west: running", "web at east: running, as last known"], SOON)
        .await?;
    web.acknowledges(5).await?;
    lab.east().start_libvirtd().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await
}

async fn the_wan_is_cut_for_a_while(lab: &Lab, controller: &Controller<'_>) -> Result<()> {
    lab.wan().cut(East).await?;
    host_is(controller, "east", ReachabilityState::NotReachable, NOTICED).await?;
    lab.east().guest("web").shutdown().await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    shows(controller, &["db at west: running", "web at east: running, as last known"], SOON)
        .await?;
    lab.wan().restore(East).await?;
    shows(controller, &["db at west: running", "web at east: off"], SOON).await?;
    lab.east().guest("web").start().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await
}

async fn a_site_loses_its_power(
    lab: &Lab,
    controller: &Controller<'_>,
    east: &mut Agent,
) -> Result<()> {
    lab.east().cut_power().await?;
    host_is(controller, "east", ReachabilityState::NotReachable, NOTICED).await?;
    shows(controller, &["db at west: running", "web at east: running, as last known"], SOON)
        .await?;
    lab.east().power_on().await?;
    east.start().await?;
    shows(controller, &["db at west: running", "web at east: off"], SOON).await?;
    lab.east().guest("web").start().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await?;
    let web: Machine = controller.ask(&["machine", "show", "web"]).await?;
    assert_eq!(web.power, PowerState::Running);
    Ok(())
}

/// As the unit file runs it: a user of its own in the group libvirt.
async fn agents_need_no_root(
    lab: &Lab,
    controller: &Controller<'_>,
    west: &mut Agent,
) -> Result<()> {
    const NOBODY: &str = "65534";
    west.stop().await?;
    host_is(controller, "west", ReachabilityState::NotReachable, NOTICED).await?;
    let group =
        lab::run(lab.west().command("getent").args(["group", "libvirt"]), "find a group").await?;
    let group = group.split(':').nth(2).context("the group's number")?.to_owned();
    let folder = west.state_folder();
    lab::run(
        tokio::process::Command::new("chown")
            .arg("-R")
            .arg(format!("{NOBODY}:{NOBODY}"))
            .arg(&folder),
        "give the state folder to the agent's user",
    )
    .await?;
    let user = [
        "setpriv",
        &format!("--reuid={NOBODY}"),
        &format!("--regid={NOBODY}"),
        &format!("--groups={group}"),
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    west.start_as(&user, &[]).await?;
    host_is(controller, "west", ReachabilityState::Connected, SOON).await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await?;
    lab.west().guest("db").shutdown().await?;
    shows(controller, &["db at west: off", "web at east: running"], SOON).await?;
    lab.west().guest("db").start().await?;
    shows(controller, &["db at west: running", "web at east: running"], SOON).await
}
