//! `[[services]]`: VIP, protocol and port, and the targets behind them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::{
    ClientAddress, LEAST_PATH_MTU, Mode, Policy, PortRange, Protocol, Scheduler, Timeouts,
    Timestamps, UnknownSegment,
};
use health::{CheckSettings, Probe};
use shared::bus::MAX_SERVICES;
use shared::config::sections::Transport;
use shared::config::{FromValue, Table, Value};

use super::reach::{is_host, other_family, other_port, reachable};
use super::{PortConfig, groups, overlaps, policy, port_ranges};
use crate::endpoint::Endpoint;
use crate::names::PROTOCOLS;

/// A service as written.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    /// The name in records, statuses and metrics.
    pub name: String,
    /// The address clients connect to.
    pub vip: IpAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports clients connect to.
    pub ports: PortRange,
    /// How packets reach the targets.
    pub mode: Mode,
    /// How new flows are spread.
    pub scheduler: Scheduler,
    /// What a TCP segment of no known flow gets.
    pub on_unknown_segment: UnknownSegment,
    /// Whether the ends of an idle TCP connection hear that its flow has expired.
    pub reset_on_expiry: bool,
    /// Whether TCP timestamps of clients reach the targets.
    pub timestamps: Timestamps,
    /// How targets learn the addresses of clients.
    pub client_address: ClientAddress,
    /// The least path MTU that targets may be told from the clients' side, bytes.
    pub least_path_mtu: u16,
    /// How long idle flows are kept.
    pub timeouts: Timeouts,
    /// What it grants to whom.
    pub policy: Policy,
    /// The name of [`dataplane::Persistence::group`].
    pub persistence_group: Option<String>,
    /// How long the weight of a target that comes up grows.
    pub slow_start: Duration,
    /// When the flows of a target that takes no new ones on purpose are cut, if ever.
    pub cut_drained_after: Option<Duration>,
    /// When the flows of a target that is down are cut, if ever.
    pub cut_down_after: Option<Duration>,
    /// Targets that need no registration.
    pub targets: Vec<StaticTarget>,
    /// Whether nodes that register for the service by the bus are targets too.
    pub from_registrations: bool,
    /// How targets are checked; without it each is taken to be up.
    pub health: Option<CheckSettings>,
}

impl ServiceSettings {
    /// Its mode, as written.
    pub fn mode_name(&self) -> &'static str {
        name_of(&MODES, self.mode)
    }

    /// Whether flows of it are flows of `after`, by which it is configured from now on: on the same VIP, and some of its ports are the same.
    pub fn goes_on_as(&self, after: &ServiceSettings) -> bool {
        (self.vip, self.protocol) == (after.vip, after.protocol) && self.ports.overlaps(after.ports)
    }

    /// Its scheduler, as written.
    pub fn scheduler_name(&self) -> &'static str {
        name_of(&SCHEDULERS, self.scheduler)
    }

    /// How its targets learn the client's address, as written.
    pub fn client_address_name(&self) -> &'static str {
        name_of(&CLIENT_ADDRESSES, self.client_address)
    }

    /// Whether targets that require a PROXY header can't answer the probes that go where clients go. Which ports registrations will
    /// name is not known.
    fn probes_lack_header(&self) -> bool {
        let goes_there = |port| {
            let mut targets = self.targets.iter();
            targets.any(|target| match target.address.port() {
                0 => self.ports.contains(port),
                own => own == port,
            })
        };
        let lacks = |check: &CheckSettings| {
            check.port.is_none_or(goes_there)
                && matches!(&check.probe, Probe::Http(http) if !http.proxy_protocol)
        };
        self.client_address == ClientAddress::ProxyV2 && self.health.as_ref().is_some_and(lacks)
    }
}

/// A target from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticTarget {
    /// Where it listens; port 0 stands for the port that a client sends to.
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u16,
    /// It gets new flows only while no other target takes any.
    pub sorry: bool,
}

