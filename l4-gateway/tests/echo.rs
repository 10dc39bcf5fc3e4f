//! Pings of a real kernel to a VIP, of any length.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use lab::dual::{Family, tcp};
use lab::{Gateway, Lab, WORKERS};

/// Pings the VIP by this many bytes; whether the answer came, byte for byte.
fn is_answered(lab: &Lab, family: Family, length: usize) -> bool {
    let vip = family.vip(0).ip().to_string();
    let output = lab
        .client()
        .command("ping")
        .args([
            "-c1",
            "-W1",
            "-p",
            "a55a0102",
            "-s",
            &length.to_string(),
            &vip,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("wrong data"), "{said}");
    output.status.success()
}

/// A count of `/metrics` over all workers, by its name and a label.
fn counted(gateway: &Gateway, name: &str, label: &str) -> u64 {
    let metrics = gateway.metrics();
    let series = metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    values.sum()
}

fn too_long(gateway: &Gateway) -> u64 {
    counted(gateway, "weir_l4_dropped_total", "reason=\"bad_ip_header\"")
}

#[test]
fn pings_longer_than_a_packet_are_answered_whole() {
    for workers in [1, 3] {
        let lab = Lab::dual();
        let head = WORKERS.replace("[workers]", &format!("[workers]\ncount = {workers}"));
        let gateway = Gateway::start(&lab, &lab.dual_config(&head, "", &tcp("web", 80, "")));
        for length in [56, 1472, 1473, 1900] {
            assert!(is_answered(&lab, Family::V4, length), "{length} bytes");
        }
        for length in [56, 1452, 1453, 4000, 9000, 65_000] {
            assert!(is_answered(&lab, Family::V6, length), "{length} bytes");
        }
        let count = |name| counted(&gateway, name, "worker=");
        let answered = count("weir_l4_worker_echo_replies_total");
        assert_eq!(answered, 10, "{workers} workers");
        // Those of IPv4, which the kernel had put together.
        assert_eq!(count("weir_l4_worker_packets_cut_total"), 2);
    }
}

/// Fragments of IPv4 are put together by the kernel before af_packet hands them out, in slots of 2,048 bytes by default: what doesn't fit is
/// counted, and what fits is answered.
#[test]
fn a_ping_about_as_long_as_a_slot_is_answered_or_counted() {
    let lab = Lab::dual();
    let gateway = Gateway::start(&lab, &lab.dual_config(WORKERS, "", &tcp("web", 80, "")));
    assert!(is_answered(&lab, Family::V4, 56));
    let mut answered = Vec::new();
    for length in (1904..1984).step_by(8) {
        let before = too_long(&gateway);
        if is_answered(&lab, Family::V4, length) {
            answered.push(length);
        } else {
            assert_eq!(too_long(&gateway), before + 1, "{length} bytes");
        }
    }
    assert!(answered.contains(&1904), "{answered:?}");
    assert!(!answered.contains(&1976), "{answered:?}");
    // Larger slots take larger ones, whatever the MTU.
    drop(gateway);
    let config = lab.dual_config(WORKERS, "", &tcp("web", 80, ""));
    let config = config.replace("iface=ext0", "iface=ext0,blocksz=16384,framesz=16384");
    let _gateway = Gateway::start(&lab, &config);
    for length in [1472, 2056, 9000] {
        assert!(is_answered(&lab, Family::V4, length), "{length} bytes");
    }
}
