//! A laboratory for one gateway: client, gateway and target, each in a network namespace of its own, joined by veth.
//!
//! ```text
//!   client 10.2.0.1 (c0) ── ext0 10.2.0.11 │ gateway │ int0 10.3.0.11 ── (t0) 10.3.0.21, 10.3.0.22 target
//! ```
//!
//! Needs root, iproute2 and ethtool; what is missing fails the test by name.

#![allow(dead_code)] // each test binary uses its part

pub(crate) mod direct;
pub(crate) mod dual;
mod gateway;
pub(crate) mod programs;
mod routers;
pub(crate) mod wire;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use gateway::Gateway;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 21);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 22);
pub(crate) const ADMIN: &str = "127.0.0.1:9401";

/// Two ports and a TCP and a UDP service on both targets; tests add to it.
pub(crate) const SERVICES: &str = r#"
[[services]]
name = "tcp"
vip = "10.0.0.100"
protocol = "tcp"
port = 80
scheduler = "rr"
targets = [{ address = "10.3.0.21:8080" }, { address = "10.3.0.22:8080" }]

[[services]]
name = "udp"
vip = "10.0.0.100"
protocol = "udp"
port = 53
scheduler = "rr"
targets = [{ address = "10.3.0.21:5353" }, { address = "10.3.0.22:5353" }]
"#;

/// Three namespaces and those that tests add, gone with this value.
pub(crate) struct Lab {
    name: String,
    places: Vec<Place>,
    pub(crate) directory: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::getuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let name = format!(
            "gw{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut lab = Lab {
            name,
            places: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        let [client, gateway, target] = ["c", "l", "t"].map(|short| lab.add(short));
        ip(&[
            "link", "add", "c0", "netns", &client.0, "type", "veth", "peer", "name", "ext0",
            "netns", &gateway.0,
        ]);
        ip(&[
            "link", "add", "t0", "netns", &target.0, "type", "veth", "peer", "name", "int0",
            "netns", &gateway.0,
        ]);
        client.interface("c0", &["10.2.0.1/24"]);
        gateway.interface("ext0", &["10.2.0.11/24"]);
        gateway.interface("int0", &["10.3.0.11/24"]);
        target.interface("t0", &["10.3.0.21/24", "10.3.0.22/24"]);
        // af_packet leaves the gateway's kernel a copy of each frame: it must not answer for VIPs it does not know.
        gateway.sysctl("net.ipv4.ip_forward=0");
        gateway.ip(&["-6", "route", "add", "blackhole", "default"]);
        client.ip(&["route", "add", "10.0.0.100/32", "via", "10.2.0.11"]);
        lab
    }

    /// The name of DPDK's directory for the node.
    pub(crate) fn runtime_directory(&self) -> String {
        format!("weir-{}", self.name)
    }

    /// One more namespace, by a name that is short.
    pub(crate) fn add(&mut self, short: &str) -> Place {
        let place = Place(format!("{}-{short}", self.name));
        self.places.push(place.clone());
        ip(&["netns", "add", &place.0]);
        place.ip(&["link", "set", "lo", "up"]);
        place
    }

    pub(crate) fn client(&self) -> Place {
        Place(format!("{}-c", self.name))
    }

    pub(crate) fn gateway(&self) -> Place {
        Place(format!("{}-l", self.name))
    }

    pub(crate) fn target(&self) -> Place {
        Place(format!("{}-t", self.name))
    }

    /// The configuration of a node in the laboratory: `head` for whole sections, `port` for keys of both ports.
    pub(crate) fn config(&self, head: &str, port: &str, services: &str) -> String {
        let external = "address = \"10.2.0.11/24\"\ngateway = \"10.2.0.1\"";
        let internal = format!("address = \"10.3.0.11/24\"\nlocal_ips = [\"{LOCAL_IP}\"]");
        let ports = [external, &internal].map(|keys| format!("{keys}\n{port}"));
        self.node(head, ports, services)
    }

    /// The same with all keys of the external and the internal port but their names and devices.
    pub(crate) fn node(&self, head: &str, ports: [String; 2], services: &str) -> String {
        let [external, internal] = ports;
        format!(
            r#"
{head}
[node]
id = "{name}"
[admin]
listen = "{ADMIN}"
[log]
level = "info"
[eal]
huge_pages = false
[[ports]]
name = "ext"
device = "net_af_packet0,iface=ext0"
{external}
[[ports]]
name = "int"
device = "net_af_packet1,iface=int0"
{internal}
{services}
"#,
            name = self.name
        )
    }

    /// As most tests want it: one worker that sleeps when idle.
    pub(crate) fn usual(&self) -> String {
        self.config(WORKERS, "", SERVICES)
    }
}

pub(crate) const WORKERS: &str = "[workers]\npoll = \"adaptive\"\nflows = 16384\nstall_limit = \"1s\"\n[drain]\ndeadline = \"10s\"\n";

