//! How a node starts, leaves, fails and comes back: the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Echo, Gateway, Lab, pattern};
use rustix::process::Signal;
use serde_json::{Value, json};
use test_support::ServiceManager;

#[test]
fn sigterm_lets_an_open_flow_finish_and_exits_with_0() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    let mut echo = lab.client().run(|| Echo::connect(80).unwrap());
    gateway.signal(Signal::TERM);
    gateway.wait("draining", || gateway.status()["draining"] == true);
    assert!(gateway.ready().is_err());
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        echo.exchange(&pattern(10_000, 3));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(gateway.is_running(), "a flow is open");
    drop(echo);
    assert_eq!(gateway.end(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn systemd_is_told_when_it_has_started() {
    let lab = Lab::new();
    let systemd = ServiceManager::start();
    let gateway = Gateway::launch_by(&lab, &lab.usual(), |command| systemd.starts(command));
    assert_eq!(systemd.hears(), "READY=1");
    assert!(gateway.status()["workers"][0].is_object());
}

#[test]
fn a_second_sigterm_ends_the_wait() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    let echo = lab.client().run(|| Echo::connect(80).unwrap());
    gateway.signal(Signal::TERM);
    gateway.wait("draining", || gateway.status()["draining"] == true);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end(Duration::from_secs(4)).code(), Some(0));
    drop(echo);
}

#[test]
fn kill_9_and_a_restart_forward_again() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    let mut echo = lab.client().run(|| Echo::connect(80).unwrap());
    gateway.signal(Signal::KILL);
    gateway.end(Duration::from_secs(2));
    let _gateway = Gateway::start(&lab, &lab.usual());
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(&pattern(10_000, 1)));
    // The new process does not know the old flow and says so at once.
    use std::io::{Read, Write};
    echo.stream.write_all(b"still there?").unwrap();
    let error = echo
        .stream
        .read(&mut [0; 64])
        .expect_err("the flow is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_runtime_directory_goes_with_its_last_process() {
    let lab = Lab::new();
    let directory = Path::new("/run/dpdk").join(lab.runtime_directory());
    let leave = |mut gateway: Gateway| {
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.end(Duration::from_secs(5)).code(), Some(0));
    };
    leave(Gateway::start(&lab, &lab.usual()));
    assert!(!directory.exists());

    let mut killed = Gateway::start(&lab, &lab.usual());
    killed.signal(Signal::KILL);
    killed.end(Duration::from_secs(5));
    assert!(directory.join("dpdk_telemetry.v2").exists());
    // One that nobody would replace.
    drop(UnixListener::bind(directory.join("dpdk_telemetry.v2:7")).unwrap());
    thread::sleep(Duration::from_millis(1100));
    let gateway = Gateway::start(&lab, &lab.usual());
    assert!(!directory.join("dpdk_telemetry.v2:7").exists());
    // Of another process that has the same prefix.
    let living = UnixListener::bind(directory.join("dpdk_telemetry.v2:8")).unwrap();
    leave(gateway);
    assert!(directory.join("dpdk_telemetry.v2:8").exists());
    drop(living);
}

#[test]
fn drain_and_undrain_work_by_command_and_by_signal() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let answer: Value =
        serde_json::from_str(&gateway.subcommand(&["drain", "--by", "ann"])).unwrap();
    assert_eq!(answer["draining"], true);
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("without [bgp] no route is withdrawn"),
        "{warning}"
    );
    gateway.wait("drained", || {
        gateway.ready() == Err("draining\n".into()) || gateway.ready() == Err("draining".into())
    });
    lab.client().run(|| {
        Echo::connect(80)
            .unwrap()
            .exchange(b"routers may still send here")
    });
    assert_eq!(
        serde_json::from_str::<Value>(&gateway.subcommand(&["undrain", "--by", "ann"])).unwrap(),
        json!({ "draining": false, "warnings": [] })
    );
    gateway.wait("ready", || gateway.ready().is_ok());
    gateway.signal(Signal::USR1);
    gateway.wait("drained", || gateway.ready().is_err());
    gateway.signal(Signal::USR2);
    gateway.wait("ready", || gateway.ready().is_ok());
    let log = gateway.log();
    let asked: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("drain asked for"))
        .collect();
    assert_eq!(asked.len(), 4, "{log}");
    assert!(
        asked[..2].iter().all(|line| line.contains("by=\"ann\"")),
        "{log}"
    );
    assert!(
        asked[2..].iter().all(|line| line.contains("signal")),
        "{log}"
    );
    assert_eq!(
        log.matches("without [bgp] no route is withdrawn").count(),
        2,
        "{log}"
    );
}

