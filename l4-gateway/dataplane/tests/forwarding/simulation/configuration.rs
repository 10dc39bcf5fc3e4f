//! The node's configuration over time, kept as the gateway keeps it: targets are drained before their flows are cut, and cut before they
//! are forgotten; addresses that go are known for their flows a while longer. Probes find hosts that fall silent, after a while, and for as
//! long as another target serves, their flows are cut in time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::{
    ClientAddress, Counters, Cut, FlowLimits, Ids, Mode, NextHops, Persistence, PersistenceGroup,
    Policy, Port, PortIndex, PortRange, Protocol, Quota, Refusal, Retired, Scheduler,
    ServiceConfig, Sharing, SourcePrefix, Spread, Tables, TablesBuilder, TargetConfig, Timeouts,
    UnknownSegment,
};

use super::hosts::{ROUTERS, TARGETS, last_byte, net as net_of, router};
use super::random::Random;
use super::world::SECOND;
use crate::net::{self, BOTH, Net};
use crate::rig;

/// How long a retired address is kept at least, and a target that is gone after its flows were cut.
const LEAST: u64 = 2 * SECOND;
const CUTTING: u64 = 5 * SECOND;

/// What stays as it is during a run.
pub struct Fixed {
    pub client_address: ClientAddress,
    pub modes: &'static [Mode],
    /// Whether limits and persistence come and go.
    pub limited: bool,
    pub spread: Option<Spread>,
    pub ports: [Port; 2],
}

pub struct Configuration {
    pub fixed: Fixed,
    services: BTreeMap<Name, Offered>,
    local_ips: BTreeSet<IpAddr>,
    retired: BTreeMap<Used, Leaving>,
    /// Hosts that probes find silent, and since when.
    down: BTreeMap<u8, u64>,
    /// Nothing is limited any more.
    calm: bool,
}

/// VIP and first port, and protocol.
pub type Name = (SocketAddr, Protocol);

struct Offered {
    /// But for the targets.
    config: ServiceConfig,
    targets: BTreeMap<u8, Phase>,
    /// How long a target is drained before its flows are cut; never without one.
    cut_after: Option<u64>,
    /// How long one is down.
    cut_down_after: Option<u64>,
}

/// How far a target is with one service.
#[derive(Clone, Copy)]
enum Phase {
    Serves { weight: u16, up: bool },
    Leaves { since: u64 },
}

/// What flows use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Used {
    Vip(IpAddr),
    LocalIp(IpAddr),
    Service(Name),
}

struct Leaving {
    since: u64,
    /// When the flows that still use it are cut.
    until: u64,
}

/// All services that are ever offered: on one VIP of each family TCP 80 and UDP 53, on another TCP 80 to 89 and UDP of all ports.
pub fn names(protocol: Protocol) -> Vec<Name> {
    let of_net = |net: Net| {
        [100, 101].map(|last| SocketAddr::new(net.address(0, last), ports(protocol, last).first()))
    };
    let vips = BOTH.into_iter().flat_map(of_net);
    vips.map(|vip| (vip, protocol)).collect()
}

/// The ports of a service on the VIP that ends so.
pub fn ports(protocol: Protocol, vip: u8) -> PortRange {
    match (protocol, vip) {
        (Protocol::Tcp, 100) => 80.into(),
        (Protocol::Tcp, _) => PortRange::new(80, 89).expect("a range"),
        (Protocol::Udp, 100) => 53.into(),
        (Protocol::Udp, _) => PortRange::ALL,
    }
}

fn ports_of((vip, protocol): Name) -> PortRange {
    ports(protocol, last_byte(vip.ip()))
}

