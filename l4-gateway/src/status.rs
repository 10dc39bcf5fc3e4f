//! The JSON of `/status`: what the control side knows beside what the workers counted.

use std::collections::HashMap;
use std::net::IpAddr;

use bgp_ctl::decision::Force;
use bgp_ctl::status::{Status as BgpStatus, StatusBoard};
use dataplane::{
    Counters, DropReason, FlowView, PortIndex, RouterState, ServiceCounts, Tables, TargetId,
    WorkerCounts,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::admin::Asked;
use shared::bus::Bus;
use shared::reload::Standing;

use crate::actors::{Board, Load, ServiceView, TargetView, View};
use crate::admin::ready;
use crate::config::Config;
use crate::dpdk::Eal;
use crate::forwarder::{Forwarder, PortView};
use crate::host::Host;
use crate::names::{PROTOCOLS, STATES};
use crate::worker::{LoopCount, WorkerState};

/// What a status is read from.
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a Config,
    pub(crate) standing: Standing,
    pub(crate) forwarder: &'a Forwarder,
    pub(crate) board: &'a Board,
    pub(crate) bus: &'a Bus,
    pub(crate) bgp: Option<&'a StatusBoard>,
    pub(crate) host: &'a Host,
}

/// The state of the node now.
pub(crate) fn status(from: Sources<'_>) -> Value {
    let view = from.board.read();
    let not_ready = ready(&view, from.bgp).err();
    let View {
        not_ready: _,
        draining,
        forwarding,
        services,
        loads,
        retired_addresses,
        retired_services,
    } = (*view).clone();
    let counters = from.forwarder.counters();
    let states = from.forwarder.worker_states();
    let workers: Vec<Value> = states
        .iter()
        .enumerate()
        .map(|(index, state)| worker(index, state, counters, loads.get(index)))
        .collect();
    let tables = from.forwarder.tables();
    let living = from.forwarder.living(&tables);
    let routers = |port: PortIndex| -> Vec<Value> {
        let routers = tables.routers().iter().enumerate();
        routers
            .filter(|(_, router)| router.port == port)
            .map(|(place, router)| {
                json!({
                    "address": router.address,
                    "answers": living.map(|living| living.state(place).answers()),
                    "state": living.map(|living| living.state(place).label()),
                })
            })
            .collect()
    };
    let views = from.forwarder.ports();
    let mut warnings = from.host.warnings(from.config, &views);
    for (place, router) in tables.routers().iter().enumerate() {
        let port = from.config.ports.get(usize::from(router.port.0));
        let what = match living.map(|living| living.state(place)) {
            None | Some(RouterState::Up) => continue,
            Some(RouterState::Unheard) => "has never answered",
            Some(RouterState::Down) => "does not answer",
            Some(RouterState::Lossy) => "leaves many questions unanswered, or comes and goes",
        };
        let (address, port) = (router.address, port.map_or("?", |port| &port.name));
        warnings.push(format!("router {address} on port {port} {what}"));
    }
    let ports: Vec<Value> = from
        .config
        .ports
        .iter()
        .zip(&views)
        .map(|(port, view)| {
            let mut shown = shown_port(view, &port.local_ips);
            shown.insert("name".into(), json!(port.name));
            shown.insert("routers".into(), json!(routers(port.index)));
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
    let bgp = from.bgp.map(StatusBoard::read);
    json!({
        "node": from.config.node.id,
        "software": concat!("l4-gateway ", env!("CARGO_PKG_VERSION")),
        "dpdk": Eal::version(),
        "configuration": from.standing,
        "ready": not_ready.is_none(),
        "not_ready": not_ready,
        "warnings": warnings,
        "draining": draining,
        "forwarding": forwarding,
        "flows": sum(|counts| counts.flows_active),
        "redirected_share": redirected as f64 / frames_in.max(1) as f64,
        "frames_in_use": from.forwarder.frames_in_use(),
        "workers": workers,
        "ports": ports,
        "services": services.iter().map(|view| {
            let mut shown = service(view, counters, &free_ports);
            let forced = bgp.as_ref().and_then(|bgp| forced(bgp, view.vip));
            shown["vip_force"] = json!(forced.map(|(force, _)| force));
            shown["vip_operator"] = json!(forced.map(|(_, operator)| operator));
            shown
        }).collect::<Vec<_>>(),
        "retired_addresses": retired_addresses,
        "retired_services": retired_services,
        "drops": drops(counters),
        "bus": from.bus.status(),
        "bgp": bgp.as_ref().map(|bgp| json!(bgp)),
    })
}

/// What an operator forces on a VIP, and who that is.
fn forced(bgp: &BgpStatus, vip: IpAddr) -> Option<(Force, &Option<Asked>)> {
    let IpAddr::V4(vip) = vip else { return None };
    let vip = bgp.vips.get(&vip)?;
    Some((vip.force?, &vip.operator))
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
        "lost_interfaces": view.lost_interfaces,
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
        "mode": view.mode,
        "scheduler": view.scheduler,
        "persistence": view.persistence.map(|persistence| json!({
            "timeout_seconds": persistence.timeout.as_secs(),
            "source_prefix": match view.vip {
                IpAddr::V4(_) => persistence.prefix.v4,
                IpAddr::V6(_) => persistence.prefix.v6,
            },
            "group": view.persistence_group,
        })),
        "client_address": view.client_address,
        "limits": {
            "connections": limit(view.limits.service.connections),
            "new_per_second": limit(view.limits.service.per_second),
            "target_connections": limit(view.limits.target.connections),
            "target_new_per_second": limit(view.limits.target.per_second),
        },
        "rates": view.rates,
        "healthy": view.healthy,
        "sorry": view.sorry,
        "flows": counts.flows_active,
        "active": counts.flows_established,
        "inactive": counts.flows_active.saturating_sub(counts.flows_established),
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
        "absent_intents": view.absent_intents.iter().map(|(address, intent)| json!({
            "address": address.to_string(),
            "operator": intent,
        })).collect::<Vec<_>>(),
        "targets": view.targets.iter().map(|view| target(view, counters, free_ports)).collect::<Vec<_>>(),
    })
}

/// None where there is no limit.
fn limit(limit: u32) -> Option<u32> {
    (limit > 0).then_some(limit)
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
        "sorry": view.sorry,
        "operator": view.operator,
        "registered_by": view.registered_by,
        "reason": view.reason,
        "since_unix_ms": view.since_unix_ms,
        "rates": view.rates,
        "flows": counts.flows_active,
        "active": counts.flows_established,
        "inactive": counts.flows_active.saturating_sub(counts.flows_established),
        "flows_created": counts.flows_created,
        "packets_in": counts.packets_in,
        "bytes_in": counts.bytes_in,
        "packets_out": counts.packets_out,
        "bytes_out": counts.bytes_out,
        "resets": counts.resets,
        "port_exhausted": counts.port_exhausted,
        "at_limit": counts.at_limit,
        "syns_unanswered": counts.syns_unanswered,
        "syns_refused": counts.syns_refused,
        "unreachable": counts.unreachable,
        "last_second": view.last_second,
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
    /// Since its last packet.
    idle_seconds: f64,
}

impl ShownFlow {
    /// By the snapshot in force.
    pub(crate) fn new(flow: &FlowView, tables: &Tables) -> ShownFlow {
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
            idle_seconds: tables.idle(flow).as_secs_f64(),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
