//! Routing control against a neighbour played by the test over loopback: order on the wire, and every kind of bad company.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod running;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bgp_ctl::NodeIs;
use running::{Running, VIP, node, wait_for};
use shared::bus::{Change, Prefix, Record, VipState};

const SOON: Duration = Duration::from_secs(10);
const KEEPALIVE: u8 = 4;
const NOTIFICATION: u8 = 3;
const UPDATE: u8 = 2;
const OPEN: u8 = 1;

fn toml(neighbours: &[(&str, u16)], extra: &str) -> String {
    let mut toml = format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\nhold_time = \"3s\"\nconnect_retry = \"100ms\"\n\
         connect_retry_max = \"400ms\"\nannounce_after = \"0ms\"\nshutdown_wait = \"500ms\"\n{extra}\n"
    );
    for (address, port) in neighbours {
        toml += &format!(
            "[[bgp.neighbours]]\naddress = \"{address}\"\nport = {port}\nremote_as = 65001\nttl = 64\n"
        );
    }
    toml
}

/// A neighbour played by the test.
struct Peer(TcpStream);

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    /// Reads one message: its kind and body. `None` at the end of the connection.
    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 19];
        if self.0.read_exact(&mut header).is_err() {
            return None;
        }
        assert_eq!(header[..16], [0xff; 16]);
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length - 19];
        self.0.read_exact(&mut body).unwrap();
        Some((header[18], body))
    }

    /// The next message that is no KEEPALIVE.
    fn read_other(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            match self.read()? {
                (KEEPALIVE, _) => {}
                other => return Some(other),
            }
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut message = vec![0xff; 16];
        message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        message.push(kind);
        message.extend(body);
        // A test may find out by reading that the connection is gone.
        let _ = self.0.write_all(&message);
    }

    fn open(&mut self) {
        let capabilities = [2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9];
        let mut body = vec![
            4,
            0xfd,
            0xe9,
            0,
            3,
            10,
            2,
            0,
            1,
            u8::try_from(capabilities.len()).unwrap(),
        ];
        body.extend(capabilities);
        self.send(OPEN, &body);
    }

    /// The greetings.
    fn establish(&mut self) {
        assert_eq!(self.read().unwrap().0, OPEN);
        self.open();
        self.send(KEEPALIVE, &[]);
    }

    /// The greetings, and all up to the announcement of the VIP and the End-of-RIB, in whichever order the two come.
    fn establish_announced(&mut self) {
        self.establish();
        let mut updates = [self.read_other().unwrap(), self.read_other().unwrap()];
        updates.sort_by_key(|(_, body)| body.len());
        assert_eq!(updates[0], (UPDATE, vec![0; 4]), "End-of-RIB");
        assert!(
            updates[1].0 == UPDATE && updates[1].1.ends_with(&[32, 10, 0, 0, 100]),
            "{:?}",
            updates[1]
        );
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The body of the UPDATE that withdraws [`VIP`].
const WITHDRAWN: [u8; 9] = [0, 5, 32, 10, 0, 0, 100, 0, 0];

#[test]
fn the_clean_exit_is_withdrawal_then_cease_then_close() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    running.bus.put(node(1));
    let mut peer = Peer::accept(&listener);
    peer.establish_announced();
    std::thread::scope(|scope| {
        let exit = scope.spawn(|| running.shut_down("so long"));
        assert_eq!(peer.read_other(), Some((UPDATE, WITHDRAWN.to_vec())));
        let withdrawn = Instant::now();
        let cease = [&[6, 2, 7][..], b"so long"].concat();
        assert_eq!(peer.read_other(), Some((NOTIFICATION, cease)));
        assert!(
            withdrawn.elapsed() >= Duration::from_millis(200),
            "shutdown_wait lies between"
        );
        assert_eq!(peer.read_other(), None, "closed");
        drop(peer);
        exit.join().unwrap();
    });
    listener.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(listener.accept().is_err(), "and does not come back");
}

#[test]
fn a_withdrawal_is_on_the_wire_within_milliseconds() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    running.bus.put(node(1));
    let mut peer = Peer::accept(&listener);
    peer.establish_announced();
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        running.bus.put(node(0));
        assert_eq!(peer.read_other(), Some((UPDATE, WITHDRAWN.to_vec())));
        times.push(start.elapsed());
        running.bus.put(node(1));
        assert_eq!(peer.read_other().unwrap().0, UPDATE);
    }
    times.sort();
    println!(
        "from bus to wire: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert!(times[10] <= Duration::from_millis(25), "{times:?}");
}