/// An address that clients of one family may send to.
pub fn drawn(protocol: Protocol, is_ipv4: bool, random: &mut Random) -> SocketAddr {
    let mut all = names(protocol);
    all.retain(|(vip, _)| vip.is_ipv4() == is_ipv4);
    let (mut vip, _) = random.pick(&all);
    let ports = ports(protocol, last_byte(vip.ip()));
    let any = 1 + random.below(65_535) as u16;
    let near = vip.port() + random.below(10) as u16;
    let fits = [any, near].into_iter().find(|port| ports.contains(*port));
    vip.set_port(fits.unwrap_or(vip.port()));
    vip
}

impl Configuration {
    pub fn new(fixed: Fixed, random: &mut Random) -> Self {
        let mut new = Self {
            fixed,
            services: BTreeMap::new(),
            local_ips: BOTH.map(|net| net.address(2, 100)).into(),
            retired: BTreeMap::new(),
            down: BTreeMap::new(),
            calm: false,
        };
        for name in [names(Protocol::Tcp), names(Protocol::Udp)].concat() {
            new.offer(name, random);
        }
        new
    }

    fn offer(&mut self, name: Name, random: &mut Random) {
        let (vip, protocol) = name;
        let mut config = ServiceConfig::new(vip.ip(), protocol, ports_of(name));
        config.client_address = self.fixed.client_address;
        config.mode = random.pick(self.fixed.modes);
        config.unknown_segment = random.pick(&[UnknownSegment::Reset, UnknownSegment::Drop]);
        config.reset_on_expiry = !random.one_in(4);
        config.scheduler = scheduler(random);
        config.timeouts = timeouts(random);
        if self.fixed.limited && !self.calm {
            config.policy = policy(random, name);
        }
        let serves = Phase::Serves {
            weight: 1,
            up: true,
        };
        let offered = Offered {
            config,
            targets: TARGETS.map(|target| (target, serves)).collect(),
            cut_after: (!random.one_in(3)).then(|| random.below(3) * SECOND),
            cut_down_after: (!random.one_in(4)).then(|| match protocol {
                Protocol::Tcp => random.below(8) * SECOND,
                Protocol::Udp => random.pick(&[0, 0, 0, 2 * SECOND]),
            }),
        };
        self.services.insert(name, offered);
    }

    /// Changes something, as an operator or a health check does.
    pub fn change(&mut self, random: &mut Random, now: u64) {
        let before = self.used();
        let all = [names(Protocol::Tcp), names(Protocol::Udp)].concat();
        let name = random.pick(&all);
        match random.below(10) {
            0 => {
                if self.services.remove(&name).is_none() {
                    self.offer(name, random);
                }
            }
            1 => {
                let net = random.pick(&BOTH);
                let address = net.address(2, random.pick(&[100, 101, 102]));
                let others = self.local_ips.iter().filter(|other| **other != address);
                if others.clone().any(|other| net_of(*other) == net)
                    && !self.local_ips.remove(&address)
                {
                    self.local_ips.insert(address);
                }
            }
            kind => self.change_service(kind, name, random, now),
        }
        self.retire(&before, now, now + (2 + random.below(30)) * SECOND);
    }

    fn change_service(&mut self, kind: u64, name: Name, random: &mut Random, now: u64) {
        let limited = self.fixed.limited;
        let Some(service) = self.services.get_mut(&name) else {
            return self.offer(name, random);
        };
        let config = &mut service.config;
        match kind {
            2 => config.timeouts = timeouts(random),
            3 => config.mode = random.pick(self.fixed.modes),
            4 => config.scheduler = scheduler(random),
            5..=7 if limited => config.policy = policy(random, name),
            _ => service.change_targets(random, now),
        }
    }

    /// Everything is there again, and nothing limited.
    pub fn restore(&mut self, random: &mut Random, now: u64) {
        self.calm = true;
        let before = self.used();
        for name in [names(Protocol::Tcp), names(Protocol::Udp)].concat() {
            self.offer(name, random);
        }
        self.local_ips.extend(BOTH.map(|net| net.address(2, 100)));
        self.retire(&before, now, now + SECOND);
    }

