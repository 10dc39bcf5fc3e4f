//! Services and their targets: as configured, and as a snapshot holds them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::client_address::ClientAddress;
use crate::flow::{FlowState, STATES};
use crate::ids::{ServiceId, TargetId};
use crate::limits::LEAST_PATH_MTU;
use crate::policy::Policy;
use crate::port::PortIndex;
use crate::port_range::PortRange;
use crate::tables::Tables;
use crate::time::ticks;
use crate::wire::{ipv4, ipv6};

/// The transport protocols that are forwarded; the value is IANA's protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp = 6,
    /// UDP (RFC 768).
    Udp = 17,
}

/// How a service spreads new flows over the targets that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scheduler {
    /// One after the other, weights ignored (but 0).
    #[default]
    RoundRobin,
    /// Smooth weighted round robin: turns in proportion to the weight, a heavy target's spread out.
    WeightedRoundRobin,
    /// The target with the fewest flows, weights ignored (but 0): of all up to 32, of 8 drawn for each flow beyond.
    LeastConnections,
    /// The target with the fewest flows per weight, of as many; drawn in proportion to weight.
    WeightedLeastConnections,
    /// Consistent hashing by client address alone: as [`Scheduler::Maglev`], with all flows of a client at one target.
    SourceHash,
    /// Consistent hashing by client address and port: all nodes choose alike, and a lost target moves little but its own.
    Maglev,
}

/// How long a flow is kept without a packet, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, until the handshake is complete. Default 15 s.
    pub syn: Duration,
    /// TCP, established. Default 15 min.
    pub established: Duration,
    /// TCP, one side has sent FIN. Default 60 s.
    pub fin_wait: Duration,
    /// TCP, both sides have sent FIN, or an RST ended what was not established. Default 10 s: a local port is taken so long after
    /// its connection, and the target accepts the next one over it even in its TIME_WAIT, since sequence numbers rise.
    pub time_wait: Duration,
    /// TCP, an RST passed and the two sides have not talked on since. Default 30 s, in which most connections that live on show it by a
    /// keep-alive.
    pub close: Duration,
    /// UDP. Default 60 s.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn: Duration::from_secs(15),
            established: Duration::from_secs(15 * 60),
            fin_wait: Duration::from_secs(60),
            time_wait: Duration::from_secs(10),
            close: Duration::from_secs(30),
            udp: Duration::from_secs(60),
        }
    }
}

/// What a TCP segment of no known flow gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownSegment {
    /// An RST, so that the client connects anew at once (routers rehash when a node leaves).
    #[default]
    Reset,
    /// Nothing.
    Drop,
}

/// What happens to the TCP timestamp option (RFC 7323) of a client's SYN.
///
/// Behind one LocalIP the clocks of many clients look like one host's. A target that holds a closed connection in TIME_WAIT
/// drops a SYN of the same address and port whose timestamp is older (PAWS), so a client could run into another's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Timestamps {
    /// Overwrite the option by NOPs in the SYN: the connection then runs without timestamps, and the target judges a reused
    /// port by the initial sequence number alone, which is made to rise here. The price is RTT sampling by timestamps and PAWS for
    /// windows above a gigabit or so per connection.
    #[default]
    Strip,
    /// Leave it. For services whose targets don't close first, or keep no TIME_WAIT.
    Keep,
}

/// How packets reach the targets of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Both ends of each packet are rewritten: the target sees a LocalIP, and answers through this node.
    #[default]
    FullNat,
    /// Packets go to the target's MAC as they are. The target is on the same segment, has the VIP (without answering ARP for it),
    /// and answers the client past this node (DR in LVS).
    Direct,
    /// Packets go to the target inside others (RFC 2003, RFC 2473). The target may be anywhere; it takes the outer header off, has
    /// the VIP, and answers the client past this node.
    Tunnel,
}

impl Mode {
    /// Bytes that each packet to a target grows by: the outer header of a tunnel.
    pub fn outer_header(self, target: IpAddr) -> u16 {
        let header = match (self, target) {
            (Mode::FullNat | Mode::Direct, _) => 0,
            (Mode::Tunnel, IpAddr::V4(_)) => ipv4::HEADER,
            (Mode::Tunnel, IpAddr::V6(_)) => ipv6::HEADER,
        };
        header as u16
    }
}

/// One target as configured, with what health and operators say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetConfig {
    /// Where it listens. With port 0, as targets of a service of several ports have it: at the port that the client sent to.
    pub address: SocketAddr,
    /// Its share of new flows; 0 gives it none.
    pub weight: u16,
    /// A target that is down gets no new flows; those it has stay.
    pub up: bool,
    /// A draining target gets no new flows; those it has stay.
    pub draining: bool,
    /// The flows it has are ended, TCP by RSTs to both sides. It gets no new ones.
    pub cut: bool,
}

