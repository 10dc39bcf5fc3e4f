//! `l4-gateway target` and `vip`: what an operator wants of single targets and VIPs, from the command line to who sees to it.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use actix::Addr;
use bgp_ctl::decision::Force;
use bgp_ctl::{RouteControl, SetForce};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::admin::{Asked, CommandError, arguments, asked, client, no_such};
use shared::cli::{By, Reason, cell, warn};

use crate::actors::{Board, ControlPlane, Intend};
use crate::config::{Config, MOST_WEIGHT};
use crate::control::{Intended, Wish};
use crate::endpoint::Endpoint;
use crate::forwarder::Forwarder;
use crate::range;

/// Weights that a target may be given.
const WEIGHTS: RangeInclusive<u16> = 0..=MOST_WEIGHT;

/// What is wanted of which target.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Target {
    /// Give it no new flows; those it has go on
    Drain(Which),
    /// Take back what was wanted of it: configuration and registration decide again
    Enable(Which),
    /// Give it this share of new flows, whatever configuration and registration say
    Weight {
        #[command(flatten)]
        which: Which,
        #[arg(value_parser = range::parser(WEIGHTS), help = range::help("The weight", &WEIGHTS))]
        weight: u16,
    },
}

/// A target.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The name of its service
    service: String,
    /// Where it listens, as `targets` shows it; without a port where it has those of its service
    #[arg(value_name = "ADDR[:PORT]")]
    address: Endpoint,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    reason: Reason,
}

/// What is wanted of which VIP.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Vip {
    /// Have routing control withdraw it; what still comes is forwarded, new connections too
    Drain(WhichVip),
    /// Leave it to the health of its targets again
    Enable(WhichVip),
}

/// A VIP.
#[derive(Debug, Clone, Args)]
pub(crate) struct WhichVip {
    /// The VIP
    vip: IpAddr,
    #[command(flatten)]
    by: By,
    #[command(flatten)]
    reason: Reason,
}

/// Arguments of `vip`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WantedVip {
    action: String,
    vip: Option<IpAddr>,
    /// Read by [`asked`].
    #[serde(rename = "by")]
    _by: Option<String>,
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

/// Arguments of `target`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    action: String,
    service: String,
    address: Option<Endpoint>,
    weight: Option<u16>,
    /// Read by [`asked`].
    #[serde(rename = "by")]
    _by: Option<String>,
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

/// Has the running process do it; what came of it.
pub(crate) async fn ask(admin: SocketAddr, target: Target) -> Result<String, String> {
    let (action, which, weight) = match target {
        Target::Drain(which) => ("drain", which, None),
        Target::Enable(which) => ("enable", which, None),
        Target::Weight { which, weight } => ("weight", which, Some(weight)),
    };
    let Which {
        service,
        address,
        by,
        reason: Reason { reason },
    } = which;
    let args = json!({
        "action": action, "service": service, "address": address, "weight": weight, "reason": reason, "by": by.name(),
    });
    let answer = client::command(admin, "target", &args).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let warnings = answer["warnings"].as_array().map(Vec::as_slice);
    warnings.unwrap_or_default().iter().map(cell).for_each(warn);
    let flows = cell(&answer["flows"]);
    Ok(match (action, weight) {
        ("drain", _) => format!("{service} {address} gets no new flows; {flows} are left\n"),
        (_, Some(weight)) => format!("{service} {address} has weight {weight}\n"),
        _ => format!("{service} {address} is left to configuration and registration\n"),
    })
}

/// Has the running process withdraw a VIP, or announce it again; what came of it.
pub(crate) async fn ask_vip(admin: SocketAddr, wanted: Vip) -> Result<String, String> {
    let (action, which) = match wanted {
        Vip::Drain(which) => ("drain", which),
        Vip::Enable(which) => ("enable", which),
    };
    let WhichVip {
        vip,
        by,
        reason: Reason { reason },
    } = which;
    let args = json!({ "action": action, "vip": vip, "reason": reason, "by": by.name() });
    let answer = client::command(admin, "vip", &args).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let warnings = answer["warnings"].as_array().map(Vec::as_slice);
    warnings.unwrap_or_default().iter().map(cell).for_each(warn);
    Ok(match action {
        "drain" => format!("{vip} is withdrawn\n"),
        _ => format!("{vip} is left to the health of its targets\n"),
    })
}

