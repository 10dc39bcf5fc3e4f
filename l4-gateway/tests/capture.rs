//! `capture` and the filters of `flows`, read by tshark.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Echo, Gateway, LOCAL_IP, Lab, SERVICES, VIP, WORKERS, pattern};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Runs `capture` until `traffic` is over, then ends it by Ctrl-C; what it said, and its file.
fn capture(
    gateway: &Gateway,
    lab: &Lab,
    filter: &[&str],
    traffic: impl FnOnce(),
) -> (String, PathBuf) {
    let file = lab.directory.path().join("frames.pcapng");
    let _there_was_none = std::fs::remove_file(&file);
    let mut command = lab.gateway().command(env!("CARGO_BIN_EXE_l4-gateway"));
    let child = command
        .args(["capture", "--admin", lab::ADMIN, "--write"])
        .arg(&file)
        .args(filter)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
    gateway.wait("capturing", written);
    traffic();
    // The last frames are on their way.
    thread::sleep(Duration::from_millis(300));
    let _ended_by_itself = kill_process(Pid::from_child(&child), Signal::INT);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (said, file)
}

/// One line a frame: the fields, parted by commas.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-r"])
        .arg(file)
        .args(["-Y", filter, "-T", "fields", "-E", "separator=,"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        !errors.contains("damaged") && !errors.contains("cut short"),
        "{errors}"
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

fn connected(lab: &Lab) -> (Echo, SocketAddr) {
    lab.client().run(|| {
        let echo = Echo::connect(80).unwrap();
        let client = echo.stream.local_addr().unwrap();
        (echo, client)
    })
}

#[test]
fn a_capture_shows_both_sides_of_the_flows_that_match_and_no_other() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let workers = WORKERS.replace("[workers]", "[workers]\ncount = 2");
    let gateway = Gateway::start(&lab, &lab.config(&workers, "queues = 2", SERVICES));
    let (mut wanted, client) = connected(&lab);
    let (mut other, _) = connected(&lab);
    let (said, file) = capture(&gateway, &lab, &["--client", &client.to_string()], || {
        wanted.exchange(b"to be seen");
        other.exchange(b"not to be seen");
    });
    let frames = tshark(
        &file,
        "tcp.len > 0",
        &[
            "frame.interface_name",
            "frame.packet_flags_direction",
            "ip.src",
            "ip.dst",
            "tcp.len",
        ],
    );
    let target = match wanted.id {
        b'1' => "10.3.0.21",
        _ => "10.3.0.22",
    };
    assert_eq!(
        frames,
        [
            format!("ext,0x00000001,10.2.0.1,{VIP},10"),
            format!("int,0x00000002,{LOCAL_IP},{target},10"),
            format!("int,0x00000001,{target},{LOCAL_IP},10"),
            format!("ext,0x00000002,{VIP},10.2.0.1,10"),
        ]
    );
    assert!(tshark(&file, "tcp.payload contains \"not to\"", &["frame.number"]).is_empty());
    let all = tshark(&file, "frame", &["frame.number"]).len();
    assert_eq!(
        said,
        format!("{all} frames captured, 0 that matched were lost for want of room\n")
    );
    // The clock is the wall's.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    for at in tshark(&file, "frame", &["frame.time_epoch"]) {
        let at: f64 = at.parse().unwrap();
        assert!((now.as_secs_f64() - at).abs() < 30.0, "{at}");
    }

    // By the other ends of the flow.
    let local = gateway.subcommand(&["flows", "--client", &client.to_string()]);
    let local = local
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap()
        .to_owned();
    let (_, file) = capture(
        &gateway,
        &lab,
        &["--local", &local, "--target", target],
        || {
            wanted.exchange(b"once more");
            other.exchange(b"not to be seen");
        },
    );
    assert_eq!(tshark(&file, "tcp.len == 9", &["frame.number"]).len(), 4);
    assert!(tshark(&file, "tcp.len == 14", &["frame.number"]).is_empty());
}

