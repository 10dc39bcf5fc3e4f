//! The safe side of DPDK, with DPDK below it. One test, as EAL can be started once in a process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::path::Path;
use std::sync::mpsc::channel;

use dataplane::{Fields, Frame, Protocol};
use l4_gateway::dpdk::{
    Device, Eal, EalSettings, Ended, Lcore, Memory, Pool, Port, PortSettings, RssKey, ring,
};

const FRAMES: u32 = 511;
const KEY: RssKey = RssKey([7; 64]);

#[test]
fn frames_have_one_owner_and_come_back_to_their_pool() {
    let device: Device = "net_ring0".parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let capture = capture(directory.path());
    let settings = EalSettings {
        file_prefix: format!("weir-test-{}", std::process::id()),
        memory: Memory::Ordinary(64),
        devices: vec![device.clone(), capture.clone(), null()],
        workers: vec![None],
        extra: Vec::new(),
    };
    let eal = Eal::start(&settings).unwrap();
    let again = Eal::start(&settings).err().expect("a second EAL");
    assert!(again.to_string().contains("once in a process"), "{again}");
    let pool = Pool::new(&eal, "frames", FRAMES, 2048).unwrap();
    assert!(
        Pool::new(&eal, "frames", FRAMES, 2048).is_err(),
        "names of pools are unique"
    );

    bounds_of_a_frame(&pool);
    a_frame_grows(&pool);
    an_empty_pool(&pool);
    lcores_and_rings(&eal, &pool);
    ports(&eal, &pool, &device);
    frames_in_pieces(&eal, &pool, &capture);
    spreading(&eal, &pool);
    assert_eq!(pool.in_use(), 0);

    // Everything is gone, so EAL cleans up; a pool kept alive until now must not be what it cleans.
    drop(pool);
    drop(eal);
    std::fs::remove_dir_all(format!("/run/dpdk/{}", settings.file_prefix)).unwrap();
}

/// A capture of a frame that fits one buffer, one that fits none, and one that fits again.
fn capture(directory: &Path) -> Device {
    let mut file = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1]
        .map(u32::to_le_bytes)
        .concat();
    for (length, filling) in [(60u32, 1), (5000, 2), (1514, 3)] {
        file.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(vec![filling; length as usize]);
    }
    let path = directory.join("in.pcap");
    std::fs::write(&path, file).unwrap();
    let [from, to] = ["in.pcap", "out.pcap"].map(|name| directory.join(name).display().to_string());
    format!("net_pcap0,rx_pcap={from},tx_pcap={to}")
        .parse()
        .unwrap()
}

/// Drivers chain buffers for frames that are larger than one.
fn frames_in_pieces(eal: &Eal, pool: &Pool, device: &Device) {
    let settings = PortSettings {
        queues: 1,
        mtu: Some(1500),
        descriptors: 128,
        rss_key: KEY,
    };
    let mut port = Port::open(eal, device)
        .unwrap()
        .start(settings, pool)
        .unwrap();
    let (mut receive, _transmit) = port.take_queues().pop().unwrap();
    let mut received = Vec::with_capacity(8);
    while receive.receive(&mut received) > 0 {}
    let content: Vec<_> = received
        .iter()
        .map(|frame| (frame.bytes()[0], frame.bytes().len()))
        .collect();
    assert_eq!(content, [(1, 60), (3, 1514)]);
    assert_eq!(receive.unreadable(), 1);
}

/// A device that says what it would hash; nothing ever arrives on it.
fn null() -> Device {
    "net_null0".parse().unwrap()
}

/// What is known of a port's queues is what its driver says, not what was asked for.
fn spreading(eal: &Eal, pool: &Pool) {
    let settings = PortSettings {
        queues: 3,
        mtu: Some(1500),
        descriptors: 128,
        rss_key: KEY,
    };
    let port = Port::open(eal, &null())
        .unwrap()
        .start(settings, pool)
        .unwrap();
    let rss = port.rss().unwrap();
    assert_eq!(rss.queues(), 3);
    assert_eq!(rss.hashed().tcp_v4, Fields::AddressesAndPorts);
    let local_ip = "10.3.0.100".parse().unwrap();
    // Under any key, answers to many ports come to all queues.
    let between = rss
        .between(Protocol::Tcp, "10.3.0.21:8080".parse().unwrap(), local_ip)
        .unwrap();
    let queues: Vec<u16> = (1024..1152).map(|port| between.queue(port)).collect();
    assert!((0..3).all(|queue| queues.contains(&queue)), "{queues:?}");
    // The driver takes no rules, and three is not a number that low bits can tell anyway.
    let refused = port.steer_by_port(local_ip, 3).unwrap_err();
    assert!(refused.contains("which of 3 queues"), "{refused}");
    let refused = port.steer_by_port(local_ip, 2).unwrap_err();
    assert!(refused.contains("rte_flow"), "{refused}");
}

fn bounds_of_a_frame(pool: &Pool) {
    let mut frame = pool.allocate().unwrap();
    assert!(frame.bytes().is_empty());
    assert!(frame.fill(b"0123456789"));
    assert_eq!(frame.bytes(), b"0123456789");
    frame.trim(3);
    assert_eq!(frame.bytes(), b"012");
    frame.trim(9000);
    assert_eq!(frame.bytes(), b"012");
    assert!(!frame.fill(&[0; 4000]));
    assert_eq!(frame.bytes(), b"012", "what doesn't fit changes nothing");
    let most = (0..4000)
        .rev()
        .find(|length| frame.fill(&vec![7; *length]))
        .unwrap();
    assert!((2000..2300).contains(&most), "{most}");
    assert_eq!(frame.bytes(), vec![7; most]);
    frame.trim(0);
    assert!(frame.bytes().is_empty());
}

