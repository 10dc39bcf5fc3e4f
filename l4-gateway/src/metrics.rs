//! Metrics, read from the workers' counters when somebody asks for them.

use std::collections::HashMap;

use dataplane::{Counters, DropReason, RouterState, TargetId};
use metrics::{counter, gauge};

use crate::actors::View;
use crate::config::Config;
use crate::forwarder::{Forwarder, PortView};
use crate::status::limited;
use crate::worker::LoopCount;

/// Brings all metrics of the node up to date.
pub(crate) fn refresh(
    config: &Config,
    forwarder: &Forwarder,
    views: &[PortView],
    view: &View,
    ready: bool,
) {
    let counters = forwarder.counters();
    gauge!("weir_l4_ready").set(flag(ready));
    gauge!("weir_l4_draining").set(flag(view.draining));
    gauge!("weir_l4_forwarding").set(flag(view.forwarding));
    gauge!("weir_l4_frames_in_use").set(f64::from(forwarder.frames_in_use()));
    gauge!("weir_l4_retired_addresses").set(view.retired_addresses.len() as f64);
    workers(forwarder, counters, f64::from(config.workers.flows));
    loads(view);
    ports(config, views);
    routers(config, forwarder);
    let free_ports = forwarder.tables().free_ports(counters, &config.limits());
    services(view, counters, &free_ports);
}

/// How many things about the host there are to warn of.
pub(crate) fn host(warnings: usize) {
    gauge!("weir_l4_host_warnings").set(warnings as f64);
}

fn workers(forwarder: &Forwarder, counters: &Counters, flows_limit: f64) {
    for (index, state) in forwarder.worker_states().iter().enumerate() {
        let label = index.to_string();
        let worker = || ("worker", label.clone());
        let counts = counters.worker(index as u16);
        for (name, value) in [
            ("weir_l4_worker_frames_in_total", counts.frames_in),
            (
                "weir_l4_worker_handed_over_total",
                counts.frames_handed_over,
            ),
            ("weir_l4_worker_redirected_total", counts.redirected),
            ("weir_l4_worker_held_total", counts.held),
            ("weir_l4_worker_held_dropped_total", counts.held_dropped),
            ("weir_l4_worker_emitted_total", counts.emitted),
            (
                "weir_l4_worker_emitted_overflow_total",
                counts.emitted_overflow,
            ),
            (
                "weir_l4_worker_events_suppressed_total",
                counts.events_suppressed,
            ),
            ("weir_l4_worker_arp_replies_total", counts.arp_replies),
            ("weir_l4_worker_arp_requests_total", counts.arp_requests),
            (
                "weir_l4_worker_next_hops_moved_total",
                counts.next_hops_moved,
            ),
            (
                "weir_l4_worker_next_hops_contested_total",
                counts.next_hops_contested,
            ),
            (
                "weir_l4_worker_address_conflicts_total",
                counts.address_conflicts,
            ),
            (
                "weir_l4_worker_neighbour_advertisements_total",
                counts.neighbour_advertisements,
            ),
            (
                "weir_l4_worker_neighbour_solicitations_total",
                counts.neighbour_solicitations,
            ),
            ("weir_l4_worker_echo_replies_total", counts.echo_replies),
            ("weir_l4_worker_resets_sent_total", counts.resets_sent),
            (
                "weir_l4_worker_segments_unserved_total",
                counts.segments_unserved,
            ),
            (
                "weir_l4_worker_icmp_errors_sent_total",
                counts.icmp_errors_sent,
            ),
            (
                "weir_l4_worker_icmp_errors_suppressed_total",
                counts.icmp_errors_suppressed,
            ),
            ("weir_l4_worker_icmp_forwarded_total", counts.icmp_forwarded),
            ("weir_l4_worker_packets_cut_total", counts.packets_cut),
            (
                "weir_l4_worker_early_fragments_dropped_total",
                counts.early_fragments_dropped,
            ),
            ("weir_l4_worker_tunnel_errors_total", counts.tunnel_errors),
            (
                "weir_l4_worker_segments_disbelieved_total",
                counts.segments_disbelieved,
            ),
            ("weir_l4_worker_flows_created_total", counts.flows_created),
            ("weir_l4_worker_flows_expired_total", counts.flows_expired),
            (
                "weir_l4_worker_flows_rescheduled_total",
                counts.flows_rescheduled,
            ),
            ("weir_l4_worker_rounds_total", state.heartbeat()),
        ] {
            counter!(name, &[worker()]).absolute(value);
        }
        for count in LoopCount::ALL {
            counter!(
                format!("weir_l4_worker_{}_total", count.label()),
                &[worker()]
            )
            .absolute(state.count(count));
        }
        gauge!("weir_l4_worker_flows_limit", &[worker()]).set(flows_limit);
        gauge!("weir_l4_worker_flows", &[worker()]).set(counts.flows_active as f64);
        gauge!("weir_l4_worker_neighbours", &[worker()]).set(counts.neighbours as f64);
        // Gauges, as the recorder's counters are whole numbers.
        let times = state.times();
        for (name, nanoseconds) in [
            ("busy", times.busy),
            ("idle", times.idle),
            ("asleep", times.asleep),
        ] {
            let labels = [worker(), ("state", name.to_owned())];
            gauge!("weir_l4_worker_time_seconds", &labels).set(nanoseconds as f64 / 1e9);
        }
        for reason in DropReason::ALL {
            let labels = [worker(), ("reason", reason.label().to_owned())];
            counter!("weir_l4_dropped_total", &labels)
                .absolute(counters.dropped(index as u16, *reason));
        }
    }
}

