//! Whether what an operator names is there. An answer without anything in it would leave that open: a mistyped address has no flows either.

use std::net::SocketAddr;

use dataplane::Tables;
use shared::admin::no_such;

use crate::actors::{ServiceView, View};
use crate::filter::{End, FlowFilter};

/// The service of a name.
///
/// # Errors
/// If there is none: what there is.
pub(crate) fn service<'v>(view: &'v View, name: &str) -> Result<&'v ServiceView, String> {
    let mut services = view.services.iter();
    let found = services.find(|service| service.name == name);
    found.ok_or_else(|| no_such("service", name, names(view)))
}

fn names(view: &View) -> impl Iterator<Item = &str> {
    view.services.iter().map(|service| service.name.as_str())
}

/// What a filter that no flow matches names in vain, if anything. Asked only then: flows may go on with targets and addresses that are known no more.
pub(crate) fn missing(filter: &FlowFilter, view: &View, tables: &Tables) -> Option<String> {
    let services = view.services.iter();
    let services = || {
        services
            .clone()
            .filter(|service| filter.service.is_none() || service.id == filter.service)
    };
    if let Some(end) = filter.ends.target
        && let Some(why) = target(end, services())
    {
        return Some(why);
    }
    // Port 0 stands for every one of a range.
    let port = |service: &ServiceView| service.port.0.single().unwrap_or_default();
    let vips = services().map(|service| SocketAddr::new(service.vip, port(service)));
    if let Some(end) = filter.ends.vip
        && let Some(why) = other_than(end, "VIP", vips)
    {
        return Some(why);
    }
    // Any port of a LocalIP may be a flow's.
    let local_ips = tables.local_ips().iter();
    let local_ips = local_ips.map(|local| SocketAddr::new(local.address, 0));
    filter
        .ends
        .local
        .and_then(|end| other_than(end, "LocalIP", local_ips))
}

/// Why no target of these services is meant, if so.
pub(crate) fn target<'v>(
    end: End,
    services: impl Iterator<Item = &'v ServiceView>,
) -> Option<String> {
    let targets = services.flat_map(|service| &service.targets);
    other_than(end, "target", targets.map(|target| target.address.0))
}

/// Why an end is none of those that are known, if so.
fn other_than(end: End, what: &str, known: impl Iterator<Item = SocketAddr>) -> Option<String> {
    let known: Vec<SocketAddr> = known.collect();
    if known.iter().any(|address| end.matches(*address)) {
        return None;
    }
    let shown = |address: &SocketAddr| match (end, address.port()) {
        (End::Network(_), _) | (_, 0) => address.ip().to_string(),
        (End::Socket(_), _) => address.to_string(),
    };
    let known: Vec<String> = known.iter().map(shown).collect();
    let known = known.iter().map(String::as_str);
    let end = match end {
        End::Network(network) if network.is_one_address() => network.address().to_string(),
        end => end.to_string(),
    };
    Some(no_such(what, &end, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_none_of_those_known_is_told_with_what_is() {
        let known: [SocketAddr; 2] =
            ["10.3.0.21:8080", "10.3.0.22:8080"].map(|a| a.parse().unwrap());
        let asked = |end: &str| other_than(end.parse().unwrap(), "target", known.into_iter());
        for end in ["10.3.0.21:8080", "10.3.0.22", "10.3.0.0/24"] {
            assert_eq!(asked(end), None);
        }
        for (end, told) in [
            (
                "10.3.0.21:80",
                "target \"10.3.0.21:80\": expected one of 10.3.0.21:8080, 10.3.0.22:8080",
            ),
            (
                "10.3.0.23",
                "target \"10.3.0.23\": expected one of 10.3.0.21, 10.3.0.22",
            ),
        ] {
            assert_eq!(asked(end).as_deref(), Some(told));
        }
        let local = ["10.3.0.100:0".parse().unwrap()].into_iter();
        assert_eq!(
            other_than("10.3.0.100:40312".parse().unwrap(), "LocalIP", local),
            None
        );
    }
}