/// By 128 bytes of headroom in front, then at its end, until the buffer is full; as a vector does, byte for byte.
fn a_frame_grows(pool: &Pool) {
    let mut frame = pool.allocate().unwrap();
    let mut expected: Vec<u8> = (1..=200).collect();
    assert!(frame.fill(&expected));
    assert!(!frame.make_room(201, 1), "behind the end");
    assert!(!frame.make_room(0, usize::MAX));
    // 20 and 100 and 8 of headroom; 9 more would be too many, so the tail makes room.
    for (at, room) in [
        (14, 20),
        (0, 100),
        (54, 9),
        (329, 0),
        (329, 8),
        (14, 28),
        (365, 1000),
    ] {
        let start = frame.bytes().as_ptr();
        assert!(frame.make_room(at, room), "{room} bytes at {at}");
        assert!(expected.make_room(at, room));
        assert_eq!(frame.bytes(), expected, "{room} bytes at {at}");
        let moved = start != frame.bytes().as_ptr();
        assert_eq!(moved, matches!(room, 8 | 20 | 100), "{room} bytes at {at}");
        frame.bytes_mut()[at..at + room].fill(0xaa);
        expected[at..at + room].fill(0xaa);
    }
    let left = (0..2000)
        .rev()
        .find(|room| frame.make_room(14, *room))
        .unwrap();
    assert!((600..900).contains(&left), "{left}");
    assert!(!frame.make_room(14, 1), "the buffer is full");
    assert!(
        expected.make_room(14, left),
        "and what didn't fit has changed nothing"
    );
    assert_eq!(frame.bytes(), expected);
}

fn an_empty_pool(pool: &Pool) {
    let all: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
    assert_eq!(all.len() as u32, FRAMES);
    assert_eq!(pool.in_use(), FRAMES);
    drop(all);
    assert_eq!(pool.in_use(), 0);
}

fn lcores_and_rings(eal: &Eal, pool: &Pool) {
    let (sender, mut receiver) = ring(eal, "ring", 100).unwrap();
    let mut frames: Vec<_> = (0..120u8)
        .map(|number| {
            let mut frame = pool.allocate().unwrap();
            assert!(frame.fill(&[number]));
            frame
        })
        .collect();
    assert_eq!(sender.send(&mut frames), 100);
    assert_eq!(
        frames
            .iter()
            .map(|frame| frame.bytes()[0])
            .collect::<Vec<_>>(),
        (100..120).collect::<Vec<_>>()
    );
    let (report, reports) = channel();
    let lcore = Lcore::launch(eal, 1, move || {
        let mut taken = Vec::with_capacity(64);
        receiver.receive(&mut taken);
        report
            .send(
                taken
                    .iter()
                    .map(|frame| frame.bytes()[0])
                    .collect::<Vec<_>>(),
            )
            .unwrap();
        // What was taken and what is left in the ring is freed here, on another thread.
    })
    .unwrap();
    assert_eq!(reports.recv().unwrap(), (0..64).collect::<Vec<_>>());
    assert_eq!(lcore.join(), Ended::Returned);
    drop((frames, sender));
    assert_eq!(pool.in_use(), 0);

    let lcore = Lcore::launch(eal, 1, || panic!("as the test wants")).unwrap();
    assert_eq!(lcore.join(), Ended::Panicked);
    assert!(
        Lcore::launch(eal, 77, || {}).is_err(),
        "there is no such lcore"
    );
}

fn ports(eal: &Eal, pool: &Pool, device: &Device) {
    let none: Device = "net_ring7".parse().unwrap();
    assert!(Port::open(eal, &none).is_err());
    let settings = PortSettings {
        queues: 1,
        mtu: Some(1500),
        descriptors: 128,
        rss_key: KEY,
    };
    let too_many = Port::open(eal, device).unwrap().start(
        PortSettings {
            queues: 1000,
            ..settings
        },
        pool,
    );
    assert!(too_many.err().unwrap().to_string().contains("queues"));
    // net_ring sends to itself.
    let mut port = Port::open(eal, device)
        .unwrap()
        .start(settings, pool)
        .unwrap();
    assert!(port.link().up);
    assert_eq!(port.rss().unwrap_err(), "the port has one queue");
    let (mut receive, mut transmit) = port.take_queues().pop().unwrap();
    assert!(port.take_queues().is_empty());
    let mut frames: Vec<_> = (0..3).map(|_| pool.allocate().unwrap()).collect();
    assert!(frames.iter_mut().all(|frame| frame.fill(&[7; 60])));
    assert_eq!(transmit.transmit(&mut frames), 3);
    assert!(frames.is_empty());
    let mut received = Vec::with_capacity(2);
    assert_eq!(
        receive.receive(&mut received),
        2,
        "no more than there is room for"
    );
    assert_eq!(received[0].bytes(), [7; 60]);
    received.clear();
    assert_eq!(receive.receive(&mut received), 1);
    assert_eq!((port.stats().transmitted, port.stats().received), (3, 3));
}
