//! What the other nodes hear of this one, over a real nats-server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shared::bus::{Bus, DrainRecord, Key, NodeRecord, Record, RegistrationRecord, Tier, unix_ms};
use shared::config::Document;
use shared::config::sections::BusSection;

use crate::backend::Backend;
use crate::client;
use crate::proxy::{Proxy, address, eventually};

/// A nats-server on a loopback address of its own; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    _store: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let store = tempfile::tempdir().expect("folder");
        let address = SocketAddr::new(address(), 4222);
        let installed = PathBuf::from("/usr/sbin/nats-server");
        let binary = if installed.is_file() {
            installed
        } else {
            "nats-server".into()
        };
        let child = Command::new(binary)
            .args([
                "--addr",
                &address.ip().to_string(),
                "--port",
                "4222",
                "--jetstream",
                "--store_dir",
            ])
            .arg(store.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed");
        eventually("nats-server listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Server {
            child,
            address,
            _store: store,
        }
    }

    fn config(&self) -> String {
        format!(
            "[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"{}\"]\nretry_max = \"200ms\"\n",
            self.address
        )
    }

    /// The bus as another node sees it.
    fn bus(&self) -> Bus {
        let section = Document::from_toml("test.toml", &self.config())
            .and_then(|document| document.parse(|root| Some(BusSection::parse(root))))
            .expect("a bus section");
        Bus::start(&section, "observer")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVICE: &str = "web";
const OFFERED: &str = "10.3.0.21:80";

fn start(server: &Server, app: &Backend) -> Proxy {
    Proxy::start(&format!(
        r#"
        {}
        [[registrations]]
        service = "{SERVICE}"
        address = "{OFFERED}"
        weight = 7
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        upstream = "app"
        [drain]
        grace = "300ms"
        deadline = "2s"
        "#,
        server.config(),
        app.address
    ))
}

fn registration(bus: &Bus) -> Option<RegistrationRecord> {
    let key = Key::Registration {
        service: SERVICE.into(),
        addr: OFFERED.parse().expect("address"),
    };
    match bus.get(&key) {
        Some(Record::Registration(registration)) => Some(registration),
        _ => None,
    }
}

fn node(bus: &Bus) -> Option<NodeRecord> {
    match bus.get(&Key::Node {
        tier: Tier::L7,
        id: "l7-test".into(),
    }) {
        Some(Record::Node(node)) => Some(node),
        _ => None,
    }
}

#[test]
fn a_node_offers_itself_says_when_it_drains_and_takes_itself_back() {
    let (server, app) = (Server::start(), Backend::start("app"));
    let bus = server.bus();
    let mut proxy = start(&server, &app);
    eventually("it is registered", || {
        registration(&bus).is_some() && node(&bus).is_some()
    });
    let offer = registration(&bus).expect("registered");
    assert_eq!(
        (offer.node.as_str(), offer.weight, offer.draining),
        ("l7-test", 7, false)
    );
    assert!(offer.ttl_ms > 0 && node(&bus).is_some_and(|node| node.ready && node.forwarding));

    proxy.command("drain");
    eventually("it says so", || {
        registration(&bus).is_some_and(|offer| offer.draining)
    });
    assert!(node(&bus).is_some_and(|node| node.draining && !node.ready && node.forwarding));
    proxy.command("undrain");
    eventually("it is back", || {
        registration(&bus).is_some_and(|offer| !offer.draining)
    });

    proxy.signal("TERM");
    assert!(proxy.wait(Duration::from_secs(8)).success());
    eventually("nothing of it is left", || {
        registration(&bus).is_none() && node(&bus).is_none()
    });
}

#[test]
fn an_operator_drains_a_node_over_the_bus() {
    let (server, app) = (Server::start(), Backend::start("app"));
    let bus = server.bus();
    let proxy = start(&server, &app);
    let ask = |drain| {
        bus.put(DrainRecord {
            tier: Tier::L7,
            id: "l7-test".into(),
            drain,
            by: "operator".into(),
            since_unix_ms: unix_ms(),
        });
    };
    ask(true);
    eventually("it drains", || !proxy.ready());
    eventually("and says so", || {
        registration(&bus).is_some_and(|offer| offer.draining)
    });
    ask(false);
    eventually("it serves", || proxy.ready());
}

#[test]
fn losing_the_bus_changes_nothing_for_clients() {
    let (mut server, app) = (Server::start(), Backend::start("app"));
    let mut proxy = start(&server, &app);
    eventually("the bus is there", || {
        proxy.status()["bus"]["connected"] == true
    });
    server.child.kill().expect("kill");
    server.child.wait().expect("wait");
    eventually("the bus is lost", || {
        proxy.status()["bus"]["connected"] == false
    });
    assert!(proxy.ready());
    assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    proxy.signal("TERM");
    assert!(proxy.wait(Duration::from_secs(8)).success());
}
