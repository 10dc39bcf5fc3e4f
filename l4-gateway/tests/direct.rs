//! DR and tunnel between real kernels: targets have the VIP and answer clients past the gateway. And fragments, which kernels make.
//!
//! ```text
//!   client 10.2.0.1 (c0) ── ext0 │ gateway │ int0 10.3.0.11 ── 10.3.0.21 (t0) target, VIP on lo
//!          10.4.0.1 (c1) ─────────── answers ───────── 10.4.0.21 (t1)
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;

use lab::{Echo, Gateway, Lab, Place, VIP, WORKERS, pattern};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

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

struct Decapsulator(Child);

impl Decapsulator {
    fn start(place: &Place, family: &str) -> Decapsulator {
        let tun = format!("tun{family}");
        place.ip(&["tuntap", "add", "mode", "tun", "name", &tun]);
        place.sysctl(&format!("net.ipv4.conf.{tun}.rp_filter=0"));
        place.ip(&["link", "set", &tun, "up"]);
        let mut child = place
            .command("python3")
            .args(["-c", DECAPSULATE, &tun, family])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut ready).expect("the decapsulator");
        Decapsulator(child)
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A laboratory whose target has the VIPs, and a link of its own to the client.
fn lab() -> Lab {
    let lab = Lab::new();
    let [client, gateway, target] = [lab.client(), lab.gateway(), lab.target()];
    client.ip(&[
        "link",
        "add",
        "c1",
        "type",
        "veth",
        "peer",
        "name",
        "t1",
        "netns",
        &target.name(),
    ]);
    for place in [&client, &target] {
        place.sysctl("net.ipv4.conf.all.rp_filter=0");
        place.sysctl("net.ipv4.conf.default.rp_filter=0");
        place.sysctl("net.ipv6.conf.all.accept_dad=0");
        place.sysctl("net.ipv6.conf.default.accept_dad=0");
    }
    client.interface("c1", &["10.4.0.1/24"]);
    target.interface("t1", &["10.4.0.21/24"]);
    for (place, device, address) in [
        (&client, "c0", "fd00:2::1/64"),
        (&gateway, "ext0", "fd00:2::11/64"),
        (&gateway, "int0", "fd00:3::11/64"),
        (&target, "t0", "fd00:3::21/64"),
        (&client, "c1", "fd00:4::1/64"),
        (&target, "t1", "fd00:4::21/64"),
    ] {
        place.ip(&["addr", "add", address, "dev", device, "nodad"]);
    }
    for device in ["c0", "c1"] {
        client.sysctl(&format!("net.ipv4.conf.{device}.rp_filter=0"));
    }
    for device in ["t0", "t1"] {
        target.sysctl(&format!("net.ipv4.conf.{device}.rp_filter=0"));
    }
    target.sysctl("net.ipv4.conf.all.arp_ignore=1");
    target.sysctl("net.ipv4.conf.all.arp_announce=2");
    target.ip(&["addr", "add", "10.0.0.100/32", "dev", "lo"]);
    target.ip(&["addr", "add", "fd00::100/128", "dev", "lo", "nodad"]);
    target.ip(&["route", "add", "10.2.0.0/24", "via", "10.4.0.1"]);
    target.ip(&["route", "add", "fd00:2::/64", "via", "fd00:4::1"]);
    client.ip(&["route", "add", "fd00::100/128", "via", "fd00:2::11"]);
    lab
}

fn config(lab: &Lab, mode: &str) -> String {
    let service = |name: &str, vip: IpAddr, target: &str| {
        format!(
            "[[services]]\nname = \"{name}\"\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = 80\nmode = \"{mode}\"\n\
             targets = [{{ address = \"{target}\" }}]\n"
        )
    };
    let services =
        service("tcp", VIP.into(), "10.3.0.21") + &service("tcp6", VIP6.into(), "fd00:3::21");
    lab.config(WORKERS, "", &services)
        .replacen(
            "address = \"10.2.0.11/24\"",
            "address = [\"10.2.0.11/24\", \"fd00:2::11/64\"]",
            1,
        )
        .replacen(
            "address = \"10.3.0.11/24\"",
            "address = [\"10.3.0.11/24\", \"fd00:3::11/64\"]",
            1,
        )
        .replacen(&format!("local_ips = [\"{}\"]", lab::LOCAL_IP), "", 1)
}

/// Uploads and downloads over both families; what the gateway carried.
fn exchange(lab: &Lab, gateway: &Gateway) {
    for (name, vip, source) in [
        ("tcp", IpAddr::from(VIP), "10.2.0.1"),
        ("tcp6", VIP6.into(), "fd00:2::1"),
    ] {
        let vip = SocketAddr::new(vip, 80);
        lab.target().echo_tcp(&[(vip, b'1')]);
        lab.client().run(move || {
            let mut echo = Echo::connect_to(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
            assert_eq!(echo.seen, source, "the target sees the client");
            echo.exchange(&pattern(300_000, 5));
        });
        let service = gateway.service(name);
        assert_eq!(service["flows_created"], 1, "{service}");
        assert!(service["bytes_in"].as_u64().unwrap() > 300_000, "{service}");
        assert_eq!(service["packets_out"], 0, "answers go past: {service}");
    }
}

#[test]
fn dr_reaches_the_vip_of_a_target_that_answers_directly() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &config(&lab, "dr"));
    exchange(&lab, &gateway);
}

