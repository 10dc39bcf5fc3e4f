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

/// Sends random frames, and good ones with random damage, from an AF_PACKET socket.
const GARBAGE: &str = r#"
import random, socket, struct, sys, time
random.seed(7)
mac = bytes.fromhex(open("/dev/stdin").read().strip().replace(":", ""))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("c0", 0))
def ip(proto, body, src, dst):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst))
    s = sum(struct.unpack("!10H", head)); s = (s >> 16) + (s & 0xffff); s += s >> 16
    return head[:10] + struct.pack("!H", ~s & 0xffff) + head[12:] + body
good = []
for flags in (2, 16, 1, 4, 18, 63, 0):
    tcp = struct.pack("!HHIIBBHHH", 40000, 80, 1, 1, 0x50, flags, 1000, 0, 0)
    good.append((0x0800, ip(6, tcp, "10.2.0.1", "10.0.0.100")))
good.append((0x0800, ip(17, struct.pack("!HHHH", 40000, 53, 12, 0) + b"abcd", "10.2.0.1", "10.0.0.100")))
good.append((0x0800, ip(1, b"\x08\x00\xf7\xff\x00\x00\x00\x00", "10.2.0.1", "10.0.0.100")))
good.append((0x0800, ip(1, b"\x03\x04\x00\x00\x00\x00\x05\x00" + ip(6, tcp, "10.3.0.100", "10.3.0.21")[:28], "10.2.0.1", "10.3.0.100")))
good.append((0x0806, struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, b"\x02" * 6, socket.inet_aton("10.2.0.1"), b"\0" * 6, socket.inet_aton("10.3.0.100"))))
end = time.time() + float(sys.argv[1])
sent = 0
while time.time() < end:
    for _ in range(100):
        kind, body = random.choice(good)
        source = b"\x02\0\0\0\0" + bytes([random.randrange(256)])
        frame = bytearray(mac + source + struct.pack("!H", kind) + body)
        how = random.randrange(4)
        if how == 0:
            frame = frame[:12] + random.randbytes(random.randrange(2, 1400))
        else:
            for _ in range(random.randrange(1, 6)):
                frame[random.randrange(12, len(frame))] = random.randrange(256)
            if how == 2:
                frame = frame[:random.randrange(14, len(frame))]
        try:
            raw.send(bytes(frame)); sent += 1
        except OSError:
            pass
    time.sleep(0.001)
print(sent)
"#;

#[test]
fn hostile_garbage_leaves_forwarding_intact() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let mut gateway = Gateway::start(&lab, &lab.usual());
    let mac = gateway.status()["ports"][0]["mac"]
        .as_str()
        .unwrap()
        .to_owned();
    let mac_file = lab.directory.path().join("mac");
    std::fs::write(&mac_file, mac).unwrap();
    let garbage = lab
        .client()
        .command("python3")
        .args(["-c", GARBAGE, "5"])
        .stdin(std::fs::File::open(&mac_file).unwrap())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    lab.client().run(|| {
        let mut held = Echo::connect(80).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let mut seed = 0;
        while Instant::now() < until {
            seed += 1;
            held.exchange(&pattern(20_000, seed));
            Echo::connect(80).unwrap().exchange(&pattern(2_000, seed));
        }
    });
    let output = garbage.wait_with_output().unwrap();
    let sent: u64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    assert!(sent > 10_000, "only {sent} frames of garbage were sent");
    assert!(gateway.is_running());
    assert_eq!(gateway.ready(), Ok(()));
    let drops = gateway.status()["drops"].as_object().unwrap().len();
    assert!(
        drops >= 4,
        "garbage is dropped for many reasons: {}",
        gateway.status()["drops"]
    );
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
