//! `l4-gateway persistence`: which sources stay with which target.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use dataplane::{PersistenceView, SourcePrefix};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{CommandError, arguments, client};
use shared::cli::{Shown, cell, table};

use crate::actors::{ServiceView, View};
use crate::admin::{LIMIT, LISTED};
use crate::endpoint::Endpoint;
use crate::filter::End;
use crate::flows::left_out;
use crate::forwarder::Forwarder;
use crate::known;
use crate::range;
use crate::views::duration;

/// Which sources, and how they are shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Persistence {
    /// Only the source of this client
    #[arg(long, value_name = "ADDR")]
    client: Option<IpAddr>,
    /// Only sources of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only sources that stay with this target
    #[arg(long, value_name = "ADDR[:PORT]")]
    target: Option<Endpoint>,
    #[arg(long, default_value_t = LISTED, value_parser = range::parser(LIMIT), help = range::help("How many at most", &LIMIT))]
    limit: usize,
    #[command(flatten)]
    shown: Shown,
}

/// Arguments of `persistence`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    client: Option<IpAddr>,
    service: Option<String>,
    target: Option<Endpoint>,
    limit: Option<usize>,
}

/// Lists them.
pub(crate) async fn ask(admin: SocketAddr, wanted: &Persistence) -> Result<String, String> {
    let Persistence {
        client,
        service,
        target,
        limit,
        shown,
    } = wanted;
    let args = json!({ "client": client, "service": service, "target": target, "limit": limit });
    let list = async || client::command(admin, "persistence", &args).await;
    shown.show(list, text).await
}

fn text(answer: &Value) -> String {
    let sources = answer["sources"].as_array().map(Vec::as_slice);
    let row = |source: &Value| {
        let known = ["service", "group", "source", "target"].map(|key| cell(&source[key]));
        let left = source["expires_in_seconds"].as_u64();
        known
            .into_iter()
            .chain([duration(left.unwrap_or_default())])
            .collect::<Vec<String>>()
    };
    let rows: Vec<_> = sources.unwrap_or_default().iter().map(row).collect();
    table(&["service", "group", "source", "target", "expires"], &rows) + &left_out(answer)
}

/// Carries out `persistence`.
///
/// # Errors
/// If the arguments make no sense.
pub(crate) async fn persistence(
    forwarder: Arc<Forwarder>,
    view: Arc<View>,
    args: Value,
) -> Result<Value, CommandError> {
    let which: Which = arguments(args)?;
    let limit = which.limit.unwrap_or(LISTED);
    range::check("limit", limit, &LIMIT).map_err(CommandError::Invalid)?;
    let invalid = CommandError::Invalid;
    if let Some(name) = &which.service
        && known::service(&view, name)
            .map_err(invalid)?
            .persistence
            .is_none()
    {
        return Err(invalid(format!(
            "service {name:?} keeps no sources: it has no `persistence`"
        )));
    }
    // It goes through all that can be remembered, which may be much.
    let walk = move || find(&forwarder, &view, &which, limit);
    let found = tokio::task::spawn_blocking(walk).await;
    found.map_err(|error| CommandError::Failed(error.to_string()))?
}

fn find(
    forwarder: &Forwarder,
    view: &View,
    which: &Which,
    limit: usize,
) -> Result<Value, CommandError> {
    let tables = forwarder.tables();
    let mut sources = Vec::new();
    let mut left_out = 0_u64;
    let services = view.services.iter();
    let services: HashMap<_, _> = services
        .filter_map(|service| Some((service.id?, service)))
        .collect();
    let wanted = view.services.iter();
    let wanted = wanted.filter(|service| which.service.as_ref() == Some(&service.name));
    let wanted: Vec<_> = wanted.collect();
    for found in forwarder.counters().persistence(&tables, forwarder.now()) {
        // One that the view does not have yet.
        let Some(service) = services.get(&found.service) else {
            continue;
        };
        let is_of_service = wanted.iter().any(|wanted| is_for(wanted, service));
        let is_wanted = (which.service.is_none() || is_of_service)
            && which.target.is_none_or(|target| is_at(&found, target))
            && which.client.is_none_or(|client| is_of(client, &found));
        if !is_wanted {
            continue;
        }
        if sources.len() >= limit {
            left_out += 1;
            continue;
        }
        sources.push(json!({
            "service": service.name,
            "group": service.persistence_group,
            "source": source(&found),
            "target": target(&found),
            "expires_in_seconds": found.expires_in.as_secs(),
        }));
    }
    // A target that is known no more may be remembered yet.
    if let Some(target) = which.target
        && sources.is_empty()
        && left_out == 0
        && let Some(why) = known::target(meant(target, view, which), asked_for(view, which))
    {
        return Err(CommandError::Invalid(why));
    }
    Ok(json!({ "sources": sources, "left_out": left_out }))
}

