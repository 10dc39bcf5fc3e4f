//! `[[ports]]`: the interfaces of the forwarder, their addresses, LocalIPs and routes.

mod routers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::{MOST_ROUTERS, NextHops, PortIndex, Sharing};
use shared::bus::MAX_ADDRESSES;
use shared::config::{Cidr, FromValue, Table, Value};

use self::routers::{SHARING, gateways, via};
use super::devices;
use super::overlaps;
use super::process::MOST_WORKERS;
use crate::dpdk::Device;
use crate::worker::Vlan;

/// A port of the forwarder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Its place in the configuration, which the data plane knows it by.
    pub index: PortIndex,
    /// The name in statuses and metrics.
    pub name: String,
    /// What DPDK opens.
    pub device: Device,
    /// Devices that a bond is made of; none for any other device.
    pub members: Vec<Device>,
    /// The port's own addresses with the networks on its segment: one IPv4, one IPv6, or both.
    pub addresses: Vec<Network>,
    /// The routers for all that no route covers, of either family.
    pub gateways: Vec<IpAddr>,
    /// How flows use several of them.
    pub sharing: Sharing,
    /// Routes over this port, beyond its own network.
    pub routes: Vec<RouteConfig>,
    /// Addresses from which targets are spoken to, in the port's networks.
    pub local_ips: Vec<IpAddr>,
    /// Receive and transmit queues; as many workers receive on this port.
    pub queues: u16,
    /// Descriptors a queue.
    pub descriptors: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The VLAN whose tag frames have on the wire.
    pub vlan: Option<Vlan>,
    /// Where frames go that are not the forwarder's, and whose frames leave by this port: the kernel behind a DPDK-owned NIC.
    pub exception: Option<Device>,
    /// Whether ARP requests and neighbour solicitations for VIPs in the port's networks are answered.
    pub answer_arp_for_vips: bool,
    /// How often the addresses answered for are announced again, if they are.
    pub announce_every: Option<Duration>,
    /// Whether ARP requests, neighbour solicitations and echo requests for the port's own addresses are answered here.
    pub answer_for_address: bool,
}

/// A route over a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteConfig {
    /// Where to.
    pub to: Network,
    /// The routers on the port's segment; without one the destinations are on the segment themselves.
    pub via: NextHops<IpAddr>,
}

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        Cidr::new(self.address, self.prefix).is_some_and(|cidr| cidr.contains(address))
    }

    /// Why no host of the network has `address`, if so: IPv4 has the network's own address and that for broadcasts (RFC 1122 3.2.1.3),
    /// but for networks of two addresses (RFC 3021 2.1) and of one.
    pub(super) fn reserves(self, address: IpAddr) -> Option<String> {
        let IpAddr::V4(host) = address else {
            return None;
        };
        let broadcast = u32::MAX
            .checked_shr(self.prefix.into())
            .filter(|bits| *bits > 1 && self.contains(address))?;
        let what = match host.to_bits() & broadcast {
            0 => "network's own",
            bits if bits == broadcast => "broadcast",
            _ => return None,
        };
        Some(format!("{address} is the {what} address of {self}"))
    }
}

impl FromValue for Network {
    const EXPECTED: &'static str =
        "an address with a prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\"";

    fn from_value(value: &Value) -> Result<Network, String> {
        let cidr = Cidr::from_value(value)?;
        Ok(Network {
            address: cidr.address(),
            prefix: cidr.prefix(),
        })
    }
}

/// One value, or a list of one IPv4 and one IPv6 value.
struct Families<T>(Vec<T>);

impl FromValue for Families<Network> {
    const EXPECTED: &'static str = "an address with a prefix length such as \"10.0.0.1/24\", or a list of an IPv4 and an IPv6 one";

    fn from_value(value: &Value) -> Result<Self, String> {
        families(value, |network: &Network| network.address)
    }

    fn wrong_items(value: &Value) -> Vec<(usize, String)> {
        Vec::<Network>::wrong_items(value)
    }
}

fn families<T: FromValue>(
    value: &Value,
    address: impl Fn(&T) -> IpAddr,
) -> Result<Families<T>, String> {
    let values = match value {
        Value::Array(_) => Vec::from_value(value)?,
        _ => vec![T::from_value(value)?],
    };
    for is_ipv6 in [false, true] {
        let of_family = values
            .iter()
            .filter(|value| address(value).is_ipv6() == is_ipv6);
        if of_family.count() > 1 {
            return Err("give one of each family at most".into());
        }
    }
    if values.is_empty() {
        return Err(format!("the list is empty: write {}", T::EXPECTED));
    }
    Ok(Families(values))
}

