//! Messages of the bus: a subject, a newline, a record.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use shared::bus::{
    DrainRecord, NodeRecord, Record, RegistrationRecord, ServiceState, TargetRecord, Tier,
    VipRecord, VipState,
};

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let addr = SocketAddr::from((Ipv4Addr::new(10, 3, 0, 21), 80));
    let vip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
    let service = || "web".to_owned();
    let node = || "l4-1".to_owned();
    let records: [Record; 5] = [
        NodeRecord {
            tier: Tier::L4,
            id: node(),
            addresses: vec![vip],
            ready: true,
            draining: false,
            forwarding: true,
            load: 0.5,
            software: "weir".to_owned(),
            services: vec![ServiceState {
                service: service(),
                vip,
                healthy: 1,
                total: 2,
            }],
            ttl_ms: 3000,
        }
        .into(),
        TargetRecord {
            service: service(),
            addr,
            up: false,
            reason: "connect refused".to_owned(),
            since_unix_ms: 1,
            seen_by: node(),
        }
        .into(),
        RegistrationRecord {
            service: service(),
            addr,
            node: node(),
            weight: 100,
            draining: false,
            ttl_ms: 3000,
        }
        .into(),
        VipRecord {
            vip,
            node: node(),
            state: VipState::Announced,
            why: "2 of 2 targets".to_owned(),
            since_unix_ms: 1,
        }
        .into(),
        DrainRecord {
            tier: Tier::L7,
            id: node(),
            drain: true,
            by: "operator".to_owned(),
            since_unix_ms: 1,
        }
        .into(),
    ];
    let mut seeds: Vec<Vec<u8>> = records
        .iter()
        .filter_map(|record| {
            Some([subject(record).as_bytes(), b"\n", &record.encode().ok()?].concat())
        })
        .collect();
    seeds.push(b"node.l4.l4=2D1\n{\"version\":2,\"record\":{}}".to_vec());
    seeds.push(b"vip.2001=3Adb8=3A=3A1.l4-1\n{\"version\":1}".to_vec());
    seeds
}

/// The subject of a record: its key's words, with all but letters, digits, `-` and `_` written as `=` and two hex digits.
fn subject(record: &Record) -> String {
    let escape = |byte: u8| match byte {
        b'/' => ".".to_owned(),
        byte if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) => {
            char::from(byte).to_string()
        }
        byte => format!("={byte:02X}"),
    };
    record.key().to_string().bytes().map(escape).collect()
}

pub(super) fn words() -> Vec<String> {
    let mut words: Vec<String> = [
        "node.",
        "target.",
        "registration.",
        "vip.",
        "drain.",
        "=2E",
        "=3A",
        "=5B",
        "=5D",
    ]
    .map(str::to_owned)
    .to_vec();
    // The field names of all records, as they are quoted.
    for seed in seeds() {
        let text = String::from_utf8_lossy(&seed).into_owned();
        words.extend(
            text.split('"')
                .skip(1)
                .step_by(2)
                .map(|word| format!("\"{word}\"")),
        );
    }
    words.sort();
    words.dedup();
    words
}