fn loads(view: &View) {
    for (index, load) in view.loads.iter().enumerate() {
        let label = [("worker", index.to_string())];
        gauge!("weir_l4_worker_busy_ratio", &label).set(load.busy);
        gauge!("weir_l4_worker_cycles_per_frame", &label).set(load.cycles_per_frame);
    }
}

fn routers(config: &Config, forwarder: &Forwarder) {
    let tables = forwarder.tables();
    let Some(living) = forwarder.living(&tables) else {
        return;
    };
    for (place, router) in tables.routers().iter().enumerate() {
        let Some(port) = config.ports.get(usize::from(router.port.0)) else {
            continue;
        };
        let labels = [
            ("port", port.name.clone()),
            ("address", router.address.to_string()),
        ];
        gauge!("weir_l4_router_up", &labels).set(flag(living.state(place) == RouterState::Up));
    }
}

fn ports(config: &Config, views: &[PortView]) {
    for (port, view) in config.ports.iter().zip(views) {
        let label = [("port", port.name.clone())];
        let stats = view.stats;
        gauge!("weir_l4_port_link_up", &label).set(flag(view.link.up));
        for (member, link) in &view.members {
            let labels = [("port", port.name.clone()), ("member", member.clone())];
            gauge!("weir_l4_port_member_link_up", &labels).set(flag(link.up));
        }
        for (name, value) in [
            ("weir_l4_port_received_total", stats.received),
            ("weir_l4_port_received_bytes_total", stats.received_bytes),
            ("weir_l4_port_transmitted_total", stats.transmitted),
            (
                "weir_l4_port_transmitted_bytes_total",
                stats.transmitted_bytes,
            ),
            ("weir_l4_port_missed_total", stats.missed),
            ("weir_l4_port_receive_errors_total", stats.receive_errors),
            ("weir_l4_port_transmit_errors_total", stats.transmit_errors),
            ("weir_l4_port_no_buffer_total", stats.no_buffer),
        ] {
            counter!(name, &label).absolute(value);
        }
    }
}

