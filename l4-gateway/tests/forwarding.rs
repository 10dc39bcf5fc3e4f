//! Real kernels at both ends of the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::{Echo, FIRST, Gateway, LOCAL_IP, Lab, SERVICES, VIP, WORKERS, pattern};

#[test]
fn tcp_goes_to_the_targets_in_turn_and_every_byte_comes_back() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let reached = lab.client().run(|| {
        let mut reached = Vec::new();
        for seed in 0..6 {
            let mut echo = Echo::connect(80).unwrap();
            assert_eq!(echo.seen, LOCAL_IP.to_string(), "targets see a LocalIP");
            echo.exchange(&pattern(300_000, seed));
            reached.push(echo.id);
        }
        reached
    });
    let first = reached.iter().filter(|id| **id == b'1').count();
    assert_eq!((first, reached.len()), (3, 6), "{reached:?}");
    let service = gateway.service("tcp");
    assert_eq!(service["flows_created"], 6);
    assert!(
        service["bytes_in"].as_u64().unwrap() > 1_800_000,
        "{service}"
    );
    assert!(
        service["bytes_out"].as_u64().unwrap() > 1_800_000,
        "{service}"
    );
    assert_eq!(service["targets"][0]["flows_created"], 3);
    let metrics = gateway.metrics();
    for series in [
        "weir_l4_ready 1",
        "weir_l4_service_flows_created_total{service=\"tcp\"} 6",
        "weir_l4_target_flows_created_total{service=\"tcp\",target=\"10.3.0.22:8080\"} 3",
        "weir_l4_dropped_total{worker=\"0\",reason=\"no_flow\"} 0",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

#[test]
fn udp_goes_there_and_back() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let _gateway = Gateway::start(&lab, &lab.usual());
    lab.client().run(|| {
        let mut ids = Vec::new();
        for port in 0..4u8 {
            let socket = UdpSocket::bind(("10.2.0.1", 0)).unwrap();
            socket.connect((VIP, 53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(3)))
                .unwrap();
            let mut buffer = [0; 2048];
            for length in [0, 1, 7, 1400] {
                let sent = vec![port; length];
                socket.send(&sent).unwrap();
                let received = socket.recv(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[1..received]).into_owned();
                assert!(text.starts_with(&LOCAL_IP.to_string()), "{text}");
                assert!(buffer[..received].ends_with(&sent));
                ids.push(buffer[0]);
            }
        }
        assert_eq!(
            ids.iter().filter(|id| **id == b'1').count(),
            8,
            "flows stay, and new ones take turns: {ids:?}"
        );
    });
}

#[test]
fn ping_to_the_vip_is_answered_by_the_gateway() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    let output = lab
        .client()
        .command("ping")
        .args(["-c", "3", "-i", "0.2", "-W", "2", &VIP.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(
        gateway
            .metrics()
            .contains("weir_l4_worker_echo_replies_total{worker=\"0\"} 3")
    );
}

#[test]
fn a_service_without_healthy_targets_refuses_at_once() {
    let lab = Lab::new();
    let services = "[[services]]\nname = \"tcp\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 80\n\
         targets = [{ address = \"10.3.0.21:8080\" }]\nhealth = { type = \"tcp\", interval = \"100ms\", rise = 1, fall = 2 }";
    let gateway = Gateway::start(&lab, &lab.config(WORKERS, "", services));
    let refused = lab.client().run(|| {
        let began = Instant::now();
        (
            Echo::connect(80).map(|_| ()).map_err(|error| error.kind()),
            began.elapsed(),
        )
    });
    assert_eq!(refused.0, Err(ErrorKind::ConnectionRefused));
    assert!(
        refused.1 < Duration::from_millis(900),
        "a lost SYN would have been repeated: {:?}",
        refused.1
    );
    assert_eq!(gateway.service("tcp")["no_target"], 1);

    lab.target().usual_targets();
    gateway.wait("healthy", || gateway.service("tcp")["healthy"] == 1);
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(b"up again"));
}

#[test]
fn workers_with_a_queue_each_hand_frames_to_their_owner() {
    for count in [2, 3, 4] {
        let lab = Lab::new();
        lab.target().usual_targets();
        let workers =
            format!("{WORKERS}\n").replace("[workers]", &format!("[workers]\ncount = {count}"));
        let queues = format!("queues = {count}");
        let gateway = Gateway::start(&lab, &lab.config(&workers, &queues, SERVICES));
        exchange_much(&lab);
        let received = gateway.workers("frames_in");
        assert_eq!(received.len(), count);
        assert!(
            received.iter().all(|frames| *frames > 100),
            "each queue received: {received:?}"
        );
        let sum = |count| -> u64 { gateway.workers(count).iter().sum() };
        // Stray frames may still be on their way between the two questions.
        gateway.wait("as many frames taken as redirected", || {
            sum("redirected") == sum("handed_over")
        });
        let redirected = sum("redirected");
        assert!(
            redirected > 0,
            "the kernel's spread knows nothing of owners, so some frames must have moved"
        );
        let status = gateway.status();
        let share = status["redirected_share"].as_f64().unwrap();
        assert!((0.05..0.95).contains(&share), "{share} of all frames moved");
        for port in status["ports"].as_array().unwrap() {
            assert_eq!(
                (&port["clients_by"], &port["returns_by"]),
                (&"hand-over".into(), &"hand-over".into()),
                "af_packet hashes by what nobody can tell"
            );
        }
    }
}

