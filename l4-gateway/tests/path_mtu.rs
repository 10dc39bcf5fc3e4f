//! A link of 1,400 bytes behind the gateway's own links of 1,500: ends find out by ICMP that passes the NAT, or they get nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::IpAddr;

use lab::direct::{WAYS, Way};
use lab::dual::LOCAL_IPS;
use lab::programs::{Files, dig, serve_names, text_record};
use lab::{Gateway, Lab, Place, WORKERS};

const MTU: u16 = 1400;

/// Two, so that many an error arrives at a worker that doesn't have its flow.
fn workers() -> String {
    WORKERS.replace("[workers]", "[workers]\ncount = 2")
}

/// A service, and what it does to a segment.
struct Case {
    way: Way,
    what: &'static str,
    port: u16,
    /// Bytes that a packet of the client grows by on its way to the target.
    growth: u16,
}

impl Case {
    fn new(way: Way, what: &'static str, port: u16, growth: [u16; 2]) -> Case {
        let growth = growth[usize::from(way.is_v6())];
        Case {
            way,
            what,
            port,
            growth,
        }
    }

    /// All ways, and those by which FULLNAT tells the client's address.
    fn all(way: Way) -> Vec<Case> {
        match way.mode {
            "fullnat" => vec![
                Case::new(way, "none", Files::PLAIN, [0, 0]),
                Case::new(way, "proxy_v2", Files::PROXIED, [28, 52]),
                Case::new(way, "toa", Files::TOO_PLAIN, [8, 20]),
            ],
            "tunnel" => vec![Case::new(way, "none", Files::PLAIN, [20, 40])],
            _ => vec![Case::new(way, "none", Files::PLAIN, [0, 0])],
        }
    }

    fn service(&self) -> String {
        let keys = match self.way.is_direct() {
            true => String::new(),
            false => format!("client_address = \"{}\"", self.what),
        };
        self.way.service(self.what, "tcp", self.port, &keys)
    }

    /// ICMP errors that passed the node or were made from such as came to it.
    fn errors_passed(&self, gateway: &Gateway) -> u64 {
        let name = self.way.name(self.what);
        gateway.metric(&format!(
            "weir_l4_service_icmp_forwarded_total{{service=\"{name}\"}}"
        ))
    }
}

/// What `place` has learned of the way to `to`, if it has.
fn learned(place: &Place, to: IpAddr) -> Option<u16> {
    let output = place
        .command("ip")
        .args(["route", "get", &to.to_string()])
        .output()
        .unwrap();
    let route = String::from_utf8(output.stdout).unwrap();
    let mut words = route.split_whitespace();
    words.find(|word| *word == "mtu")?;
    words.next()?.parse().ok()
}

/// Keeps TCP from finding the path's MTU by itself, by sending less when nothing is acknowledged (RFC 4821).
fn rely_on_icmp(ends: [&Place; 2]) {
    for end in ends {
        end.sysctl("net.ipv4.tcp_mtu_probing=0");
    }
}

/// Has both ends know nothing of the way.
fn forget(ends: [&Place; 2]) {
    for end in ends {
        for family in ["-4", "-6"] {
            end.ip(&[family, "route", "flush", "cache"]);
        }
    }
}

/// Where the client of [`clients_behind_narrow_link`] is.
const CLIENT: [&str; 2] = ["10.5.2.1", "fd00:5:2::1"];

fn clients_behind_narrow_link() -> (Lab, Place) {
    let mut lab = Lab::direct();
    let client = lab.behind_narrow_link(&lab.client(), 5, MTU);
    for (to, via) in [("10.5.0.0/16", "10.4.0.1"), ("fd00:5::/32", "fd00:4::1")] {
        lab.target().ip(&["route", "add", to, "via", via]);
    }
    (lab, client)
}

#[test]
fn targets_hear_that_the_link_to_their_clients_is_narrow() {
    let (lab, client) = clients_behind_narrow_link();
    let target = lab.target();
    let _tunnels = lab.give_vips(&target);
    rely_on_icmp([&client, &target]);
    let cases: Vec<Case> = WAYS.into_iter().flat_map(Case::all).collect();
    let services: String = cases.iter().map(Case::service).collect();
    let files = Files::serve(&lab, &target);
    let gateway = Gateway::start(&lab, &lab.dual_config(&workers(), "", &services));
    for case in &cases {
        // Behind FULLNAT all clients are one to the target.
        forget([&client, &target]);
        let (way, what) = (case.way, case.what);
        let v6 = usize::from(way.is_v6());
        let host = CLIENT[v6];
        let peers = if way.is_direct() { CLIENT } else { LOCAL_IPS };
        files.fetch(&client, way.at(case.port), 300_000);
        assert!(case.errors_passed(&gateway) >= 1, "{way:?} {what}");
        let peer = peers[v6].parse().unwrap();
        assert_eq!(learned(&target, peer), Some(MTU), "{way:?} {what}");
        // A target that knows the way would tell the client to send less from the start.
        forget([&client, &target]);
        let told = files.send(&client, way.at(case.port), 300_000);
        let expected = if what == "proxy_v2" { host } else { "none" };
        assert_eq!(told, expected, "{way:?} {what}");
        assert_eq!(learned(&client, way.vip()), Some(MTU), "{way:?} {what}");
    }
}