impl PortConfig {
    /// Whether the kernel shares the interface, so that its own frames come in too. Not where it is behind another one.
    pub fn hears_kernel(&self) -> bool {
        let mut devices = self.members.iter().chain([&self.device]);
        self.exception.is_none() && devices.any(is_af_packet)
    }

    /// The port's own address and network of the family of `address`.
    pub fn network_for(&self, address: IpAddr) -> Option<Network> {
        network_for(&self.addresses, address)
    }

    /// Whether an address is on the port's segment.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|network| network.contains(address))
    }

    /// Whether an address is one of the port's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|network| network.address == address)
    }

    /// Whether an address is a router's on the port's segment.
    pub fn is_router(&self, address: IpAddr) -> bool {
        self.routers().any(|router| router == address)
    }

    /// Why no host on the port's segment has an address, if so.
    pub(super) fn reserves(&self, address: IpAddr) -> Option<String> {
        let mut networks = self.addresses.iter();
        networks.find_map(|network| network.reserves(address))
    }

    /// The routers for what no route covers, of the family of `address`.
    pub fn gateways_for(&self, address: IpAddr) -> impl Iterator<Item = IpAddr> {
        let gateways = self.gateways.iter().copied();
        gateways.filter(move |gateway| gateway.is_ipv6() == address.is_ipv6())
    }

    /// All routers on the port's segment.
    fn routers(&self) -> impl Iterator<Item = IpAddr> {
        routers(&self.gateways, &self.routes)
    }
}

fn routers(gateways: &[IpAddr], routes: &[RouteConfig]) -> impl Iterator<Item = IpAddr> {
    let vias = routes.iter().flat_map(|route| route.via.iter());
    gateways.iter().copied().chain(vias)
}

fn network_for(networks: &[Network], address: IpAddr) -> Option<Network> {
    let mut networks = networks.iter().copied();
    networks.find(|network| network.address.is_ipv6() == address.is_ipv6())
}

impl std::fmt::Display for Network {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}/{}", self.address, self.prefix)
    }
}

impl FromValue for Device {
    const EXPECTED: &'static str =
        "a DPDK device such as \"0000:3b:00.0\" or \"net_af_packet0,iface=eth0\"";

    fn from_value(value: &Value) -> Result<Device, String> {
        value.as_str().ok_or_else(String::new)?.parse()
    }
}

/// What each link of IPv6 carries at least, bytes.
pub(super) const LEAST_MTU_OF_IPV6: u16 = 1280;

/// Most ports of a node: what the data plane's numbers allow.
const MOST: usize = 16;

/// Most LocalIPs of a node: with the ports' own addresses, two each, they fit a node record.
const MOST_LOCAL_IPS: usize = MAX_ADDRESSES - 2 * MOST;

/// Reads all ports; `workers` is how many there are to receive. The flag is false after mistakes that make
/// forwarding impossible; what could be read comes all the same, so that services can be held against it.
pub(super) fn parse(root: &mut Table<'_>, workers: u16) -> (Vec<PortConfig>, bool) {
    let mut tables = root.ordered_tables_by("ports", "name");
    if tables.is_empty() {
        root.mistake(
            "ports",
            "no port is there",
            "add a [[ports]] with `name`, `device` and `address`",
        );
        return (Vec::new(), false);
    }
    let count = tables.len();
    if count > MOST {
        root.mistake(
            "ports",
            format!("{count} ports are too many"),
            format!("{MOST} at most"),
        );
    }
    let mut sound = count <= MOST;
    let mut ports = Vec::new();
    for (index, table) in tables.iter_mut().enumerate() {
        match port(table, PortIndex(index as u16), workers, &mut sound) {
            Some(port) => ports.push(port),
            None => sound = false,
        }
    }
    let local_ips: usize = ports.iter().map(|port| port.local_ips.len()).sum();
    if local_ips > MOST_LOCAL_IPS {
        root.mistake(
            "ports",
            format!("{local_ips} LocalIPs are too many"),
            format!("{MOST_LOCAL_IPS} at most, over all ports"),
        );
    }
    let routers: BTreeSet<_> = ports
        .iter()
        .flat_map(|port| port.routers().map(|router| (port.index, router)))
        .collect();
    if routers.len() > MOST_ROUTERS {
        root.mistake(
            "ports",
            format!("{} routers are too many: each is watched", routers.len()),
            format!("{MOST_ROUTERS} at most, over all ports"),
        );
        sound = false;
    }
    root.unique_in::<String>("the port name", &tables, "name");
    let devices = tables.iter().flat_map(|table| {
        let devices = devices::written(table).into_iter();
        devices.map(|(key, device)| (in_table(table, key), device.identity()))
    });
    told_once(root, "the device", devices);
    overlaps::interfaces_have_one_device(&mut tables);
    overlaps::destinations_have_one_route(&mut tables);
    let apart = told_once(root, "the address", tables.iter().flat_map(own_addresses));
    sound &= local_ips <= MOST_LOCAL_IPS && apart;
    (ports, sound)
}

