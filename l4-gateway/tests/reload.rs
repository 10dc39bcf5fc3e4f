//! A new configuration for a running node, by command and by signal.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read};
use std::time::Duration;

use lab::{Echo, Gateway, Lab, SERVICES, WORKERS, pattern};
use rustix::process::Signal;

fn write(lab: &Lab, config: &str) {
    std::fs::write(lab.directory.path().join("l4.toml"), config).unwrap();
}

/// Which targets new connections reach.
fn reached(lab: &Lab, port: u16) -> Vec<u8> {
    lab.client().run(move || {
        let mut ids: Vec<u8> = (0..6).map(|_| Echo::connect(port).unwrap().id).collect();
        ids.sort();
        ids.dedup();
        ids
    })
}

#[test]
fn a_reload_prints_what_it_changes_and_leaves_flows_alone() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let workers = WORKERS.replace("[workers]", "[workers]\ncount = 2");
    let usual = lab.config(&workers, "queues = 2", SERVICES);
    let gateway = Gateway::start(&lab, &usual);
    let mut held: Vec<Echo> = lab
        .client()
        .run(|| (0..8).map(|_| Echo::connect(80).unwrap()).collect());
    assert!(held.iter().any(|echo| echo.id == b'1'));

    // The first target goes, the second becomes heavier, and a service comes.
    let first_gone = usual.replace(
        "{ address = \"10.3.0.21:8080\" }, { address = \"10.3.0.22:8080\" }",
        "{ address = \"10.3.0.22:8080\", weight = 3 }",
    ) + "[[services]]\nname = \"more\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 81\ntargets = [{ address = \"10.3.0.21:8080\" }]\n";
    write(&lab, &first_gone);
    let file = lab.directory.path().join("l4.toml");
    let file = file.display();
    assert_eq!(
        gateway.subcommand(&["reload"]),
        format!(
            "services.tcp.targets.10.3.0.21:8080: removed\n\
         services.tcp.targets.10.3.0.22:8080.weight: (default) -> 3\n\
         services.more: added (name \"more\", port 81, protocol \"tcp\", vip \"10.0.0.100\")\n\
         reloaded {file}\n"
        )
    );
    assert_eq!(reached(&lab, 80), [b'2']);
    assert_eq!(reached(&lab, 81), [b'1']);
    for (seed, echo) in held.iter_mut().enumerate() {
        echo.exchange(&pattern(20_000, seed as u64));
    }
    assert_eq!(
        gateway.subcommand(&["reload"]),
        format!("reloaded {file}: nothing has changed\n")
    );

    // The service itself goes: its flows go on, new ones are refused at once.
    let (head, _) = first_gone.split_once("[[services]]").unwrap();
    let (_, more) = first_gone.split_once("name = \"more\"").unwrap();
    write(&lab, &format!("{head}[[services]]\nname = \"more\"{more}"));
    gateway.signal(Signal::HUP);
    gateway.wait("reloaded", || {
        gateway.status()["services"].as_array().unwrap().len() == 1
    });
    for (seed, echo) in held.iter_mut().enumerate() {
        echo.exchange(&pattern(20_000, seed as u64));
    }
    let refused = lab
        .client()
        .run(|| Echo::connect(80).map(|_| ()).map_err(|error| error.kind()));
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
}