#[test]
fn a_lost_link_is_node_state_at_once() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    lab.target().ip(&["link", "set", "t0", "down"]);
    let took = until_not_forwarding(&gateway);
    assert!(took < Duration::from_millis(100), "{took:?}");
    let why = gateway.ready().unwrap_err();
    assert!(why.contains("link of port int is down"), "{why}");
    lab.target().ip(&["link", "set", "t0", "up"]);
    gateway.wait("ready", || gateway.ready().is_ok());
    let metrics = gateway.metrics();
    for series in [
        "weir_l4_port_link_changes_total{port=\"int\"} 2",
        "weir_l4_port_link_changes_total{port=\"ext\"} 0",
        "weir_l4_port_link_up{port=\"int\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

/// How long after this call; the state on the bus changes with what `/status` shows, in one step.
fn until_not_forwarding(gateway: &Gateway) -> Duration {
    let began = Instant::now();
    loop {
        let forwarding = gateway.status()["forwarding"].as_bool().unwrap();
        let took = began.elapsed();
        if !forwarding || took > Duration::from_secs(5) {
            return took;
        }
    }
}

#[test]
fn a_driver_that_reports_its_link_is_heard() {
    let lab = Lab::new();
    let config = lab
        .usual()
        .replace("net_af_packet1,iface=int0", "net_tap1,iface=tap0");
    let gateway = Gateway::start(&lab, &config);
    lab.gateway().ip(&["link", "set", "tap0", "down"]);
    let took = until_not_forwarding(&gateway);
    assert!(took < Duration::from_millis(100), "{took:?}");
    lab.gateway().ip(&["link", "set", "tap0", "up"]);
    gateway.wait("ready", || gateway.ready().is_ok());
}

/// Holds one thread by ptrace (SEIZE, INTERRUPT) until its own end.
const HOLD: &str = "import ctypes, sys, time; libc = ctypes.CDLL(None, use_errno=True); tid = int(sys.argv[1]); \
    assert libc.ptrace(0x4206, tid, None, None) == 0, ctypes.get_errno(); \
    assert libc.ptrace(0x4207, tid, None, None) == 0; time.sleep(60)";

#[test]
fn a_worker_that_stands_still_is_node_state_within_its_limit() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let config = lab
        .usual()
        .replace("stall_limit = \"1s\"", "stall_limit = \"250ms\"");
    let gateway = Gateway::start(&lab, &config);
    let began = Instant::now();
    let mut hold = Command::new("python3")
        .args(["-c", HOLD, &gateway.worker_thread()])
        .spawn()
        .unwrap();
    gateway.wait("stalled", || gateway.status()["forwarding"] == false);
    assert!(began.elapsed() > Duration::from_millis(250));
    let why = gateway.ready().unwrap_err();
    assert!(why.contains("worker 0 does not turn its loop"), "{why}");
    hold.kill().unwrap();
    hold.wait().unwrap();
    gateway.wait("ready", || gateway.ready().is_ok());
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(b"turning again"));
}

#[test]
fn an_idle_adaptive_node_sleeps() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    thread::sleep(Duration::from_secs(2));
    let worker = &gateway.status()["workers"][0];
    let [busy, idle, asleep] =
        ["busy_seconds", "idle_seconds", "asleep_seconds"].map(|key| worker[key].as_f64().unwrap());
    assert!(
        asleep > 0.8 * (busy + idle + asleep),
        "busy {busy} s, idle {idle} s, asleep {asleep} s"
    );
}

#[test]
fn flows_tell_who_is_behind_a_local_port() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let (echo, client) = lab.client().run(|| {
        let echo = Echo::connect(80).unwrap();
        let client = echo.stream.local_addr().unwrap().to_string();
        (echo, client)
    });
    let flows = gateway.subcommand(&["flows"]);
    let line = flows
        .lines()
        .find(|line| line.contains(&client))
        .unwrap_or_else(|| panic!("{client} is not in\n{flows}"));
    assert!(
        line.contains("established") && line.contains("10.0.0.100:80"),
        "{line}"
    );
    let local = line.split_whitespace().nth(3).unwrap();
    let found = gateway.subcommand(&["flows", "--local", local]);
    assert!(
        found.contains(&client) && found.lines().count() == 2,
        "{found}"
    );
    assert_eq!(
        gateway
            .subcommand(&["flows", "--client", "10.2.0.99"])
            .lines()
            .count(),
        1
    );
    assert!(gateway.subcommand(&["targets"]).contains("10.3.0.22:8080"));
    assert!(gateway.subcommand(&["services"]).contains("udp"));
    drop(echo);
}