const MODES: [(&str, Mode); 3] = [
    ("fullnat", Mode::FullNat),
    ("dr", Mode::Direct),
    ("tunnel", Mode::Tunnel),
];

const SCHEDULERS: [(&str, Scheduler); 6] = [
    ("rr", Scheduler::RoundRobin),
    ("wrr", Scheduler::WeightedRoundRobin),
    ("lc", Scheduler::LeastConnections),
    ("wlc", Scheduler::WeightedLeastConnections),
    ("sh", Scheduler::SourceHash),
    ("maglev", Scheduler::Maglev),
];

const UNKNOWN_SEGMENTS: [(&str, UnknownSegment); 2] = [
    ("rst", UnknownSegment::Reset),
    ("drop", UnknownSegment::Drop),
];

const TIMESTAMPS: [(&str, Timestamps); 2] =
    [("strip", Timestamps::Strip), ("keep", Timestamps::Keep)];

const CLIENT_ADDRESSES: [(&str, ClientAddress); 3] = [
    ("none", ClientAddress::None),
    ("proxy_v2", ClientAddress::ProxyV2),
    ("toa", ClientAddress::Toa),
];

/// How a value is written.
fn name_of<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    let mut all = all.iter();
    let found = all.find(|(_, known)| *known == value);
    debug_assert!(found.is_some(), "a value that can't be written");
    found.map_or("", |(name, _)| *name)
}

/// Flow timeouts that make sense.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// Largest weight; what is registered above counts as this.
pub(crate) const MOST_WEIGHT: u16 = 1000;

/// Reads all services. Whether targets can be reached is asked only where the ports are sound, or one mistake there would be reported
/// for every target. `None` after recording mistakes that make forwarding impossible.
pub(super) fn parse(
    root: &mut Table<'_>,
    bus: &Transport,
    ports: &[PortConfig],
    sound: bool,
) -> Option<Vec<ServiceSettings>> {
    let mut tables = root.live().tables_by("services", "name");
    if tables.is_empty() {
        root.mistake(
            "services",
            "no service is there",
            "add a [[services]] with `name`, `vip`, `protocol` and `port`",
        );
        return None;
    }
    let count = tables.len();
    if count > MAX_SERVICES {
        root.mistake(
            "services",
            format!("{count} services are more than a node can tell others of"),
            format!("{MAX_SERVICES} at most"),
        );
    }
    let mut services = Vec::new();
    for (index, table) in tables.iter_mut().enumerate() {
        services.extend(service(table, bus, ports, sound).map(|service| (index, service)));
    }
    let mut sound = count <= MAX_SERVICES && services.len() == count;
    sound &= no_target_is_a_vip(&mut tables);
    sound &= port_ranges::dont_overlap(&mut tables, &services);
    sound &= groups::fit_together(&mut tables, &services);
    root.unique_in::<String>("the service name", &tables, "name");
    let keys = tables
        .iter()
        .filter_map(|table| Some((table.path().to_owned(), key(table)?)));
    let keys: Vec<_> = keys.collect();
    root.unique(
        "the service on",
        keys.iter().map(|(path, key)| (path.clone(), key.as_str())),
    );
    let distinct: BTreeSet<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    let sound = sound && distinct.len() == keys.len();
    sound.then(|| services.into_iter().map(|(_, service)| service).collect())
}

