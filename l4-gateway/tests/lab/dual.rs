//! Both families in one laboratory: each service twice, told apart by its VIP, and clients with several addresses.
//!
//! ```text
//!   10.2.0.1, 10.2.0.2, 10.2.1.1              ── ext0 10.2.0.11  │ gateway │ int0 10.3.0.11  ── 10.3.0.21, 10.3.0.22
//!   fd00:2::1, fd00:2::2, fd00:2:0:1::1 (c0)  ──      fd00:2::11 │         │      fd00:3::11 ── fd00:3::21, fd00:3::22 (t0)
//! ```

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Echo, Lab, Place};

/// Longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shorter than a SYN is repeated after.
const SILENCE: Duration = Duration::from_millis(900);

/// What the gateway speaks to targets from.
pub(crate) const LOCAL_IPS: [&str; 2] = ["10.3.0.100", "fd00:3::100"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Where a client is: `Near` and `Neighbour` share a prefix, `Far` is outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Near,
    Neighbour,
    Far,
}

/// What became of a new connection, or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By the target with this id.
    Served(u8),
    /// By an RST, or a port unreachable.
    Refused,
    Silence,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn pick(self, v4: &str, v6: &str) -> IpAddr {
        match self {
            Family::V4 => v4.parse().unwrap(),
            Family::V6 => v6.parse().unwrap(),
        }
    }

    pub(crate) fn vip(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.pick("10.0.0.100", "2001:db8::100"), port)
    }

    pub(crate) fn local_ip(self) -> IpAddr {
        self.pick(LOCAL_IPS[0], LOCAL_IPS[1])
    }

    pub(crate) fn client(self, from: Client) -> IpAddr {
        match from {
            Client::Near => self.pick("10.2.0.1", "fd00:2::1"),
            Client::Neighbour => self.pick("10.2.0.2", "fd00:2::2"),
            Client::Far => self.pick("10.2.1.1", "fd00:2:0:1::1"),
        }
    }

    pub(crate) fn first(self) -> IpAddr {
        self.pick("10.3.0.21", "fd00:3::21")
    }

    pub(crate) fn second(self) -> IpAddr {
        self.pick("10.3.0.22", "fd00:3::22")
    }

    /// A port of the first target that is for servers of the test's own.
    pub(crate) fn other(self) -> SocketAddr {
        SocketAddr::new(self.first(), 8081)
    }

    fn nobody(self) -> IpAddr {
        self.pick("10.3.0.99", "fd00:3::99")
    }

    /// The name of a service in this family.
    pub(crate) fn name(self, service: &str) -> String {
        match self {
            Family::V4 => service.to_owned(),
            Family::V6 => format!("{service}-v6"),
        }
    }

    /// Opens a connection to the echo service and looks what became of it. To be called in the client's namespace.
    pub(crate) fn connect(self, from: Client, port: u16) -> Result<Echo, Fate> {
        let stream = self.stream(from, port)?;
        Ok(Echo::greeted(stream).expect("the target's greeting"))
    }

    /// The same for a target that doesn't greet.
    pub(crate) fn stream(self, from: Client, port: u16) -> Result<TcpStream, Fate> {
        self.open(from, port, PATIENCE)
    }

    /// Whether one SYN gets nothing.
    pub(crate) fn is_ignored(self, from: Client, port: u16) -> bool {
        matches!(self.open(from, port, SILENCE), Err(Fate::Silence))
    }

    fn open(self, from: Client, port: u16, patience: Duration) -> Result<TcpStream, Fate> {
        let domain = Domain::for_address(self.vip(port));
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        let own = SocketAddr::new(self.client(from), 0);
        socket.bind(&own.into()).unwrap();
        match socket.connect_timeout(&self.vip(port).into(), patience) {
            Ok(()) => Ok(socket.into()),
            Err(error) => Err(fate(&error)),
        }
    }

    /// The same, and closes it at once.
    pub(crate) fn knock(self, from: Client, port: u16) -> Fate {
        match self.connect(from, port) {
            Ok(echo) => Fate::Served(echo.id),
            Err(fate) => fate,
        }
    }

    /// A socket that speaks to a UDP service. To be called in the client's namespace.
    pub(crate) fn datagrams(self, from: Client, port: u16) -> UdpSocket {
        let socket = UdpSocket::bind((self.client(from), 0)).unwrap();
        socket.connect(self.vip(port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// Sends a datagram and looks what comes back.
pub(crate) fn ask(socket: &UdpSocket, data: &[u8]) -> Fate {
    let mut buffer = [0; 2048];
    match socket.send(data).and_then(|_| socket.recv(&mut buffer)) {
        Ok(length) => {
            assert!(buffer[..length].ends_with(data), "the echo differs");
            Fate::Served(buffer[0])
        }
        Err(error) => fate(&error),
    }
}

fn fate(error: &Error) -> Fate {
    match error.kind() {
        ErrorKind::ConnectionRefused => Fate::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Fate::Silence,
        _ => panic!("{error}"),
    }
}

/// A TCP service of each family on both targets in turn, with more keys. In these `{first}` and `{second}` stand for the targets' addresses,
/// `{other}` for a port of the first that nobody listens on, `{nobody}` for a target that isn't there, `{near}` and `{wide}` for the prefix of
/// near clients and one that holds all of them, `{near_bits}` for the length of the former, `{host_bits}` for that of an address, `{family}`
/// for "v4" or "v6".
pub(crate) fn tcp(name: &str, port: u16, keys: &str) -> String {
    both(name, "tcp", port, 8080, keys)
}

/// The same for UDP.
pub(crate) fn udp(name: &str, port: u16, keys: &str) -> String {
    both(name, "udp", port, 5353, keys)
}

fn both(name: &str, protocol: &str, port: u16, target_port: u16, keys: &str) -> String {
    let mut text = String::new();
    for family in Family::BOTH {
        let vip = family.vip(port).ip();
        let [first, second] = [family.first(), family.second()]
            .map(|target| SocketAddr::new(target, target_port).to_string());
        text += &format!(
            "[[services]]\nname = \"{}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\nport = {port}\n",
            family.name(name)
        );
        if !keys.contains("scheduler =") {
            text += "scheduler = \"rr\"\n";
        }
        if !keys.contains("targets =") {
            text += "targets = [{ address = \"{first}\" }, { address = \"{second}\" }]\n";
        }
        text += keys;
        text += "\n";
        let (near, wide, version, near_bits, host_bits) = match family {
            Family::V4 => ("10.2.0.0/24", "10.2.0.0/16", "v4", "24", "32"),
            Family::V6 => ("fd00:2::/64", "fd00:2::/32", "v6", "64", "128"),
        };
        for (word, with) in [
            ("{other}", family.other().to_string().as_str()),
            (
                "{nobody}",
                &SocketAddr::new(family.nobody(), 80).to_string(),
            ),
            ("{first}", &first),
            ("{second}", &second),
            ("{near}", near),
            ("{wide}", wide),
            ("{family}", version),
            ("{near_bits}", near_bits),
            ("{host_bits}", host_bits),
        ] {
            text = text.replace(word, with);
        }
    }
    text
}

impl Lab {
    /// A laboratory with both families.
    pub(crate) fn dual() -> Lab {
        let lab = Lab::new();
        for (place, interface, addresses) in [
            (
                lab.client(),
                "c0",
                &[
                    "10.2.0.2/24",
                    "10.2.1.1/24",
                    "fd00:2::1/64",
                    "fd00:2::2/64",
                    "fd00:2:0:1::1/64",
                ][..],
            ),
            (lab.gateway(), "ext0", &["fd00:2::11/64"]),
            (lab.gateway(), "int0", &["fd00:3::11/64"]),
            (lab.target(), "t0", &["fd00:3::21/64", "fd00:3::22/64"]),
        ] {
            for address in addresses {
                place.address(interface, address);
            }
        }
        let way = ["-6", "route", "add", "2001:db8::/64", "via", "fd00:2::11"];
        lab.client().ip(&way);
        lab
    }

    /// The configuration of a node in it: `head` for whole sections, `port` for keys of both ports.
    pub(crate) fn dual_config(&self, head: &str, port: &str, services: &str) -> String {
        let local_ips = format!("local_ips = {LOCAL_IPS:?}");
        self.dual_node(head, [port, &format!("{local_ips}\n{port}")], services)
    }

    /// The same with further keys of the external port and of the internal one, which may do without LocalIPs.
    pub(crate) fn dual_node(&self, head: &str, keys: [&str; 2], services: &str) -> String {
        let addresses = [
            "address = [\"10.2.0.11/24\", \"fd00:2::11/64\"]\ngateway = [\"10.2.0.1\", \"fd00:2::1\"]",
            "address = [\"10.3.0.11/24\", \"fd00:3::11/64\"]",
        ];
        let [external, internal] = [0, 1].map(|n| format!("{}\n{}", addresses[n], keys[n]));
        self.node(head, [external, internal], services)
    }
}

impl Place {
    /// Echo servers as [`tcp`] and [`udp`] want them.
    pub(crate) fn dual_targets(&self) {
        for family in Family::BOTH {
            let both = [(family.first(), b'1'), (family.second(), b'2')];
            self.echo_tcp(&both.map(|(ip, id)| (SocketAddr::new(ip, 8080), id)));
            self.echo_udp(&both.map(|(ip, id)| (SocketAddr::new(ip, 5353), id)));
        }
    }
}
