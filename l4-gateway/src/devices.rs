//! The device strings that EAL is told for a port, and their kernel interfaces: what drivers want beside what the configuration says.

use dataplane::MacAddr;

use crate::config::PortConfig;
use crate::dpdk::{Device, DpdkError, Eal, Interface, Link, has_carrier};

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
        if needed(port.mtu) > u32::from(LEAST_ROOM)
            && device.argument("framesz").is_none()
            && device.argument("blocksz").is_none()
        {
            let size = slot(port.mtu);
            device = device
                .with_argument("blocksz", size)
                .with_argument("framesz", size);
        }
    }
    device
}

/// Bytes of an af_packet slot that packets of this length need: the frame, and some 60 for the driver's header.
pub(crate) fn needed(mtu: u16) -> u32 {
    u32::from(mtu + ETHERNET) + 64
}

/// The size of an af_packet slot for packets of this length: the driver's own, where that is enough.
pub(crate) fn slot(mtu: u16) -> u32 {
    match needed(mtu) {
        needed if needed <= u32::from(LEAST_ROOM) => LEAST_ROOM.into(),
        needed => needed.next_power_of_two().max(4096),
    }
}

/// What the port's driver is told of its MTU. af_packet names 1500 as its longest (22.11), and DPDK refuses more, though frames of any length pass that its
/// slots have room for: see [`sized`]. So it is told nothing; the kernel's interface has the MTU.
pub(crate) fn mtu(port: &PortConfig) -> Option<u16> {
    let mut devices = port.members.iter().chain([&port.device]);
    let is_af_packet = devices.any(|device| device.driver() == Some("net_af_packet"));
    (!is_af_packet).then_some(port.mtu)
}

/// The name of the kernel's interface below a device whose driver does not watch the link.
pub(crate) fn interface_name(device: &Device) -> Option<&str> {
    match device.driver() {
        Some("net_af_packet") => device.argument("iface"),
        _ => None,
    }
}

/// The kernel's interface below a device whose driver does not watch the link.
///
/// # Errors
/// When it is not there any more.
pub(crate) fn interface(device: &Device) -> Result<Option<Interface>, DpdkError> {
    interface_name(device).map(Interface::open).transpose()
}

/// The link as the kernel sees it, where there is an interface to ask about: af_packet reports one that is always up.
pub(crate) fn carrier(interface: Option<&Interface>, link: Link) -> Link {
    let Some(interface) = interface else {
        return link;
    };
    let up = !interface.is_gone() && interface.has_carrier().unwrap_or(link.up);
    Link { up, ..link }
}

/// An interface that was taken from under a port, which only a restart opens again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostInterface {
    /// As the configuration has it.
    pub(crate) name: String,
    /// Whether one of that name is there again, up and with a carrier.
    pub(crate) is_back: bool,
}

impl LostInterface {
    /// `None` while the interface is the one that was opened.
    pub(crate) fn of(interface: &Interface) -> Option<LostInterface> {
        interface.is_gone().then(|| LostInterface {
            name: interface.name().to_owned(),
            is_back: has_carrier(interface.name()) == Some(true),
        })
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