    fn retire(&mut self, before: &BTreeSet<Used>, now: u64, until: u64) {
        for used in before {
            let leaving = Leaving { since: now, until };
            self.retired.entry(*used).or_insert(leaving);
        }
        let after = self.used();
        self.retired.retain(|used, _| !after.contains(used));
    }

    fn used(&self) -> BTreeSet<Used> {
        let services = self.services.keys();
        let of_services = services.flat_map(|name| [Used::Vip(name.0.ip()), Used::Service(*name)]);
        let local_ips = self.local_ips.iter();
        of_services
            .chain(local_ips.map(|address| Used::LocalIp(*address)))
            .collect()
    }

    /// A host answers probes or doesn't. Whether that is news.
    pub fn probed(&mut self, host: u8, answers: bool, now: u64) -> bool {
        match answers {
            true => self.down.remove(&host).is_some(),
            false if self.down.contains_key(&host) => false,
            false => self.down.insert(host, now).is_none(),
        }
    }

    /// Follows time: whether the snapshot has to change.
    pub fn advance(&mut self, now: u64, ids: &Ids, counters: &Counters) -> bool {
        // Some flows' time may be over.
        let mut changes = !self.down.is_empty();
        for service in self.services.values_mut() {
            let cut_after = service.cut_after;
            service.targets.retain(|_, phase| {
                let Phase::Leaves { since } = *phase else {
                    return true;
                };
                // Each step makes a snapshot.
                changes = true;
                cut_after.is_some_and(|after| now < since + after + CUTTING)
            });
        }
        self.retired.retain(|used, leaving| {
            changes = true;
            let flows = match *used {
                Used::Vip(address) | Used::LocalIp(address) => ids.flows_of(address, counters),
                Used::Service((vip, protocol)) => {
                    ids.flows_of_service(vip.ip(), protocol, ports_of((vip, protocol)), counters)
                }
            };
            flows > 0 || now < leaving.since + LEAST
        });
        changes
    }

    /// The snapshot to be, and what it cuts beside targets.
    pub fn describe(&self, now: u64) -> (TablesBuilder, Vec<Cut>) {
        let mut cuts = Vec::new();
        let mut builder = Tables::builder();
        for port in &self.fixed.ports {
            builder.port(port.clone());
            if let Some(spread) = &self.fixed.spread {
                builder.spread(port.index, spread.clone());
            }
        }
        for address in &self.local_ips {
            builder.local_ip(*address);
        }
        for service in self.services.values() {
            builder.service(service.describe(now, &self.down));
        }
        for (used, leaving) in &self.retired {
            let is_over = now >= leaving.until;
            match *used {
                Used::Vip(address) => {
                    builder.retired(address, Retired::Vip { arp: false });
                }
                Used::LocalIp(address) => {
                    builder.retired(address, Retired::LocalIp);
                    cuts.extend(is_over.then_some(Cut::LocalIp(address)));
                }
                Used::Service((vip, protocol)) => {
                    let cut = Cut::Service(vip.ip(), protocol, ports_of((vip, protocol)));
                    cuts.extend(is_over.then_some(cut));
                }
            }
        }
        for cut in &cuts {
            builder.cut(*cut);
        }
        (builder, cuts)
    }
}

impl Offered {
    fn change_targets(&mut self, random: &mut Random, now: u64) {
        for target in TARGETS {
            match random.below(6) {
                0 | 1 => {
                    if let Some(Phase::Serves { .. }) = self.targets.get(&target) {
                        match self.cut_after {
                            Some(_) => self.targets.insert(target, Phase::Leaves { since: now }),
                            None => self.targets.remove(&target),
                        };
                    }
                }
                2 | 3 => {
                    let weight = random.below(4) as u16;
                    let up = !random.one_in(4);
                    self.targets.insert(target, Phase::Serves { weight, up });
                }
                _ => {}
            }
        }
    }

