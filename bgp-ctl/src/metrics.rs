//! What is counted and how it is named.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use metrics::{Counter, Gauge};
use shared::telemetry::{Kind, Meaning, describe};

use crate::session::{Counts, State};

/// Most VIPs with a gauge of their own: their names come from the bus.
const MAX_VIPS: usize = 1024;

const MEANINGS: &[Meaning] = &[
    (
        Kind::Gauge,
        "weir_bgp_session_up",
        "1 while the session is established",
    ),
    (
        Kind::Gauge,
        "weir_bgp_advertised_vips",
        "VIPs the neighbour has been told about",
    ),
    (
        Kind::Gauge,
        "weir_bgp_vip_announced",
        "1 while the VIP is announced",
    ),
    (
        Kind::Counter,
        "weir_bgp_sessions_established_total",
        "Times the session came up",
    ),
    (
        Kind::Counter,
        "weir_bgp_hold_timer_expired_total",
        "Times the neighbour was silent for the hold time",
    ),
    (
        Kind::Counter,
        "weir_bgp_protocol_errors_total",
        "Sessions ended because of what the neighbour sent",
    ),
    (
        Kind::Counter,
        "weir_bgp_malformed_updates_total",
        "UPDATEs with an error the session survived (RFC 7606)",
    ),
    (
        Kind::Counter,
        "weir_bgp_messages_received_total",
        "Messages received",
    ),
    (
        Kind::Counter,
        "weir_bgp_messages_sent_total",
        "Messages sent",
    ),
    (Kind::Counter, "weir_bgp_updates_sent_total", "UPDATEs sent"),
    (
        Kind::Counter,
        "weir_bgp_notifications_received_total",
        "NOTIFICATIONs received",
    ),
    (
        Kind::Counter,
        "weir_bgp_notifications_sent_total",
        "NOTIFICATIONs sent",
    ),
    (
        Kind::Counter,
        "weir_bgp_unknown_neighbours_total",
        "Connections from addresses that are no neighbour's",
    ),
    (
        Kind::Gauge,
        "weir_bgp_worker_busy_ratio",
        "Share of the last second in which the process's working thread had work, 0 to 1",
    ),
    (
        Kind::Gauge,
        "weir_bgp_worker_time_seconds",
        "Time the process's working thread had work (busy) and waited for some (idle), since the start",
    ),
];

/// Says what they mean, and registers what hangs on no neighbour. Those of a neighbour come with its [`NeighbourMetrics`].
pub(crate) fn register() {
    describe(MEANINGS);
    metrics::counter!("weir_bgp_unknown_neighbours_total").increment(0);
}

/// Reads one count.
type Read = fn(&Counts) -> u64;

/// Metrics of one neighbour, labelled with its address.
pub(crate) struct NeighbourMetrics {
    up: Gauge,
    advertised: Gauge,
    counters: [(Counter, Read); 9],
}

impl NeighbourMetrics {
    pub(crate) fn new(neighbour: Ipv4Addr) -> Self {
        let label = neighbour.to_string();
        let counter = |name: &'static str| metrics::counter!(name, "neighbour" => label.clone());
        Self {
            up: metrics::gauge!("weir_bgp_session_up", "neighbour" => label.clone()),
            advertised: metrics::gauge!("weir_bgp_advertised_vips", "neighbour" => label.clone()),
            counters: [
                (counter("weir_bgp_messages_received_total"), |counts| {
                    counts.messages_received
                }),
                (counter("weir_bgp_messages_sent_total"), |counts| {
                    counts.messages_sent
                }),
                (counter("weir_bgp_updates_sent_total"), |counts| {
                    counts.updates_sent
                }),
                (counter("weir_bgp_malformed_updates_total"), |counts| {
                    counts.malformed_updates
                }),
                (counter("weir_bgp_protocol_errors_total"), |counts| {
                    counts.protocol_errors
                }),
                (counter("weir_bgp_notifications_received_total"), |counts| {
                    counts.notifications_received
                }),
                (counter("weir_bgp_notifications_sent_total"), |counts| {
                    counts.notifications_sent
                }),
                (counter("weir_bgp_sessions_established_total"), |counts| {
                    counts.established
                }),
                (counter("weir_bgp_hold_timer_expired_total"), |counts| {
                    counts.hold_timer_expired
                }),
            ],
        }
    }

    pub(crate) fn report(&self, state: State, advertised: usize, counts: &Counts) {
        self.up.set(if state == State::Established {
            1.0
        } else {
            0.0
        });
        self.advertised.set(advertised as f64);
        for (counter, value) in &self.counters {
            counter.absolute(value(counts));
        }
    }
}

impl std::fmt::Debug for NeighbourMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NeighbourMetrics").finish_non_exhaustive()
    }
}

/// The gauges of VIPs: 1 while one is announced.
#[derive(Debug, Default)]
pub(crate) struct VipMetrics {
    labelled: BTreeSet<Ipv4Addr>,
}

impl VipMetrics {
    /// Says whether a VIP is announced. A gauge is never forgotten, so that VIPs beyond [`MAX_VIPS`] are on `/status` only.
    pub(crate) fn announced(&mut self, vip: Ipv4Addr, announced: bool) {
        if !self.labelled.contains(&vip) {
            if self.labelled.len() >= MAX_VIPS {
                return;
            }
            self.labelled.insert(vip);
        }
        metrics::gauge!("weir_bgp_vip_announced", "vip" => vip.to_string()).set(if announced {
            1.0
        } else {
            0.0
        });
    }
}
