//! The observer as a member of a fleet: what it sees reaches other nodes over a real nats-server, and what they offer reaches it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shared::bus::{Bus, Key, Record, RegistrationRecord, TargetRecord, Tier};
use shared::config::Document;
use shared::config::sections::BusSection;

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn terminate(&mut self) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn nats_server(at: SocketAddr, store: &Path) -> Running {
    // Debian puts it where only root looks.
    let binary = [
        "/usr/sbin/nats-server",
        "/usr/bin/nats-server",
        "/usr/local/bin/nats-server",
    ]
    .into_iter()
    .find(|path| Path::new(path).is_file())
    .expect("nats-server is installed (package nats-server)");
    let port = at.port().to_string();
    Running::start(
        Command::new(binary)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port,
                "--jetstream",
                "--store_dir",
            ])
            .arg(store),
    )
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn target(bus: &Bus, addr: SocketAddr) -> Option<TargetRecord> {
    match bus.get(&Key::Target {
        service: "web".to_owned(),
        addr,
    }) {
        Some(Record::Target(target)) => Some(target),
        _ => None,
    }
}

#[test]
fn what_it_sees_reaches_the_fleet_and_what_the_fleet_offers_reaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let nats = free_port();
    let bus_config = format!(
        "[bus]\ntransport = \"nats\"\nnats = {{ servers = [\"{nats}\"], retry_max = \"200ms\" }}\n"
    );
    let mut server = nats_server(nats, &folder.path().join("store"));

    let (open, closed) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let offered = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| listener.local_addr().unwrap();
    let config = folder.path().join("health.toml");
    let text = format!(
        "node.id = \"observer-1\"\nadmin.listen = \"{}\"\n{bus_config}[services.web]\ntargets = [\"{}\", \"{closed}\"]\n\
         from_registrations = true\nhealth = {{ type = \"tcp\", interval = \"50ms\", rise = 1, fall = 2 }}\n",
        free_port(),
        address(&open),
    );
    std::fs::write(&config, text).unwrap();
    let mut observer = Running::start(
        Command::new(env!("CARGO_BIN_EXE_health"))
            .arg("--config")
            .arg(&config),
    );

    let section = Document::from_toml("bus", &bus_config)
        .unwrap()
        .parse(|root| Some(BusSection::parse(root)))
        .unwrap();
    let bus = Bus::start(&section, "l4-1");
    within("both targets are told", || {
        target(&bus, address(&open)).is_some() && target(&bus, closed).is_some()
    });
    let told = target(&bus, address(&open)).unwrap();
    assert_eq!(
        (told.up, told.reason.as_str(), told.seen_by.as_str()),
        (true, "connected", "observer-1")
    );
    let told = target(&bus, closed).unwrap();
    assert_eq!((told.up, told.reason.as_str()), (false, "connect refused"));

    let offer = RegistrationRecord {
        service: "web".to_owned(),
        addr: address(&offered),
        node: "l7-1".to_owned(),
        weight: 1,
        draining: false,
        ttl_ms: 0,
    };
    bus.put(offer.clone());
    within("the offered target is told", || {
        target(&bus, address(&offered)).is_some_and(|told| told.up)
    });

    // A change while the servers are away is told when they are back.
    drop(server);
    let lost = address(&open);
    drop(open);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        target(&bus, lost).is_some_and(|told| told.up),
        "nobody can know yet"
    );
    server = nats_server(nats, &folder.path().join("store"));
    within("the loss is told", || {
        target(&bus, lost).is_some_and(|told| !told.up)
    });

    bus.delete(&Key::Registration {
        service: offer.service,
        addr: offer.addr,
    });
    within("the record of the withdrawn target goes", || {
        target(&bus, address(&offered)).is_none()
    });

    observer.terminate();
    let node = Key::Node {
        tier: Tier::Health,
        id: "observer-1".to_owned(),
    };
    within("all it said is taken back", || {
        target(&bus, lost).is_none() && target(&bus, closed).is_none() && bus.get(&node).is_none()
    });
    drop(server);
}