/// Records a mistake where two are the same, each with the path to complain about. Whether none are.
fn told_once<T: ToString>(
    root: &mut Table<'_>,
    what: &str,
    all: impl Iterator<Item = (String, T)>,
) -> bool {
    let all: Vec<_> = all.map(|(path, one)| (path, one.to_string())).collect();
    let distinct: BTreeSet<&str> = all.iter().map(|(_, one)| one.as_str()).collect();
    root.unique(
        what,
        all.iter().map(|(path, one)| (path.clone(), one.as_str())),
    );
    distinct.len() == all.len()
}

/// How often addresses may be announced again.
const ANNOUNCE_EVERY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

fn port(
    table: &mut Table<'_>,
    index: PortIndex,
    workers: u16,
    sound: &mut bool,
) -> Option<PortConfig> {
    let name = table.required::<String>("name");
    if let Some(name) = &name {
        table.allows_name("name", name, "a port");
    }
    let device = table.required::<Device>("device");
    let members = members(table, device.as_ref());
    let addresses = table.required::<Families<Network>>("address");
    let networks = addresses.as_ref().map(|Families(networks)| &**networks);
    for network in networks.unwrap_or_default() {
        if let Some(why) = network.reserves(network.address) {
            table.mistake("address", why, "write the port's own");
            *sound = false;
        }
    }
    let mut live = table.live();
    let gateways = gateways(&mut live, networks);
    let sharing = live.one_of_or("next_hops", &SHARING, Sharing::InOrder);
    let queues = table.within("queues", 1..=MOST_WORKERS, workers);
    if queues > workers {
        let message = format!("{queues} are more than there are workers ({workers})");
        table.mistake("queues", message, "leave it out, or give [workers] more");
    }
    if let Some(device) = &device
        && matches!(device.driver(), Some("net_pcap" | "net_tap"))
        && queues > 1
        && workers > 1
    {
        let driver = device.driver().unwrap_or_default();
        table.mistake(
            "queues",
            format!("{driver} does not spread flows over {queues} queues"),
            "write queues = 1",
        );
    }
    let mut routes = Vec::new();
    for mut route in live.tables_by("routes", "to") {
        let to = route.required::<Network>("to");
        let via = via(&mut route, networks, to);
        routes.push(to.zip(via.ok()).map(|(to, via)| RouteConfig { to, via }));
    }
    *sound &= gateways.is_ok() && routes.iter().all(Option::is_some);
    let (gateways, routes) = (gateways.unwrap_or_default(), routes.into_iter().flatten());
    let routes: Vec<RouteConfig> = routes.collect();
    let routers: Vec<IpAddr> = routers(&gateways, &routes).collect();
    let local_ips = local_ips(&mut live, networks, &routers);
    let mtu = table.within("mtu", 576..=9600, 1500);
    let is_ipv6 = |network: &Network| network.address.is_ipv6();
    if mtu < LEAST_MTU_OF_IPV6 && networks.is_some_and(|networks| networks.iter().any(is_ipv6)) {
        table.mistake(
            "mtu",
            format!("{mtu} is less than a link of IPv6 has (RFC 8200 5)"),
            format!("{LEAST_MTU_OF_IPV6} at least, or leave the IPv6 address out"),
        );
    }
    let vlan = table
        .optional_within("vlan", Vlan::NUMBERS)
        .and_then(Vlan::new);
    let descriptors = table.within("descriptors", 64..=8192, 512);
    let exception = table.optional::<Device>("exception");
    for (key, device) in [("device", &device), ("exception", &exception)] {
        let queues = if key == "device" { queues } else { 1 };
        let wrong = device
            .as_ref()
            .and_then(|device| devices::mistake(device, queues, mtu));
        if let Some((why, hint)) = wrong {
            table.mistake(key, why, hint);
        }
    }
    for member in members.iter().flatten() {
        if let Some((why, hint)) = devices::mistake(member, queues, mtu) {
            table.mistake("members", format!("{}: {why}", member.name()), hint);
        }
    }
    let too_long = members
        .as_ref()
        .and_then(|members| devices::mtu_of_bond(members, mtu));
    if let Some((why, hint)) = too_long {
        table.mistake("mtu", why, hint);
    }
    let shared_with_kernel = device.as_ref().is_some_and(is_af_packet);
    let answer_arp_for_vips = live.or("answer_arp_for_vips", false);
    let announce_every = live.optional_within("announce_every", ANNOUNCE_EVERY);
    let answer_for_address = live.or(
        "answer_for_address",
        !shared_with_kernel && exception.is_none(),
    );
    *sound &= local_ips.1;
    let (name, Families(addresses)) = (name?, addresses?);
    Some(PortConfig {
        index,
        name,
        device: device?,
        members: members?,
        addresses,
        gateways,
        sharing,
        routes,
        local_ips: local_ips.0,
        queues,
        descriptors,
        mtu,
        vlan,
        exception,
        answer_arp_for_vips,
        announce_every,
        answer_for_address,
    })
}

