//! A laboratory whose targets answer clients past the gateway, as DR and tunnels want it, over both families.
//!
//! ```text
//!   client 10.2.0.1 (c0) ── ext0 │ gateway │ int0 10.3.0.11 ── 10.3.0.21 (t0) target, VIPs on lo
//!          10.4.0.1 (c1) ─────────── answers ───────── 10.4.0.21 (t1)
//! ```

use std::net::{IpAddr, SocketAddr};

use super::programs::Program;
use super::{Lab, Place};

/// How a service reaches its target over one family. Each has a VIP of its own, so that one gateway serves all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) mode: &'static str,
    vip: &'static str,
    target: &'static str,
}

pub(crate) const WAYS: [Way; 6] = [
    way("fullnat", "10.0.0.100", "10.3.0.21"),
    way("fullnat", "fd00::100", "fd00:3::21"),
    way("dr", "10.0.0.101", "10.3.0.21"),
    way("dr", "fd00::101", "fd00:3::21"),
    way("tunnel", "10.0.0.102", "10.3.0.21"),
    way("tunnel", "fd00::102", "fd00:3::21"),
];

const fn way(mode: &'static str, vip: &'static str, target: &'static str) -> Way {
    Way { mode, vip, target }
}

impl Way {
    /// The same to another target.
    pub(crate) fn to(self, target: [&'static str; 2]) -> Way {
        let target = target[usize::from(self.is_v6())];
        Way { target, ..self }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.vip().is_ipv6()
    }

    /// Whether the target answers past the gateway.
    pub(crate) fn is_direct(&self) -> bool {
        self.mode != "fullnat"
    }

    pub(crate) fn vip(&self) -> IpAddr {
        self.vip.parse().unwrap()
    }

    /// Where clients connect to.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(), port)
    }

    /// Where the target's server listens.
    pub(crate) fn server(&self, port: u16) -> SocketAddr {
        match self.is_direct() {
            true => self.at(port),
            false => SocketAddr::new(self.target.parse().unwrap(), port),
        }
    }

    /// What a service for `what` is called.
    pub(crate) fn name(&self, what: &str) -> String {
        let family = if self.is_v6() { 6 } else { 4 };
        format!("{}{family}-{what}", self.mode)
    }

    /// A service for `what`, with further keys.
    pub(crate) fn service(&self, what: &str, protocol: &str, port: u16, keys: &str) -> String {
        let Way { mode, vip, target } = self;
        let name = self.name(what);
        let target = match self.is_direct() {
            true => (*target).to_owned(),
            false => self.server(port).to_string(),
        };
        format!(
            "[[services]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {port}\nmode = \"{mode}\"\n\
             targets = [{{ address = \"{target}\" }}]\n{keys}\n"
        )
    }
}

impl Lab {
    /// The laboratory without the VIPs, which [`Lab::give_vips`] gives.
    pub(crate) fn direct() -> Lab {
        let lab = Lab::dual();
        let [client, target] = [lab.client(), lab.target()];
        for (place, device) in [(&client, "c0"), (&target, "t0")] {
            place.routed_anyhow();
            place.sysctl(&format!("net.ipv4.conf.{device}.rp_filter=0"));
        }
        join(&client, "c1", &target, "t1");
        client.interface("c1", &["10.4.0.1/24", "fd00:4::1/64"]);
        target.interface("t1", &["10.4.0.21/24", "fd00:4::21/64"]);
        for (to, via, own) in [
            ("10.0.0.0/24", "10.2.0.11", "10.2.0.1"),
            ("fd00::/64", "fd00:2::11", "fd00:2::1"),
        ] {
            client.ip(&["route", "add", to, "via", via, "src", own]);
        }
        for (to, via) in [("10.2.0.0/24", "10.4.0.1"), ("fd00:2::/64", "fd00:4::1")] {
            target.ip(&["route", "add", to, "via", via]);
        }
        lab
    }

    /// Has `target` take packets to the VIPs of DR and tunnels without saying so on its links; tunnels end there.
    pub(crate) fn give_vips(&self, target: &Place) -> [Program; 2] {
        for way in WAYS.iter().filter(|way| way.is_direct()) {
            target.take_vip(way.vip());
        }
        ["4", "6"].map(|family| self.decapsulate(target, family))
    }

    /// Has `target` take the outer headers of a family off. Its kernel must take packets by whatever link they come.
    pub(crate) fn decapsulate(&self, target: &Place, family: &str) -> Program {
        let tun = format!("tun{family}");
        target.ip(&["tuntap", "add", "mode", "tun", "name", &tun]);
        target.sysctl(&format!("net.ipv4.conf.{tun}.rp_filter=0"));
        target.ip(&["link", "set", &tun, "up"]);
        let arguments = ["-c", DECAPSULATE, &tun, family];
        Program::start(self, target, "python3", &arguments, "ready")
    }
}

impl Place {
    /// Takes packets to `vip`, and doesn't say so on its links.
    pub(crate) fn take_vip(&self, vip: IpAddr) {
        self.sysctl("net.ipv4.conf.all.arp_ignore=1");
        self.sysctl("net.ipv4.conf.all.arp_announce=2");
        let length = if vip.is_ipv6() { 128 } else { 32 };
        self.address("lo", &format!("{vip}/{length}"));
    }

    /// Takes packets by whatever link they come: answers take another way than what they answer.
    pub(crate) fn routed_anyhow(&self) {
        for which in ["all", "default"] {
            self.sysctl(&format!("net.ipv4.conf.{which}.rp_filter=0"));
            self.sysctl(&format!("net.ipv6.conf.{which}.accept_dad=0"));
        }
    }
}

/// A link between two namespaces.
pub(crate) fn join(one: &Place, device: &str, other: &Place, peer: &str) {
    let [one_name, other_name] = [one.name(), other.name()];
    super::ip(&[
        "link",
        "add",
        device,
        "netns",
        &one_name,
        "type",
        "veth",
        "peer",
        "name",
        peer,
        "netns",
        &other_name,
    ]);
}

/// Takes outer headers off: this kernel has no device that would. Inner packets go in by a tun device. Arguments: its name, the family.
const DECAPSULATE: &str = r#"
import fcntl, os, socket, struct, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH", sys.argv[1].encode(), 0x1001))
if sys.argv[2] == "4":
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
else:
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41)
print("ready", flush=True)
while True:
    packet = raw.recv(65535)
    inner = packet[(packet[0] & 15) * 4:] if sys.argv[2] == "4" else packet
    try:
        os.write(tun, inner)
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
"#;
