//! A port made of two devices: DPDK's bonding, active-backup.
//!
//! ```text
//!   client br0 10.2.0.1 ─┬─ c0 ── ext0 ─┐
//!                        └─ c1 ── ext1 ─┴─ net_bonding0: port ext
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::time::{Duration, Instant};

use lab::{Echo, Gateway, Lab, pattern};

#[test]
fn a_bond_forwards_on_when_a_member_loses_its_link() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let (outside, place) = (lab.client(), lab.gateway());
    place.ip(&["addr", "flush", "dev", "ext0"]);
    let mut add = std::process::Command::new("ip");
    add.args(["link", "add", "c1", "netns", &outside.name()]);
    add.args([
        "type",
        "veth",
        "peer",
        "name",
        "ext1",
        "netns",
        &place.name(),
    ]);
    assert!(add.status().unwrap().success());
    outside.ip(&["addr", "flush", "dev", "c0"]);
    outside.ip(&["link", "add", "br0", "type", "bridge"]);
    for port in ["c0", "c1"] {
        outside.ip(&["link", "set", port, "master", "br0"]);
    }
    outside.interface("c1", &[]);
    place.interface("ext1", &[]);
    outside.interface("br0", &["10.2.0.1/24"]);
    outside.ip(&["route", "add", "10.0.0.100/32", "via", "10.2.0.11"]);
    let config = lab.usual().replace(
        "device = \"net_af_packet0,iface=ext0\"",
        "device = \"net_bonding0,mode=1\"\nmembers = [\"net_af_packet0,iface=ext0\", \"net_af_packet2,iface=ext1\"]",
    );
    let gateway = Gateway::start(&lab, &config);
    let links = |gateway: &Gateway| {
        let port = gateway.status()["ports"][0].clone();
        let members = port["members"].as_array().unwrap().clone();
        let members = members
            .iter()
            .map(|member| member["link_up"].as_bool().unwrap());
        (
            port["link_up"].as_bool().unwrap(),
            members.collect::<Vec<_>>(),
        )
    };
    gateway.wait("up", || links(&gateway) == (true, vec![true, true]));
    let mut echo = lab.client().run(|| Echo::connect(80).unwrap());
    echo.exchange(&pattern(100_000, 1));

    // Either may be the active one.
    for (down, up) in [("c0", "c1"), ("c1", "c0")] {
        outside.ip(&["link", "set", up, "up"]);
        gateway.wait("both up", || links(&gateway) == (true, vec![true, true]));
        echo.exchange(&pattern(20_000, 2));
        outside.ip(&["link", "set", down, "down"]);
        let began = Instant::now();
        echo.exchange(&pattern(100_000, 3));
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{down}: {:?}",
            began.elapsed()
        );
        lab.client()
            .run(|| Echo::connect(80).unwrap().exchange(b"a new one"));
        let (port, members) = links(&gateway);
        assert!(
            port && members.iter().filter(|up| !**up).count() == 1,
            "{members:?}"
        );
        assert_eq!(gateway.ready(), Ok(()));
    }
    let metrics = gateway.metrics();
    for series in [
        "weir_l4_port_member_link_up{port=\"ext\",member=\"net_af_packet0\"} 1",
        "weir_l4_port_member_link_up{port=\"ext\",member=\"net_af_packet2\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }

    outside.ip(&["link", "set", "c0", "down"]);
    gateway.wait("down", || gateway.status()["forwarding"] == false);
    assert!(
        gateway
            .ready()
            .unwrap_err()
            .contains("link of port ext is down")
    );
    outside.ip(&["link", "set", "c1", "up"]);
    gateway.wait("ready", || gateway.ready().is_ok());
    echo.exchange(&pattern(100_000, 4));
}

#[test]
fn mistakes_about_bonds_are_told() {
    let lab = Lab::new();
    let check = |device: &str| {
        let config = lab
            .usual()
            .replace("device = \"net_af_packet0,iface=ext0\"", device);
        let file = lab.directory.path().join("check.toml");
        std::fs::write(&file, config).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_l4-gateway"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{device}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (device, why) in [
        (
            "device = \"net_bonding0,mode=1\"",
            "ports[0].members: a bond has 2 to 8 members, got 0",
        ),
        (
            "device = \"net_bonding0,mode=4\"\nmembers = [\"net_tap0\", \"net_tap1\"]",
            "ports[0].device: of DPDK's bonding, active-backup is supported",
        ),
        (
            "device = \"net_bonding0,mode=1,slave=net_tap0\"\nmembers = [\"net_tap0\", \"net_tap1\"]",
            "ports[0].device: slave is set by the gateway itself",
        ),
        (
            "device = \"net_tap7\"\nmembers = [\"net_tap0\", \"net_tap1\"]",
            "ports[0].members: only a bond has members",
        ),
        (
            "device = \"net_bonding0,mode=1\"\nmembers = [\"net_tap0\", \"net_af_packet1\"]",
            "net_af_packet1",
        ),
    ] {
        let said = check(device);
        assert!(said.contains(why), "{device}: {said}");
    }
}