/// Whether no target is a VIP of this node: its packets would go to the router, and from there to a node that has it again.
fn no_target_is_a_vip(tables: &mut [Table<'_>]) -> bool {
    let vips = tables.iter().filter_map(|table| table.peek("vip"));
    let vips: BTreeSet<IpAddr> = vips.collect();
    let mut sound = true;
    for mut target in tables
        .iter_mut()
        .flat_map(|table| table.tables_by("targets", "address"))
    {
        if let Some(Written(ip, _)) = target.peek("address")
            && vips.contains(&ip)
        {
            sound = false;
            let message = format!("{ip} is a VIP of this node");
            target.mistake("address", message, "name the host behind it");
        }
    }
    sound
}

fn service(
    table: &mut Table<'_>,
    bus: &Transport,
    ports: &[PortConfig],
    ports_sound: bool,
) -> Option<ServiceSettings> {
    let name = table.required::<String>("name");
    if let Some(name) = &name {
        table.allows_name("name", name, "a service");
    }
    let vip = vip(table, ports);
    let protocol = protocol(table);
    let served = table.required::<port_ranges::Written>("port");
    let served = served.map(|written| written.0);
    let mode = table.one_of_or("mode", &MODES, Mode::FullNat);
    keys_of_no_effect(table, mode, protocol);
    let scheduler = table.one_of_or("scheduler", &SCHEDULERS, Scheduler::WeightedRoundRobin);
    let on_unknown_segment = table.one_of_or(
        "on_unknown_segment",
        &UNKNOWN_SEGMENTS,
        UnknownSegment::Reset,
    );
    let reset_on_expiry = table.or("reset_on_expiry", true);
    let timestamps = table.one_of_or("timestamps", &TIMESTAMPS, Timestamps::Strip);
    let client_address = table.one_of_or("client_address", &CLIENT_ADDRESSES, ClientAddress::None);
    let least_path_mtu = least_path_mtu(table, vip);
    let timeouts = table
        .table("timeouts")
        .map(|mut table| timeouts(&mut table))
        .unwrap_or_default();
    let persistence_group = policy::persistence_group(table);
    let policy = policy::parse(
        table,
        vip,
        protocol,
        scheduler,
        persistence_group.as_deref(),
    );
    let slow_start = policy::slow_start(table, scheduler);
    let cut_drained_after = policy::cut_drained_after(table);
    let cut_down_after = policy::cut_down_after(table, protocol);
    let way = Way {
        mode,
        client_address,
        vip,
        ports: served,
    };
    let targets = targets(table, ports_sound.then_some(ports), way);
    overlaps::weights_count(table, scheduler, targets.as_deref().unwrap_or_default());
    let from_registrations = from_registrations(table, bus);
    if from_registrations {
        port_ranges::registrations_fit(table, served, mode);
    }
    if let Some(targets) = &targets
        && !targets.is_empty()
        && !from_registrations
        && targets.iter().all(|target| target.sorry)
    {
        table.mistake(
            "targets",
            "all of them are sorry targets, which serve in place of others",
            "leave `sorry` out of those that serve as a rule",
        );
    }
    let health = table
        .table("health")
        .and_then(|mut table| CheckSettings::parse(&mut table));
    port_ranges::probes_have_a_port(table, targets.as_deref().unwrap_or_default());
    let service = ServiceSettings {
        name: name?,
        vip: vip?,
        protocol: protocol?,
        ports: served?,
        mode,
        scheduler,
        on_unknown_segment,
        reset_on_expiry,
        timestamps,
        client_address,
        least_path_mtu,
        timeouts,
        policy,
        persistence_group,
        slow_start,
        cut_drained_after,
        cut_down_after,
        targets: targets?,
        from_registrations,
        health,
    };
    if service.probes_lack_header() {
        table.warning(
            "health",
            "the targets expect a PROXY header, and these probes begin without one",
            "set proxy_protocol = true here",
        );
    }
    Some(service)
}

/// Records a mistake at each key that has no effect on a service of this mode and protocol: one, if it has none for two reasons.
fn keys_of_no_effect(table: &mut Table<'_>, mode: Mode, protocol: Option<Protocol>) {
    let fullnat = (mode != Mode::FullNat).then_some("mode = \"fullnat\"");
    let tcp = (protocol == Some(Protocol::Udp)).then_some("protocol = \"tcp\"");
    let udp = (protocol == Some(Protocol::Tcp)).then_some("protocol = \"udp\"");
    for (key, others) in [
        ("timestamps", fullnat.or(tcp)),
        ("client_address", fullnat.or(tcp)),
        ("least_path_mtu", fullnat),
        ("on_unknown_segment", tcp),
        ("reset_on_expiry", tcp),
        ("one_packet", udp),
    ] {
        if let Some(others) = others {
            of_no_effect(table, key, others);
        }
    }
}

/// Records a mistake if the key is there: it does something for `others` only.
pub(super) fn of_no_effect(table: &mut Table<'_>, key: &'static str, others: &str) {
    if table.has(key) {
        table.mistake(key, format!("is for {others} only"), "leave it out");
    }
}

fn protocol(table: &mut Table<'_>) -> Option<Protocol> {
    if !table.has("protocol") {
        table.mistake("protocol", "is missing", "write \"tcp\" or \"udp\"");
        return None;
    }
    table.one_of("protocol", &PROTOCOLS.choices())
}

/// No IPv6 link takes less than the default (RFC 8200 5), no IPv4 host has to take more than 576 bytes (RFC 791 3.1).
fn least_path_mtu(table: &mut Table<'_>, vip: Option<IpAddr>) -> u16 {
    let least = match vip {
        Some(IpAddr::V6(_)) => LEAST_PATH_MTU,
        _ => 576,
    };
    table.within("least_path_mtu", least..=1500, LEAST_PATH_MTU)
}

fn vip(table: &mut Table<'_>, ports: &[PortConfig]) -> Option<IpAddr> {
    let vip = table.required::<IpAddr>("vip")?;
    if !is_host(vip) {
        table.mistake(
            "vip",
            format!("{vip} is not an address that clients can connect to"),
            "take a unicast address",
        );
        return None;
    }
    if let Some(port) = ports.iter().find(|port| port.is_own(vip)) {
        let hint = "take an address of its own, as the node's kernel and ARP use that one";
        table.mistake(
            "vip",
            format!("{vip} is the address of port {}", port.name),
            hint,
        );
        return None;
    }
    if let Some(port) = ports.iter().find(|port| port.local_ips.contains(&vip)) {
        let hint = "replies of targets come to LocalIPs, so they can't be VIPs";
        table.mistake(
            "vip",
            format!("{vip} is a LocalIP of port {}", port.name),
            hint,
        );
        return None;
    }
    if let Some(port) = ports.iter().find(|port| port.is_router(vip)) {
        let message = format!("{vip} is the address of a router of port {}", port.name);
        let hint = "take an address of its own, or the node would answer for the router";
        table.mistake("vip", message, hint);
        return None;
    }
    if let Some(why) = ports.iter().find_map(|port| port.reserves(vip)) {
        table.mistake("vip", why, "take another address of the network");
        return None;
    }
    Some(vip)
}

fn timeouts(table: &mut Table<'_>) -> Timeouts {
    let defaults = Timeouts::default();
    Timeouts {
        syn: table.within("syn", TIMEOUTS, defaults.syn),
        established: table.within("established", TIMEOUTS, defaults.established),
        fin_wait: table.within("fin_wait", TIMEOUTS, defaults.fin_wait),
        time_wait: table.within("time_wait", TIMEOUTS, defaults.time_wait),
        close: table.within("close", TIMEOUTS, defaults.close),
        udp: table.within("udp", TIMEOUTS, defaults.udp),
    }
}

/// Whether registrations make targets: they can't without a bus, and without them targets have to be listed.
fn from_registrations(table: &mut Table<'_>, bus: &Transport) -> bool {
    let from_registrations = table.or("from_registrations", false);
    if from_registrations && *bus == Transport::Local {
        table.mistake(
            "from_registrations",
            "registrations come by the bus, and the bus stays within this process",
            "set bus.transport = \"nats\", or list the targets in [[services.targets]]",
        );
    }
    if !from_registrations && !table.has("targets") {
        table.mistake(
            "targets",
            "the service has none",
            "add [[services.targets]], or from_registrations = true",
        );
    }
    from_registrations
}

/// What a service says of where its targets can be, as far as it was right.
#[derive(Clone, Copy)]
struct Way {
    mode: Mode,
    client_address: ClientAddress,
    vip: Option<IpAddr>,
    ports: Option<PortRange>,
}

/// `None` after recording a mistake.
fn targets(
    table: &mut Table<'_>,
    ports: Option<&[PortConfig]>,
    way: Way,
) -> Option<Vec<StaticTarget>> {
    let tables = table.tables_by("targets", "address");
    let count = tables.len();
    let mut targets = Vec::new();
    let mut seen = BTreeSet::new();
    for mut table in tables {
        let address = target_address(&mut table, ports, way);
        let weight = table.within("weight", 0..=MOST_WEIGHT, 1);
        let sorry = table.or("sorry", false);
        let Some(address) = address else { continue };
        if seen.insert(address) {
            targets.push(StaticTarget {
                address,
                weight,
                sorry,
            });
        } else {
            table.mistake(
                "address",
                format!("{} is a target of this service already", Endpoint(address)),
                "leave one out",
            );
        }
    }
    (targets.len() == count).then_some(targets)
}

fn target_address(
    table: &mut Table<'_>,
    ports: Option<&[PortConfig]>,
    way: Way,
) -> Option<SocketAddr> {
    let is_of_one_port = way.ports.is_some_and(|ports| ports.single().is_some());
    let Written(ip, port) = if way.mode == Mode::FullNat && is_of_one_port {
        let address = table.required::<SocketAddr>("address")?;
        Written(address.ip(), Some(address.port()))
    } else {
        table.required::<Written>("address")?
    };
    if port == Some(0) {
        let hint = match is_of_one_port {
            true => "name the port that the target listens at",
            false => "leave the port out, and packets keep the port that the client sent them to",
        };
        table.mistake("address", "0 is not a port", hint);
        return None;
    }
    let kept = way.ports.map(PortRange::kept_by_target);
    // A zone or flow label, which could be written, means nothing here.
    let address = SocketAddr::new(ip, port.or(kept)?);
    if let Some((why, hint)) = way.vip.and_then(|vip| other_family(address, vip)) {
        table.mistake("address", why, hint);
        return None;
    }
    if let Some((why, hint)) = way
        .ports
        .and_then(|ports| other_port(address, way.mode, ports))
    {
        table.mistake("address", why, hint);
        return None;
    }
    let (mode, client_address) = (way.mode, way.client_address);
    let reached = ports.map(|ports| reachable(address.ip(), mode, client_address, ports));
    if let Some(Err((why, hint))) = reached {
        table.mistake("address", why, hint);
        return None;
    }
    Some(address)
}

/// An address with or without a port.
struct Written(IpAddr, Option<u16>);

impl FromValue for Written {
    const EXPECTED: &'static str = "an address such as \"10.0.0.1\" or \"2001:db8::1\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        if let Ok(ip) = IpAddr::from_value(value) {
            return Ok(Written(ip, None));
        }
        let address = SocketAddr::from_value(value).map_err(|hint| {
            let text = value.as_str().unwrap_or_default();
            match without_port(text) {
                Some(ip) => format!("for packets to keep their ports, write \"{ip}\""),
                None => hint,
            }
        })?;
        Ok(Written(address.ip(), Some(address.port())))
    }
}

/// The address alone, where what stands behind it is no port, or an IPv6 one has the brackets that it has before a port: `10.3.0.21:*`,
/// `10.3.0.21:8000-8999`, `[fd00:3::21]`.
fn without_port(text: &str) -> Option<IpAddr> {
    if let Some((ip, behind)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_behind = behind.is_empty() || behind.starts_with(':');
        return ip
            .parse()
            .ok()
            .filter(|ip: &IpAddr| ip.is_ipv6() && is_behind);
    }
    let (ip, _) = text.split_once(':')?;
    ip.parse().ok()
}

/// What clients connect to, of which no two services have the same.
fn key(table: &Table<'_>) -> Option<String> {
    let protocol = PROTOCOLS.find(&table.peek::<String>("protocol")?).ok()?;
    let port_ranges::Written(ports) = table.peek("port")?;
    Some(format!(
        "{} {}",
        PROTOCOLS.of(protocol),
        ports.at(table.peek::<IpAddr>("vip")?)
    ))
}