#[test]
fn routers_come_and_go_by_a_reload() {
    let lab = Lab::new();
    let with = |addresses: &[&str]| {
        let neighbour = |address: &&str| {
            format!("[[bgp.neighbours]]\naddress = \"{address}\"\nremote_as = 65001\n")
        };
        let neighbours: String = addresses.iter().map(neighbour).collect();
        format!(
            "{}[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n{neighbours}",
            lab.usual()
        )
    };
    let gateway = Gateway::launch(&lab, &with(&["10.2.0.1"]));
    gateway.wait("up", || {
        gateway
            .ready()
            .is_err_and(|why| why.contains("BGP session"))
    });
    let routers = || {
        let status = gateway.status();
        let routers = status["bgp"]["neighbours"].as_object().unwrap().clone();
        routers
            .into_iter()
            .map(|(address, _)| address)
            .collect::<Vec<_>>()
    };
    assert_eq!(routers(), ["10.2.0.1"]);
    gateway.reload(&with(&["10.2.0.1", "10.2.0.2"]));
    gateway.wait("the other is known", || {
        routers() == ["10.2.0.1", "10.2.0.2"]
    });
    gateway.reload(&with(&["10.2.0.2"]));
    gateway.wait("the first is not", || routers() == ["10.2.0.2"]);
    write(&lab, &with(&["10.2.0.2"]).replace("65010", "65011"));
    let why = gateway.try_subcommand(&["reload"]).unwrap_err();
    assert!(
        why.contains(": bgp.local_as: takes effect by a restart only\n"),
        "{why}"
    );
    write(&lab, &lab.usual());
    let why = gateway.try_subcommand(&["reload"]).unwrap_err();
    assert!(
        why.contains(": bgp.router_id: takes effect by a restart only\n"),
        "{why}"
    );
}

#[test]
fn a_plan_says_what_a_reload_would_do_and_changes_nothing() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let usual = lab.usual();
    let gateway = Gateway::start(&lab, &usual);
    let _held: Vec<Echo> = lab
        .client()
        .run(|| (0..3).map(|_| Echo::connect(80).unwrap()).collect());
    let other = lab.directory.path().join("other.toml");
    let plan = |config: &str| {
        std::fs::write(&other, config).unwrap();
        gateway.try_subcommand(&["plan", "--config", other.to_str().unwrap()])
    };
    gateway.wait("the flows are counted", || {
        gateway.service("tcp")["flows"] == 3
    });
    assert_eq!(plan(&usual), Ok("a reload would change nothing\n".into()));
    let moved = usual.replacen("port = 80\n", "port = 81\n", 1);
    assert_eq!(
        plan(&moved).unwrap(),
        "services.tcp.port: 80 -> 81\n\
         would end: 3 flows of service tcp (10.0.0.100:80): it is no longer configured; those left after 1h are ended\n\
         a reload would do this; nothing was changed\n"
    );
    assert_eq!(
        plan(&moved.replace("flows = 16384", "flows = 32768")).unwrap_err(),
        "services.tcp.port: 80 -> 81\n\
         workers.flows: 16384 -> 32768 (needs a restart)\n\
         a reload would be refused: one of these takes effect by a restart only\n"
    );
    let why = plan(&moved.replace("\"rr\"", "\"rrr\"")).unwrap_err();
    assert!(
        why.starts_with(&format!("{}:", other.display()))
            && why.contains("did you mean \"rr\"?")
            && why.ends_with("\na reload would be refused\n"),
        "{why}"
    );
    assert_eq!(reached(&lab, 80), [b'1', b'2']);
    assert_eq!(
        gateway.status()["configuration"]["refused"],
        serde_json::Value::Null
    );
}

/// That `--config` also says where the node is to be asked; the file is the node's own all the same.
#[test]
fn a_reload_says_so_where_another_file_was_named_than_the_nodes() {
    let lab = Lab::new();
    let usual = lab.usual();
    let _gateway = Gateway::start(&lab, &usual);
    let own = lab.directory.path().join("l4.toml");
    let [link, other] = ["link.toml", "other.toml"].map(|name| lab.directory.path().join(name));
    std::os::unix::fs::symlink(&own, &link).unwrap();
    std::fs::write(&other, usual.replace("port = 80\n", "port = 81\n")).unwrap();
    let printed = |config: &std::path::Path| {
        let mut command = lab.gateway().command(env!("CARGO_BIN_EXE_l4-gateway"));
        command.args(["reload", "--admin", lab::ADMIN, "--config"]);
        let output = command.arg(config).output().unwrap();
        assert!(output.status.success());
        [output.stderr, output.stdout].map(|text| String::from_utf8(text).unwrap())
    };
    let done = format!("reloaded {}: nothing has changed\n", own.display());
    for named in [&own, &link] {
        assert_eq!(printed(named), ["", &done]);
    }
    let warning = format!(
        "warning: the process reads {}, which it was started with, and not {}\n",
        own.display(),
        other.display()
    );
    assert_eq!(printed(&other), [warning, done]);
}

