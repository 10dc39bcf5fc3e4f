//! `l4-gateway neighbours`: next hops with their MACs, and how routers do.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use dataplane::{NeighbourView, NextHop, PortIndex};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{CommandError, arguments, client, no_such};
use shared::cli::{Shown, cell, table};

use crate::admin::of_worker;
use crate::forwarder::Forwarder;
use crate::views::duration;
use crate::worker::Question;

/// Which next hops, and how they are shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Neighbours {
    /// Only routers
    #[arg(long)]
    routers: bool,
    /// Only those on this port
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

/// Arguments of `neighbours`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    routers: bool,
    port: Option<String>,
}

/// Lists next hops.
pub(crate) async fn ask(admin: SocketAddr, wanted: &Neighbours) -> Result<String, String> {
    let args = json!({ "routers": wanted.routers, "port": wanted.port });
    let list = async || client::command(admin, "neighbours", &args).await;
    wanted.shown.show(list, text).await
}

fn text(answer: &Value) -> String {
    let neighbours = answer["neighbours"].as_array().map(Vec::as_slice);
    let ago = |value: &Value| match value.as_f64() {
        Some(seconds) if seconds < 10.0 => format!("{seconds:.1}s"),
        Some(seconds) => duration(seconds as u64),
        None => "-".to_owned(),
    };
    let row = |shown: &Value| {
        let lost = match shown["questions"].as_u64() {
            Some(questions) => format!("{}/{questions}", cell(&shown["lost"])),
            None => "-".to_owned(),
        };
        let known = ["port", "address", "role", "mac", "state"].map(|key| cell(&shown[key]));
        let times = ["since_seconds", "answered_seconds_ago"].map(|key| ago(&shown[key]));
        let used = match shown["in_use"].as_bool() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let rest = [lost, used.to_owned()];
        known.into_iter().chain(times).chain(rest).collect()
    };
    let rows: Vec<Vec<String>> = neighbours.unwrap_or_default().iter().map(row).collect();
    table(
        &[
            "port", "address", "role", "mac", "state", "since", "answered", "lost", "used",
        ],
        &rows,
    )
}

/// Carries out `neighbours`. Each worker has its own; where they know the same the first of them that knows its MAC is asked, and of routers the one
/// that watches.
///
/// # Errors
/// If the arguments make no sense, or a worker does not answer.
pub(crate) async fn neighbours(
    forwarder: &Forwarder,
    names: &[String],
    args: Value,
) -> Result<Value, CommandError> {
    let which: Which = arguments(args)?;
    if let Some(port) = &which.port
        && !names.contains(port)
    {
        let why = no_such("port", port, names.iter().map(String::as_str));
        return Err(CommandError::Invalid(why));
    }
    let mut known: BTreeMap<(PortIndex, bool, bool, IpAddr), NeighbourView> = BTreeMap::new();
    let routers = forwarder.tables().routers().to_vec();
    for (worker, _) in forwarder.questions().iter().enumerate() {
        for found in of_worker(forwarder, worker, Question::Neighbours).await? {
            let is_it =
                |router: &NextHop| (router.port, router.address) == (found.port, found.address);
            let is_router = routers.iter().any(is_it);
            let key = (found.port, !is_router, !found.named, found.address);
            match known.get(&key) {
                Some(before) if before.mac.is_some() || found.mac.is_none() => {}
                Some(before) => {
                    let router = before.router;
                    known.insert(key, NeighbourView { router, ..found });
                }
                None => {
                    known.insert(key, found);
                }
            }
        }
    }
    let name = |port: PortIndex| names.get(usize::from(port.0)).map(String::as_str);
    let is_wanted = |port: PortIndex, is_router: bool| {
        let wanted = which.port.as_deref();
        wanted.is_none_or(|wanted| name(port) == Some(wanted)) && (is_router || !which.routers)
    };
    let rows = known
        .iter()
        .filter(|((port, is_other, ..), _)| is_wanted(*port, !is_other));
    let rows = rows.map(|((port, is_other, is_unnamed, _), neighbour)| {
        let role = match (is_other, is_unnamed) {
            (false, _) => "router",
            (true, false) => "target",
            (true, true) => "other",
        };
        shown(name(*port), role, neighbour)
    });
    Ok(json!({ "neighbours": rows.collect::<Vec<Value>>() }))
}

fn shown(port: Option<&str>, role: &str, neighbour: &NeighbourView) -> Value {
    let tenths = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    let (state, since, answered) = match neighbour.router {
        Some(router) => (router.state.label(), router.since, router.answered),
        None => {
            let label = neighbour.resolution.label();
            (label, neighbour.since, neighbour.heard)
        }
    };
    json!({
        "port": port,
        "address": neighbour.address,
        "role": role,
        "mac": neighbour.mac.map(|mac| mac.to_string()),
        "state": state,
        "resolution": neighbour.resolution.label(),
        "since_seconds": tenths(since),
        "answered_seconds_ago": answered.map(tenths),
        "questions": neighbour.router.map(|router| router.questions),
        "lost": neighbour.router.map(|router| router.lost),
        "in_use": neighbour.router.map(|router| router.in_use),
    })
}