/// Whether it is an interface of the kernel's, which both use.
fn is_af_packet(device: &Device) -> bool {
    device.driver() == Some("net_af_packet")
}

/// Most members of a bond.
const MOST_MEMBERS: usize = 8;

/// The members of a bond; `None` after recording a mistake.
fn members(table: &mut Table<'_>, device: Option<&Device>) -> Option<Vec<Device>> {
    let members = table.or::<Vec<Device>>("members", Vec::new());
    let is_bond = device.is_some_and(|device| device.driver() == Some("net_bonding"));
    let mut wrong = |key, message: String, hint| {
        table.mistake(key, message, hint);
        None
    };
    let Some(device) = device.filter(|_| is_bond) else {
        return match members.is_empty() {
            true => Some(members),
            false => wrong(
                "members",
                "only a bond has members".into(),
                "write device = \"net_bonding0,mode=1\"",
            ),
        };
    };
    if device.argument("mode") != Some("1") {
        let message = "of DPDK's bonding, active-backup is supported".into();
        return wrong("device", message, "write \"net_bonding0,mode=1\"");
    }
    if let Some(key) = ["slave", "member"]
        .into_iter()
        .find(|key| device.argument(key).is_some())
    {
        let message = format!("{key} is set by the gateway itself");
        return wrong("device", message, "use `members`");
    }
    match members.len() {
        2..=MOST_MEMBERS => Some(members),
        count => wrong(
            "members",
            format!("a bond has 2 to {MOST_MEMBERS} members, got {count}"),
            "write members = [\"0000:3b:00.0\", \"0000:3b:00.1\"]",
        ),
    }
}

/// The LocalIPs that are sound, and whether all are.
fn local_ips(
    table: &mut Table<'_>,
    port: Option<&[Network]>,
    routers: &[IpAddr],
) -> (Vec<IpAddr>, bool) {
    if !table.has("local_ips") {
        return (Vec::new(), true);
    }
    let (Some(written), Some(port)) = (table.optional::<Vec<IpAddr>>("local_ips"), port) else {
        return (Vec::new(), false);
    };
    let mut local_ips = Vec::new();
    for address in &written {
        let mistake = match network_for(port, *address) {
            None => Some((
                format!("the port has no address of the family of {address}"),
                "add one to the port's `address`",
            )),
            Some(network) if !network.contains(*address) => Some((
                format!("{address} is not in the port's network {network}"),
                "targets answer to LocalIPs, so they belong to the segment of the port",
            )),
            Some(network) if network.address == *address => Some((
                format!("{address} is the port's own address"),
                "the kernel or ARP of the port uses that one; take another free address of the network",
            )),
            Some(_) if routers.contains(address) => Some((
                format!("{address} is a router's address"),
                "take another free address of the network",
            )),
            Some(network) => network
                .reserves(*address)
                .map(|why| (why, "take another free address of the network")),
        };
        match mistake {
            Some((message, hint)) => table.mistake("local_ips", message, hint),
            None => local_ips.push(*address),
        }
    }
    let sound = local_ips.len() == written.len();
    (local_ips, sound)
}

/// Every address of a port that the node answers for, with where it was written.
fn own_addresses(table: &Table<'_>) -> Vec<(String, IpAddr)> {
    let own = table.peek("address").map(|Families(networks)| networks);
    let own = own.unwrap_or_default().into_iter();
    let own = own.map(|network: Network| (in_table(table, "address"), network.address));
    let local_ips = table.peek::<Vec<IpAddr>>("local_ips").unwrap_or_default();
    let local_ips = local_ips.into_iter();
    own.chain(local_ips.map(|address| (in_table(table, "local_ips"), address)))
        .collect()
}

fn in_table(table: &Table<'_>, key: &str) -> String {
    format!("{}.{key}", table.path())
}
