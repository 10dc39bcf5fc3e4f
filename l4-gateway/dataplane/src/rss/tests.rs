use super::*;

/// Of Microsoft's verification suite ("Verifying the RSS hash calculation").
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

fn all(fields: Fields) -> Hashed {
    Hashed {
        tcp_v4: fields,
        udp_v4: fields,
        tcp_v6: fields,
        udp_v6: fields,
    }
}

fn hash(rss: &Rss, protocol: Protocol, source: &str, destination: &str) -> u32 {
    let (source, destination): (SocketAddr, SocketAddr) = (
        source.parse().expect("an address"),
        destination.parse().expect("an address"),
    );
    rss.between(protocol, source, destination.ip())
        .expect("hashed")
        .hash(destination.port())
}

#[test]
fn hashes_are_those_of_the_specification() {
    // Source, destination, hash of the addresses, hash with the ports.
    let vectors = [
        (
            "66.9.149.187:2794",
            "161.142.100.80:1766",
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "199.92.111.2:14230",
            "65.69.140.83:4739",
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "24.19.198.95:12898",
            "12.22.207.184:38024",
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "38.27.205.30:48228",
            "209.142.163.6:2217",
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "153.39.163.191:44251",
            "202.188.127.2:1303",
            0x5d18_09c5,
            0x10e8_28a2,
        ),
        (
            "[3ffe:2501:200:1fff::7]:2794",
            "[3ffe:2501:200:3::1]:1766",
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            "[ff02::1]:4739",
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];
    let by_addresses = Rss::new(&KEY, all(Fields::Addresses), &[0]).expect("a long key");
    let by_ports = Rss::new(&KEY, all(Fields::AddressesAndPorts), &[0]).expect("a long key");
    for (source, destination, addresses, ports) in vectors {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let found = hash(&by_addresses, protocol, source, destination);
            assert_eq!(found, addresses, "{source} {destination}");
            let found = hash(&by_ports, protocol, source, destination);
            assert_eq!(found, ports, "{source} {destination}");
        }
    }
}

#[test]
fn the_redirection_table_names_the_queue() {
    let source = "66.9.149.187:2794".parse().expect("an address");
    let destination = "161.142.100.80:1766".parse().expect("an address");
    let queue = |redirection: &[u16]| {
        let rss = Rss::new(&KEY, all(Fields::AddressesAndPorts), redirection).expect("sound");
        (
            rss.queues(),
            rss.queue(Protocol::Tcp, source, destination).expect("TCP"),
        )
    };
    // 0x51ccc178 is 120 modulo 128, and 4 modulo 6.
    let long: Vec<u16> = (0..128)
        .map(|entry| if entry == 120 { 7 } else { 3 })
        .collect();
    assert_eq!(queue(&long), (8, 7));
    assert_eq!(0x51cc_c178 % 6, 4, "what the next line relies on");
    assert_eq!(queue(&[0, 0, 0, 0, 5, 1]), (6, 5));
}

#[test]
fn what_is_not_hashed_has_no_queue_that_could_be_told() {
    let hashed = Hashed {
        tcp_v4: Fields::AddressesAndPorts,
        udp_v4: Fields::Addresses,
        ..Hashed::default()
    };
    // Enough for IPv4.
    let rss = Rss::new(&KEY[..16], hashed, &[0, 1, 2, 3]).expect("a long key");
    let [a, b]: [SocketAddr; 2] =
        ["10.0.0.1:1000", "10.0.0.2:80"].map(|text| text.parse().expect("an address"));
    let [c, d]: [SocketAddr; 2] =
        ["[fd00::1]:1000", "[fd00::2]:80"].map(|text| text.parse().expect("an address"));
    assert!(rss.queue(Protocol::Tcp, a, b).is_some());
    let other_port = SocketAddr::new(a.ip(), 1001);
    assert_eq!(
        rss.queue(Protocol::Udp, a, b),
        rss.queue(Protocol::Udp, other_port, b),
        "ports of UDP aren't hashed"
    );
    assert_eq!(rss.queue(Protocol::Tcp, c, d), None);
    assert_eq!(rss.queue(Protocol::Udp, c, d), None);
    assert_eq!(rss.queue(Protocol::Tcp, a, d), None, "two families");
}

#[test]
fn a_short_key_or_an_empty_table_is_refused() {
    let v4 = Hashed {
        tcp_v4: Fields::AddressesAndPorts,
        ..Hashed::default()
    };
    let refused = |key: &[u8], hashed, redirection: &[u16]| {
        Rss::new(key, hashed, redirection).expect_err("refused")
    };
    assert_eq!(
        refused(&KEY[..15], v4, &[0]),
        RssError::ShortKey {
            key: 15,
            needed: 16
        }
    );
    assert_eq!(
        refused(&KEY[..39], all(Fields::AddressesAndPorts), &[0]),
        RssError::ShortKey {
            key: 39,
            needed: 40
        }
    );
    assert_eq!(refused(&KEY, v4, &[]), RssError::NoRedirection);
}