fn services(view: &View, counters: &Counters, free_ports: &HashMap<TargetId, u64>) {
    for service in &view.services {
        let label = [("service", service.name.clone())];
        let counts = service
            .id
            .map(|id| counters.service(id))
            .unwrap_or_default();
        gauge!("weir_l4_service_targets", &label).set(service.targets.len() as f64);
        gauge!("weir_l4_service_healthy_targets", &label).set(f64::from(service.healthy));
        gauge!("weir_l4_service_sorry", &label).set(flag(service.sorry));
        gauge!("weir_l4_service_flows", &label).set(counts.flows_active as f64);
        let established = counts.flows_established as f64;
        gauge!("weir_l4_service_active_flows", &label).set(established);
        for (name, value) in [
            ("weir_l4_service_packets_in_total", counts.packets_in),
            ("weir_l4_service_bytes_in_total", counts.bytes_in),
            ("weir_l4_service_packets_out_total", counts.packets_out),
            ("weir_l4_service_bytes_out_total", counts.bytes_out),
            ("weir_l4_service_flows_created_total", counts.flows_created),
            ("weir_l4_service_resets_sent_total", counts.resets_sent),
            (
                "weir_l4_service_icmp_errors_sent_total",
                counts.icmp_errors_sent,
            ),
            (
                "weir_l4_service_icmp_forwarded_total",
                counts.icmp_forwarded,
            ),
            ("weir_l4_service_no_target_total", counts.no_target),
            (
                "weir_l4_service_port_exhausted_total",
                counts.port_exhausted,
            ),
            (
                "weir_l4_service_flow_table_full_total",
                counts.flow_table_full,
            ),
            ("weir_l4_service_no_flow_total", counts.no_flow),
            (
                "weir_l4_service_client_address_inserted_total",
                counts.client_address_inserted,
            ),
            (
                "weir_l4_service_client_address_refused_total",
                counts.client_address_refused,
            ),
            (
                "weir_l4_service_client_address_forged_total",
                counts.client_address_forged,
            ),
            ("weir_l4_service_denied_total", counts.denied),
            ("weir_l4_service_persisted_total", counts.persisted),
            (
                "weir_l4_service_sources_untracked_total",
                counts.sources_untracked,
            ),
            ("weir_l4_service_flows_cut_total", counts.flows_cut),
        ] {
            counter!(name, &label).absolute(value);
        }
        for (limit, value) in limited(&counts) {
            let labels = [
                ("service", service.name.clone()),
                ("limit", limit.to_owned()),
            ];
            counter!("weir_l4_service_limited_total", &labels).absolute(value);
        }
        for target in &service.targets {
            let labels = [
                ("service", service.name.clone()),
                ("target", target.address.to_string()),
            ];
            let counts = target.id.map(|id| counters.target(id)).unwrap_or_default();
            gauge!("weir_l4_target_up", &labels).set(flag(target.up));
            gauge!("weir_l4_target_weight", &labels).set(f64::from(target.weight));
            gauge!("weir_l4_target_effective_weight", &labels).set(target.effective_weight);
            gauge!("weir_l4_target_intent", &labels).set(flag(target.operator.is_some()));
            gauge!("weir_l4_target_flows", &labels).set(counts.flows_active as f64);
            let established = counts.flows_established as f64;
            gauge!("weir_l4_target_active_flows", &labels).set(established);
            if let Some(free) = target.id.and_then(|id| free_ports.get(&id)) {
                gauge!("weir_l4_target_free_ports", &labels).set(*free as f64);
            }
            for (name, value) in [
                ("weir_l4_target_packets_in_total", counts.packets_in),
                ("weir_l4_target_bytes_in_total", counts.bytes_in),
                ("weir_l4_target_packets_out_total", counts.packets_out),
                ("weir_l4_target_bytes_out_total", counts.bytes_out),
                ("weir_l4_target_flows_created_total", counts.flows_created),
                ("weir_l4_target_resets_total", counts.resets),
                ("weir_l4_target_port_exhausted_total", counts.port_exhausted),
                ("weir_l4_target_at_limit_total", counts.at_limit),
                (
                    "weir_l4_target_syns_unanswered_total",
                    counts.syns_unanswered,
                ),
                ("weir_l4_target_syns_refused_total", counts.syns_refused),
                ("weir_l4_target_unreachable_total", counts.unreachable),
            ] {
                counter!(name, &labels).absolute(value);
            }
        }
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
