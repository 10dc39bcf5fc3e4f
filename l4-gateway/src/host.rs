//! What the host is set up to do that gets in the gateway's way: told at the start, and in `status` for as long as it is so.
//!
//! None of it keeps the node from running, and some is right for a moment, so these are warnings. [`warnings`] is pure; [`Facts`] are read from `/proc`,
//! `/sys` and the kernel. `check` doesn't ask, since it is about files and may run elsewhere. What another host does is not to be seen from here: offloads at
//! the other end of a veth, `rp_filter` of a tunnel's target.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use crate::config::{Config, PortConfig};
use crate::devices::interface_name;
use crate::dpdk::merges;
use crate::forwarder::PortView;
use crate::sizes::Sizes;

/// The host, as far as it concerns the gateway.
pub(crate) struct Host {
    /// What held when the node started and can't be asked again: it has taken its hugepages since.
    at_start: Vec<String>,
}

impl Host {
    /// Before the node takes anything; logs what there is to warn of.
    pub(crate) fn before_start(config: &Config) -> Host {
        let at_start: Vec<String> = hugepages(config, free_hugepages()).into_iter().collect();
        let host = Host { at_start };
        for warning in host.warnings(config, &[]) {
            tracing::warn!("host: {warning}");
        }
        host
    }

    /// What there is to warn of now; `ports` are those of `config`, as they are.
    pub(crate) fn warnings(&self, config: &Config, ports: &[PortView]) -> Vec<String> {
        let now = warnings(config, &Facts::gather(config));
        let lost = config.ports.iter().zip(ports).flat_map(|(port, view)| {
            let lost = view.lost_interfaces.iter();
            lost.map(|name| {
                format!(
                    "interface {name} was deleted or moved to another network namespace: port {} uses one of that name after a restart",
                    port.name
                )
            })
        });
        self.at_start
            .iter()
            .cloned()
            .chain(now)
            .chain(lost)
            .collect()
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Facts {
    /// The kernel's addresses, each with the interface that has it.
    addresses: BTreeMap<IpAddr, String>,
    /// Whether the kernel forwards IPv6.
    forwards_ipv6: bool,
    /// The interfaces that ports share with the kernel, by name.
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Interface {
    /// Whether the kernel forwards IPv4 packets that come in there.
    forwards_ipv4: bool,
    /// In bytes, where it is known.
    mtu: Option<u32>,
    merges_in_software: bool,
    merges_in_hardware: bool,
}

impl Facts {
    /// What can't be read is taken to be in order.
    fn gather(config: &Config) -> Facts {
        let interface = |name: &str| {
            let (merges_in_software, merges_in_hardware) = merges(name).unwrap_or_default();
            Interface {
                forwards_ipv4: is_on(&format!("/proc/sys/net/ipv4/conf/{name}/forwarding")),
                mtu: number(&format!("/sys/class/net/{name}/mtu")),
                merges_in_software,
                merges_in_hardware,
            }
        };
        let names = config.ports.iter().flat_map(shared);
        Facts {
            addresses: addresses(),
            forwards_ipv6: is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
            interfaces: names
                .map(|name| (name.to_owned(), interface(name)))
                .collect(),
        }
    }
}

/// The interfaces that a port shares with the kernel.
fn shared(port: &PortConfig) -> impl Iterator<Item = &str> {
    let devices = port.members.iter().chain([&port.device]);
    devices.filter_map(interface_name)
}

fn addresses() -> BTreeMap<IpAddr, String> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return BTreeMap::new();
    };
    let held = all.filter_map(|held| {
        let address = held.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        Some((v4.or_else(v6)?, held.interface_name))
    });
    held.collect()
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn is_on(path: &str) -> bool {
    number(path).is_some_and(|value| value != 0)
}

/// Free memory in hugepages of all sizes, in MiB; `None` where the kernel has none to tell of.
fn free_hugepages() -> Option<u64> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let free = sizes.flatten().filter_map(|size| {
        let name = size.file_name();
        let kib = name
            .to_str()?
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?;
        let kib: u64 = kib.parse().ok()?;
        let pages = number(size.path().join("free_hugepages").to_str()?)?;
        Some(kib.saturating_mul(pages.into()))
    });
    Some(free.sum::<u64>() >> 10)
}

/// Whether the free hugepages, in MiB, are too few for the node.
fn hugepages(config: &Config, free: Option<u64>) -> Option<String> {
    let free = free.filter(|_| config.eal.huge_pages)?;
    let needed = u64::from(Sizes::of(config).packed_mebibytes);
    (free < needed).then(|| {
        format!(
            "{free} MiB of hugepages were free at the start, and the node takes about {needed}: raise vm.nr_hugepages, or set eal.huge_pages = false"
        )
    })
}

fn warnings(config: &Config, facts: &Facts) -> Vec<String> {
    let mut said = Vec::new();
    for port in &config.ports {
        for name in shared(port) {
            if let Some(interface) = facts.interfaces.get(name) {
                of_interface(port, name, interface, &mut said);
            }
        }
    }
    let mut ports = config.ports.iter();
    let is_ipv6 = |port: &PortConfig| {
        port.addresses
            .iter()
            .any(|network| network.address.is_ipv6())
    };
    if facts.forwards_ipv6 && ports.any(|port| is_ipv6(port) && shared(port).next().is_some()) {
        said.push(
            "net.ipv6.conf.all.forwarding is on: the kernel forwards its own copy of what the gateway does, past the NAT: set it to 0".to_owned(),
        );
    }
    let mut vips = config.vips();
    vips.retain(|vip| facts.addresses.contains_key(vip));
    let local_ips = config.ports.iter().flat_map(|port| &port.local_ips);
    let vips = vips.iter().map(|vip| ("VIP", vip));
    for (what, address) in vips.chain(local_ips.map(|address| ("LocalIP", address))) {
        if let Some(interface) = facts.addresses.get(address) {
            said.push(format!(
                "the kernel holds the {what} {address}, on {interface}, and answers for it too: ip address delete {address}/{} dev {interface}",
                if address.is_ipv6() { 128 } else { 32 }
            ));
        }
    }
    said
}

fn of_interface(port: &PortConfig, name: &str, interface: &Interface, said: &mut Vec<String>) {
    if interface.forwards_ipv4 {
        said.push(format!(
            "net.ipv4.conf.{name}.forwarding is on: the kernel forwards its own copy of what the gateway does, past the NAT: set net.ipv4.ip_forward to 0"
        ));
    }
    for (merges, feature) in [
        (interface.merges_in_software, "gro"),
        (interface.merges_in_hardware, "lro"),
    ] {
        if merges {
            said.push(format!(
                "{name} (port {}) merges the segments it receives into packets that the port does not take: ethtool -K {name} {feature} off",
                port.name
            ));
        }
    }
    if let Some(mtu) = interface.mtu.filter(|mtu| *mtu < port.mtu.into()) {
        said.push(format!(
            "{name} has an MTU of {mtu}, and port {} one of {}: what is longer gets lost: ip link set dev {name} mtu {}",
            port.name, port.mtu, port.mtu
        ));
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    const CONFIG: &str = r#"
[node]
id = "l4-1"
[[ports]]
name = "ext"
device = "net_af_packet0,iface=ext0"
address = ["10.2.0.11/24", "fd00:2::11/64"]
mtu = 3000
[[ports]]
name = "int"
device = "0000:3b:00.0"
address = "10.3.0.11/24"
local_ips = ["10.3.0.100"]
[[services]]
name = "web"
vip = "10.0.0.100"
protocol = "tcp"
port = 80
targets = [{ address = "10.3.0.21:8080" }]
"#;

    fn config() -> Config {
        let document = Document::from_toml("l4.toml", CONFIG).unwrap();
        document.parse(Config::parse).unwrap()
    }

    #[test]
    fn a_host_that_is_set_up_well_is_not_warned_of() {
        let ext = Interface {
            mtu: Some(3000),
            ..Interface::default()
        };
        let facts = Facts {
            addresses: [("10.2.0.11".parse().unwrap(), "ext0".to_owned())].into(),
            interfaces: [("ext0".to_owned(), ext)].into(),
            ..Facts::default()
        };
        assert!(warnings(&config(), &facts).is_empty());
        assert!(warnings(&config(), &Facts::default()).is_empty());
    }

    #[test]
    fn what_gets_in_the_way_is_told_with_what_to_do() {
        let ext = Interface {
            forwards_ipv4: true,
            mtu: Some(1500),
            merges_in_software: true,
            merges_in_hardware: true,
        };
        let address = |text: &str, interface: &str| (text.parse().unwrap(), interface.to_owned());
        let facts = Facts {
            addresses: [address("10.0.0.100", "lo"), address("10.3.0.100", "int0")].into(),
            forwards_ipv6: true,
            interfaces: [("ext0".to_owned(), ext)].into(),
        };
        assert_eq!(
            warnings(&config(), &facts),
            [
                "net.ipv4.conf.ext0.forwarding is on: the kernel forwards its own copy of what the gateway does, past the NAT: set net.ipv4.ip_forward to 0",
                "ext0 (port ext) merges the segments it receives into packets that the port does not take: ethtool -K ext0 gro off",
                "ext0 (port ext) merges the segments it receives into packets that the port does not take: ethtool -K ext0 lro off",
                "ext0 has an MTU of 1500, and port ext one of 3000: what is longer gets lost: ip link set dev ext0 mtu 3000",
                "net.ipv6.conf.all.forwarding is on: the kernel forwards its own copy of what the gateway does, past the NAT: set it to 0",
                "the kernel holds the VIP 10.0.0.100, on lo, and answers for it too: ip address delete 10.0.0.100/32 dev lo",
                "the kernel holds the LocalIP 10.3.0.100, on int0, and answers for it too: ip address delete 10.3.0.100/32 dev int0",
            ]
        );
    }

    #[test]
    fn hugepages_that_are_too_few_are_told_of_before_dpdk_fails_for_want_of_them() {
        let mut config = config();
        let needed = u64::from(Sizes::of(&config).packed_mebibytes);
        assert_eq!(hugepages(&config, Some(needed)), None);
        let said = hugepages(&config, Some(2)).unwrap();
        assert!(
            said.starts_with("2 MiB of hugepages were free at the start, and the node takes about"),
            "{said}"
        );
        assert_eq!(hugepages(&config, None), None);
        config.eal.huge_pages = false;
        assert_eq!(hugepages(&config, Some(0)), None);
    }
}
