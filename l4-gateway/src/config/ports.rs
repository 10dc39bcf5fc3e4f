//! `[[ports]]`: the interfaces of the forwarder, their addresses, LocalIPs and routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::PortIndex;
use shared::bus::MAX_ITEMS;
use shared::config::{Cidr, FromValue, Table, Value};

use crate::dpdk::Device;

/// A port of the forwarder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Its place in the configuration, which the data plane knows it by.
    pub index: PortIndex,
    /// The name in statuses and metrics.
    pub name: String,
    /// What DPDK opens.
    pub device: Device,
    /// The port's own address with the network on its segment.
    pub address: Network,
    /// The next hop for all that no route covers.
    pub gateway: Option<Ipv4Addr>,
    /// Routes over this port, beyond its own network.
    pub routes: Vec<RouteConfig>,
    /// Addresses from which targets are spoken to, in the port's network.
    pub local_ips: Vec<Ipv4Addr>,
    /// Receive and transmit queues; as many workers receive on this port.
    pub queues: u16,
    /// Descriptors a queue.
    pub descriptors: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Where frames go that are not the forwarder's, and whose frames leave by this port: the kernel behind a DPDK-owned NIC.
    pub exception: Option<Device>,
    /// Whether ARP requests for VIPs in the port's network are answered.
    pub answer_arp_for_vips: bool,
    /// Whether ARP and echo requests for the port's own address are answered here.
    pub answer_for_address: bool,
}

/// A route over a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteConfig {
    /// Where to.
    pub to: Network,
    /// The router on the port's segment; without one the destinations are on the segment themselves.
    pub via: Option<Ipv4Addr>,
}

