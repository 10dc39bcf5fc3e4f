//! What the workers count. Each cell has one writer (its worker) and any number of readers; a write is a plain load, add
//! and store, a reader sees each cell whole and never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::flow::{Flow, Side, prefetch};
use crate::frame::DropReason;
use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::limits::Limits;
use crate::next_hops::Living;
use crate::shared_state::SharedState;
use crate::tables::Tables;

macro_rules! counted {
    ($(#[doc = $name_doc:literal])+ $cell:ident, $(#[doc = $sum_doc:literal])+ $sum:ident { $($(#[doc = $doc:literal])+ $variant:ident $field:ident,)+ } $(beside { $($(#[doc = $beside_doc:literal])+ $beside:ident,)+ })?) => {
        $(#[doc = $name_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $cell {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $cell {
            /// All of them, in order.
            pub const ALL: &'static [$cell] = &[$($cell::$variant,)+];

            /// The name for metrics, in snake case without prefix and suffix.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $($cell::$variant => stringify!($field),)+
                }
            }
        }

        $(#[doc = $sum_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $sum {
            $($(#[doc = $doc])+ pub $field: u64,)+
            $($($(#[doc = $beside_doc])+ pub $beside: u64,)+)?
        }

        impl $sum {
            fn add(&mut self, cells: &[AtomicU64]) {
                $(self.$field = self.$field.wrapping_add(read(cells, $cell::$variant as usize));)+
            }
        }
    };
}

counted! {
    /// What is counted per service.
    ServiceCount,
    /// One service's counters, summed over the workers.
    ServiceCounts {
        /// Packets from clients that were forwarded.
        PacketsIn packets_in,
        /// IP bytes from clients that were forwarded.
        BytesIn bytes_in,
        /// Packets to clients that were forwarded.
        PacketsOut packets_out,
        /// IP bytes to clients that were forwarded.
        BytesOut bytes_out,
        /// Flows created.
        FlowsCreated flows_created,
        /// RSTs sent to clients from here, whatever the reason.
        ResetsSent resets_sent,
        /// ICMP errors sent to clients from here.
        IcmpErrorsSent icmp_errors_sent,
        /// New flows refused because no target was eligible.
        NoTarget no_target,
        /// New flows refused because no local port was free towards the target.
        PortExhausted port_exhausted,
        /// New flows refused because the flow table was full.
        FlowTableFull flow_table_full,
        /// TCP segments of no known flow.
        NoFlow no_flow,
        /// ICMP errors rewritten and passed on, both directions.
        IcmpForwarded icmp_forwarded,
        /// New flows refused because the source is denied.
        Denied denied,
        /// New flows refused because the service had all the connections it may have.
        LimitedConnections limited_connections,
        /// New flows refused because the service got more a second than it may.
        LimitedRate limited_rate,
        /// New flows refused because their source had all the connections it may have.
        LimitedSourceConnections limited_source_connections,
        /// New flows refused because their source opened more a second than it may.
        LimitedSourceRate limited_source_rate,
        /// New flows refused because the targets asked were at their limits.
        LimitedTargets limited_targets,
        /// New flows let in without a look at their source's limits: too many other sources were remembered.
        SourcesUntracked sources_untracked,
        /// New flows sent to the target that their source was sent to before.
        Persisted persisted,
        /// Segments that took the client's address to the target.
        ClientAddressInserted client_address_inserted,
        /// Segments that should have, but could not.
        ClientAddressRefused client_address_refused,
        /// Options of clients that a target would have believed to be their address, taken out.
        ClientAddressForged client_address_forged,
        /// Flows ended here before their time: some time after their target had been left ([`crate::TargetConfig::cut`]), or by an operator.
        FlowsCut flows_cut,
    } beside {
        /// Flows in the table now (a gauge).
        flows_active,
        /// Those of them that are established (a gauge), which LVS calls active.
        flows_established,
    }
}

counted! {
    /// What is counted per target.
    TargetCount,
    /// One target's counters, summed over the workers.
    TargetCounts {
        /// Packets forwarded to it.
        PacketsIn packets_in,
        /// IP bytes forwarded to it.
        BytesIn bytes_in,
        /// Packets from it.
        PacketsOut packets_out,
        /// IP bytes from it.
        BytesOut bytes_out,
        /// Flows created to it.
        FlowsCreated flows_created,
        /// TCP flows it ended by RST; again for a flow that went on in spite of one.
        Resets resets,
        /// New flows refused because no local port was free towards it.
        PortExhausted port_exhausted,
        /// New flows that went elsewhere, or nowhere, because it was at its limits.
        AtLimit at_limit,
        /// SYNs it left unanswered: until the client sent another, or their flow expired. Only where answers pass here.
        SynsUnanswered syns_unanswered,
        /// SYNs it answered by RST. Only where answers pass here.
        SynsRefused syns_refused,
        /// ICMP errors from its side that say it, or its port, can't be reached. Only where answers pass here.
        Unreachable unreachable,
    } beside {
        /// Flows to it in the table now (a gauge).
        flows_active,
        /// Those of them that are established (a gauge), which LVS calls active.
        flows_established,
    }
}

counted! {
    /// What is counted per worker.
    WorkerCount,
    /// One worker's counters.
    WorkerCounts {
        /// Frames received in bursts.
        FramesIn frames_in,
        /// Frames taken over from other workers.
        FramesHandedOver frames_handed_over,
        /// Frames with verdict transmit.
        Transmitted transmitted,
        /// Frames given to other workers.
        Redirected redirected,
        /// Frames left to the kernel.
        Kernel kernel,
        /// Frames copied to wait for a next hop.
        Held held,
        /// Frames taken in without an answer.
        Consumed consumed,
        /// Frames dropped; by reason, see [`Counters::dropped`].
        Dropped dropped,
        /// Frames made or released here and given to [`crate::Emitted`].
        Emitted emitted,
        /// Frames and events that found no room in [`crate::Emitted`].
        EmittedOverflow emitted_overflow,
        /// Events not reported because one of their kind was reported not long ago.
        EventsSuppressed events_suppressed,
        /// ARP replies sent.
        ArpReplies arp_replies,
        /// ARP requests sent.
        ArpRequests arp_requests,
        /// Frames in which another host says that it has an address of this node.
        AddressConflicts address_conflicts,
        /// Times that a next hop which the snapshot names went over to another MAC than the one in use.
        NextHopsMoved next_hops_moved,
        /// Times that another host claimed the address of such a next hop, whose MAC in use still answered.
        NextHopsContested next_hops_contested,
        /// Neighbour advertisements sent.
        NeighbourAdvertisements neighbour_advertisements,
        /// Neighbour solicitations sent.
        NeighbourSolicitations neighbour_solicitations,
        /// Echo requests answered.
        EchoReplies echo_replies,
        /// RSTs sent, to clients and targets.
        ResetsSent resets_sent,
        /// TCP segments for a port of a VIP that no service has, answered by RST; datagrams are dropped ([`DropReason::NoService`]).
        SegmentsUnserved segments_unserved,
        /// ICMP errors sent from here.
        IcmpErrorsSent icmp_errors_sent,
        /// ICMP errors not sent because of the rate limit.
        IcmpErrorsSuppressed icmp_errors_suppressed,
        /// ICMP errors rewritten and passed on.
        IcmpForwarded icmp_forwarded,
        /// Flows in the table now (a gauge).
        FlowsActive flows_active,
        /// Flows created.
        FlowsCreated flows_created,
        /// Flows that ended by their timeout.
        FlowsExpired flows_expired,
        /// Flows replaced by a new SYN of the same client port.
        FlowsRescheduled flows_rescheduled,
        /// TCP segments passed on without moving a state, since their numbers don't fit the connection.
        SegmentsDisbelieved segments_disbelieved,
        /// Held frames dropped because their next hop didn't answer.
        HeldDropped held_dropped,
        /// Fragments dropped after they had waited for the first of their packet: it didn't come in time, their place was needed, or
        /// it couldn't be forwarded.
        EarlyFragmentsDropped early_fragments_dropped,
        /// Errors about outer packets of a tunnel, told to the client.
        TunnelErrors tunnel_errors,
        /// Packets cut into fragments because the egress link is smaller.
        PacketsCut packets_cut,
        /// Neighbours known now (a gauge).
        Neighbours neighbours,
    }
}

/// Cells of a row: a power of two, so that rows are found by a shift. What each packet writes of a target is in the first cache line of its
/// row.
const SERVICE_CELLS: usize = ServiceCount::ALL.len().next_power_of_two();
const TARGET_CELLS: usize = TargetCount::ALL.len().next_power_of_two();

/// What [`bump_pair`] relies on.
const _: () = {
    assert!(ServiceCount::BytesIn as usize == ServiceCount::PacketsIn as usize + 1);
    assert!(ServiceCount::BytesOut as usize == ServiceCount::PacketsOut as usize + 1);
    assert!(TargetCount::BytesIn as usize == TargetCount::PacketsIn as usize + 1);
    assert!(TargetCount::BytesOut as usize == TargetCount::PacketsOut as usize + 1);
};

/// The cells of flows there are: all of them, and those that are established. Side by side, so that the second costs no cache line more.
const ALL: usize = 0;
const ESTABLISHED: usize = 1;

const _: () = assert!((TargetCount::FlowsCreated as usize) < CELLS_PER_LINE);

/// Cells in a cache line.
const CELLS_PER_LINE: usize = 64 / size_of::<AtomicU64>();

/// All counters of a process, made once and shared by its workers and readers.
#[derive(Debug)]
pub struct Counters {
    workers: Vec<Arc<Cells>>,
    shared: SharedState,
}

impl Counters {
    /// Counters for this many workers of these limits, all zero.
    #[must_use]
    pub fn new(workers: u16, limits: &Limits) -> Self {
        Self {
            workers: (0..workers.max(1))
                .map(|_| Arc::new(Cells::new(limits)))
                .collect(),
            shared: SharedState::new(limits),
        }
    }

    /// How many workers count here.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.workers.len() as u16
    }

    /// A service's counters over all workers; zeros for a number never given out.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> ServiceCounts {
        let mut sum = ServiceCounts::default();
        for cells in &self.workers {
            sum.add(row(&cells.services, id.0));
        }
        sum.flows_active = self.service_flows(id);
        sum.flows_established = self.sum(|cells| pair(&cells.service_flows, id.0)[ESTABLISHED]);
        sum
    }

    /// A target's counters over all workers; zeros for a number never given out.
    #[must_use]
    pub fn target(&self, id: TargetId) -> TargetCounts {
        let mut sum = TargetCounts::default();
        for cells in &self.workers {
            sum.add(row(&cells.targets, id.0));
        }
        sum.flows_active = self.target_flows(id);
        sum.flows_established = self.sum(|cells| pair(&cells.target_flows, id.0)[ESTABLISHED]);
        sum
    }

    /// Flows that use a LocalIP, over all workers.
    #[must_use]
    pub fn local_ip_flows(&self, id: LocalIpId) -> u64 {
        let of_worker = |cells: &Arc<Cells>| read(&cells.local_ips, usize::from(id.0));
        self.workers
            .iter()
            .map(of_worker)
            .fold(0, u64::wrapping_add)
    }

    /// A worker's counters; zeros for a worker that doesn't exist.
    #[must_use]
    pub fn worker(&self, index: u16) -> WorkerCounts {
        let mut sum = WorkerCounts::default();
        if let Some(cells) = self.workers.get(usize::from(index)) {
            sum.add(&cells.worker);
        }
        sum
    }

    /// Frames a worker dropped for this reason.
    #[must_use]
    pub fn dropped(&self, worker: u16, reason: DropReason) -> u64 {
        self.workers
            .get(usize::from(worker))
            .map_or(0, |cells| read(&cells.drops, reason as usize))
    }

    /// Flows of a service, for limits. Of workers that create flows at this very moment each may be one behind.
    pub(crate) fn service_flows(&self, id: ServiceId) -> u64 {
        self.sum(|cells| pair(&cells.service_flows, id.0)[ALL])
    }

    /// Flows to a target, for limits and least connections; as current as [`Counters::service_flows`].
    pub(crate) fn target_flows(&self, id: TargetId) -> u64 {
        self.sum(|cells| pair(&cells.target_flows, id.0)[ALL])
    }

    fn sum(&self, of: impl Fn(&Cells) -> u64) -> u64 {
        let cells = self.workers.iter();
        cells.fold(0, |sum, cells| sum.wrapping_add(of(cells)))
    }

    /// Which routers of a snapshot answer; none until the worker that asks them runs on it.
    #[must_use]
    pub fn living(&self, tables: &Tables) -> Option<Living> {
        self.shared.living.of(tables.serial())
    }

    /// What the workers don't count, but keep together.
    pub(crate) fn shared(&self) -> &SharedState {
        &self.shared
    }

    /// The cells one worker writes.
    pub(crate) fn cells(&self, worker: u16) -> Arc<Cells> {
        Arc::clone(&self.workers[usize::from(worker)])
    }
}

/// The cells of one service or target, from the start of a cache line on.
#[derive(Debug)]
#[repr(align(64))]
struct Row<const N: usize>([AtomicU64; N]);

/// The cells of one worker, in memory of their own.
#[derive(Debug)]
pub(crate) struct Cells {
    services: Box<[Row<SERVICE_CELLS>]>,
    targets: Box<[Row<TARGET_CELLS>]>,
    /// Flows by LocalIP (a gauge).
    local_ips: Box<[AtomicU64]>,
    worker: Box<[AtomicU64]>,
    drops: Box<[AtomicU64]>,
    /// Flows by service and by target, [`ALL`] and [`ESTABLISHED`], apart from the rows above: other workers read these, and would take the
    /// lines from a worker that writes its rows with each packet.
    service_flows: Box<[[AtomicU64; 2]]>,
    target_flows: Box<[[AtomicU64; 2]]>,
}

impl Cells {
    fn new(limits: &Limits) -> Self {
        Self {
            services: rows(limits.services),
            targets: rows(limits.targets),
            local_ips: zeros(usize::from(limits.local_ips)),
            worker: zeros(WorkerCount::ALL.len()),
            drops: zeros(DropReason::ALL.len()),
            service_flows: pairs(limits.services),
            target_flows: pairs(limits.targets),
        }
    }

    #[inline]
    pub(crate) fn service(&self, id: ServiceId, count: ServiceCount, n: u64) {
        add(row(&self.services, id.0), count as usize, n);
    }

    #[inline]
    pub(crate) fn target(&self, id: TargetId, count: TargetCount, n: u64) {
        add(row(&self.targets, id.0), count as usize, n);
    }

    #[inline]
    pub(crate) fn worker(&self, count: WorkerCount, n: u64) {
        add(&self.worker, count as usize, n);
    }

    /// Sets a gauge.
    pub(crate) fn set_worker(&self, count: WorkerCount, value: u64) {
        if let Some(cell) = self.worker.get(count as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason) {
        add(&self.drops, reason as usize, 1);
    }

    /// Starts loading what [`Cells::forwarded`] writes.
    #[inline]
    pub(crate) fn prefetch(&self, service: ServiceId, target: TargetId) {
        if let Some(row) = self.services.get(service.0 as usize) {
            prefetch(row);
        }
        if let Some(row) = self.targets.get(target.0 as usize) {
            prefetch(row);
        }
    }

    /// A packet of a flow from one side, of so many IP bytes, was forwarded.
    #[inline(always)]
    pub(crate) fn forwarded(&self, flow: &Flow, side: Side, bytes: u16) {
        let (service, target) = match side {
            Side::Client => (ServiceCount::PacketsIn, TargetCount::PacketsIn),
            Side::Target => (ServiceCount::PacketsOut, TargetCount::PacketsOut),
        };
        if let Some(row) = self.services.get(flow.service().0 as usize) {
            bump_pair(row, service as usize, u64::from(bytes));
        }
        if let Some(row) = self.targets.get(flow.target_id.0 as usize) {
            bump_pair(row, target as usize, u64::from(bytes));
        }
    }

    /// Flows of this worker to a target.
    pub(crate) fn target_flows(&self, id: TargetId) -> u64 {
        pair(&self.target_flows, id.0)[ALL]
    }

    /// Flows of a service, of this worker.
    pub(crate) fn service_flows(&self, id: ServiceId) -> u64 {
        pair(&self.service_flows, id.0)[ALL]
    }

    /// Flows that use a LocalIP, of this worker.
    pub(crate) fn local_ip_flows(&self, id: LocalIpId) -> u64 {
        read(&self.local_ips, usize::from(id.0))
    }

    /// A flow was created; `local` is its LocalIP, if it has one.
    pub(crate) fn flow_began(
        &self,
        service: ServiceId,
        target: TargetId,
        local: Option<LocalIpId>,
    ) {
        self.service(service, ServiceCount::FlowsCreated, 1);
        self.target(target, TargetCount::FlowsCreated, 1);
        self.worker(WorkerCount::FlowsCreated, 1);
        self.flows_changed(service, target, local, 1);
    }

    /// A flow is gone.
    pub(crate) fn flow_ended(
        &self,
        service: ServiceId,
        target: TargetId,
        local: Option<LocalIpId>,
    ) {
        self.flows_changed(service, target, local, 1u64.wrapping_neg());
    }

    /// A flow is established from here on, or no longer.
    pub(crate) fn flow_established(&self, service: ServiceId, target: TargetId, is_so: bool) {
        let by = if is_so { 1 } else { 1u64.wrapping_neg() };
        add(cells_of(&self.service_flows, service.0), ESTABLISHED, by);
        add(cells_of(&self.target_flows, target.0), ESTABLISHED, by);
    }

    /// Established flows to a target, of this worker.
    pub(crate) fn established_flows(&self, id: TargetId) -> u64 {
        pair(&self.target_flows, id.0)[ESTABLISHED]
    }

    fn flows_changed(
        &self,
        service: ServiceId,
        target: TargetId,
        local: Option<LocalIpId>,
        by: u64,
    ) {
        self.worker(WorkerCount::FlowsActive, by);
        add(cells_of(&self.service_flows, service.0), ALL, by);
        add(cells_of(&self.target_flows, target.0), ALL, by);
        if let Some(local) = local {
            add(&self.local_ips, usize::from(local.0), by);
        }
    }
}

/// Adds 1 to the cell at `packets` and `bytes` to the one after it.
#[inline]
fn bump_pair<const N: usize>(cells: &Row<N>, packets: usize, bytes: u64) {
    add(&cells.0, packets, 1);
    add(&cells.0, packets + 1, bytes);
}

/// Wrapping, so that a gauge goes down by adding the two's complement.
#[inline]
fn add(cells: &[AtomicU64], index: usize, n: u64) {
    if let Some(cell) = cells.get(index) {
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }
}

fn read(cells: &[AtomicU64], index: usize) -> u64 {
    cells
        .get(index)
        .map_or(0, |cell| cell.load(Ordering::Relaxed))
}

#[inline]
fn row<const N: usize>(rows: &[Row<N>], number: u32) -> &[AtomicU64] {
    rows.get(number as usize).map_or(&[], |row| &row.0)
}

fn cells_of(pairs: &[[AtomicU64; 2]], number: u32) -> &[AtomicU64] {
    pairs.get(number as usize).map_or(&[], |pair| pair)
}

fn pair(pairs: &[[AtomicU64; 2]], number: u32) -> [u64; 2] {
    let cells = cells_of(pairs, number);
    [read(cells, ALL), read(cells, ESTABLISHED)]
}

fn pairs(n: u32) -> Box<[[AtomicU64; 2]]> {
    let zeros = |_| std::array::from_fn(|_| AtomicU64::new(0));
    (0..n).map(zeros).collect()
}

fn rows<const N: usize>(n: u32) -> Box<[Row<N>]> {
    let zeros = |_| Row(std::array::from_fn(|_| AtomicU64::new(0)));
    (0..n).map(zeros).collect()
}

fn zeros(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}
