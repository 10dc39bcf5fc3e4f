//! What happens to the kernel's interfaces below af_packet ports while the node runs, and how long the packets are that they take.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Echo, Gateway, Lab, pattern};

/// Within which an operator, and the routers, should hear that an interface is gone.
const SOON: Duration = Duration::from_secs(1);

/// The first port's link, its lost interfaces, and its members' links.
fn port(gateway: &Gateway) -> (bool, Vec<String>, Vec<bool>) {
    let port = gateway.status()["ports"][0].clone();
    let list = |key: &str| port[key].as_array().unwrap().clone();
    let lost = list("lost_interfaces");
    let lost = lost.iter().map(|name| name.as_str().unwrap().to_owned());
    let members = list("members");
    let members = members
        .iter()
        .map(|member| member["link_up"].as_bool().unwrap());
    (
        port["link_up"].as_bool().unwrap(),
        lost.collect(),
        members.collect(),
    )
}

fn talk(lab: &Lab) {
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(b"hello"));
}

/// Waits for the node to say that `ext0` is gone.
fn hears_of_the_loss(gateway: &Gateway) {
    let began = Instant::now();
    gateway.wait("not ready", || gateway.ready().is_err());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let why = gateway.ready().unwrap_err();
    assert!(
        why.contains("port ext") && why.contains("interface ext0 was deleted or moved"),
        "{why}"
    );
    assert_eq!(port(gateway), (false, vec!["ext0".into()], vec![]));
    assert_eq!(gateway.status()["forwarding"], false);
    assert_eq!(gateway.metric("weir_l4_port_link_up{port=\"ext\"}"), 0);
}

/// Waits for the node to leave as one that is to be started again.
fn ends_to_be_started_again(gateway: &mut Gateway) {
    let status = gateway.end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(1));
    let log = gateway.log();
    let said = "to be started again: interface ext0 of port ext was replaced";
    assert!(log.contains(said), "{log}");
}

#[test]
fn a_node_whose_interface_is_deleted_says_so_and_ends_when_it_is_made_anew() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    talk(&lab);
    let (outside, place) = (lab.client(), lab.gateway());
    place.ip(&["link", "delete", "ext0"]);
    hears_of_the_loss(&gateway);

    // An interface that can't carry anything yet is no reason to start again.
    let mut add = Command::new("ip");
    add.args(["link", "add", "c0", "netns", &outside.name()]);
    add.args([
        "type",
        "veth",
        "peer",
        "name",
        "ext0",
        "netns",
        &place.name(),
    ]);
    assert!(add.status().unwrap().success());
    outside.interface("c0", &["10.2.0.1/24"]);
    outside.ip(&["route", "add", "10.0.0.100/32", "via", "10.2.0.11"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(gateway.is_running() && gateway.ready().is_err());

    place.interface("ext0", &["10.2.0.11/24"]);
    ends_to_be_started_again(&mut gateway);

    // As the service manager does.
    let _gateway = Gateway::start(&lab, &lab.usual());
    talk(&lab);
}

#[test]
fn an_interface_that_was_in_another_namespace_is_a_lost_one_though_it_comes_back_as_it_was() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    let (outside, place) = (lab.client(), lab.gateway());
    place.ip(&["link", "set", "ext0", "netns", &outside.name()]);
    hears_of_the_loss(&gateway);
    outside.ip(&["link", "set", "ext0", "netns", &place.name()]);
    place.interface("ext0", &["10.2.0.11/24"]);
    ends_to_be_started_again(&mut gateway);
}

#[test]
fn an_interface_that_is_set_down_or_renamed_is_the_same_one() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let place = lab.gateway();
    let set = |name, what: &[&str]| place.ip(&[&["link", "set", name], what].concat());
    set("ext0", &["down"]);
    gateway.wait("not ready", || {
        let why = gateway.ready().err().unwrap_or_default();
        why.contains("the link of port ext is down") && !why.contains("deleted")
    });
    set("ext0", &["name", "renamed"]);
    assert_eq!(port(&gateway), (false, vec![], vec![]));
    set("renamed", &["up"]);
    gateway.wait("ready", || gateway.ready() == Ok(()));
    assert_eq!(port(&gateway), (true, vec![], vec![]));
    talk(&lab);
    set("renamed", &["down"]);
    gateway.wait("not ready", || gateway.ready().is_err());
}