/// Carries out `vip`.
///
/// # Errors
/// If the arguments make no sense, or this process does not announce the VIP.
pub(crate) async fn vip(
    routes: Option<Addr<RouteControl>>,
    config: &Config,
    args: Value,
) -> Result<Value, CommandError> {
    let asked = asked(&args)?;
    let wanted: WantedVip = arguments(args)?;
    let invalid = |why: String| CommandError::Invalid(why);
    let drains = match wanted.action.as_str() {
        "drain" => true,
        "enable" => false,
        _ => return Err(invalid("action: expected \"drain\" or \"enable\"".into())),
    };
    let vips = config.vips();
    let vip = wanted.vip.map(|vip| vip.to_canonical());
    let Some(vip) = vip.filter(|vip| vips.contains(vip)) else {
        let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
        let vips = vips.iter().map(String::as_str);
        let wanted = wanted.vip.map(|vip| vip.to_string());
        return Err(invalid(no_such("VIP", &wanted.unwrap_or_default(), vips)));
    };
    if vip.is_ipv6() {
        return Err(CommandError::Refused(format!(
            "nothing announces {vip}: IPv6 VIPs are not announced by BGP yet, so there is no route to withdraw"
        )));
    }
    let (Some(routes), IpAddr::V4(announced)) = (routes, vip) else {
        return Err(CommandError::Refused(format!(
            "this process announces no route to {vip}, and can withdraw none: `bgp-ctl force {vip} withdraw` does where a bgp-ctl announces it"
        )));
    };
    let Asked { by, reason, .. } = asked.clone();
    let sent = routes.send(SetForce {
        vip: announced,
        force: drains.then_some(Force::Withdraw),
        asked,
    });
    let sent = sent.await;
    sent.map_err(|_| CommandError::Refused("the node is leaving".into()))?;
    tracing::info!(%vip, action = wanted.action, by, reason, "VIP: changed by an operator");
    let answering = config.ports.iter().filter(|port| port.answer_arp_for_vips);
    let answering = answering.filter(|port| drains && port.contains(vip));
    let warnings = answering.map(|port| {
        format!(
            "port {} goes on answering ARP for {vip}: clients on its segment go on coming",
            port.name
        )
    });
    Ok(json!({ "vip": vip, "drain": drains, "warnings": warnings.collect::<Vec<_>>() }))
}

/// Carries out `target`.
///
/// # Errors
/// If the arguments make no sense, or there is no such target.
pub(crate) async fn target(
    control: Addr<ControlPlane>,
    board: &Board,
    forwarder: &Forwarder,
    args: Value,
) -> Result<Value, CommandError> {
    let asked = asked(&args)?;
    let wanted: Wanted = arguments(args)?;
    let invalid = |why: &str| CommandError::Invalid(why.to_owned());
    let wish = match (wanted.action.as_str(), wanted.weight) {
        ("drain", None) => Wish::Drain,
        ("enable", None) => Wish::Enable,
        ("weight", Some(weight)) => {
            range::check("weight", weight, &WEIGHTS).map_err(CommandError::Invalid)?;
            Wish::Weight(weight)
        }
        ("weight", None) => return Err(invalid("weight: is missing")),
        ("drain" | "enable", Some(_)) => {
            return Err(invalid("weight: is for the action \"weight\" only"));
        }
        _ => {
            return Err(invalid(
                "action: expected \"drain\", \"enable\" or \"weight\"",
            ));
        }
    };
    let address = wanted.address.ok_or_else(|| {
        invalid("address: expected the target's address and port, such as \"10.0.0.1:80\"")
    })?;
    let Asked { by, reason, .. } = asked.clone();
    let service = wanted.service;
    let intend = Intend {
        service: service.clone(),
        address: address.0,
        wish,
        asked,
    };
    let intended = control.send(intend).await;
    let intended = intended.map_err(|_| CommandError::Refused("the node is leaving".into()))?;
    let Intended {
        intent,
        healthy,
        sorry,
    } = intended.map_err(CommandError::Invalid)?;
    tracing::info!(service, %address, ?wish, by, reason, "target: changed by an operator");
    let mut warnings = Vec::new();
    let left = match (healthy, sorry) {
        (0, _) => Some("no target takes new flows"),
        (_, true) => Some("only its sorry targets take new flows"),
        _ => None,
    };
    if let Some(left) = left {
        let warning = format!("service {service}: {left}");
        tracing::warn!("{warning}");
        warnings.push(warning);
    }
    let view = board.read();
    let known = view.services.iter().find(|known| known.name == service);
    if let Some(scheduler) = known.map(|known| known.scheduler)
        && matches!(scheduler, "rr" | "lc")
        && wanted.weight.is_some_and(|weight| weight > 0)
    {
        warnings.push(format!(
            "service {service}: {scheduler} treats all targets alike, whatever their weights are"
        ));
    }
    let mut targets = known.into_iter().flat_map(|known| &known.targets);
    let id = targets
        .find(|target| target.address == address)
        .and_then(|target| target.id);
    let flows = id.map(|id| forwarder.counters().target(id).flows_active);
    Ok(json!({
        "service": service,
        "address": address,
        "operator": intent,
        "flows": flows.unwrap_or_default(),
        "warnings": warnings,
    }))
}