/// One service as configured. `(vip, protocol, ports)` is its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The address clients send to.
    pub vip: IpAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports clients send to. Of services at one VIP, one of that port alone goes before those that have it in a range, and these before
    /// one of all ports.
    pub ports: PortRange,
    /// How packets reach the targets.
    pub mode: Mode,
    /// How new flows are spread.
    pub scheduler: Scheduler,
    /// How long flows are kept.
    pub timeouts: Timeouts,
    /// The answer to a TCP segment of no known flow.
    pub unknown_segment: UnknownSegment,
    /// Whether both ends of an established TCP flow that expires are sent an RST, so that neither goes on waiting for the other.
    pub reset_on_expiry: bool,
    /// What happens to TCP timestamps.
    pub timestamps: Timestamps,
    /// What it grants to whom.
    pub policy: Policy,
    /// How targets learn the addresses of TCP clients; of no effect on UDP.
    pub client_address: ClientAddress,
    /// The least path MTU, bytes, that targets may be told by ICMP errors from the clients' side; [`crate::LEAST_PATH_MTU`] by default. Targets
    /// keep it by LocalIP (under FULLNAT, of which alone this is asked), so that one client could slow down all who share one.
    pub least_path_mtu: u16,
    /// Whether ARP requests or neighbour solicitations for the VIP are answered on ports whose prefix holds it; false where routers are told of it.
    pub arp: bool,
    /// The targets, in any order; an address at most once, all of the VIP's family.
    pub targets: Vec<TargetConfig>,
}

impl ServiceConfig {
    /// A service with defaults and no targets.
    #[must_use]
    pub fn new(vip: impl Into<IpAddr>, protocol: Protocol, ports: impl Into<PortRange>) -> Self {
        Self {
            vip: vip.into(),
            protocol,
            ports: ports.into(),
            mode: Mode::default(),
            scheduler: Scheduler::default(),
            timeouts: Timeouts::default(),
            unknown_segment: UnknownSegment::default(),
            reset_on_expiry: true,
            timestamps: Timestamps::default(),
            policy: Policy::default(),
            client_address: ClientAddress::default(),
            least_path_mtu: LEAST_PATH_MTU,
            arp: false,
            targets: Vec::new(),
        }
    }

    /// Whether each datagram of a client is scheduled by itself.
    pub(crate) fn is_one_packet(&self) -> bool {
        self.policy.one_packet && self.protocol == Protocol::Udp
    }
}

/// One service in a snapshot.
#[derive(Debug)]
pub struct Service {
    /// Stable across snapshots.
    pub id: ServiceId,
    /// As configured.
    pub config: ServiceConfig,
    /// All its targets, sorted by address.
    pub targets: Vec<TargetId>,
    /// Those that take new flows: up, weight above 0, not draining; sorted by address.
    pub eligible: Vec<TargetId>,
    /// Places in `eligible`, laid out by the scheduler: the turns of wrr (and of wlc, to draw from), the slots of maglev; empty for the
    /// others.
    pub(crate) plan: Arc<[u16]>,
}

impl Service {
    /// Its targets on one host.
    pub(crate) fn targets_on<'t>(
        &'t self,
        tables: &'t Tables,
        host: IpAddr,
    ) -> impl Iterator<Item = &'t Target> {
        let target = |id: &TargetId| tables.target(*id);
        let comes_before =
            |id: &TargetId| target(id).is_some_and(|target| target.config.address.ip() < host);
        let first = self.targets.partition_point(comes_before);
        let rest = self
            .targets
            .iter()
            .skip(first)
            .map_while(move |id| tables.target(*id));
        rest.take_while(move |target| target.config.address.ip() == host)
    }
}

/// One target in a snapshot.
#[derive(Clone, Debug)]
pub struct Target {
    /// Stable across snapshots.
    pub id: TargetId,
    /// Whose it is.
    pub service: ServiceId,
    /// As configured.
    pub config: TargetConfig,
    /// The port through which it is reached.
    pub port: PortIndex,
}

impl TargetConfig {
    /// Where it gets what a client sends to a port.
    pub(crate) fn port_for(&self, sent_to: u16) -> u16 {
        match self.address.port() {
            0 => sent_to,
            port => port,
        }
    }

    /// Whether it gets new flows.
    #[must_use]
    pub fn takes_flows(&self) -> bool {
        self.up && !self.draining && !self.cut && self.weight > 0
    }
}

/// [`Timeouts`] in ticks, by [`FlowState`].
pub(crate) type TickTimeouts = [u32; STATES];

impl Timeouts {
    pub(crate) fn by_state(&self) -> TickTimeouts {
        let mut by_state = [0; STATES];
        for (state, timeout) in [
            (FlowState::Udp, self.udp),
            (FlowState::SynReceived, self.syn),
            (FlowState::SynAnswered, self.syn),
            (FlowState::Established, self.established),
            (FlowState::FinClient, self.fin_wait),
            (FlowState::FinTarget, self.fin_wait),
            (FlowState::TimeWait, self.time_wait),
            (FlowState::Closed, self.close),
        ] {
            by_state[state as usize] = ticks(timeout);
        }
        by_state
    }
}