#[test]
fn a_capture_keeps_its_bounds_and_there_is_one_at_a_time() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let (mut echo, _) = connected(&lab);
    let (said, file) = capture(&gateway, &lab, &["--packets", "5", "--snap", "64"], || {
        // One that never begins leaves the file of another alone.
        let kept = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kept.path(), "another capture").unwrap();
        let second = ["capture", "--write", kept.path().to_str().unwrap()];
        let why = gateway.try_subcommand(&second).unwrap_err();
        assert!(why.contains("a capture is running already"), "{why}");
        assert!(!why.contains("captured"), "{why}");
        let left = std::fs::read_to_string(kept.path()).unwrap();
        assert_eq!(left, "another capture");
        echo.exchange(&pattern(20_000, 1));
        echo.exchange(&pattern(20_000, 2));
    });
    let lengths = tshark(&file, "frame", &["frame.cap_len"]);
    assert_eq!(lengths.len(), 5, "{said}");
    assert!(
        lengths
            .iter()
            .all(|length| length.parse::<u32>().unwrap() <= 64),
        "{lengths:?}"
    );

    let began = Instant::now();
    gateway.wait("free again", || {
        gateway
            .try_subcommand(&[
                "capture",
                "--seconds",
                "1",
                "--client",
                "10.2.0.77",
                "--write",
                "/dev/null",
            ])
            .is_ok()
    });
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn what_is_dropped_is_captured_with_the_reason() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let config = lab
        .usual()
        .replace("port = 80", "port = 80\non_unknown_segment = \"drop\"");
    let gateway = Gateway::start(&lab, &config);
    let (mut echo, _) = connected(&lab);
    gateway.signal(Signal::KILL);
    let mut gateway = gateway;
    gateway.end(Duration::from_secs(2));
    // The new process does not know the flow.
    let gateway = Gateway::start(&lab, &config);
    let (_, file) = capture(&gateway, &lab, &["--vip", "10.0.0.100:80"], || {
        use std::io::Write;
        echo.stream.write_all(b"unknown").unwrap();
        thread::sleep(Duration::from_millis(300));
    });
    let frames = tshark(
        &file,
        "tcp.len == 7",
        &["frame.interface_name", "frame.comment"],
    );
    assert!(!frames.is_empty());
    assert!(
        frames.iter().all(|frame| frame == "ext,dropped: no_flow"),
        "{frames:?}"
    );
}

#[test]
fn a_capture_can_be_piped_and_tcpdump_reads_it() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let _gateway = Gateway::start(&lab, &lab.usual());
    let (mut echo, client) = connected(&lab);
    let pipe = format!(
        "{} capture --admin {} --seconds 2 --target 10.3.0.0/24 | tcpdump -nr - tcp port {}",
        env!("CARGO_BIN_EXE_l4-gateway"),
        lab::ADMIN,
        client.port()
    );
    let mut command = lab.gateway().command("sh");
    let child = command
        .args(["-c", &pipe])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        echo.exchange(b"hello");
        thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let shown = format!("{} > {VIP}.80", client.to_string().replace(':', "."));
    assert!(
        text.lines()
            .any(|line| line.contains(&shown) && line.contains("length 5")),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn flows_are_found_by_each_of_their_ends_and_counted_when_left_out() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let held: Vec<_> = (0..4).map(|_| connected(&lab)).collect();
    let found = |filter: &[&str]| {
        let text = gateway.subcommand(&[&["flows"], filter].concat());
        text.lines().count() - 1
    };
    let (_, client) = held[0];
    for (filter, flows) in [
        (&["--client", "10.2.0.1"][..], 4),
        (&["--client", "10.2.0.0/24"], 4),
        (&["--client", "10.3.0.0/24"], 0),
        (&["--client", &client.to_string()], 1),
        (&["--vip", "10.0.0.100:80"], 4),
        (&["--vip", "10.0.0.100:53"], 0),
        (&["--target", "10.3.0.21"], 2),
        (&["--target", "10.3.0.21:8080", "--service", "tcp"], 2),
        (&["--local", &LOCAL_IP.to_string()], 4),
        (&["--service", "udp"], 0),
        (&["--protocol", "tcp", "--state", "established"], 4),
        (&["--state", "time_wait"], 0),
        (&["--client", "2001:db8::/32"], 0),
    ] {
        assert_eq!(found(filter), flows, "{filter:?}");
    }
    let text = gateway.subcommand(&["flows", "--limit", "1"]);
    assert!(
        text.ends_with("and 3 more: narrow the filter, or raise --limit\n"),
        "{text}"
    );
    assert_eq!(found(&["--limit", "0"]), 1, "they are counted all the same");
}

#[test]
fn the_admin_listener_refuses_what_cannot_be_asked_and_says_why() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    // Only the node knows its services.
    let error = gateway.try_subcommand(&["flows", "--service", "web"]);
    let error = error.unwrap_err();
    assert!(error.contains("expected one of tcp, udp"), "{error}");
    // What the command line refuses by itself, whoever doesn't ask by it is told here.
    for (command, wrong, why) in [
        (
            "flows",
            json!({ "state": "open" }),
            "state \"open\": expected one of udp, syn_received, syn_answered, established, fin_client, fin_target, time_wait, closed",
        ),
        (
            "flows",
            json!({ "protocol": "sctp" }),
            "protocol \"sctp\": expected one of tcp, udp",
        ),
        (
            "flows",
            json!({ "limit": 10_001 }),
            "limit: expected 0 to 10000, got 10001",
        ),
        (
            "flows",
            json!({ "client": "me" }),
            "\"me\": expected an address",
        ),
        (
            "flows",
            json!({ "sate": "closed" }),
            "unknown field `sate`, expected one of",
        ),
        (
            "capture",
            json!({ "snap": 63 }),
            "snap: expected 64 to 65535, got 63",
        ),
        (
            "capture",
            json!({ "seconds": 301 }),
            "seconds: expected 1 to 300, got 301",
        ),
    ] {
        let (code, answer) = gateway.command(command, &wrong);
        assert_eq!(code, 400, "{wrong}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
