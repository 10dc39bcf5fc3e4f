//! `l4-gateway announce`: announces this node's addresses on their segments.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use dataplane::{MacAddr, PortIndex};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{CommandError, arguments, asker, client};
use shared::cli::{By, cell, table};

use crate::admin::of_worker;
use crate::forwarder::Forwarder;
use crate::worker::{Announced, Question};

/// What is to be announced.
#[derive(Debug, Clone, Args)]
pub(crate) struct Announce {
    /// VIPs and LocalIPs (default: all addresses that the node answers for)
    #[arg(value_name = "ADDR")]
    addresses: Vec<IpAddr>,
    #[command(flatten)]
    by: By,
}

/// Arguments of `announce`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Addresses {
    addresses: Vec<IpAddr>,
    /// Read by [`asker`].
    #[serde(rename = "by")]
    _by: Option<String>,
}

/// Has the running process announce addresses; what came of it.
pub(crate) async fn ask(admin: SocketAddr, wanted: Announce) -> Result<String, String> {
    let args = json!({ "addresses": wanted.addresses, "by": wanted.by.name() });
    let answer = client::command(admin, "announce", &args).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let announced = answer["announced"].as_array().map(Vec::as_slice);
    let row = |shown: &Value| {
        ["port", "address", "mac"]
            .map(|key| cell(&shown[key]))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = announced.unwrap_or_default().iter().map(row).collect();
    Ok(table(&["port", "address", "mac"], &rows))
}

/// Carries out `announce`.
///
/// # Errors
/// If the arguments make no sense, the node does not announce one of these addresses, or the worker does not answer.
pub(crate) async fn announce(
    forwarder: &Forwarder,
    names: &[String],
    args: Value,
) -> Result<Value, CommandError> {
    let by = asker(&args)?;
    let Addresses { addresses, .. } = arguments(args)?;
    let addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
    let wanted = (!addresses.is_empty()).then_some(addresses);
    let question = |reply| Question::Announce(wanted, reply);
    let announced: Announced = of_worker(forwarder, 0, question).await?;
    let announced = announced.map_err(|unknown| {
        let unknown: Vec<String> = unknown.iter().map(IpAddr::to_string).collect();
        CommandError::Refused(format!(
            "this node does not announce {} on a segment: once it is ready it does so for LocalIPs, and for VIPs in the networks of ports with \
             answer_arp_for_vips",
            unknown.join(", ")
        ))
    })?;
    tracing::info!(
        by,
        addresses = announced.len(),
        "addresses are announced again"
    );
    let row = |(port, address, mac): (PortIndex, IpAddr, MacAddr)| {
        let PortIndex(port) = port;
        let name = names.get(usize::from(port));
        json!({ "port": name, "address": address, "mac": mac.to_string() })
    };
    let rows: Vec<Value> = announced.into_iter().map(row).collect();
    Ok(json!({ "announced": rows }))
}
