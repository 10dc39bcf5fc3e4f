//! What the gateway's metrics mean, for the HELP lines of `/metrics`. The reference says more.

use shared::telemetry::{Kind, Meaning};

/// Every metric of the tier.
pub const MEANINGS: &[Meaning] = &[
    (Kind::Gauge, "weir_l4_ready", "1 while the node is ready"),
    (Kind::Gauge, "weir_l4_draining", "1 while the node drains"),
    (
        Kind::Gauge,
        "weir_l4_forwarding",
        "1 while the node has its workers turning and its links up",
    ),
    (
        Kind::Gauge,
        "weir_l4_retired_addresses",
        "VIPs and LocalIPs that a reload took away and flows still use",
    ),
    (Kind::Gauge, "weir_l4_frames_in_use", "Frame buffers taken"),
    (
        Kind::Gauge,
        "weir_l4_host_warnings",
        "Settings of the host that get in the gateway's way (warnings of status)",
    ),
    (
        Kind::Gauge,
        "weir_l4_worker_flows_limit",
        "Flows the table of a worker has room for (workers.flows)",
    ),
    (
        Kind::Counter,
        "weir_l4_dropped_total",
        "Frames dropped, by reason",
    ),
    (
        Kind::Gauge,
        "weir_l4_service_targets",
        "Targets of a service",
    ),
    (
        Kind::Gauge,
        "weir_l4_service_sorry",
        "1 while only the sorry targets of a service take new flows",
    ),
    (
        Kind::Gauge,
        "weir_l4_service_healthy_targets",
        "Targets of a service that get new flows",
    ),
    (
        Kind::Gauge,
        "weir_l4_service_flows",
        "Flows of a service in the table",
    ),
    (
        Kind::Gauge,
        "weir_l4_service_active_flows",
        "Established TCP flows of a service",
    ),
    (
        Kind::Counter,
        "weir_l4_service_packets_in_total",
        "Packets forwarded from clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_bytes_in_total",
        "IP bytes forwarded from clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_packets_out_total",
        "Packets forwarded to clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_bytes_out_total",
        "IP bytes forwarded to clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_flows_created_total",
        "Flows created for a service",
    ),
    (
        Kind::Counter,
        "weir_l4_service_no_target_total",
        "New flows refused because no target could take one",
    ),
    (
        Kind::Counter,
        "weir_l4_service_port_exhausted_total",
        "New flows refused because no local port was free",
    ),
    (
        Kind::Counter,
        "weir_l4_service_flow_table_full_total",
        "New flows refused because the flow table was full",
    ),
    (
        Kind::Counter,
        "weir_l4_service_no_flow_total",
        "TCP segments of no known flow",
    ),
    (
        Kind::Counter,
        "weir_l4_service_denied_total",
        "New flows refused because of an access list",
    ),
    (
        Kind::Counter,
        "weir_l4_service_limited_total",
        "New flows refused because of a limit",
    ),
    (
        Kind::Counter,
        "weir_l4_service_sources_untracked_total",
        "New flows let in without a look at the limits of their source: the table of sources was full",
    ),
    (
        Kind::Counter,
        "weir_l4_service_persisted_total",
        "New flows sent to the target their source had",
    ),
    (
        Kind::Counter,
        "weir_l4_service_flows_cut_total",
        "Flows ended by cut_drained_after, cut_down_after and operators",
    ),
    (
        Kind::Counter,
        "weir_l4_service_resets_sent_total",
        "RSTs sent to clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_icmp_errors_sent_total",
        "ICMP errors sent to clients",
    ),
    (
        Kind::Counter,
        "weir_l4_service_icmp_forwarded_total",
        "ICMP errors rewritten and passed on, both directions",
    ),
    (
        Kind::Counter,
        "weir_l4_service_client_address_inserted_total",
        "Segments that took the address of their client to the target",
    ),
    (
        Kind::Counter,
        "weir_l4_service_client_address_refused_total",
        "Segments that should have taken the address of their client to the target, but could not",
    ),
    (
        Kind::Counter,
        "weir_l4_service_client_address_forged_total",
        "Options of clients taken out that a target would have believed to be their address",
    ),
    (Kind::Gauge, "weir_l4_target_up", "1 while the target is up"),
    (Kind::Gauge, "weir_l4_target_weight", "Weight of a target"),
    (
        Kind::Gauge,
        "weir_l4_target_intent",
        "1 while an operator wants something of a target: a drain or a weight",
    ),
    (
        Kind::Gauge,
        "weir_l4_target_effective_weight",
        "Weight of a target now, less while it starts slowly",
    ),
    (
        Kind::Gauge,
        "weir_l4_target_flows",
        "Flows to a target in the table",
    ),
    (
        Kind::Gauge,
        "weir_l4_target_active_flows",
        "Established TCP flows to a target",
    ),
    (
        Kind::Gauge,
        "weir_l4_target_free_ports",
        "Local ports free towards a target, over all workers and LocalIPs",
    ),
    (
        Kind::Counter,
        "weir_l4_target_at_limit_total",
        "New flows that went elsewhere, or nowhere, because the target was at its limits",
    ),
    (
        Kind::Counter,
        "weir_l4_target_packets_in_total",
        "Packets forwarded to a target",
    ),
    (
        Kind::Counter,
        "weir_l4_target_bytes_in_total",
        "IP bytes forwarded to a target",
    ),
    (
        Kind::Counter,
        "weir_l4_target_packets_out_total",
        "Packets forwarded from a target",
    ),
    (
        Kind::Counter,
        "weir_l4_target_bytes_out_total",
        "IP bytes forwarded from a target",
    ),
    (
        Kind::Counter,
        "weir_l4_target_flows_created_total",
        "Flows created to a target",
    ),
    (
        Kind::Counter,
        "weir_l4_target_port_exhausted_total",
        "New flows refused because no local port towards the target was free",
    ),
    (
        Kind::Counter,
        "weir_l4_target_resets_total",
        "TCP flows a target ended by RST",
    ),
    (
        Kind::Counter,
        "weir_l4_target_syns_unanswered_total",
        "SYNs a target left unanswered until the client sent another, or gave up",
    ),
    (
        Kind::Counter,
        "weir_l4_target_syns_refused_total",
        "SYNs a target answered by RST",
    ),
    (
        Kind::Counter,
        "weir_l4_target_unreachable_total",
        "ICMP errors that say a target, or its port, can not be reached",
    ),
    (
        Kind::Gauge,
        "weir_l4_port_link_up",
        "1 while the link is up",
    ),
    (
        Kind::Gauge,
        "weir_l4_router_up",
        "1 while a router that the routes name is up: it answers ARP or neighbour solicitations, and loses few",
    ),
    (
        Kind::Counter,
        "weir_l4_port_link_changes_total",
        "Times the link went up or down",
    ),
    (
        Kind::Gauge,
        "weir_l4_port_member_link_up",
        "1 while the link of a member of a bond is up",
    ),
    (
        Kind::Counter,
        "weir_l4_port_received_total",
        "Frames received, as the device counts them",
    ),
    (
        Kind::Counter,
        "weir_l4_port_received_bytes_total",
        "Bytes received, as the device counts them",
    ),
    (
        Kind::Counter,
        "weir_l4_port_transmitted_total",
        "Frames sent, as the device counts them",
    ),
    (
        Kind::Counter,
        "weir_l4_port_transmitted_bytes_total",
        "Bytes sent, as the device counts them",
    ),
    (
        Kind::Counter,
        "weir_l4_port_missed_total",
        "Frames the device dropped because no worker fetched them in time",
    ),
    (
        Kind::Counter,
        "weir_l4_port_receive_errors_total",
        "Frames received with errors",
    ),
    (
        Kind::Counter,
        "weir_l4_port_transmit_errors_total",
        "Frames that could not be sent",
    ),
    (
        Kind::Counter,
        "weir_l4_port_no_buffer_total",
        "Frames dropped because no frame buffer was free",
    ),
    (
        Kind::Gauge,
        "weir_l4_worker_time_seconds",
        "Time in rounds with frames (busy), without (idle), and asleep, since the start",
    ),
    (
        Kind::Gauge,
        "weir_l4_worker_busy_ratio",
        "Share of the last second in rounds with frames, 0 to 1",
    ),
    (
        Kind::Gauge,
        "weir_l4_worker_cycles_per_frame",
        "CPU cycles of rounds with frames in the last second, for each frame",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_rounds_total",
        "Turns of the loop of a worker",
    ),
    (
        Kind::Gauge,
        "weir_l4_worker_flows",
        "Flows in the table of a worker",
    ),
    (Kind::Gauge, "weir_l4_worker_neighbours", "Next hops known"),
    (
        Kind::Counter,
        "weir_l4_worker_flows_created_total",
        "Flows created",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_flows_expired_total",
        "Flows ended by their timeout",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_flows_rescheduled_total",
        "Flows replaced by a new SYN of the same client port",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_segments_disbelieved_total",
        "TCP segments passed on that moved no state: their numbers do not fit the connection",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_segments_unserved_total",
        "TCP segments for a port of a VIP that no service has, answered by RST",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_frames_in_total",
        "Frames received",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_transmitted_total",
        "Frames sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_redirected_total",
        "Frames given to other workers",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_handed_over_total",
        "Frames taken over from other workers",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_transmit_full_total",
        "Frames dropped because the device took no more",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_redirect_full_total",
        "Frames dropped because the ring of another worker took no more",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_no_buffer_total",
        "Frames of its own not sent because no buffer was free",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_unreadable_total",
        "Frames dropped because they came in more pieces than fit a buffer",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_other_vlan_total",
        "Frames dropped because their VLAN tag was another than that of their port, or lacking",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_to_kernel_total",
        "Frames given to the exception port",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_from_kernel_total",
        "Frames taken from the exception port",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_left_to_kernel_total",
        "Frames left to the kernel's own copy, or to nobody, without an exception port",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_events_lost_total",
        "Events nobody could be told of in time",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_events_suppressed_total",
        "Events not reported because one of their kind was reported not long ago",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_held_total",
        "Frames that waited for a next hop, or a fragment for the first of its packet",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_held_dropped_total",
        "Frames that waited for a next hop in vain",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_early_fragments_dropped_total",
        "Fragments that waited for the first of their packet in vain",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_packets_cut_total",
        "Packets cut into fragments because the egress link is smaller",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_tunnel_errors_total",
        "ICMP errors about outer packets of a tunnel, told to the client they concern",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_emitted_total",
        "Frames of its own",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_emitted_overflow_total",
        "Frames and events of its own left out for want of room",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_arp_requests_total",
        "ARP requests sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_arp_replies_total",
        "ARP replies sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_next_hops_moved_total",
        "Times that a router or target went over to another MAC because the one in use no longer answered",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_next_hops_contested_total",
        "Times that another host claimed the address of a router or target whose MAC in use still answered",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_address_conflicts_total",
        "Frames in which another host says that it has a VIP, a LocalIP or a port's address that this node answers for",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_neighbour_solicitations_total",
        "Neighbour solicitations sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_neighbour_advertisements_total",
        "Neighbour advertisements sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_echo_replies_total",
        "Echo replies sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_resets_sent_total",
        "RSTs sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_icmp_errors_sent_total",
        "ICMP errors sent",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_icmp_errors_suppressed_total",
        "ICMP errors not sent because of the rate limit",
    ),
    (
        Kind::Counter,
        "weir_l4_worker_icmp_forwarded_total",
        "ICMP errors passed on",
    ),
];
