//! What is wrong with a port's device strings, which DPDK itself says at the start only, and in few words.
//!
//! Of af_packet all arguments are known, so all are looked at. The driver takes numbers as far as they are some (`atoi`), and the kernel refuses rings
//! that don't divide evenly.

use shared::config::Table;

use crate::devices::{LEAST_ROOM, needed, slot};
use crate::dpdk::Device;

/// What af_packet takes.
const ARGUMENTS: [&str; 6] = [
    "iface",
    "qpairs",
    "blocksz",
    "framesz",
    "framecnt",
    "qdisc_bypass",
];
/// Longest name of an interface, in bytes (IFNAMSIZ without its end).
const LONGEST_NAME: usize = 15;
/// What slots begin at multiples of (TPACKET_ALIGNMENT), and the largest whose frames fit a buffer.
const ALIGNMENT: u32 = 16;
const LARGEST_SLOT: u32 = 65_392;
const PAGE: u32 = 4096;
/// Slots of a ring unless given.
const SLOTS: u32 = 512;
/// What the bonding driver gives its af_packet members, whatever the port's MTU is.
const MTU_OF_BONDED: u16 = 1500;

/// What is wrong, and what to do.
pub(super) type Wrong = (String, String);

/// What is wrong with one device of a port of so many queues and this MTU.
pub(super) fn mistake(device: &Device, queues: u16, mtu: u16) -> Option<Wrong> {
    if let Some(name) = device.argument("iface")
        && let Err(why) = interface_name(name)
    {
        return Some((why, "name one of `ip link`".into()));
    }
    match device.driver() {
        Some("net_af_packet") => af_packet(device, queues, mtu).err(),
        Some("eth_af_packet") => Some((
            "eth_af_packet is the driver's old name".into(),
            "write \"net_af_packet0,iface=eth0\"".into(),
        )),
        _ => None,
    }
}

/// What is wrong with the MTU of a bond of af_packet members.
pub(super) fn mtu_of_bond(members: &[Device], mtu: u16) -> Option<Wrong> {
    let is_af_packet = |member: &Device| member.driver() == Some("net_af_packet");
    (mtu > MTU_OF_BONDED && members.iter().any(is_af_packet)).then(|| {
        let why =
            format!("a bond of af_packet members takes no more than {MTU_OF_BONDED}, got {mtu}");
        (
            why,
            "leave it out, or use the kernel's own bond as the interface of one af_packet device"
                .into(),
        )
    })
}

fn interface_name(name: &str) -> Result<(), String> {
    let is_name = (1..=LONGEST_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', ':']);
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "iface={name} can't be an interface: expected 1 to {LONGEST_NAME} bytes without `/` and `:`"
        )),
    }
}

fn af_packet(device: &Device, queues: u16, mtu: u16) -> Result<(), Wrong> {
    for (index, (key, value)) in device.arguments().enumerate() {
        let known = || format!("af_packet takes {}", ARGUMENTS.join(", "));
        if !ARGUMENTS.contains(&key) {
            return Err((format!("unknown argument {key:?}"), known()));
        }
        if value.is_none() {
            return Err((format!("{key} has no value"), format!("write {key}=...")));
        }
        if device
            .arguments()
            .take(index)
            .any(|(before, _)| before == key)
        {
            return Err((format!("{key} is there twice"), "leave one out".into()));
        }
    }
    if device.argument("iface").is_none() {
        let hint = format!("write \"{},iface=eth0\"", device.name());
        return Err(("the interface is missing".into(), hint));
    }
    if let Some(bypass) = device.argument("qdisc_bypass")
        && !["0", "1"].contains(&bypass)
    {
        return Err((
            format!("expected qdisc_bypass=0 or qdisc_bypass=1, got {bypass}"),
            "leave it out for 1".into(),
        ));
    }
    if let Some(pairs) = number(device, "qpairs", 1)?
        && pairs < u32::from(queues)
    {
        return Err((
            format!("qpairs={pairs} is less than the port's queues ({queues})"),
            "leave it out: it follows from `queues`".into(),
        ));
    }
    ring(device, mtu)
}

/// Whether the ring's slots fit its blocks, and frames fit the slots.
fn ring(device: &Device, mtu: u16) -> Result<(), Wrong> {
    let (slot_given, block_given) = (
        number(device, "framesz", ALIGNMENT)?,
        number(device, "blocksz", PAGE)?,
    );
    let framecnt = number(device, "framecnt", 1)?;
    let follows = "leave framesz and blocksz out: they follow from `mtu`";
    let (size, block) = match (slot_given, block_given) {
        // Chosen to fit: see `devices::sized`.
        (None, None) => {
            let size = slot(mtu);
            (size, size.max(PAGE))
        }
        (size, block) => (size.unwrap_or(LEAST_ROOM.into()), block.unwrap_or(PAGE)),
    };
    if !size.is_multiple_of(ALIGNMENT) || size > LARGEST_SLOT {
        let why = format!(
            "expected framesz as a multiple of {ALIGNMENT} up to {LARGEST_SLOT}, got {size}"
        );
        return Err((why, follows.into()));
    }
    if size < needed(mtu) {
        let why =
            format!("slots of {size} bytes (framesz) have no room for packets of {mtu} (mtu)");
        return Err((why, follows.into()));
    }
    if !block.is_multiple_of(PAGE) || !block.is_multiple_of(size) {
        let why = format!(
            "expected blocksz as a multiple of {PAGE} and of the slots of {size} bytes (framesz), got {block}"
        );
        return Err((why, follows.into()));
    }
    let slots = framecnt.unwrap_or(SLOTS);
    if !slots.is_multiple_of(block / size) {
        let why = format!(
            "expected framecnt as a multiple of the {} slots of a block, got {slots}",
            block / size
        );
        return Err((why, "leave it out for 512".into()));
    }
    Ok(())
}

/// An argument that is a number, if it is there.
fn number(device: &Device, key: &str, least: u32) -> Result<Option<u32>, Wrong> {
    let Some(text) = device.argument(key) else {
        return Ok(None);
    };
    match text.parse::<u32>() {
        Ok(number) if number >= least && number <= 1 << 30 => Ok(Some(number)),
        _ => Err((
            format!("expected {key}={least} or more, got {key}={text}"),
            "leave it out".into(),
        )),
    }
}

/// The devices of a port, each with the key that names it.
pub(super) fn written(port: &Table<'_>) -> Vec<(&'static str, Device)> {
    let members = port.peek::<Vec<Device>>("members").unwrap_or_default();
    let device = port.peek("device").map(|device| ("device", device));
    let members = members.into_iter().map(|member| ("members", member));
    let exception = port.peek("exception").map(|device| ("exception", device));
    device.into_iter().chain(members).chain(exception).collect()
}