#[test]
fn frames_of_a_capture_file_are_answered_into_another() {
    let directory = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pcap", "out.pcap"].map(|name| directory.path().join(name));
    let request: Vec<u8> = [
        &[0xff; 6][..],                     // everybody
        &[2, 0, 0, 0, 0, 1],                // from us
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],    // ARP, Ethernet, IPv4, request
        &[2, 0, 0, 0, 0, 1, 10, 3, 0, 21],  // sender
        &[0, 0, 0, 0, 0, 0, 10, 3, 0, 100], // the LocalIP
    ]
    .concat();
    let length = (request.len() as u32).to_le_bytes();
    let header = [
        &0xa1b2_c3d4u32.to_le_bytes()[..],
        &[2, 0, 4, 0],
        &[0; 8],
        &65535u32.to_le_bytes(),
        &1u32.to_le_bytes(),
    ]
    .concat();
    std::fs::write(
        &input,
        [&header[..], &[0; 8], &length, &length, &request].concat(),
    )
    .unwrap();
    let config = format!(
        "node.id = \"pcap{pid}\"\nadmin.listen = \"127.0.0.1:0\"\neal.huge_pages = false\nworkers = {{ poll = \"adaptive\", flows = 1024 }}\n\
         [[ports]]\nname = \"one\"\ndevice = \"net_pcap0,rx_pcap={input},tx_pcap={output}\"\naddress = \"10.3.0.11/24\"\nlocal_ips = [\"10.3.0.100\"]\n{services}",
        pid = std::process::id(),
        input = input.display(),
        output = output.display(),
        services = lab::SERVICES,
    );
    let path = directory.path().join("l4.toml");
    std::fs::write(&path, config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_l4-gateway"))
        .arg("--config")
        .arg(&path)
        .spawn()
        .unwrap();
    let reply: Vec<u8> = [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..]].concat();
    let deadline = Instant::now() + Duration::from_secs(15);
    let found = loop {
        let written = std::fs::read(&output).unwrap_or_default();
        if written.windows(reply.len()).any(|window| window == reply) {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
        // The driver writes through stdio, which it flushes at the end at the latest.
        if Instant::now() + Duration::from_secs(12) > deadline {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        thread::sleep(Duration::from_millis(50));
    };
    let _ = child.kill();
    let _ = child.wait();
    assert!(found, "no ARP reply was written");
}

const EXAMPLE: &str = include_str!("../../deploy/examples/l4-gateway.toml");
const STANDALONE: &str = include_str!("../../deploy/examples/l4-standalone.toml");
const FTP: &str = include_str!("../../deploy/examples/l4-ftp.toml");

/// The exit status of `check` for such a file, and what it printed.
fn check(config: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("l4.toml");
    std::fs::write(&path, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_l4-gateway"))
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let printed = [output.stderr, output.stdout].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[test]
fn check_takes_the_examples() {
    for example in [EXAMPLE, STANDALONE, FTP] {
        assert_eq!(check(example), (Some(0), "ok\n".into()));
    }
}

#[test]
fn check_warns_of_what_it_takes_all_the_same() {
    let headless = STANDALONE.replace("type = \"tcp\"", "type = \"http\"");
    let (code, text) = check(&headless);
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let [warning, "ok"] = lines[..] else {
        panic!("{text}");
    };
    let expected = ".health: the targets expect a PROXY header";
    assert!(
        warning.starts_with("warning: ") && warning.contains(expected),
        "{warning}"
    );
}

#[test]
fn check_reports_all_mistakes_at_once() {
    let wrong = EXAMPLE
        .replace("scheduler = \"wlc\"", "scheduler = \"wlcc\"")
        .replace(
            "\"10.3.0.100\", \"10.3.0.101\"",
            "\"10.3.0.100\", \"10.9.0.101\"",
        )
        .replace("flows = 1048576", "flowz = 1048576")
        .replace("vip = \"10.0.0.53\"", "vip = \"10.3.0.11\"")
        .replace("deadline = \"30s\"", "deadline = 30");
    let (code, text) = check(&wrong);
    assert_eq!(code, Some(1));
    for (line, complaint) in [
        ("workers.flowz", "did you mean `flows`?"),
        ("services[0].scheduler", "did you mean \"wlc\"?"),
        (
            "ports[1].local_ips",
            "10.9.0.101 is not in the port's network",
        ),
        ("services[1].vip", "is the address of port internal"),
        ("drain.deadline", "write \"30s\""),
    ] {
        let found = text
            .lines()
            .find(|text| text.contains(&format!(": {line}: ")));
        assert!(
            found.is_some_and(|found| found.contains(complaint) && found.contains("l4.toml:")),
            "{line} in\n{text}"
        );
    }
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[test]
fn what_dpdk_refuses_is_an_error_and_not_a_crash() {
    let lab = Lab::new();
    let config = lab.usual().replace("iface=int0", "iface=nonesuch");
    let mut gateway = Gateway::launch(&lab, &config);
    assert_eq!(gateway.end(Duration::from_secs(15)).code(), Some(1));
    assert!(gateway.log().contains("DPDK"), "{}", gateway.log());
}
