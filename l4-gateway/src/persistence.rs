//! `l4-gateway persistence`: which sources stay with which target.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use dataplane::{PersistenceView, SourcePrefix};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{CommandError, arguments, client};
use shared::cli::{Watch, address_and_port, cell, table};

use crate::actors::View;
use crate::admin::{LIMIT, LISTED};
use crate::forwarder::Forwarder;
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
    #[arg(long, value_name = "ADDR:PORT", value_parser = address_and_port)]
    target: Option<SocketAddr>,
    #[arg(long, default_value_t = LISTED, value_parser = range::parser(LIMIT), help = range::help("How many at most", &LIMIT))]
    limit: usize,
    /// Show them as JSON: one document, with --watch one line each time
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: Watch,
}

/// Arguments of `persistence`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    client: Option<IpAddr>,
    service: Option<String>,
    target: Option<SocketAddr>,
    limit: Option<usize>,
}

/// Lists them.
pub(crate) async fn ask(admin: SocketAddr, wanted: &Persistence) -> Result<String, String> {
    wanted.watch.show(async || list(admin, wanted).await).await
}

async fn list(admin: SocketAddr, wanted: &Persistence) -> Result<String, String> {
    let Persistence {
        client,
        service,
        target,
        limit,
        json,
        watch,
    } = wanted;
    let args = json!({ "client": client, "service": service, "target": target, "limit": limit });
    let answer = client::command(admin, "persistence", &args).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if *json {
        return Ok(match watch.repeats() {
            true => format!("{answer}\n"),
            false => format!("{answer:#}\n"),
        });
    }
    let sources = answer["sources"].as_array().map(Vec::as_slice);
    let row = |source: &Value| {
        let known = ["service", "source", "target"].map(|key| cell(&source[key]));
        let left = source["expires_in_seconds"].as_u64();
        known
            .into_iter()
            .chain([duration(left.unwrap_or_default())])
            .collect::<Vec<String>>()
    };
    let rows: Vec<_> = sources.unwrap_or_default().iter().map(row).collect();
    let mut text = table(&["service", "source", "target", "expires"], &rows);
    match answer["left_out"].as_u64() {
        None | Some(0) => {}
        Some(more) => text.push_str(&format!(
            "and {more} more: narrow the filter, or raise --limit\n"
        )),
    }
    Ok(text)
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
    if let Some(name) = &which.service
        && !view.services.iter().any(|service| service.name == *name)
    {
        let names: Vec<&str> = view.services.iter().map(|s| s.name.as_str()).collect();
        let names = names.join(", ");
        let why = format!("service {name:?}: expected one of {names}");
        return Err(CommandError::Invalid(why));
    }
    // It goes through all that can be remembered, which may be much.
    let walk = move || find(&forwarder, &view, &which, limit);
    let found = tokio::task::spawn_blocking(walk).await;
    found.map_err(|error| CommandError::Failed(error.to_string()))
}

fn find(forwarder: &Forwarder, view: &View, which: &Which, limit: usize) -> Value {
    let tables = forwarder.tables();
    let mut sources = Vec::new();
    let mut left_out = 0_u64;
    let names = view.services.iter();
    let names: HashMap<_, _> = names
        .filter_map(|service| Some((service.id?, service.name.as_str())))
        .collect();
    for found in forwarder.counters().persistence(&tables, forwarder.now()) {
        // One that the view does not have yet.
        let Some(service) = names.get(&found.service) else {
            continue;
        };
        let is_wanted = which.service.as_ref().is_none_or(|name| name == service)
            && which.target.is_none_or(|target| found.target == target)
            && which.client.is_none_or(|client| is_of(client, &found));
        if !is_wanted {
            continue;
        }
        if sources.len() >= limit {
            left_out += 1;
            continue;
        }
        sources.push(json!({
            "service": service,
            "source": source(&found),
            "target": found.target.to_string(),
            "expires_in_seconds": found.expires_in.as_secs(),
        }));
    }
    json!({ "sources": sources, "left_out": left_out })
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

    use dataplane::ServiceId;

    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_network_and_its_clients_are_known() {
        let found = |source: &str, prefix| PersistenceView {
            service: ServiceId(0),
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