#[test]
fn flows_keep_a_vip_and_a_local_ip_that_a_reload_takes_away() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let workers = WORKERS.replace("[workers]", "[workers]\ncount = 2");
    let services = SERVICES.replace(
        "port = 80",
        "port = 80\ntimeouts = { time_wait = \"1s\", close = \"1s\" }",
    );
    let before = lab.config(&workers, "queues = 2", &services);
    let gateway = Gateway::start(&lab, &before);
    let mut held: Vec<Echo> = lab
        .client()
        .run(|| (0..8).map(|_| Echo::connect(80).unwrap()).collect());
    let mut all_go_on = || {
        // The target must learn anew where the LocalIP is.
        lab.target().ip(&["neigh", "flush", "all"]);
        for (seed, echo) in held.iter_mut().enumerate() {
            echo.exchange(&pattern(20_000, seed as u64));
        }
    };
    let other_local_ip = before.replace("[\"10.3.0.100\"]", "[\"10.3.0.101\"]");
    write(&lab, &other_local_ip);
    assert_eq!(
        gateway.subcommand(&["reload"]),
        format!(
            "ports.int.local_ips: [\"10.3.0.100\"] -> [\"10.3.0.101\"]\nreloaded {}\n",
            lab.directory.path().join("l4.toml").display()
        )
    );
    all_go_on();
    let seen = lab.client().run(|| Echo::connect(80).unwrap().seen);
    assert_eq!(seen, "10.3.0.101", "new flows have the new one");
    write(
        &lab,
        &other_local_ip.replace("\"10.0.0.100\"", "\"10.0.0.101\""),
    );
    gateway.subcommand(&["reload"]);
    all_go_on();
    let refused = lab
        .client()
        .run(|| Echo::connect(80).map(|_| ()).map_err(|error| error.kind()));
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    gateway.wait("told", || {
        let status = gateway.status();
        let retired = status["retired_addresses"].as_array().unwrap();
        let told = |address: &str, flows: u64| {
            retired
                .iter()
                .any(|view| view["address"] == address && view["flows"].as_u64().unwrap() >= flows)
        };
        told("10.0.0.100", 8) && told("10.3.0.100", 8)
    });
    drop(held);
    gateway.wait("given up", || {
        gateway.status()["retired_addresses"]
            .as_array()
            .unwrap()
            .is_empty()
    });
}

