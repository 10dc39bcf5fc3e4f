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
        Server::at(SocketAddr::new(address(), 4222), &[])
    }

    fn at(address: SocketAddr, more: &[&str]) -> Server {
        let store = tempfile::tempdir().expect("folder");
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
            .args(more)
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
    let offer = format!(
        "[[registrations]]\nservice = \"{SERVICE}\"\naddress = \"{OFFERED}\"\nweight = 7\n"
    );
    Proxy::start(&config(server, app, &offer))
}

fn config(server: &Server, app: &Backend, offer: &str) -> String {
    format!(
        r#"
        {}
        {offer}
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
    )
}

fn registration(bus: &Bus) -> Option<RegistrationRecord> {
    registration_at(bus, OFFERED)
}

fn registration_at(bus: &Bus, address: &str) -> Option<RegistrationRecord> {
    let key = Key::Registration {
        service: SERVICE.into(),
        addr: address.parse().expect("address"),
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

/// Why /readyz says no.
fn unready(proxy: &Proxy) -> String {
    let answer = client::get(proxy.admin(), "admin", "/readyz");
    assert_eq!(answer.status, 503);
    answer.text()
}

#[test]
fn a_second_node_of_one_name_is_silent_and_says_so_until_the_first_has_left() {
    let (server, app) = (Server::start(), Backend::start("app"));
    let bus = server.bus();
    let mut first = start(&server, &app);
    eventually("the first is registered", || registration(&bus).is_some());
    let is_of =
        |proxy: &Proxy| node(&bus).is_some_and(|node| node.addresses.contains(&proxy.web().ip()));
    assert!(is_of(&first));
    // A copy with addresses of its own, and one that L4 nodes know by their configuration alone.
    let other = "10.3.0.22:80";
    let offer = format!("[[registrations]]\nservice = \"{SERVICE}\"\naddress = \"{other}\"\n");
    let second = Proxy::start(&config(&server, &app, &offer));
    let fixed = Proxy::start(&config(&server, &app, ""));
    for proxy in [&second, &fixed] {
        eventually("it sees the first", || {
            proxy.status()["bus"]["duplicate"]["yields"] == true
        });
        let status = proxy.status();
        assert_eq!(status["bus"]["duplicate"]["key"], "node/l7/l7-test");
        assert_eq!(status["bus"]["silent"]["why"], "duplicate");
        proxy.await_metric("weir_bus_duplicate", &[], 1.0);
        let said = proxy.said();
        assert!(
            said.contains("another living process writes node/l7/l7-test; it was there first"),
            "{said}"
        );
        // Whoever comes is served, sent by whomever.
        assert_eq!(client::get(proxy.web(), "a", "/echo").status, 200);
    }
    let why = unready(&second);
    assert!(why.contains("writes node/l7/l7-test"), "{why}");
    assert_eq!(second.status()["ready"], false);
    assert!(fixed.ready() && fixed.status()["ready"] == true);
    drop(fixed);

    assert!(first.ready() && first.status()["bus"]["duplicate"].is_null());
    assert!(registration(&bus).is_some() && is_of(&first));
    assert!(registration_at(&bus, other).is_none());
    first.signal("TERM");
    assert!(first.wait(Duration::from_secs(8)).success());
    eventually("the second takes over", || {
        registration_at(&bus, other).is_some() && is_of(&second) && second.ready()
    });
    eventually("the first's is gone", || registration(&bus).is_none());
    eventually("nobody is spoken of", || {
        second.status()["bus"]["duplicate"].is_null()
            && second.metric("weir_bus_duplicate", &[]) == 0.0
    });
}

#[test]
fn an_address_is_one_nodes_until_it_is_gone_and_the_rest_of_another_is_told() {
    let (server, app) = (Server::start(), Backend::start("app"));
    let bus = server.bus();
    let other = "10.3.0.22:80";
    let offers = |addresses: &[&str]| -> String {
        let offer = |address: &&str| {
            format!(
                "[[registrations]]\nservice = \"{SERVICE}\"\naddress = \"{address}\"\nttl = \"2s\"\n"
            )
        };
        addresses.iter().map(offer).collect()
    };
    let by = |address: &str| registration_at(&bus, address).map(|offer| offer.node);
    let first = Proxy::start_as("l7-a", &config(&server, &app, &offers(&[OFFERED])));
    eventually("it is registered", || {
        by(OFFERED).as_deref() == Some("l7-a")
    });
    let second = Proxy::start_as("l7-b", &config(&server, &app, &offers(&[OFFERED, other])));
    eventually("what is its own is registered", || {
        by(other).as_deref() == Some("l7-b")
    });
    eventually("it sees the first", || {
        second.status()["bus"]["duplicate"]["yields"] == true
    });
    assert_eq!(
        second.status()["bus"]["duplicate"]["key"],
        format!("registration/{SERVICE}/{OFFERED}")
    );
    let said = second.said();
    assert!(
        said.contains("this process will not register that address until it is gone"),
        "{said}"
    );
    assert!(second.ready(), "it gets what comes to the other address");
    assert!(second.status()["bus"]["silent"].is_null());
    assert_eq!(by(OFFERED).as_deref(), Some("l7-a"));
    assert!(first.status()["bus"]["duplicate"].is_null());
    // Killed: it takes nothing back.
    drop(first);
    eventually("the address is the second's", || {
        by(OFFERED).as_deref() == Some("l7-b")
    });
}

#[test]
fn another_password_of_the_bus_is_shown_by_a_reload_and_used_at_the_next_connection() {
    let app = Backend::start("app");
    let at = SocketAddr::new(address(), 4222);
    let start = |password: &str| Server::at(at, &["--user", "weir", "--pass", password]);
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "first-secret\n").expect("write");
    let server = start("first-secret");
    let login = format!("user = \"weir\"\npassword_file = \"{}\"\n", file.display());
    let proxy = Proxy::start(&config(&server, &app, &login));
    let connected = |wanted: bool| proxy.status()["bus"]["connected"] == wanted;
    eventually("the bus is there", || connected(true));

    drop(server);
    eventually("the bus is lost", || connected(false));
    let _server = start("second-secret");
    std::thread::sleep(Duration::from_millis(500));
    assert!(connected(false), "it has the old password");
    std::fs::write(&file, "second-secret\n").expect("write");
    let said = proxy.command("reload");
    assert!(
        said.contains("bus.nats.password_file: the content of") && !said.contains("second-secret"),
        "{said}"
    );
    eventually("the bus is back", || connected(true));
}