impl Drop for Lab {
    fn drop(&mut self) {
        // Where DPDK's telemetry socket was, of a gateway that was killed.
        let _ = std::fs::remove_dir_all(format!("/run/dpdk/{}", self.runtime_directory()));
        for place in &self.places {
            let _ = Command::new("ip")
                .args(["netns", "delete", &place.0])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// A namespace.
#[derive(Clone)]
pub(crate) struct Place(String);

impl Place {
    /// Runs `work` on a thread of its own that has moved here; the sockets it opens are here.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = PathBuf::from("/run/netns").join(&self.0);
        thread::spawn(move || {
            let file =
                File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("moving into a namespace");
            work()
        })
    }

    /// As [`Place::spawn`], waiting for the result.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", self.0.as_str()], arguments].concat());
    }

    pub(crate) fn sysctl(&self, setting: &str) {
        must(self.command("sysctl").args(["-qw", setting]));
    }

    /// Runs commands as a person would type them; none may fail.
    pub(crate) fn shell(&self, commands: &str) {
        must(self.command("sh").args(["-ec", commands]));
    }

    pub(crate) fn name(&self) -> String {
        self.0.clone()
    }

    /// Gives `interface` an address, which it may use at once.
    pub(crate) fn address(&self, interface: &str, address: &str) {
        // Nobody else has an IPv6 one, so nobody is asked.
        let unasked = address.contains(':').then_some("nodad");
        self.ip(&[
            &["addr", "add", address, "dev", interface],
            unasked.as_slice(),
        ]
        .concat());
    }

    pub(crate) fn interface(&self, name: &str, addresses: &[&str]) {
        for address in addresses {
            self.address(name, address);
        }
        self.ip(&["link", "set", name, "up"]);
        // What af_packet hands out has no NIC behind it that would fill in checksums or cut segments.
        must(self.command("ethtool").args([
            "-K", name, "tx", "off", "rx", "off", "gso", "off", "tso", "off", "gro", "off",
        ]));
    }

    /// Echoes TCP on `addresses` for the rest of the test; the first byte each connection gets tells which it reached.
    pub(crate) fn echo_tcp(&self, addresses: &[(impl Into<SocketAddr> + Copy, u8)]) {
        for (address, id) in addresses.iter().copied() {
            let address: SocketAddr = address.into();
            let (ready, listening) = std::sync::mpsc::channel();
            self.spawn(move || {
                let listener = TcpListener::bind(address).expect("listening");
                ready.send(()).unwrap();
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || echo(stream, id));
                }
            });
            listening.recv().unwrap();
        }
    }

    /// Echoes UDP, with the id in front and the sender's address behind it as text.
    pub(crate) fn echo_udp(&self, addresses: &[(impl Into<SocketAddr> + Copy, u8)]) {
        for (address, id) in addresses.iter().copied() {
            let address: SocketAddr = address.into();
            let (ready, bound) = std::sync::mpsc::channel();
            self.spawn(move || {
                let socket = UdpSocket::bind(address).expect("binding");
                ready.send(()).unwrap();
                let mut buffer = vec![0; 65_535];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let reply =
                        [&[id], from.to_string().as_bytes(), b" ", &buffer[..length]].concat();
                    let _ = socket.send_to(&reply, from);
                }
            });
            bound.recv().unwrap();
        }
    }

    /// Echo servers as [`SERVICES`] wants them.
    pub(crate) fn usual_targets(&self) {
        let at = |ip, port| SocketAddrV4::new(ip, port);
        self.echo_tcp(&[(at(FIRST, 8080), b'1'), (at(SECOND, 8080), b'2')]);
        self.echo_udp(&[(at(FIRST, 5353), b'1'), (at(SECOND, 5353), b'2')]);
    }
}

fn echo(mut stream: TcpStream, id: u8) {
    let peer = stream
        .peer_addr()
        .map(|peer| peer.ip().to_string())
        .unwrap_or_default();
    let greeting = format!("{}{peer}\n", id as char);
    if stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A connection to the TCP echo service.
pub(crate) struct Echo {
    pub(crate) stream: TcpStream,
    /// Which target it reached.
    pub(crate) id: u8,
    /// Who the target saw.
    pub(crate) seen: String,
}

impl Echo {
    /// To be called in the client's namespace.
    pub(crate) fn connect(port: u16) -> std::io::Result<Echo> {
        Echo::connect_to(SocketAddr::from((VIP, port)))
    }

    /// The same to any VIP.
    pub(crate) fn connect_to(vip: SocketAddr) -> std::io::Result<Echo> {
        Echo::greeted(TcpStream::connect_timeout(&vip, Duration::from_secs(3))?)
    }

    /// An open connection whose target is yet to say who it is.
    pub(crate) fn greeted(mut stream: TcpStream) -> std::io::Result<Echo> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut greeting = Vec::new();
        let mut byte = [0];
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte)?;
            greeting.push(byte[0]);
        }
        let seen = String::from_utf8_lossy(&greeting[1..greeting.len() - 1]).into_owned();
        Ok(Echo {
            stream,
            id: greeting[0],
            seen,
        })
    }

    /// Sends `data` and asserts that it comes back byte for byte.
    pub(crate) fn exchange(&mut self, data: &[u8]) {
        let mut writer = self.stream.try_clone().unwrap();
        let sent = data.to_vec();
        let sender = thread::spawn(move || writer.write_all(&sent));
        let mut back = vec![0; data.len()];
        self.stream.read_exact(&mut back).expect("the echo");
        sender.join().unwrap().expect("sending");
        assert!(back == data, "the echo differs");
    }
}

/// Bytes that don't repeat soon.
pub(crate) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(next).collect()
}

fn ip(arguments: &[&str]) {
    must(Command::new("ip").args(arguments));
}

fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}: is iproute2, ethtool or procps missing?")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