#[test]
fn a_node_that_has_other_ports_forwards_on_and_is_not_restarted() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let place = lab.gateway();
    let spare = || {
        place.ip(&[
            "link", "add", "spare0", "type", "veth", "peer", "name", "spare1",
        ]);
        place.interface("spare1", &[]);
        place.interface("spare0", &[]);
    };
    spare();
    let port = "[[ports]]\nname = \"spare\"\ndevice = \"net_af_packet2,iface=spare0\"\naddress = \"10.4.0.11/24\"\n";
    let services = format!("{port}{}", lab::SERVICES);
    let mut gateway = Gateway::start(&lab, &lab.config(lab::WORKERS, "", &services));
    place.ip(&["link", "delete", "spare0"]);
    let warns = || {
        let warnings = gateway.status()["warnings"].to_string();
        warnings.contains("interface spare0 was deleted")
    };
    gateway.wait("lost", warns);
    spare();
    talk(&lab);
    assert_eq!(gateway.ready(), Ok(()));
    assert_eq!(gateway.status()["ports"][2]["link_up"], false);
    assert!(gateway.is_running());
}

#[test]
fn a_bond_forwards_by_another_member_when_the_interface_of_one_is_deleted() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let (outside, place) = (lab.client(), lab.gateway());
    place.ip(&["addr", "flush", "dev", "ext0"]);
    let add = || {
        let (outside, place) = (outside.name(), place.name());
        let mut add = Command::new("ip");
        add.args(["link", "add", "c1", "netns", &outside, "type", "veth"]);
        add.args(["peer", "name", "ext1", "netns", &place]);
        assert!(add.status().unwrap().success());
    };
    add();
    outside.ip(&["addr", "flush", "dev", "c0"]);
    outside.ip(&["link", "add", "br0", "type", "bridge"]);
    let plug = |name| {
        outside.ip(&["link", "set", name, "master", "br0"]);
        outside.interface(name, &[]);
    };
    plug("c0");
    plug("c1");
    place.interface("ext1", &[]);
    outside.interface("br0", &["10.2.0.1/24"]);
    outside.ip(&["route", "add", "10.0.0.100/32", "via", "10.2.0.11"]);
    let config = lab.usual().replace(
        "device = \"net_af_packet0,iface=ext0\"",
        "device = \"net_bonding0,mode=1\"\nmembers = [\"net_af_packet0,iface=ext0\", \"net_af_packet2,iface=ext1\"]",
    );
    let mut gateway = Gateway::start(&lab, &config);
    gateway.wait("up", || port(&gateway) == (true, vec![], vec![true, true]));

    place.ip(&["link", "delete", "ext1"]);
    let lost = || vec!["ext1".to_owned()];
    gateway.wait("lost", || port(&gateway).1 == lost());
    // The same name again is not the same interface, and no reason to end for who has another.
    add();
    plug("c1");
    place.interface("ext1", &[]);
    talk(&lab);
    assert_eq!(port(&gateway), (true, lost(), vec![true, false]));
    assert_eq!(gateway.ready(), Ok(()));

    // Now there is no other.
    outside.ip(&["link", "set", "c0", "down"]);
    let status = gateway.end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
}

