//! Every bound and constant of the forwarder, in one place.

use std::time::Duration;

/// Frames worked on together; longer bursts are cut into pieces of this.
pub const MAX_BURST: usize = 64;

/// Targets whose counters stay in the cache of a core by themselves; those of more are loaded ahead.
pub(crate) const FEW_TARGETS: usize = 512;

/// Resolution of flow deadlines: 2^26 ns, about 67 ms. A power of two, so that a tick is a shift.
pub const TICK_NANOSECONDS: u64 = 1 << 26;

/// Slots of the expiry wheel, one a tick: about 8.6 s. A flow is looked at again at least once a turn, so a deadline that
/// moved closer is kept no later than one turn: less than [`crate::Timeouts::time_wait`] by default, so that a connection short
/// as it may be gives its port back by its own timeout.
pub(crate) const WHEEL_SLOTS: usize = 128;

/// Flows that the expiry wheel, the walk that ends flows, and the one that forgets next hops, each look at in one [`crate::Worker::tick`]
/// at least: of tables of up to 8 million flows.
const LEAST_VISITS: u32 = 1024;

/// Ticks in which all of a larger table is looked at, where they come every millisecond: fewer than a turn of the wheel has (8590), so
/// that it keeps up with a full table.
const TICKS_FOR_ALL: u32 = 8192;

/// Flows that are looked at in one [`crate::Worker::tick`], of a table of so many.
pub(crate) const fn visits_per_tick(flows: u32) -> u32 {
    let visits = flows.div_ceil(TICKS_FOR_ALL);
    if visits > LEAST_VISITS {
        visits
    } else {
        LEAST_VISITS
    }
}

/// Local ports tried for one new flow, over all LocalIPs, before they count as exhausted for it: some 10 us at worst. The next
/// flow goes on where this stopped.
pub(crate) const PORT_PROBES: u32 = 64;

/// Tries in a row on a LocalIP before the search leaps: ports taken are often neighbours, as they were given out in turn.
pub(crate) const PORT_PROBES_IN_A_ROW: u32 = 4;

/// How far a segment's numbers may be from what the client last sent or acknowledged to be believed, either way: more than hosts let be
/// under way by default (6 MiB on Linux, of which half is window), little enough that a blind guess fails 511 times of 512.
pub(crate) const NEAR: u32 = 1 << 22;

/// The largest window that a SYN can offer, bytes.
pub(crate) const UNSCALED_WINDOW: u32 = 0xffff;

/// How often a worker tries to get a lock that it shares with others, before it does without: a microsecond in all.
pub(crate) const LOCK_TRIES: u32 = 64;

/// Ticks after which a SYN that no answer came to is taken to be unanswered when its client sends another: about half a second. Clients wait
/// a second at first (RFC 6298 2, (2.1)); what comes sooner is the network's copy, or meant to make the target look bad.
pub(crate) const SYN_PATIENCE: u32 = 8;

/// Flows whose ends are sent RSTs in one [`crate::Worker::tick`]; flows that expire beyond them wait for the next. About 100,000 a second.
pub(crate) const RESETS_PER_TICK: u32 = 128;

/// Slots that remember where connections ended (256 KiB a worker). A power of two.
pub(crate) const SEQUENCE_SLOTS: usize = 1 << 16;

/// Entries of a Maglev table: prime, and at least 100 times the targets one expects (Maglev, NSDI 2016, section 5.3).
pub(crate) const MAGLEV_SLOTS: usize = 65_537;

/// Others tried when the target that was chosen is at its limits.
pub(crate) const TARGET_TRIES: usize = 64;

/// Targets up to which least connections asks all, for each new flow.
pub(crate) const ASKED_ALL: usize = 32;

/// How many it asks of more.
pub(crate) const ASKED: usize = 8;

/// Longest sequence a weighted round robin service is laid out in; heavier weights are scaled down to it.
pub(crate) const WRR_SEQUENCE: u64 = 8192;

/// Ethernet header, bytes.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// The shortest Ethernet frame, without its checksum (IEEE 802.3 clause 3.2.7), bytes.
pub(crate) const SHORTEST_FRAME: usize = 60;

