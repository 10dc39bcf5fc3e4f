//! The JSON of `/status`: what the control side knows beside what the workers counted.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp_ctl::status::{Status as BgpStatus, StatusBoard};
use dataplane::{Counters, DropReason, FlowView, ServiceCounts, TargetId, WorkerCounts};
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::bus::Bus;

use crate::actors::{Board, Load, ServiceView, TargetView, View};
use crate::config::Config;
use crate::dpdk::Eal;
use crate::forwarder::{Forwarder, PortView};
use crate::names::{PROTOCOLS, STATES};
use crate::reloader::Reloader;
use crate::worker::{LoopCount, WorkerState};

/// What a status is read from.
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) reloader: &'a Reloader,
    pub(crate) forwarder: &'a Forwarder,
    pub(crate) board: &'a Board,
    pub(crate) bus: &'a Bus,
    pub(crate) bgp: Option<&'a StatusBoard>,
}

/// The state of the node now.
pub(crate) fn status(from: Sources<'_>) -> Value {
    let View {
        not_ready,
        draining,
        forwarding,
        services,
        loads,
        retired_addresses,
        retired_services,
    } = (*from.board.read()).clone();
    let counters = from.forwarder.counters();
    let states = from.forwarder.worker_states();
    let workers: Vec<Value> = states
        .iter()
        .enumerate()
        .map(|(index, state)| worker(index, state, counters, loads.get(index)))
        .collect();
    let ports: Vec<Value> = from
        .config
        .ports
        .iter()
        .zip(from.forwarder.ports())
        .map(|(port, view)| {
            let mut shown = shown_port(&view, &port.local_ips);
            shown.insert("name".into(), json!(port.name));
            shown.insert("device".into(), json!(port.device.to_string()));
            Value::Object(shown)
        })
        .collect();
    let free_ports = from
        .forwarder
        .tables()
        .free_ports(counters, &from.config.limits());
    let sum = |count: fn(&WorkerCounts) -> u64| -> u64 {
        (0..counters.workers())
            .map(|index| count(&counters.worker(index)))
            .sum()
    };
    let (redirected, frames_in) = (
        sum(|counts| counts.redirected),
        sum(|counts| counts.frames_in),
    );
    json!({
        "node": from.config.node.id,
        "software": concat!("l4-gateway ", env!("CARGO_PKG_VERSION")),
        "dpdk": Eal::version(),
        "configuration": *from.reloader.last(),
        "ready": not_ready.is_none(),
        "not_ready": not_ready,
        "draining": draining,
        "forwarding": forwarding,
        "flows": sum(|counts| counts.flows_active),
        "redirected_share": redirected as f64 / frames_in.max(1) as f64,
        "frames_in_use": from.forwarder.frames_in_use(),
        "workers": workers,
        "ports": ports,
        "services": services.iter().map(|view| service(view, counters, &free_ports)).collect::<Vec<_>>(),
        "retired_addresses": retired_addresses,
        "retired_services": retired_services,
        "drops": drops(counters),
        "bus": from.bus.status(),
        "bgp": from.bgp.map(StatusBoard::read).map(|bgp: BgpStatus| json!(bgp)),
    })
}

fn worker(index: usize, state: &WorkerState, counters: &Counters, load: Option<&Load>) -> Value {
    let counts = counters.worker(index as u16);
    let times = state.times();
    let mut shown = Map::new();
    for count in LoopCount::ALL {
        shown.insert(count.label().into(), json!(state.count(count)));
    }
    shown.insert("worker".into(), json!(index));
    shown.insert("rounds".into(), json!(state.heartbeat()));
    shown.insert("busy_seconds".into(), json!(seconds(times.busy)));
    shown.insert("idle_seconds".into(), json!(seconds(times.idle)));
    shown.insert("asleep_seconds".into(), json!(seconds(times.asleep)));
    shown.insert("busy_ratio".into(), json!(load.map(|load| load.busy)));
    let cycles = load.map(|load| load.cycles_per_frame.round());
    shown.insert("cycles_per_frame".into(), json!(cycles));
    shown.insert("frames_in".into(), json!(counts.frames_in));
    shown.insert("handed_over".into(), json!(counts.frames_handed_over));
    shown.insert("redirected".into(), json!(counts.redirected));
    shown.insert("dropped".into(), json!(counts.dropped));
    shown.insert("flows".into(), json!(counts.flows_active));
    shown.insert("flows_created".into(), json!(counts.flows_created));
    shown.insert("neighbours".into(), json!(counts.neighbours));
    Value::Object(shown)
}