/// What a target stands for: in a group, all of its host.
fn meant(Endpoint(target): Endpoint, view: &View, which: &Which) -> End {
    let in_group = |service: &ServiceView| service.persistence_group.is_some();
    match target.port() == 0 || asked_for(view, which).any(in_group) {
        true => End::of_host(target.ip()).unwrap_or(End::Socket(target)),
        false => End::Socket(target),
    }
}

/// The services whose sources are meant, of those that keep any.
fn asked_for<'v>(view: &'v View, which: &Which) -> impl Iterator<Item = &'v ServiceView> {
    let services = view.services.iter();
    services.filter(move |service| {
        let wanted = which.service.as_ref();
        service.persistence.is_some() && wanted.is_none_or(|wanted| service.name == *wanted)
    })
}

/// Whether what a service remembers is for another, or for it itself.
fn is_for(wanted: &ServiceView, remembers: &ServiceView) -> bool {
    let group = |service: &ServiceView| service.persistence?.group;
    wanted.name == remembers.name || group(wanted).is_some() && group(wanted) == group(remembers)
}

/// Whether a source stays with a target; in a group, or where no port is named, with any on its host.
fn is_at(found: &PersistenceView, Endpoint(target): Endpoint) -> bool {
    match found.group.is_some() || target.port() == 0 {
        true => found.target.ip() == target.ip(),
        false => found.target == target,
    }
}

/// Where a source's new flows go: a target, or in a group, a host.
fn target(found: &PersistenceView) -> String {
    match found.group {
        Some(_) => found.target.ip().to_string(),
        None => Endpoint(found.target).to_string(),
    }
}

/// Whether a client is of a source.
fn is_of(client: IpAddr, found: &PersistenceView) -> bool {
    let client = client.to_canonical();
    let prefix = SourcePrefix {
        v4: found.prefix,
        v6: found.prefix,
    };
    client.is_ipv4() == found.source.is_ipv4() && prefix.of(client) == found.source
}

/// An address, or a network where many are one source.
fn source(found: &PersistenceView) -> String {
    let longest = if found.source.is_ipv4() { 32 } else { 128 };
    match found.prefix {
        prefix if prefix == longest => found.source.to_string(),
        prefix => format!("{}/{prefix}", found.source),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::{PersistenceGroup, ServiceId};

    use super::*;

    #[test]
    fn a_source_of_a_group_is_at_a_host_and_one_of_a_service_at_a_target() {
        let found = |group, target: &str| PersistenceView {
            service: ServiceId(0),
            group,
            source: "10.2.0.1".parse().unwrap(),
            prefix: 32,
            target: target.parse().unwrap(),
            expires_in: Duration::ZERO,
        };
        let group = Some(PersistenceGroup::new([10, 0, 0, 100].into(), "web"));
        for (group, at, shown, here, elsewhere) in [
            (
                None,
                "10.3.0.21:80",
                "10.3.0.21:80",
                "10.3.0.21:80",
                "10.3.0.21:81",
            ),
            (
                None,
                "10.3.0.21:80",
                "10.3.0.21:80",
                "10.3.0.21",
                "10.3.0.22",
            ),
            (
                None,
                "10.3.0.21:0",
                "10.3.0.21:*",
                "10.3.0.21",
                "10.3.0.21:80",
            ),
            (
                group,
                "10.3.0.21:80",
                "10.3.0.21",
                "10.3.0.21:443",
                "10.3.0.22:80",
            ),
        ] {
            let found = found(group, at);
            assert_eq!(target(&found), shown);
            assert!(is_at(&found, here.parse().unwrap()), "{here}");
            assert!(!is_at(&found, elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }

    #[test]
    fn a_source_is_an_address_or_a_network_and_its_clients_are_known() {
        let found = |source: &str, prefix| PersistenceView {
            service: ServiceId(0),
            group: None,
            source: source.parse().unwrap(),
            prefix,
            target: "10.3.0.21:80".parse().unwrap(),
            expires_in: Duration::ZERO,
        };
        for (address, prefix, shown, inside, outside) in [
            ("10.2.0.1", 32, "10.2.0.1", "10.2.0.1", "10.2.0.2"),
            ("10.2.0.0", 24, "10.2.0.0/24", "10.2.0.77", "10.2.1.0"),
            ("10.2.0.0", 24, "10.2.0.0/24", "::ffff:10.2.0.77", "::"),
            ("0.0.0.0", 0, "0.0.0.0/0", "10.2.0.77", "::1"),
            ("2001:db8::", 64, "2001:db8::/64", "2001:db8::9", "10.2.0.1"),
            (
                "2001:db8::1",
                128,
                "2001:db8::1",
                "2001:db8::1",
                "2001:db8::2",
            ),
        ] {
            let found = found(address, prefix);
            assert_eq!(source(&found), shown);
            assert!(is_of(inside.parse().unwrap(), &found), "{inside}");
            assert!(!is_of(outside.parse().unwrap(), &found), "{outside}");
        }
    }
}
