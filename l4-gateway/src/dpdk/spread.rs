//! How a port spreads frames over its queues: what its driver says is in force, and rules of our own.

use std::ffi::{CStr, c_char};
use std::net::IpAddr;

use dataplane::{Fields, Hashed, Protocol, Rss};

use super::DpdkError;

/// Random bytes from which ports take as many for their RSS key as they want. Who knows the key can send everything to one queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RssKey(pub [u8; 64]);

impl std::fmt::Debug for RssKey {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("RssKey(..)")
    }
}

/// Bytes of a key where the driver doesn't say: what the specification has.
const USUAL_KEY: u8 = 40;

impl RssKey {
    /// The key for a driver that says it wants this many bytes (0 if it doesn't say); none if it wants more than there are.
    pub(super) fn bytes(&self, wanted: u8) -> Option<&[u8]> {
        let wanted = if wanted == 0 { USUAL_KEY } else { wanted };
        self.0.get(..usize::from(wanted))
    }
}

/// Has a started port use its `queues` alike, and reads back from its driver what it does in the end; `entries` is the length of its
/// redirection table.
///
/// # Errors
/// Why nobody can tell what it does: the driver doesn't, or it is something else than the specification.
pub(super) fn even(id: u16, entries: u16, queues: u16) -> Result<Rss, String> {
    // SAFETY: the port is started.
    let status = unsafe { dpdk_sys::weir_eth_rss_spread(id, entries, queues) };
    if status != 0 {
        // Drivers have a table that is even already, or none that can be set. What counts is read next.
        let error = DpdkError::from_status("setting the redirection table", status);
        tracing::debug!(port = id, %error, "the driver's own table stays");
    }
    let mut rss = dpdk_sys::weir_rss::default();
    // SAFETY: the port is started; `rss` is a live place for the result.
    let status = unsafe { dpdk_sys::weir_eth_rss(id, entries, &mut rss) };
    if status != 0 {
        return Err(
            DpdkError::from_status("the driver does not say what it hashes", status).to_string(),
        );
    }
    if rss.is_toeplitz == 0 || rss.types >> dpdk_sys::WEIR_RSS_FIRST_MODIFIER != 0 {
        return Err("the port does not hash by Toeplitz over whole addresses and ports".into());
    }
    let hashed = hashed(rss.types);
    if hashed == Hashed::default() {
        return Err("the port hashes neither addresses nor ports".into());
    }
    let key = rss.key.get(..usize::from(rss.key_length));
    let redirection = rss.queues.get(..usize::from(rss.entries));
    Rss::new(key.unwrap_or(&[]), hashed, redirection.unwrap_or(&[]))
        .map_err(|error| error.to_string())
}

/// From DPDK's bits. A port that hashes IPv4 but not TCP over it takes TCP for any other IPv4.
fn hashed(types: u64) -> Hashed {
    let fields = |ports: u64, addresses: u64| {
        if types & ports != 0 {
            Fields::AddressesAndPorts
        } else if types & addresses != 0 {
            Fields::Addresses
        } else {
            Fields::Nothing
        }
    };
    Hashed {
        tcp_v4: fields(dpdk_sys::WEIR_RSS_IPV4_TCP, dpdk_sys::WEIR_RSS_IPV4),
        udp_v4: fields(dpdk_sys::WEIR_RSS_IPV4_UDP, dpdk_sys::WEIR_RSS_IPV4),
        tcp_v6: fields(dpdk_sys::WEIR_RSS_IPV6_TCP, dpdk_sys::WEIR_RSS_IPV6),
        udp_v6: fields(dpdk_sys::WEIR_RSS_IPV6_UDP, dpdk_sys::WEIR_RSS_IPV6),
    }
}