fn shown_port(view: &PortView, local_ips: &[IpAddr]) -> Map<String, Value> {
    let stats = &view.stats;
    let shown = json!({
        "mac": view.nic.mac.to_string(),
        "clients_by": view.nic.clients_by(),
        "returns_by": view.nic.returns_by(local_ips),
        "local_ips_without_rules": view.nic.without_rules(local_ips),
        "link_up": view.link.up,
        "speed_mbps": view.link.speed_mbps,
        "received": stats.received,
        "received_bytes": stats.received_bytes,
        "transmitted": stats.transmitted,
        "transmitted_bytes": stats.transmitted_bytes,
        "missed": stats.missed,
        "receive_errors": stats.receive_errors,
        "transmit_errors": stats.transmit_errors,
        "no_buffer": stats.no_buffer,
        "members": view.members.iter().map(|(name, link)| json!({
            "device": name,
            "link_up": link.up,
        })).collect::<Vec<_>>(),
    });
    match shown {
        Value::Object(shown) => shown,
        _ => Map::new(),
    }
}

fn service(view: &ServiceView, counters: &Counters, free_ports: &HashMap<TargetId, u64>) -> Value {
    let counts = view.id.map(|id| counters.service(id)).unwrap_or_default();
    json!({
        "name": view.name,
        "vip": view.vip,
        "protocol": view.protocol,
        "port": view.port,
        "healthy": view.healthy,
        "flows": counts.flows_active,
        "flows_created": counts.flows_created,
        "packets_in": counts.packets_in,
        "bytes_in": counts.bytes_in,
        "packets_out": counts.packets_out,
        "bytes_out": counts.bytes_out,
        "resets_sent": counts.resets_sent,
        "no_target": counts.no_target,
        "port_exhausted": counts.port_exhausted,
        "flow_table_full": counts.flow_table_full,
        "no_flow": counts.no_flow,
        "client_address_inserted": counts.client_address_inserted,
        "client_address_refused": counts.client_address_refused,
        "client_address_forged": counts.client_address_forged,
        "denied": counts.denied,
        "limited": limited(&counts).iter().map(|(_, n)| n).sum::<u64>(),
        "limited_by": Map::from_iter(limited(&counts).map(|(limit, n)| (limit.to_owned(), json!(n)))),
        "sources_untracked": counts.sources_untracked,
        "persisted": counts.persisted,
        "flows_cut": counts.flows_cut,
        "targets": view.targets.iter().map(|view| target(view, counters, free_ports)).collect::<Vec<_>>(),
    })
}

/// New flows turned away by each kind of limit.
pub(crate) fn limited(counts: &ServiceCounts) -> [(&'static str, u64); 5] {
    [
        ("connections", counts.limited_connections),
        ("rate", counts.limited_rate),
        ("source_connections", counts.limited_source_connections),
        ("source_rate", counts.limited_source_rate),
        ("targets", counts.limited_targets),
    ]
}

fn target(view: &TargetView, counters: &Counters, free_ports: &HashMap<TargetId, u64>) -> Value {
    let counts = view.id.map(|id| counters.target(id)).unwrap_or_default();
    json!({
        "address": view.address.to_string(),
        "weight": view.weight,
        "effective_weight": view.effective_weight,
        "up": view.up,
        "draining": view.draining,
        "registered_by": view.registered_by,
        "reason": view.reason,
        "since_unix_ms": view.since_unix_ms,
        "flows": counts.flows_active,
        "flows_created": counts.flows_created,
        "packets_in": counts.packets_in,
        "bytes_in": counts.bytes_in,
        "packets_out": counts.packets_out,
        "bytes_out": counts.bytes_out,
        "resets": counts.resets,
        "port_exhausted": counts.port_exhausted,
        "at_limit": counts.at_limit,
        "free_ports": view.id.and_then(|id| free_ports.get(&id)),
    })
}

/// Drops by reason over all workers, reasons that occurred.
fn drops(counters: &Counters) -> Map<String, Value> {
    let all = DropReason::ALL.iter().map(|reason| {
        let sum: u64 = (0..counters.workers())
            .map(|worker| counters.dropped(worker, *reason))
            .sum();
        (reason.label(), sum)
    });
    all.filter(|(_, sum)| *sum > 0)
        .map(|(label, sum)| (label.to_owned(), json!(sum)))
        .collect()
}

/// A flow for operators.
#[derive(Debug, Serialize)]
pub(crate) struct ShownFlow {
    protocol: &'static str,
    client: String,
    vip: String,
    local: String,
    target: String,
    state: &'static str,
    expires_in_seconds: f64,
}

impl From<&FlowView> for ShownFlow {
    fn from(flow: &FlowView) -> ShownFlow {
        ShownFlow {
            protocol: PROTOCOLS.of(flow.protocol),
            client: flow.client.to_string(),
            vip: flow.vip.to_string(),
            local: flow
                .local
                .map_or_else(|| "-".to_owned(), |local| local.to_string()),
            target: flow.target.to_string(),
            state: STATES.of(flow.state),
            expires_in_seconds: flow.expires_in.as_secs_f64(),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
