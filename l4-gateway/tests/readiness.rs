//! When a node calls itself ready: a rolling restart goes on to the next node then, so clients must be able to come.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::programs::Program;
use lab::{Echo, FIRST, Gateway, Lab, WORKERS, pattern};
use rustix::process::Signal;
use shared::bus::{Bus, RegistrationRecord};
use shared::config::Document;
use shared::config::sections::BusSection;

const BGP: &str = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\nconnect_retry = \"200ms\"\n\
     [[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";

const BIRD: &str = "router id 10.2.0.1;\nprotocol device { }\nprotocol bgp l4 {\n  local 10.2.0.1 as 65001;\n  \
     neighbor 10.2.0.11 as 65010;\n  passive on;\n  ipv4 { import all; export none; };\n}\n";

/// BIRD in the client's place; ends with this value.
struct Router<'a> {
    lab: &'a Lab,
    process: Child,
    socket: String,
}

impl<'a> Router<'a> {
    fn start(lab: &'a Lab) -> Router<'a> {
        let directory = lab.directory.path();
        let config = directory.join("bird.conf");
        std::fs::write(&config, BIRD).unwrap();
        let socket = directory.join("bird.ctl").display().to_string();
        let process = lab
            .client()
            .command("bird")
            .args(["-f", "-s", &socket, "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("BIRD: install the package bird2");
        Router {
            lab,
            process,
            socket,
        }
    }

    fn knows_the_vip(&self) -> bool {
        let mut birdc = self.lab.client().command("birdc");
        birdc.args(["-s", &self.socket, "show", "route", "10.0.0.100/32"]);
        let said = birdc.output().unwrap();
        String::from_utf8_lossy(&said.stdout).contains("10.0.0.100/32")
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

#[test]
fn a_node_is_ready_when_its_router_knows_of_the_vip_and_not_before() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::launch(&lab, &format!("{}{BGP}", lab.usual()));
    gateway.wait("up", || {
        gateway
            .ready()
            .is_err_and(|why| why.contains("10.0.0.100") || why.contains("10.2.0.1"))
    });
    let status = gateway.status();
    assert_eq!(
        (&status["forwarding"], &status["ready"]),
        (&true.into(), &false.into()),
        "{status:#}"
    );

    let router = Router::start(&lab);
    let mut ready = false;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready {
        assert!(Instant::now() < deadline, "{:?}", gateway.ready());
        ready = gateway.ready().is_ok();
    }
    let said = Instant::now();
    while !router.knows_the_vip() {
        assert!(
            said.elapsed() < Duration::from_millis(300),
            "ready, and the router does not know"
        );
    }
    assert_eq!(gateway.metric("weir_l4_ready"), 1);

    // The only router goes: clients can't come.
    drop(router);
    gateway.wait("not ready", || {
        gateway
            .ready()
            .is_err_and(|why| why.contains("no BGP session"))
    });
    assert_eq!(gateway.status()["ready"], false);
}

#[test]
fn a_vip_that_an_operator_drains_is_withdrawn_and_still_served() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::launch(&lab, &format!("{}{BGP}", lab.usual()));
    let router = Router::start(&lab);
    gateway.wait("announced", || router.knows_the_vip());
    let said = gateway.subcommand(&[
        "vip",
        "drain",
        "10.0.0.100",
        "--by",
        "ann",
        "--reason",
        "rack 3",
    ]);
    assert_eq!(said, "10.0.0.100 is withdrawn\n");
    gateway.wait("withdrawn", || !router.knows_the_vip());
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("VIP: changed by an operator"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["10.0.0.100", "drain", "by=\"ann\"", "rack 3"] {
        assert!(line.contains(part), "{line}");
    }
    let shown = gateway.subcommand(&["services"]);
    assert!(shown.contains("vip drained for "), "{shown}");
    assert!(shown.contains(" by ann: rack 3 "), "{shown}");
    assert_eq!(gateway.service("tcp")["vip_operator"]["by"], "ann");
    assert_eq!(gateway.service("tcp")["vip_force"], "withdraw");
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(b"still served?"));

    let said = gateway.subcommand(&["vip", "enable", "10.0.0.100"]);
    assert_eq!(said, "10.0.0.100 is left to the health of its targets\n");
    gateway.wait("announced again", || router.knows_the_vip());
    assert!(!gateway.subcommand(&["services"]).contains("vip drained"));
    let why = gateway.try_subcommand(&["vip", "drain", "10.0.0.99"]);
    assert!(
        why.unwrap_err()
            .starts_with("VIP \"10.0.0.99\": expected one of 10.0.0.100 (HTTP 400)")
    );
}

#[test]
fn who_announces_no_vip_can_drain_none() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    let why = gateway.try_subcommand(&["vip", "drain", "10.0.0.100"]);
    let why = why.unwrap_err();
    assert!(
        why.contains("`bgp-ctl force 10.0.0.100 withdraw`") && why.contains("(HTTP 409)"),
        "{why}"
    );
}

/// A nats-server beside the gateway.
fn nats(lab: &Lab) -> Program {
    let store = lab.directory.path().join("nats").display().to_string();
    let arguments = ["-a", "127.0.0.1", "-p", "4222", "-js", "-sd", &store];
    let place = lab.gateway();
    Program::start(lab, &place, "nats-server", &arguments, "Server is ready")
}

/// The bus of a node that keeps what it knows in `memory`.
fn bus(lab: &Lab, memory: &str) -> String {
    let directory = lab.directory.path().join(memory);
    std::fs::create_dir_all(&directory).unwrap();
    format!(
        "[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"127.0.0.1:4222\"]\nstate_dir = \"{}\"\n",
        directory.display()
    )
}

#[test]
fn a_node_restarted_while_the_bus_is_down_serves_the_targets_it_last_knew_and_is_ready_only_with_them()
 {
    const SERVICE: &str = "[[services]]\nname = \"tcp\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 80\n\
         from_registrations = true\nhealth = { type = \"tcp\", interval = \"200ms\" }\n";
    let lab = Lab::new();
    lab.target().usual_targets();
    let _router = Router::start(&lab);
    let config = |memory: &str| {
        let head = format!("{WORKERS}{}", bus(&lab, memory));
        lab.config(&head, "", &format!("{SERVICE}{BGP}"))
    };
    let server = nats(&lab);
    let mut gateway = Gateway::launch(&lab, &config("kept"));
    let section = Document::from_toml("test.toml", &bus(&lab, "tests"))
        .and_then(|document| document.parse(|root| Some(BusSection::parse(root))))
        .unwrap();
    // Threads of the bus are where it was started.
    let l7 = lab.gateway().run(move || Bus::start(&section, "l7-1"));
    l7.put(RegistrationRecord {
        service: "tcp".into(),
        addr: (FIRST, 8080).into(),
        node: "l7-1".into(),
        weight: 1,
        draining: false,
        ttl_ms: 600_000,
    });
    let serves = || {
        lab.client().run(|| {
            let mut echo = Echo::connect(80).unwrap();
            echo.exchange(&pattern(10_000, 1));
            assert_eq!(echo.id, b'1');
        });
    };
    gateway.wait("ready", || gateway.ready() == Ok(()));
    serves();
    gateway.wait("kept", || {
        let files = std::fs::read_dir(lab.directory.path().join("kept"));
        files.is_ok_and(|mut files| {
            files.any(|file| {
                std::fs::read_to_string(file.unwrap().path())
                    .is_ok_and(|text| text.contains("10.3.0.21:8080"))
            })
        })
    });

    drop((server, l7));
    gateway.wait("without the bus", || {
        gateway.status()["bus"]["connected"] == false
    });
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end(Duration::from_secs(15)).code(), Some(0));
    let mut gateway = Gateway::start(&lab, &config("kept"));
    serves();
    let status = gateway.status();
    assert_eq!(status["bus"]["connected"], false);
    assert_eq!(status["bus"]["remembered"], 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end(Duration::from_secs(15)).code(), Some(0));

    // One that remembers nothing has no target to send clients to, and doesn't ask for them.
    let gateway = Gateway::launch(&lab, &config("empty"));
    gateway.wait("without targets", || {
        gateway
            .ready()
            .is_err_and(|why| why.contains("0 of 0 targets healthy"))
    });
    gateway.wait("with its router", || {
        gateway.metric("weir_bgp_session_up{neighbour=\"10.2.0.1\"}") == 1
    });
    assert_eq!(gateway.status()["ready"], false);
}