/// Has a started port give packets to `address` to the queue that is their destination port modulo `queues`, by rules on the low
/// bits of the port (rte_flow). They can be asked for while frames come.
///
/// # Errors
/// Why they are not in force: `queues` is no power of two, so that low bits don't tell the queue, or what the driver said. Those made
/// before are taken back, so that who asks again has none twice.
pub(super) fn steer_by_port(id: u16, address: IpAddr, queues: u16) -> Result<(), String> {
    if !queues.is_power_of_two() {
        return Err(format!(
            "low bits of a port don't tell which of {queues} queues it belongs to"
        ));
    }
    let rules = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .flat_map(|protocol| {
            (0..queues).map(move |queue| rule(address, protocol, queue, queues - 1))
        });
    let make = |rule| {
        let mut made = std::ptr::null_mut();
        // SAFETY: the port is started; the rule, the place and the text outlive the call, and the size is the text's.
        asked(|why, size| unsafe {
            dpdk_sys::weir_port_rule_create(id, &rule, &mut made, why, size)
        })
        .map(|()| made)
    };
    let take_back = |made| {
        // SAFETY: the port is still started, and the rule is one it made and that nobody has taken back; the rest as above.
        let taken =
            asked(|why, size| unsafe { dpdk_sys::weir_port_rule_destroy(id, made, why, size) });
        if let Err(why) = taken {
            tracing::warn!(port = id, %address, why, "a rule on local ports stays without the others");
        }
    };
    all_or_none(rules, make, take_back)
}

/// Makes all of `rules`, or takes back those that were made, the last first: the order in which DPDK promises that it goes.
///
/// # Errors
/// Why the first that could not be made was not.
fn all_or_none<R, M>(
    rules: impl Iterator<Item = R>,
    make: impl Fn(R) -> Result<M, String>,
    take_back: impl Fn(M),
) -> Result<(), String> {
    let mut all = Vec::new();
    for rule in rules {
        match make(rule) {
            Ok(made) => all.push(made),
            Err(why) => {
                all.into_iter().rev().for_each(take_back);
                return Err(why);
            }
        }
    }
    Ok(())
}

fn rule(address: IpAddr, protocol: Protocol, queue: u16, mask: u16) -> dpdk_sys::weir_port_rule {
    let mut bytes = [0; 16];
    let is_ipv6 = match address {
        IpAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.octets());
            0
        }
        IpAddr::V6(address) => {
            bytes = address.octets();
            1
        }
    };
    dpdk_sys::weir_port_rule {
        address: bytes,
        is_ipv6,
        protocol: protocol as u8,
        value: queue,
        mask,
        queue,
    }
}

/// Calls a function that answers by a status and a text.
fn asked(ask: impl FnOnce(*mut c_char, usize) -> i32) -> Result<(), String> {
    let mut why = [0; 128];
    let status = ask(why.as_mut_ptr(), why.len());
    if status == 0 {
        return Ok(());
    }
    let error = DpdkError::from_status("rte_flow", status).to_string();
    let bytes = why.map(|letter| letter as u8);
    match CStr::from_bytes_until_nul(&bytes) {
        Ok(text) if !text.is_empty() => Err(format!("{error} ({})", text.to_string_lossy())),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::all_or_none;

    #[test]
    fn rules_made_before_one_is_refused_are_taken_back_last_first() {
        let in_force = RefCell::new(Vec::new());
        let room_for = |room: usize| {
            let in_force = &in_force;
            move |rule: u16| {
                let mut in_force = in_force.borrow_mut();
                if in_force.len() == room {
                    return Err(format!("no room for {rule}"));
                }
                in_force.push(rule);
                Ok(rule)
            }
        };
        let take_back = |rule| assert_eq!(in_force.borrow_mut().pop(), Some(rule));
        let refused = all_or_none(0..4, room_for(3), take_back);
        assert_eq!(refused, Err("no room for 3".to_owned()));
        assert!(in_force.borrow().is_empty());
        assert_eq!(all_or_none(0..4, room_for(4), take_back), Ok(()));
        assert_eq!(*in_force.borrow(), [0, 1, 2, 3]);
    }
}