/// Bytes of TCP options at most (RFC 9293 3.1).
pub(crate) const TCP_OPTIONS: usize = 40;

/// A maximum segment size is not lowered below this, bytes: a stack would take less for an attack.
pub(crate) const LEAST_MSS: u16 = 64;

/// Default TTL of packets made here.
pub(crate) const OWN_TTL: u8 = 64;

/// Bytes of the offending packet an ICMP error made here quotes beyond what RFC 792 demands (RFC 1812 4.3.2.3: as much as
/// fits in 576 bytes).
pub(crate) const ICMP_QUOTE: usize = 576 - 20 - 8;

/// Bytes of the offending packet an ICMPv6 error made here quotes (RFC 4443 2.4: as much as fits in 1280 bytes).
pub(crate) const ICMP6_QUOTE: usize = 1280 - 40 - 8;

/// The longest frame of an RST made here: Ethernet, IPv6 and TCP headers.
pub(crate) const LARGEST_RESET: usize = ETHERNET_HEADER + 40 + 20;

/// The longest frame of an ICMP error made here, of either family.
pub(crate) const LARGEST_ERROR: usize = ETHERNET_HEADER + 1280;

/// Packets of this many bytes pass every IPv6 link (RFC 8200 5), and nearly every IPv4 one.
pub const LEAST_PATH_MTU: u16 = 1280;

/// Extension headers an IPv6 packet may have. RFC 8200 4.1 recommends at most six different ones.
pub(crate) const EXTENSION_HEADERS: usize = 8;

/// Hop limit of neighbour discovery, by which a receiver knows that no router passed it on (RFC 4861 7.1).
pub(crate) const NDP_HOP_LIMIT: u8 = 255;

/// Events kept in one [`crate::Emitted`]; more are counted, not kept.
pub(crate) const MAX_EVENTS: usize = 256;

/// Bytes of frames kept in one [`crate::Emitted`]; what doesn't fit is counted, not kept.
pub(crate) const MAX_EMITTED_BYTES: usize = 1 << 20;

/// The same event is reported at most this often, milliseconds.
pub(crate) const EVENT_INTERVAL: u64 = 1000;

/// How often an address is announced: an announcement may be lost (RFC 4861 10: MAX_NEIGHBOR_ADVERTISEMENT; RFC 5227 1.1: at least two).
pub(crate) const ANNOUNCEMENTS: usize = 3;
/// Between two announcements of an address, milliseconds (RFC 5227 1.1: ANNOUNCE_INTERVAL).
pub(crate) const ANNOUNCEMENT_INTERVAL: u64 = 2000;
/// Announcements sent in a second by a node with many VIPs: switches hand broadcasts to a slow CPU.
pub(crate) const ANNOUNCEMENTS_PER_SECOND: u32 = 500;
/// Announcements sent in one [`crate::Worker::tick`].
pub(crate) const ANNOUNCEMENTS_AT_ONCE: usize = 16;
/// A LocalIP is defended against another host this often, milliseconds (RFC 5227 1.1: DEFEND_INTERVAL).
pub(crate) const DEFENCE_INTERVAL: u64 = 10_000;

/// [`crate::Event::Learned`] of next hops the snapshot names that are reported in a second, and of others.
pub(crate) const LEARNED_PER_SECOND: u32 = 1000;

/// [`crate::Event::Unresolved`] reported in a second, each a line in the log: clients on the link may make up any number of addresses.
pub(crate) const UNRESOLVED_PER_SECOND: u32 = 10;
/// [`crate::Event::NextHopMoved`] reported in a second, each a line in the log: a host that fails over takes all its addresses along.
pub(crate) const MOVES_PER_SECOND: u32 = 10;

/// [`Limits::flows`] by default: a million.
pub const DEFAULT_FLOWS: u32 = 1 << 20;
/// [`Limits::services`] by default.
pub const DEFAULT_SERVICES: u32 = 1024;
/// [`Limits::targets`] by default.
pub const DEFAULT_TARGETS: u32 = 8192;
/// [`Limits::local_ips`] by default.
pub const DEFAULT_LOCAL_IPS: u16 = 16;
/// [`Limits::neighbours`] by default.
pub const DEFAULT_NEIGHBOURS: u16 = 4096;