#[test]
fn garbage_costs_its_own_session_only() {
    let (good_listener, good_port) = listener();
    let bad_listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let bad_port = bad_listener.local_addr().unwrap().port();
    let running = Running::start(&toml(
        &[("127.0.0.1", good_port), ("127.0.0.2", bad_port)],
        "",
    ));
    running.bus.put(node(1));
    let mut good = Peer::accept(&good_listener);
    good.establish_announced();
    let bad_marker = [7u8; 64];
    for round in 0..6 {
        let mut bad = Peer::accept(&bad_listener);
        assert_eq!(bad.read().unwrap().0, OPEN);
        match round {
            0 => bad.0.write_all(&bad_marker).unwrap(),
            1 => bad.send(9, b"no such message"),
            2 => bad.send(OPEN, &[4, 0xfd, 0xea, 0, 90, 1, 1, 1, 1, 0]),
            3 => bad.send(UPDATE, &[0, 0, 0, 0]),
            4 => {
                bad.open();
                bad.send(KEEPALIVE, &[]);
                bad.send(UPDATE, &[0xff; 40]);
            }
            _ => bad.send(OPEN, &[4]),
        }
        let mut last = None;
        while let Some(message) = bad.read() {
            last = Some(message);
        }
        let (kind, body) = last.expect("an answer");
        assert_eq!(kind, NOTIFICATION, "round {round}");
        assert_ne!(body[0], 6, "round {round}: an error, no Cease");
    }
    let status = running.status.read();
    let (good_status, bad_status) = (
        &status.neighbours[&Ipv4Addr::new(127, 0, 0, 1)],
        &status.neighbours[&Ipv4Addr::new(127, 0, 0, 2)],
    );
    assert_eq!(
        (
            good_status.counts.established,
            good_status.counts.protocol_errors
        ),
        (1, 0)
    );
    assert!(bad_status.counts.protocol_errors >= 5, "{bad_status:?}");
    assert_eq!(good_status.advertised, [VIP]);
    running.bus.put(node(0));
    assert_eq!(
        good.read_other(),
        Some((UPDATE, WITHDRAWN.to_vec())),
        "the other session never noticed"
    );
}

#[test]
fn a_flood_of_garbage_ends_with_the_session_it_came_on() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let mut peer = Peer::accept(&listener);
    peer.establish();
    // A header that promises much, then bytes as long as they are taken: never more than one message is kept.
    let mut header = vec![0xff; 16];
    header.extend([0x0f, 0xff, UPDATE]);
    let mut sent = 0;
    while sent < 8 << 20
        && peer.0.write_all(&header).is_ok()
        && peer.0.write_all(&[0x5a; 8192]).is_ok()
    {
        sent += 8192;
    }
    assert!(sent < 8 << 20, "the connection was closed long before");
    drop(peer);
    wait_for("the error is known", SOON, || {
        running.last_error().contains("protocol")
    });
}

#[test]
fn a_neighbour_that_stops_talking_is_given_up_after_the_hold_time() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let mut peer = Peer::accept(&listener);
    peer.establish();
    assert_eq!(peer.read_other(), Some((UPDATE, vec![0; 4])));
    let start = Instant::now();
    assert_eq!(peer.read_other(), Some((NOTIFICATION, vec![4, 0])));
    assert!(
        start.elapsed() >= Duration::from_millis(2500) && start.elapsed() <= Duration::from_secs(6)
    );
    drop(peer);
    assert!(!running.established());
    Peer::accept(&listener).establish();
}

#[test]
fn keepalives_keep_a_quiet_session_up() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let mut peer = Peer::accept(&listener);
    peer.establish();
    let start = Instant::now();
    let mut heard = 0;
    assert_eq!(peer.read_other(), Some((UPDATE, vec![0; 4])));
    while start.elapsed() < Duration::from_millis(4500) {
        assert_eq!(peer.read().unwrap().0, KEEPALIVE);
        heard += 1;
        peer.send(KEEPALIVE, &[]);
    }
    assert!(
        (4..=7).contains(&heard),
        "{heard} in 4.5 s of a 3 s hold time"
    );
    assert!(running.established());
}