/// An IPv4 address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address, host bits included.
    pub address: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` lies in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Cidr::new(self.address.into(), self.prefix)
            .is_some_and(|cidr| cidr.contains(address.into()))
    }
}

impl FromValue for Network {
    const EXPECTED: &'static str = "an IPv4 address with a prefix length such as \"10.0.0.1/24\"";

    fn from_value(value: &Value) -> Result<Network, String> {
        let cidr = Cidr::from_value(value)?;
        match cidr.address() {
            IpAddr::V4(address) => Ok(Network {
                address,
                prefix: cidr.prefix(),
            }),
            IpAddr::V6(_) => Err("IPv6 is not forwarded".into()),
        }
    }
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

/// Most ports of a node: what the data plane's numbers allow.
const MOST: usize = 16;

/// Most LocalIPs of a node: with the ports' own addresses they fit a node record.
const MOST_LOCAL_IPS: usize = MAX_ITEMS - MOST;

/// Reads all ports; `workers` is how many there are to receive. The flag is false after mistakes that make
/// forwarding impossible; what could be read comes all the same, so that services can be held against it.
pub(super) fn parse(root: &mut Table<'_>, workers: u16) -> (Vec<PortConfig>, bool) {
    let tables = root.tables("ports");
    if tables.is_empty() {
        root.mistake(
            "ports",
            "no port is there",
            "add a [[ports]] with `name`, `device` and `address`",
        );
        return (Vec::new(), false);
    }
    if tables.len() > MOST {
        root.mistake(
            "ports",
            format!("{} ports are too many", tables.len()),
            format!("{MOST} at most"),
        );
        return (Vec::new(), false);
    }
    let mut sound = true;
    let mut ports = Vec::new();
    for (index, mut table) in tables.into_iter().enumerate() {
        match port(&mut table, PortIndex(index as u16), workers, &mut sound) {
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
    let names: Vec<_> = ports
        .iter()
        .map(|port| (format!("{}.name", path(port)), port.name.as_str()))
        .collect();
    root.unique("the port name", names);
    let devices: Vec<_> = ports
        .iter()
        .map(|port| (format!("{}.device", path(port)), port.device.name()))
        .collect();
    root.unique("the device", devices);
    let owned: Vec<_> = ports
        .iter()
        .flat_map(own_addresses)
        .map(|(path, address)| (path, address.to_string()))
        .collect();
    root.unique(
        "the address",
        owned
            .iter()
            .map(|(path, address)| (path.clone(), address.as_str())),
    );
    let distinct: BTreeSet<&str> = owned.iter().map(|(_, address)| address.as_str()).collect();
    sound &= local_ips <= MOST_LOCAL_IPS && distinct.len() == owned.len();
    (ports, sound)
}

fn port(
    table: &mut Table<'_>,
    index: PortIndex,
    workers: u16,
    sound: &mut bool,
) -> Option<PortConfig> {
    let name = table.required::<String>("name");
    if let Some(name) = &name
        && (name.is_empty() || name.len() > 32)
    {
        table.mistake("name", "a port's name has 1 to 32 characters", "");
    }
    let device = table.required::<Device>("device");
    let address = table.required::<Network>("address");
    let gateway = next_hop(table, "gateway", address);
    let queues = table.within("queues", 1..=workers, workers);
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
    let local_ips = local_ips(table, address);
    let mut routes = Vec::new();
    for mut route in table.tables("routes") {
        let to = route.required::<Network>("to");
        let via = next_hop(&mut route, "via", address);
        routes.push(to.zip(via.ok()).map(|(to, via)| RouteConfig { to, via }));
    }
    let mtu = table.within("mtu", 576..=9600, 1500);
    let descriptors = table.within("descriptors", 64..=8192, 512);
    let exception = table.optional::<Device>("exception");
    if let Some(exception) = &exception
        && device
            .as_ref()
            .is_some_and(|device| device.name() == exception.name())
    {
        table.mistake(
            "exception",
            "is the port's own device",
            "name a virtual one such as \"net_tap0,iface=weir-ext\"",
        );
    }
    let shared_with_kernel = device
        .as_ref()
        .is_some_and(|device| matches!(device.driver(), Some("net_af_packet")));
    let answer_arp_for_vips = table.or("answer_arp_for_vips", false);
    let answer_for_address = table.or(
        "answer_for_address",
        !shared_with_kernel && exception.is_none(),
    );
    *sound &= gateway.is_ok() && routes.iter().all(Option::is_some) && local_ips.1;
    let (name, address) = (name?, address?);
    Some(PortConfig {
        index,
        name,
        device: device?,
        address,
        gateway: gateway.unwrap_or(None),
        routes: routes.into_iter().flatten().collect(),
        local_ips: local_ips.0,
        queues,
        descriptors,
        mtu,
        exception,
        answer_arp_for_vips,
        answer_for_address,
    })
}

/// A mistake was recorded.
struct Recorded;

/// A router's address, if one is named: it must lie in the port's network and not be the port's own.
fn next_hop(
    table: &mut Table<'_>,
    key: &'static str,
    port: Option<Network>,
) -> Result<Option<Ipv4Addr>, Recorded> {
    if !table.has(key) {
        return Ok(None);
    }
    let address = table.optional::<Ipv4Addr>(key).ok_or(Recorded)?;
    let port = port.ok_or(Recorded)?;
    if address == port.address {
        table.mistake(
            key,
            format!("{address} is the port's own address"),
            "name the router's",
        );
        return Err(Recorded);
    }
    if !port.contains(address) {
        table.mistake(
            key,
            format!("{address} is not in the port's network {port}"),
            "a next hop is on the port's segment",
        );
        return Err(Recorded);
    }
    Ok(Some(address))
}

/// The LocalIPs that are sound, and whether all are.
fn local_ips(table: &mut Table<'_>, port: Option<Network>) -> (Vec<Ipv4Addr>, bool) {
    if !table.has("local_ips") {
        return (Vec::new(), true);
    }
    let (Some(written), Some(port)) = (table.optional::<Vec<Ipv4Addr>>("local_ips"), port) else {
        return (Vec::new(), false);
    };
    let mut local_ips = Vec::new();
    for address in &written {
        if !port.contains(*address) {
            let hint = "targets answer to LocalIPs, so they belong to the segment of the port";
            table.mistake(
                "local_ips",
                format!("{address} is not in the port's network {port}"),
                hint,
            );
        } else if *address == port.address {
            let hint = "the kernel or ARP of the port uses that one; take another free address of the network";
            table.mistake(
                "local_ips",
                format!("{address} is the port's own address"),
                hint,
            );
        } else {
            local_ips.push(*address);
        }
    }
    let sound = local_ips.len() == written.len();
    (local_ips, sound)
}

/// Every address the node answers for, with where it was written.
fn own_addresses(port: &PortConfig) -> Vec<(String, Ipv4Addr)> {
    let mut owned = vec![(format!("{}.address", path(port)), port.address.address)];
    owned.extend(
        port.local_ips
            .iter()
            .map(|address| (format!("{}.local_ips", path(port)), *address)),
    );
    owned
}

fn path(port: &PortConfig) -> String {
    format!("ports[{}]", port.index.0)
}