/// Each is another size of the driver's slots: its own, what an ordinary frame outgrows, and the most.
#[test]
fn ports_forward_packets_as_long_as_their_mtu() {
    for mtu in [1600_u16, 3000, 9000, 9600] {
        let lab = Lab::new();
        lab.target().usual_targets();
        let size = mtu.to_string();
        for (place, name) in [
            (lab.client(), "c0"),
            (lab.gateway(), "ext0"),
            (lab.gateway(), "int0"),
            (lab.target(), "t0"),
        ] {
            place.ip(&["link", "set", name, "mtu", &size]);
        }
        let config = lab.config(lab::WORKERS, &format!("mtu = {mtu}"), lab::SERVICES);
        let gateway = Gateway::start(&lab, &config);
        lab.client().run(move || {
            let mut echo = Echo::connect(80).unwrap();
            echo.exchange(&pattern(200_000, 1));
            // Segments fill the link, rather than what a default would let through.
            let mss = socket2::SockRef::from(&echo.stream).tcp_mss().unwrap();
            assert!(mss > u32::from(mtu) - 20 - 20 - 12 - 1, "{mss} of {mtu}");
            let socket = std::net::UdpSocket::bind("10.2.0.1:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let longest = pattern(usize::from(mtu) - 28, 2);
            // The answer is longer by what the target puts in front: leave room for that.
            let sent = &longest[..longest.len() - 64];
            socket.send_to(sent, (lab::VIP, 53)).unwrap();
            let mut answer = vec![0; 10_000];
            let length = socket.recv(&mut answer).unwrap();
            assert!(answer[..length].ends_with(sent));
        });
        let cut: u64 = gateway.metric("weir_l4_worker_packets_cut_total{worker=\"0\"}");
        assert_eq!(cut, 0, "at {mtu}");
    }
}

/// The kernel puts IPv4 fragments together before af_packet sees them, so the slots have to take the whole datagram.
#[test]
fn long_datagrams_pass_where_the_slots_have_room_for_them() {
    for (slots, passes) in [("", false), (",framesz=16384,blocksz=16384", true)] {
        let lab = Lab::new();
        lab.target().usual_targets();
        let config = lab
            .usual()
            .replace("iface=ext0", &format!("iface=ext0{slots}"));
        let config = config.replace("iface=int0", &format!("iface=int0{slots}"));
        let gateway = Gateway::start(&lab, &config);
        let came_back = lab.client().run(|| {
            let socket = std::net::UdpSocket::bind("10.2.0.1:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            let sent = pattern(12_000, 3);
            let mut answer = vec![0; 20_000];
            // The first may wait for a next hop longer than its fragments are kept.
            (0..3).any(|_| {
                socket.send_to(&sent, (lab::VIP, 53)).unwrap();
                let answered = socket.recv(&mut answer);
                answered.is_ok_and(|length| answer[..length].ends_with(&sent))
            })
        });
        let status = gateway.status();
        assert_eq!(came_back, passes, "{status:#}");
        let dropped = status["drops"]["bad_ip_header"].as_u64().unwrap_or(0);
        assert_eq!(dropped > 0, !passes, "{status:#}");
    }
}

#[test]
fn what_the_host_does_in_the_way_of_the_gateway_is_told_until_it_is_put_right() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let place = lab.gateway();
    let set = |wrong: bool| {
        let [on, off] = if wrong { ["1", "on"] } else { ["0", "off"] };
        place.sysctl(&format!("net.ipv4.ip_forward={on}"));
        place.shell(&format!("ethtool -K ext0 gro {off}"));
        let mtu = if wrong { "1400" } else { "1500" };
        place.ip(&["link", "set", "int0", "mtu", mtu]);
        let change = if wrong { "add" } else { "delete" };
        place.ip(&["address", change, "10.0.0.100/32", "dev", "lo"]);
        place.ip(&["address", change, "10.3.0.100/32", "dev", "int0"]);
    };
    set(true);
    let gateway = Gateway::start(&lab, &lab.usual());
    let told = || {
        let warnings = gateway.status()["warnings"].as_array().unwrap().clone();
        assert_eq!(
            gateway.metric("weir_l4_host_warnings"),
            warnings.len() as u64
        );
        warnings
            .iter()
            .map(|warning| warning.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (warnings, log) = (told(), gateway.log());
    let expected = [
        "net.ipv4.conf.ext0.forwarding is on",
        "ethtool -K ext0 gro off",
        "net.ipv4.conf.int0.forwarding is on",
        "int0 has an MTU of 1400, and port int one of 1500",
        "the kernel holds the VIP 10.0.0.100, on lo",
        "the kernel holds the LocalIP 10.3.0.100, on int0",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warnings:?}");
        assert!(log.contains(expected), "{log}");
    }
    set(false);
    assert_eq!(told(), Vec::<String>::new());
}