#[test]
fn a_peer_that_resets_connections_is_tried_again_without_haste() {
    let (listener, port) = listener();
    let _running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let start = Instant::now();
    for _ in 0..5 {
        drop(Peer::accept(&listener));
    }
    // Waits of 100, 200, 400 and 400 ms, each between three quarters and the whole.
    assert!(
        start.elapsed() >= Duration::from_millis(800),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn strangers_are_turned_away_by_the_listener() {
    let (probe, port) = listener();
    drop(probe);
    let settings = toml(
        &[("127.0.0.9", 1)],
        &format!("listen = \"127.0.0.1:{port}\""),
    );
    let running = Running::start(&settings.replace("ttl = 64", "ttl = 64\npassive = true"));
    let connect = || TcpStream::connect(("127.0.0.1", port));
    wait_for("the listener", SOON, || connect().is_ok());
    let mut stranger = connect().unwrap();
    stranger.set_read_timeout(Some(SOON)).unwrap();
    let mut byte = [0];
    assert!(
        matches!(stranger.read(&mut byte), Ok(0) | Err(_)),
        "closed without a word"
    );
    assert!(!running.established());
}

#[test]
fn the_bus_tells_everybody_what_became_of_the_vip() {
    struct Watcher(std::sync::mpsc::Sender<Record>);
    impl actix::Actor for Watcher {
        type Context = actix::Context<Self>;
    }
    impl actix::Handler<Change> for Watcher {
        type Result = ();
        fn handle(&mut self, change: Change, _: &mut Self::Context) {
            if let Change::Put(record) = change {
                let _ = self.0.send(record);
            }
        }
    }
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let (sender, records) = std::sync::mpsc::channel();
    let bus = running.bus.clone();
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let watcher = actix::Actor::start(Watcher(sender));
            bus.watch(Prefix::AllVips, watcher.recipient());
            std::future::pending::<()>().await;
        });
    });
    let next = |expected| match records.recv_timeout(SOON).unwrap() {
        Record::Vip(vip) => {
            assert_eq!(
                (vip.vip, vip.node.as_str(), vip.state),
                (VIP.into(), "l4-1", expected)
            );
            vip.why
        }
        other => panic!("{other:?}"),
    };
    wait_for("the watcher", SOON, || running.bus.status().watchers >= 3);
    running.bus.put(node(1));
    next(VipState::Announced);
    running.bus.put(node(0));
    assert!(next(VipState::Withdrawn).contains("0 of 3 targets healthy"));
    drop(listener);
}

#[test]
fn what_is_written_under_the_nodes_own_key_does_nothing_to_its_vips() {
    let (listener, port) = listener();
    let running = Running::within(&toml(&[("127.0.0.1", port)], ""));
    let mut peer = Peer::accept(&listener);
    peer.establish();
    assert_eq!(peer.read_other(), Some((UPDATE, vec![0; 4])));
    let says = |record, hold: Option<&str>| {
        let hold = hold.map(str::to_owned);
        running.control.do_send(NodeIs { record, hold });
    };
    says(node(1), None);
    assert_ne!(
        peer.read_other(),
        Some((UPDATE, WITHDRAWN.to_vec())),
        "announced by what the process says of itself"
    );
    let since = running.status.read().vips[&VIP].since_unix_ms;
    let key = Record::from(node(1)).key();
    for _ in 0..3 {
        running.bus.put(node(0));
        running.bus.put(shared::bus::NodeRecord {
            draining: true,
            forwarding: false,
            ..node(1)
        });
        running.bus.delete(&key);
        std::thread::sleep(Duration::from_millis(100));
    }
    let vip = running.status.read().vips[&VIP].clone();
    assert_eq!((vip.state, vip.since_unix_ms), (VipState::Announced, since));
    says(node(1), Some("another living process writes node/l4/l4-1"));
    assert_eq!(peer.read_other(), Some((UPDATE, WITHDRAWN.to_vec())));
    assert!(running.why(VIP).contains("another living process"));
}

#[test]
fn a_record_that_is_not_renewed_expires_and_withdraws() {
    let (listener, port) = listener();
    let running = Running::start(&toml(&[("127.0.0.1", port)], ""));
    let mut peer = Peer::accept(&listener);
    peer.establish();
    assert_eq!(
        peer.read_other(),
        Some((UPDATE, vec![0; 4])),
        "nothing to announce yet"
    );
    let mortal = || shared::bus::NodeRecord {
        ttl_ms: 1500,
        ..node(1)
    };
    for _ in 0..3 {
        running.bus.put(mortal());
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_ne!(
        peer.read_other(),
        Some((UPDATE, WITHDRAWN.to_vec())),
        "renewed in time: announced"
    );
    assert_eq!(
        peer.read_other(),
        Some((UPDATE, WITHDRAWN.to_vec())),
        "then not renewed"
    );
    assert!(running.why(VIP).contains("no record"));
    running.bus.put(mortal());
    assert_ne!(
        peer.read_other(),
        Some((UPDATE, WITHDRAWN.to_vec())),
        "put again: announced again"
    );
}