/// [`Limits::sources`] by default.
pub const DEFAULT_SOURCES: u32 = 1 << 18;

/// How much one worker may hold. All of it is allocated when the worker is made.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Flows a worker holds; a new one beyond them is refused.
    pub flows: u32,
    /// Services, over all snapshots still referred to by flows; at most 65,536.
    pub services: u32,
    /// Targets, over all services and snapshots still referred to by flows.
    pub targets: u32,
    /// LocalIPs, at most 256.
    pub local_ips: u16,
    /// Next hops known at once, gateways and on-link hosts; at most 32,767. Each takes some 830 bytes, beyond
    /// 8191 of them less: slots are 65,534 in all.
    pub neighbours: u16,
    /// Frames that wait for a next hop, over all next hops.
    pub held_frames: u16,
    /// Frames that wait for one next hop.
    pub held_per_neighbour: u16,
    /// Longest frame that may wait, bytes; a longer one is dropped while its next hop or its first fragment is unknown.
    pub held_bytes: usize,
    /// Packets in fragments known at once; the one known longest gives way to another.
    pub fragmented_packets: u16,
    /// Fragments that wait for the first of their packet, over all packets; each [`Limits::held_bytes`] long at most.
    pub early_fragments: u16,
    /// Fragments of one packet that wait for its first.
    pub early_fragments_per_packet: u16,
    /// First local port handed out.
    pub first_port: u16,
    /// Last local port handed out.
    pub last_port: u16,
    /// Sources (addresses or prefixes of clients) that all workers together remember at once: as many for limits, as many for
    /// persistence. 44 bytes each, in both tables together: seven have 128 bytes in one and 64 in the other, and 112 for their addresses there.
    pub sources: u32,
    /// ICMP errors made here, a second (and the burst allowed at once): so many that say a packet was too big, so many others. And
    /// those passed on from clients that say a packet was too big.
    pub icmp_errors_per_second: u32,
}

impl Limits {
    /// How long a worker whose table is full may take to end flows that are to be cut, twice over as it may be at an earlier walk; its ticks
    /// are `tick` apart at most.
    #[must_use]
    pub fn cutting_time(&self, tick: Duration) -> Duration {
        let ticks = |per_tick: u32| self.flows.div_ceil(per_tick);
        let walk = ticks(visits_per_tick(self.flows)) + ticks(RESETS_PER_TICK);
        tick.saturating_mul(2 * walk)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: DEFAULT_FLOWS,
            services: DEFAULT_SERVICES,
            targets: DEFAULT_TARGETS,
            local_ips: DEFAULT_LOCAL_IPS,
            neighbours: DEFAULT_NEIGHBOURS,
            held_frames: 256,
            held_per_neighbour: 16,
            held_bytes: 2048,
            fragmented_packets: 1024,
            early_fragments: 256,
            // All the others of a packet as long as can be, cut for Ethernet.
            early_fragments_per_packet: 44,
            first_port: 1024,
            last_port: 65_535,
            sources: DEFAULT_SOURCES,
            icmp_errors_per_second: 1000,
        }
    }
}