#[test]
fn clients_hear_that_the_link_to_their_target_is_narrow() {
    let mut lab = Lab::direct();
    let target = lab.behind_narrow_link(&lab.target(), 6, MTU);
    let _tunnels = lab.give_vips(&target);
    let client = lab.client();
    // The routers take errors about a tunnel's answers to the VIP to the gateway, as the client's does.
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        client.sysctl(setting);
    }
    for (to, via) in [("10.0.0.0/24", "10.4.0.1"), ("fd00::/64", "fd00:4::1")] {
        lab.target().ip(&["route", "add", to, "via", via]);
    }
    rely_on_icmp([&client, &target]);
    // DR takes targets on the gateway's own link.
    let ways = WAYS.into_iter().filter(|way| way.mode != "dr");
    let ways = ways.map(|way| way.to(["10.6.2.1", "fd00:6:2::1"]));
    let cases: Vec<Case> = ways.flat_map(Case::all).collect();
    let services: String = cases.iter().map(Case::service).collect();
    let files = Files::serve(&lab, &target);
    let keys = format!(
        "local_ips = {LOCAL_IPS:?}\nroutes = [{{ to = \"10.6.0.0/16\", via = \"10.3.0.21\" }}, \
         {{ to = \"fd00:6::/32\", via = \"fd00:3::21\" }}]"
    );
    let config = lab.dual_node(&workers(), ["", &keys], &services);
    let gateway = Gateway::start(&lab, &config);
    for case in &cases {
        forget([&client, &target]);
        let (way, what) = (case.way, case.what);
        let v6 = usize::from(way.is_v6());
        let host = ["10.2.0.1", "fd00:2::1"][v6];
        let told = files.send(&client, way.at(case.port), 300_000);
        let expected = if what == "proxy_v2" { host } else { "none" };
        assert_eq!(told, expected, "{way:?} {what}");
        assert!(case.errors_passed(&gateway) >= 1, "{way:?} {what}");
        let most = MTU - case.growth;
        assert_eq!(learned(&client, way.vip()), Some(most), "{way:?} {what}");
        // FULLNAT's target hears of its own link from its own router; about a tunnel's answers the VIP is told.
        let passed = case.errors_passed(&gateway);
        forget([&client, &target]);
        files.fetch(&client, way.at(case.port), 300_000);
        let peer = if way.is_direct() { host } else { LOCAL_IPS[v6] };
        let peer = peer.parse().unwrap();
        assert_eq!(learned(&target, peer), Some(MTU), "{way:?} {what}");
        let more = case.errors_passed(&gateway) > passed;
        assert_eq!(more, way.is_direct(), "{way:?} {what}");
    }
}

/// The first answer is lost; the server's kernel hears why and cuts what answers the repeated question.
#[test]
fn answers_of_a_name_server_pass_a_narrow_link_in_fragments() {
    let (lab, client) = clients_behind_narrow_link();
    let target = lab.target();
    let _tunnels = lab.give_vips(&target);
    let (record, text) = text_record("long.weir.test", 1_350);
    let _server = serve_names(&lab, &target, &[&record]);
    let cases = WAYS.map(|way| Case::new(way, "dns", 53, [0, 0]));
    let services: String = WAYS
        .iter()
        .map(|way| way.service("dns", "udp", 53, ""))
        .collect();
    let gateway = Gateway::start(&lab, &lab.dual_config(&workers(), "", &services));
    for case in &cases {
        forget([&client, &target]);
        let way = case.way;
        let answer = dig(&client, way.vip(), "long.weir.test", "TXT");
        assert_eq!(answer, [text.as_str()], "{way:?}");
        let v6 = usize::from(way.is_v6());
        let peers = if way.is_direct() { CLIENT } else { LOCAL_IPS };
        let peer = peers[v6].parse().unwrap();
        assert_eq!(learned(&target, peer), Some(MTU), "{way:?}");
        assert!(case.errors_passed(&gateway) >= 1, "{way:?}");
    }
}

#[test]
fn the_gateway_says_itself_that_its_own_links_are_narrow() {
    let lab = Lab::direct();
    let (client, target) = (lab.client(), lab.target());
    let _tunnels = lab.give_vips(&target);
    rely_on_icmp([&client, &target]);
    let cases: Vec<Case> = WAYS.into_iter().flat_map(Case::all).collect();
    let services: String = cases.iter().map(Case::service).collect();
    let files = Files::serve(&lab, &target);
    let local_ips = format!("local_ips = {LOCAL_IPS:?}");
    let narrow = format!("mtu = {MTU}");

    // Targets don't know of it, so they let clients send full packets.
    let keys = ["", &format!("{local_ips}\n{narrow}")];
    let gateway = Gateway::start(&lab, &lab.dual_node(&workers(), keys, &services));
    for case in &cases {
        forget([&client, &target]);
        let (way, what) = (case.way, case.what);
        files.send(&client, way.at(case.port), 300_000);
        // Where the node tells the client's address, it has lowered the size that the target lets clients send.
        let told = (what == "none").then_some(MTU - case.growth);
        assert_eq!(learned(&client, way.vip()), told, "{way:?} {what}");
    }
    drop(gateway);

    let keys = [narrow.as_str(), &local_ips];
    let _gateway = Gateway::start(&lab, &lab.dual_node(&workers(), keys, &services));
    for case in cases.iter().filter(|case| !case.way.is_direct()) {
        forget([&client, &target]);
        let (way, what) = (case.way, case.what);
        files.fetch(&client, way.at(case.port), 300_000);
        let peer = LOCAL_IPS[usize::from(way.is_v6())].parse().unwrap();
        assert_eq!(learned(&target, peer), Some(MTU), "{way:?} {what}");
    }
}