#[test]
fn workers_without_a_queue_of_their_own_share_one() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let workers = format!("{WORKERS}\n").replace("[workers]", "[workers]\ncount = 2");
    let gateway = Gateway::start(&lab, &lab.config(&workers, "queues = 1", SERVICES));
    exchange_much(&lab);
    assert_eq!(gateway.workers("frames_in")[1], 0);
}

#[test]
fn a_worker_says_how_busy_it_is_and_what_a_frame_costs() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let mut echo = lab.client().run(|| Echo::connect(80).unwrap());
    gateway.wait("busy", || {
        echo.exchange(&pattern(100_000, 1));
        let worker = &gateway.status()["workers"][0];
        let busy = worker["busy_ratio"].as_f64().unwrap_or(0.0);
        let cycles = worker["cycles_per_frame"].as_f64().unwrap_or(0.0);
        // A debug build on a slow machine, and a release build on a fast one.
        busy > 0.0 && busy <= 1.0 && (50.0..1e7).contains(&cycles)
    });
    let metrics = gateway.metrics();
    for series in [
        "weir_l4_worker_busy_ratio{worker=\"0\"} 0.",
        "weir_l4_worker_cycles_per_frame{worker=\"0\"} ",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
}

/// Many connections at a time, each checked byte for byte.
fn exchange_much(lab: &Lab) {
    let clients: Vec<_> = (0..32)
        .map(|seed| {
            lab.client()
                .spawn(move || Echo::connect(80).unwrap().exchange(&pattern(100_000, seed)))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn the_kernel_behind_an_exception_port_is_reached_by_the_port() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let place = lab.gateway();
    // The kernel must not see the port's frames by itself, as with a NIC that DPDK owns.
    place.ip(&["addr", "flush", "dev", "ext0"]);
    for setting in ["rp_filter=1", "arp_ignore=1"] {
        place.sysctl(&format!("net.ipv4.conf.all.{setting}"));
        place.sysctl(&format!("net.ipv4.conf.ext0.{setting}"));
    }
    let config = lab.usual().replacen(
        "gateway =",
        "exception = \"net_tap0,iface=weir-ext\"\ngateway =",
        1,
    );
    let gateway = Gateway::start(&lab, &config);
    place.ip(&["addr", "add", "10.2.0.11/24", "dev", "weir-ext"]);
    place.ip(&["link", "set", "weir-ext", "up"]);
    let output = lab
        .client()
        .command("ping")
        .args(["-c", "3", "-i", "0.2", "-W", "2", "10.2.0.11"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(
        gateway.workers("to_kernel")[0] >= 3 && gateway.workers("from_kernel")[0] >= 3,
        "{}",
        gateway.status()
    );
    lab.client()
        .run(|| Echo::connect(80).unwrap().exchange(&pattern(100_000, 1)));
}

#[test]
fn both_kernels_take_the_resets_of_an_idle_connection_that_expires() {
    let lab = Lab::new();
    let (listening, ready) = std::sync::mpsc::channel();
    let served = lab.target().spawn(move || {
        let listener = TcpListener::bind((FIRST, 8080)).unwrap();
        listening.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        let length = stream.read(&mut buffer).unwrap();
        stream.write_all(&buffer[..length]).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.read(&mut buffer).map_err(|error| error.kind())
    });
    ready.recv().unwrap();
    let service = "[[services]]\nname = \"tcp\"\nvip = \"10.0.0.100\"\nprotocol = \"tcp\"\nport = 80\n\
         targets = [{ address = \"10.3.0.21:8080\" }]\ntimeouts = { established = \"1s\" }";
    let gateway = Gateway::start(&lab, &lab.config(WORKERS, "", service));
    let heard = lab.client().run(|| {
        let mut stream = TcpStream::connect((VIP, 80)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut buffer = [0; 64];
        stream.write_all(b"hello").unwrap();
        assert_eq!(stream.read(&mut buffer).unwrap(), 5);
        stream.read(&mut buffer).map_err(|error| error.kind())
    });
    assert_eq!(heard, Err(ErrorKind::ConnectionReset));
    assert_eq!(served.join().unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(gateway.service("tcp")["resets_sent"], 1);
}