/// A neighbour that answered is believed this long, milliseconds (RFC 4861's REACHABLE_TIME, used for ARP too).
pub(crate) const NEIGHBOUR_REACHABLE: u64 = 30_000;
/// Between two requests for the same address, milliseconds.
pub(crate) const NEIGHBOUR_RETRANSMIT: u64 = 1000;
/// Requests sent before a new next hop counts as not answering.
pub(crate) const NEIGHBOUR_REQUESTS: u8 = 3;
/// A frame that waited longer for its next hop is dropped, milliseconds.
pub(crate) const NEIGHBOUR_HOLD: u64 = NEIGHBOUR_REQUESTS as u64 * NEIGHBOUR_RETRANSMIT;
/// Unicast, then broadcast requests sent before a known next hop is given up.
pub(crate) const NEIGHBOUR_PROBES: u8 = 6;
/// How many of [`NEIGHBOUR_PROBES`] go to the address known so far.
pub(crate) const NEIGHBOUR_UNICAST_PROBES: u8 = 3;
/// Questions to the MAC in use before another one that claims its address is believed.
pub(crate) const CONTEST_PROBES: u8 = 3;
/// Between two of them, milliseconds: 450 in all, which a failover costs. LAN hosts answer within a few.
pub(crate) const CONTEST_RETRANSMIT: u64 = 150;
/// How long frames for a next hop that doesn't answer are dropped before it is asked again, milliseconds.
pub(crate) const NEIGHBOUR_FAILED: u64 = 3000;
/// A neighbour unused for so long is forgotten instead of refreshed, milliseconds.
pub(crate) const NEIGHBOUR_IDLE: u64 = 60_000;
/// Slots for each next hop that may be known at once, where 16 bits number them all. All but one of them rest before flows have to look
/// up their next hops anew: with the defaults, 28,672 neighbours must be given up for that, and no more than 4096 can be in a second.
pub(crate) const SLOTS_PER_NEIGHBOUR: u16 = 8;
/// Routers that one route may have.
pub const MOST_NEXT_HOPS: usize = 8;
/// Routers of all routes together: each is watched.
pub const MOST_ROUTERS: usize = crate::Living::MOST;
/// Between two questions whether a router answers, milliseconds.
pub(crate) const ROUTER_INTERVAL: u64 = 200;
/// Questions in a row without an answer after which a router is down: 600 to 800 ms.
pub(crate) const ROUTER_MISSES: u8 = 3;
/// Answers in a row after which one that was down answers again.
pub(crate) const ROUTER_ANSWERS: u8 = 3;
/// Questions over which losses are counted: 6.4 s. A router that goes down within as many of its return is lossy too.
pub(crate) const ROUTER_WINDOW: u32 = u32::BITS;
/// Losses in the window at which a router that answers becomes lossy, half of it, and at which it is up again, a quarter.
pub(crate) const ROUTER_LOSSES: u32 = ROUTER_WINDOW / 2;
pub(crate) const ROUTER_LOSSES_LEFT: u32 = ROUTER_WINDOW / 4;

/// Neighbours looked at in one [`crate::Worker::tick`].
pub(crate) const NEIGHBOUR_BUDGET: usize = 64;

/// Parts of a fragmented packet that may be known with gaps between them: pieces out of order leave few.
pub(crate) const FRAGMENT_SPANS: usize = 16;
/// A fragment that waited longer for the first of its packet is dropped, milliseconds: those of one packet are sent together, and
/// different paths or queues part them by less than this.
pub(crate) const FRAGMENT_HOLD: u64 = 200;
/// How long a packet's fragments are known after the last that came, milliseconds. A receiver would wait longer (RFC 1122 3.3.2: 60 s);
/// but identifications come round, and then a late fragment would follow the wrong first.
pub(crate) const FRAGMENT_LIFETIME: u64 = 2000;
/// Packets in fragments looked at in one [`crate::Worker::tick`].
pub(crate) const FRAGMENT_BUDGET: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_the_wheel_and_a_walk_keep_their_time_whatever_the_size_of_the_table() {
        let turn = WHEEL_SLOTS as u64 * TICK_NANOSECONDS / 1_000_000;
        for flows in [
            1,
            1024,
            DEFAULT_FLOWS,
            8 << 20,
            (8 << 20) + 1,
            1 << 26,
            u32::MAX,
        ] {
            let in_a_turn = u64::from(visits_per_tick(flows)) * turn;
            assert!(in_a_turn >= u64::from(flows), "{in_a_turn} of {flows}");
        }
        let time = |flows, tick| {
            let limits = Limits {
                flows,
                ..Limits::default()
            };
            limits.cutting_time(Duration::from_millis(tick)).as_secs()
        };
        // 1024 ticks to look at a million, 8192 to send them all their RSTs; and twice that.
        assert_eq!(time(1 << 20, 1), 18);
        assert_eq!(time(1 << 20, 11), 202);
        assert_eq!(time(1 << 26, 1), 2 * (8_192 + 524_288) / 1000);
    }
}