    fn describe(&self, now: u64, down: &BTreeMap<u8, u64>) -> ServiceConfig {
        let mut config = self.config.clone();
        let port = config.ports.kept_by_target();
        let takes_flows = |(target, phase): (&u8, &Phase)| {
            let serves = |phase: &Phase| {
                matches!(
                    phase,
                    Phase::Serves {
                        weight: 1..,
                        up: true
                    }
                )
            };
            serves(phase) && !down.contains_key(target)
        };
        let others_serve = self.targets.iter().any(takes_flows);
        let targets = self.targets.iter().map(|(target, phase)| {
            let address = net_of(config.vip).target(*target, port);
            let is_over = |(since, after): (&u64, u64)| now >= since + after;
            let cut = others_serve
                && down
                    .get(target)
                    .zip(self.cut_down_after)
                    .is_some_and(is_over);
            match *phase {
                Phase::Serves { weight, up } => TargetConfig {
                    weight,
                    up: up && !down.contains_key(target),
                    cut,
                    ..rig::up(address)
                },
                Phase::Leaves { since } => TargetConfig {
                    weight: 0,
                    up: false,
                    draining: true,
                    cut: cut || self.cut_after.is_some_and(|after| now >= since + after),
                    address,
                },
            }
        });
        config.targets = targets.collect();
        config
    }
}

fn scheduler(random: &mut Random) -> Scheduler {
    // Tables of hashing schedulers take long to lay out.
    if random.one_in(6) {
        return random.pick(&[Scheduler::SourceHash, Scheduler::Maglev]);
    }
    random.pick(&[
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnections,
        Scheduler::WeightedLeastConnections,
    ])
}

/// Longer than a host that talks is ever silent.
fn timeouts(random: &mut Random) -> Timeouts {
    let mut seconds = |choices: &[u64]| Duration::from_secs(random.pick(choices));
    Timeouts {
        syn: seconds(&[5, 15]),
        established: seconds(&[10, 60, 900]),
        fin_wait: seconds(&[10, 60]),
        time_wait: seconds(&[5, 10]),
        close: seconds(&[5, 30]),
        udp: seconds(&[4, 8]),
    }
}

/// Some of all that can be asked for.
fn policy(random: &mut Random, (vip, protocol): Name) -> Policy {
    let mut quota = |most: u64| {
        let mut up_to = || match random.below(2) {
            0 => 0,
            _ => 1 + random.below(most) as u32,
        };
        Quota {
            connections: up_to(),
            per_second: up_to(),
        }
    };
    let limits = FlowLimits {
        service: quota(12),
        target: quota(5),
        source: quota(4),
        source_prefix: SourcePrefix {
            v4: random.pick(&[24, 32]),
            v6: random.pick(&[64, 128]),
        },
    };
    Policy {
        limits,
        on_limit: random.pick(&[Refusal::Reset, Refusal::Drop]),
        persistence: random.one_in(2).then(|| Persistence {
            timeout: Duration::from_secs(1 + random.below(20)),
            prefix: SourcePrefix::default(),
            group: random
                .one_in(2)
                .then(|| PersistenceGroup::new(vip.ip(), "all")),
        }),
        one_packet: protocol == Protocol::Udp && random.one_in(2),
        ..Policy::default()
    }
}

/// Both ports, the inner one of this MTU; outside are two routers, which flows use so.
pub fn both_ports(inside_mtu: u16, sharing: Sharing) -> [Port; 2] {
    let [mut outside, mut inside] = net::both_ports();
    inside.mtu = inside_mtu;
    if let Some(segment) = &mut outside.ipv4 {
        let routers = ROUTERS.map(|number| net::v4(router(Net::V4, number)));
        segment.gateways = NextHops::new(routers, sharing).expect("two");
    }
    if let Some(segment) = &mut outside.ipv6 {
        let routers = ROUTERS.map(|number| net::v6(router(Net::V6, number)));
        segment.gateways = NextHops::new(routers, sharing).expect("two");
    }
    assert_eq!(inside.index, PortIndex(1));
    [outside, inside]
}
