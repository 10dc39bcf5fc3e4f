//! The routers of a port: its gateways, and those that routes go by.

use std::net::IpAddr;

use dataplane::{MOST_NEXT_HOPS, NextHops, Sharing};
use shared::config::{FromValue, Table, Value};

use super::{Network, network_for};

/// How flows use several routers.
pub(super) const SHARING: [(&str, Sharing); 2] =
    [("in_order", Sharing::InOrder), ("by_flow", Sharing::ByFlow)];

/// A mistake was recorded.
pub(super) struct Recorded;

/// The routers for what no route covers.
pub(super) fn gateways(
    table: &mut Table<'_>,
    port: Option<&[Network]>,
) -> Result<Vec<IpAddr>, Recorded> {
    let gateways = some_routers(table, "gateway")?;
    next_hops(table, "gateway", port.ok_or(Recorded)?, &gateways)?;
    Ok(gateways)
}

fn some_routers(table: &mut Table<'_>, key: &'static str) -> Result<Vec<IpAddr>, Recorded> {
    if !table.has(key) {
        return Ok(Vec::new());
    }
    let Routers(routers) = table.optional::<Routers>(key).ok_or(Recorded)?;
    Ok(routers)
}

/// The routers of a route, if any are named: of its family.
pub(super) fn via(
    table: &mut Table<'_>,
    port: Option<&[Network]>,
    to: Option<Network>,
) -> Result<NextHops<IpAddr>, Recorded> {
    let via = some_routers(table, "via");
    let sharing = table.one_of_or("next_hops", &SHARING, Sharing::InOrder);
    let (via, port, to) = (via?, port.ok_or(Recorded)?, to.ok_or(Recorded)?);
    if network_for(port, to.address).is_none() {
        let message = format!("the port has no address of the family of {to}");
        table.mistake("to", message, "add one to the port's `address`");
        return Err(Recorded);
    }
    let (same, other): (Vec<IpAddr>, Vec<IpAddr>) = via
        .iter()
        .partition(|address| address.is_ipv6() == to.address.is_ipv6());
    for address in &other {
        let message = format!("{address} is not of the family of {to}");
        table.mistake("via", message, "name a router of the same family");
    }
    next_hops(table, "via", port, &same)?;
    match other.is_empty() {
        true => NextHops::new(via, sharing).ok_or(Recorded),
        false => Err(Recorded),
    }
}

/// Whether all routers can be reached; a mistake is recorded for each that can't.
fn next_hops(
    table: &mut Table<'_>,
    key: &'static str,
    port: &[Network],
    routers: &[IpAddr],
) -> Result<(), Recorded> {
    let reached = routers
        .iter()
        .map(|router| next_hop(table, key, port, *router));
    // Each is looked at, whatever the one before was.
    let reached: Vec<_> = reached.collect();
    reached.into_iter().collect()
}

/// Whether a router can be reached: in the port's network or link-local, and not the port itself.
fn next_hop(
    table: &mut Table<'_>,
    key: &'static str,
    port: &[Network],
    address: IpAddr,
) -> Result<(), Recorded> {
    let Some(port) = network_for(port, address) else {
        table.mistake(
            key,
            format!("the port has no address of the family of {address}"),
            "add one to the port's `address`",
        );
        return Err(Recorded);
    };
    if address == port.address {
        table.mistake(
            key,
            format!("{address} is the port's own address"),
            "name the router's",
        );
        return Err(Recorded);
    }
    if let Some(why) = port.reserves(address) {
        table.mistake(key, why, "name the router's");
        return Err(Recorded);
    }
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if !port.contains(address) && !is_link_local {
        table.mistake(
            key,
            format!("{address} is not in the port's network {port}"),
            "a next hop is on the port's segment",
        );
        return Err(Recorded);
    }
    Ok(())
}

/// One router, or several in order: of each family no more than a route may have.
struct Routers(Vec<IpAddr>);

impl FromValue for Routers {
    const EXPECTED: &'static str = "an IP address, or a list of them";

    fn wrong_items(value: &Value) -> Vec<(usize, String)> {
        let unreadable = Vec::<IpAddr>::wrong_items(value);
        let Ok(routers) = Vec::<IpAddr>::from_value(value) else {
            return unreadable;
        };
        let twice = routers.iter().enumerate().filter_map(|(place, router)| {
            let is_again = routers.iter().take(place).any(|before| before == router);
            is_again.then(|| (place, format!("{router} is given twice")))
        });
        twice.collect()
    }

    fn from_value(value: &Value) -> Result<Self, String> {
        let routers = match value {
            Value::Array(_) => Vec::from_value(value)?,
            _ => vec![IpAddr::from_value(value)?],
        };
        if routers.is_empty() {
            return Err(format!("the list is empty: write {}", Self::EXPECTED));
        }
        if let Some((_, why)) = Self::wrong_items(value).into_iter().next() {
            return Err(why);
        }
        for is_ipv6 in [false, true] {
            let of_family = routers.iter().filter(|router| router.is_ipv6() == is_ipv6);
            let count = of_family.count();
            if count > MOST_NEXT_HOPS {
                return Err(format!(
                    "{count} routers of one family are more than {MOST_NEXT_HOPS}"
                ));
            }
        }
        Ok(Self(routers))
    }
}