#[test]
fn a_tunnel_carries_what_clients_send_and_says_what_does_not_fit() {
    let lab = lab();
    let target = lab.target();
    let _tunnels = ["4", "6"].map(|family| Decapsulator::start(&target, family));
    let gateway = Gateway::start(&lab, &config(&lab, "tunnel"));
    exchange(&lab, &gateway);
    let dropped = gateway.status()["drops"]["too_big"].as_u64().unwrap_or(0);
    assert!(dropped >= 2, "segments of 1460 bytes don't fit: {dropped}");
}

/// Over IPv6: what af_packet hands out of IPv4 was put together by the kernel.
#[test]
fn datagrams_in_fragments_go_there_and_back() {
    let lab = lab();
    let services = format!(
        "[[services]]\nname = \"udp\"\nvip = \"{VIP6}\"\nprotocol = \"udp\"\nport = 53\n\
         targets = [{{ address = \"[fd00:3::21]:5353\" }}]\n"
    );
    let config = config(&lab, "dr");
    let ports = config.split("[[services]]").next().unwrap();
    let local = "address = [\"10.3.0.11/24\", \"fd00:3::11/64\"]";
    let config =
        ports.replacen(local, &format!("{local}\nlocal_ips = [\"fd00:3::100\"]"), 1) + &services;
    let gateway = Gateway::start(&lab, &config);
    lab.target()
        .echo_udp(&[(SocketAddr::new("fd00:3::21".parse().unwrap(), 5353), b'1')]);
    let result = lab
        .client()
        .spawn(|| {
            let socket = UdpSocket::bind(("fd00:2::1", 0)).unwrap();
            socket.connect((VIP6, 53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(3)))
                .unwrap();
            let mut buffer = vec![0; 65_535];
            for length in [1000, 1473, 4000, 20_000] {
                let sent = pattern(length, 3);
                socket.send(&sent).unwrap();
                let received = socket
                    .recv(&mut buffer)
                    .unwrap_or_else(|error| panic!("{length}: {error}"));
                assert!(buffer[..received].ends_with(&sent), "{length} bytes");
            }
        })
        .join();
    assert!(result.is_ok(), "{}", gateway.status());
    let service = gateway.service("udp");
    assert_eq!(service["flows_created"], 1);
    // 1, 2, 3 and 14 fragments each way; the answer is a little longer.
    assert!(service["packets_in"].as_u64().unwrap() >= 20, "{service}");
    assert!(service["packets_out"].as_u64().unwrap() >= 20, "{service}");
}