/// The VIP stays with its UDP service, so nothing but the service itself retires.
#[test]
fn flows_of_a_removed_service_are_reset_when_their_time_is_over() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let workers = format!("{WORKERS}removed_addresses = \"3s\"\n");
    let gateway = Gateway::start(&lab, &lab.config(&workers, "", SERVICES));
    let mut held = lab.client().run(|| Echo::connect(80).unwrap());
    let udp = SERVICES.find("[[services]]\nname = \"udp\"").unwrap();
    gateway.reload(&lab.config(&workers, "", &SERVICES[udp..]));
    held.exchange(&pattern(20_000, 1));
    let status = gateway.status();
    assert_eq!(status["retired_addresses"].as_array().unwrap().len(), 0);
    let retired = &status["retired_services"][0];
    assert_eq!(
        (&retired["port"], &retired["flows"]),
        (&80.into(), &1.into())
    );
    // Within the five seconds that reads take at most.
    let end = held.stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    gateway.wait("given up", || {
        gateway.status()["retired_services"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    assert_eq!(
        gateway
            .flows(&serde_json::json!({ "vip": "10.0.0.100" }))
            .len(),
        0
    );
}

#[test]
fn a_mistake_or_a_key_that_needs_a_restart_changes_nothing() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let usual = lab.usual();
    let gateway = Gateway::start(&lab, &usual);
    let refused = |config: &str| {
        write(&lab, config);
        let why = gateway.try_subcommand(&["reload"]).unwrap_err();
        assert!(why.ends_with("nothing was changed\n"), "{why}");
        assert_eq!(gateway.status()["services"].as_array().unwrap().len(), 2);
        assert!(
            gateway
                .metrics()
                .contains("weir_l4_config_last_reload_successful 0")
        );
        assert_eq!(gateway.ready(), Ok(()));
        why
    };
    let only_udp = usual[..usual.find("[[services]]").unwrap()].to_owned()
        + &usual[usual.rfind("[[services]]").unwrap()..];

    let why = refused(&only_udp.replace("scheduler = \"rr\"", "scheduler = \"rrr\""));
    assert!(
        why.contains("l4.toml:")
            && why.contains("services[0].scheduler: ")
            && why.contains("did you mean \"rr\"?"),
        "{why}"
    );
    let why = refused("not toml at all [");
    assert!(why.contains("l4.toml:1"), "{why}");
    let why = refused(&only_udp.replace("flows = 16384", "flows = 32768"));
    assert!(
        why.contains(": workers.flows: takes effect by a restart only\n")
            && why.contains("the other changes (1)"),
        "{why}"
    );
    let why = refused(&only_udp.replace(
        "device = \"net_af_packet0,iface=ext0\"",
        "device = \"net_af_packet7,iface=ext0\"",
    ));
    assert!(
        why.contains(": ports.ext.device: takes effect by a restart only\n"),
        "{why}"
    );
    std::fs::remove_file(lab.directory.path().join("l4.toml")).unwrap();
    let why = gateway.try_subcommand(&["reload"]).unwrap_err();
    assert!(
        why.contains("l4.toml") && why.contains("No such file"),
        "{why}"
    );
    let status = gateway.status();
    assert!(
        status["configuration"]["refused"]
            .as_str()
            .unwrap()
            .contains("No such file"),
        "{status}"
    );

    write(&lab, &only_udp);
    gateway.subcommand(&["reload"]);
    assert_eq!(gateway.status()["services"].as_array().unwrap().len(), 1);
    assert!(
        gateway
            .metrics()
            .contains("weir_l4_config_last_reload_successful 1")
    );
}

#[test]
fn health_checks_follow_a_reload() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let checked = |targets: &str| {
        let services = format!(
            "[[services]]\nname = \"tcp\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 80\ntargets = [{targets}]\n\
             health = {{ type = \"tcp\", interval = \"100ms\", rise = 1, fall = 1, timeout = \"100ms\" }}\n"
        );
        lab.config(WORKERS, "", &services)
    };
    let up = |gateway: &Gateway| {
        let service = gateway.service("tcp");
        let targets = service["targets"].as_array().unwrap().clone();
        let up = targets.into_iter().filter(|target| target["up"] == true);
        up.map(|target| target["address"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let gateway = Gateway::start(&lab, &checked("{ address = \"10.3.0.21:8080\" }"));
    gateway.wait("probed", || up(&gateway) == ["10.3.0.21:8080"]);
    assert_eq!(gateway.status()["bus"]["keys"], 2, "node and target");
    // Nobody listens on 9.
    write(
        &lab,
        &checked("{ address = \"10.3.0.22:8080\" }, { address = \"10.3.0.22:9\" }"),
    );
    gateway.subcommand(&["reload"]);
    gateway.wait("probed", || {
        up(&gateway) == ["10.3.0.22:8080"]
            && gateway.service("tcp")["targets"][0]["reason"] != "not probed"
    });
    gateway.wait("told of the targets it has, and of no other", || {
        gateway.status()["bus"]["keys"] == 3
    });
    assert_eq!(reached(&lab, 80), [b'2']);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        gateway
            .metrics()
            .contains("weir_l4_service_targets{service=\"tcp\"} 2"),
        "{}",
        gateway.metrics()
    );
}

#[test]
fn what_a_new_configuration_warns_of_is_logged() {
    let lab = Lab::new();
    let probed = |health: &str| {
        let services = SERVICES.replacen(
            "port = 80\n",
            &format!(
                "port = 80\nclient_address = \"proxy_v2\"\nhealth = {{ type = \"{health}\" }}\n"
            ),
            1,
        );
        lab.config(WORKERS, "", &services)
    };
    let warning = "services[0].health: the targets expect a PROXY header";
    let gateway = Gateway::start(&lab, &probed("tcp"));
    assert!(!gateway.log().contains(warning), "{}", gateway.log());
    gateway.reload(&probed("http"));
    assert!(gateway.log().contains(warning), "{}", gateway.log());
}
