//! The device strings that EAL is told for a port, and their kernel interfaces: what drivers want beside what the configuration says.

use dataplane::MacAddr;

use crate::config::PortConfig;
use crate::dpdk::{Device, Eal, Link};

/// Room for an ordinary frame with a VLAN tag, and what most drivers want at least.
pub(crate) const LEAST_ROOM: u16 = 2048;
/// Ethernet header with two VLAN tags.
pub(crate) const ETHERNET: u16 = 22;

/// All devices of a port, members before the bond that takes them.
pub(crate) fn devices(port: &PortConfig) -> Vec<Device> {
    let members = port.members.iter().map(|member| sized(port, member));
    members.chain([device(port)]).collect()
}

/// The device that the port's frames come from.
pub(crate) fn device(port: &PortConfig) -> Device {
    let mut device = sized(port, &port.device);
    for member in &port.members {
        device = device.with_argument(member_argument(&Eal::version()), member.name());
    }
    device
}

/// What a bond calls a member: another word since 23.11.
fn member_argument(version: &str) -> &'static str {
    let release = version.trim_start_matches("DPDK ");
    let (year, month) = release.split_once('.').unwrap_or_default();
    let month = month.split('.').next().unwrap_or_default();
    match (year.parse::<u32>(), month.parse::<u32>()) {
        (Ok(year), Ok(month)) if (year, month) < (23, 11) => "slave",
        _ => "member",
    }
}

/// af_packet wants its sockets and its frames' room in the device string.
fn sized(port: &PortConfig, device: &Device) -> Device {
    let mut device = device.clone();
    if device.driver() == Some("net_af_packet") {
        if port.queues > 1 && device.argument("qpairs").is_none() {
            device = device.with_argument("qpairs", port.queues);
        }
        // The driver's own slots are 2048 bytes, some 60 of them for its header.
        let needed = u32::from(port.mtu + ETHERNET) + 64;
        if needed > u32::from(LEAST_ROOM)
            && device.argument("framesz").is_none()
            && device.argument("blocksz").is_none()
        {
            let size = needed.next_power_of_two().max(4096);
            device = device
                .with_argument("blocksz", size)
                .with_argument("framesz", size);
        }
    }
    device
}

/// The kernel's interface below a device whose driver does not watch the link.
pub(crate) fn interface(device: &Device) -> Option<String> {
    match device.driver() {
        Some("net_af_packet") => device.argument("iface").map(str::to_owned),
        _ => None,
    }
}

/// The link as the kernel sees it, where there is an interface to ask about: af_packet reports one that is always up.
pub(crate) fn carrier(interface: Option<&str>, link: Link) -> Link {
    let carrier =
        interface.map(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/carrier")));
    match carrier {
        Some(Ok(carrier)) => Link {
            up: carrier.trim() == "1",
            ..link
        },
        // The file of an interface that is set down can't be read; without sysfs, nothing is known.
        Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
            Link { up: false, ..link }
        }
        _ => link,
    }
}

/// The kernel behind a port must use the port's MAC address, or the answers to what it sends would not be for the port.
pub(crate) fn exception_device(device: &Device, mac: MacAddr) -> Device {
    match device.driver() {
        Some("net_tap" | "virtio_user" | "net_virtio_user") if device.argument("mac").is_none() => {
            device.clone().with_argument("mac", mac)
        }
        _ => device.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_as_the_release_wants_it() {
        for (version, word) in [
            ("DPDK 22.11.11", "slave"),
            ("DPDK 23.07.0", "slave"),
            ("DPDK 23.11.0", "member"),
            ("DPDK 24.11.2-rc1", "member"),
        ] {
            assert_eq!(member_argument(version), word, "{version}");
        }
    }
}
