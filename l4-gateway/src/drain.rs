//! What it comes to that a node drains: who is told, and why clients may come all the same.

use shared::bus::{Bus, DrainRecord, Tier, unix_ms};
use shared::config::sections::Transport;

use crate::config::Config;

/// Has the node drain, or take traffic again, as `by` asks. Returns why clients may not be moved by that.
pub(crate) fn ask(bus: &Bus, config: &Config, drain: bool, by: String) -> Vec<String> {
    tracing::info!(drain, by, "drain asked for");
    bus.put(DrainRecord {
        tier: Tier::L4,
        id: config.node.id.clone(),
        drain,
        by,
        since_unix_ms: unix_ms(),
    });
    let mut warnings: Vec<String> = drain
        .then(|| still_coming(config))
        .flatten()
        .into_iter()
        .collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if config.bgp.is_none() {
        // Only a bgp-ctl that hears of it moves routes.
        warnings.extend(bus.warn());
    }
    warnings
}

/// Why new clients go on coming to a node that drains; none if all its VIPs are withdrawn.
pub(crate) fn still_coming(config: &Config) -> Option<String> {
    let mut reasons = Vec::new();
    if config.bgp.is_none() {
        let others = match config.bus.transport {
            Transport::Local => "",
            Transport::Nats(_) => ", unless a bgp-ctl follows this node by the bus",
        };
        reasons.push(format!("without [bgp] no route is withdrawn{others}"));
    } else {
        let vips = config.vips().into_iter().filter(|vip| vip.is_ipv6());
        let vips: Vec<String> = vips.map(|vip| vip.to_string()).collect();
        if !vips.is_empty() {
            reasons.push(format!(
                "[bgp] has announced no route to {}, and withdraws none",
                vips.join(", ")
            ));
        }
    }
    let answering = config.ports.iter().filter(|port| port.answer_arp_for_vips);
    reasons.extend(answering.map(|port| {
        format!(
            "port {} goes on answering ARP and neighbour solicitations for VIPs",
            port.name
        )
    }));
    (!reasons.is_empty()).then(|| {
        format!(
            "new clients may go on coming, and are served: {}; move them in another way",
            reasons.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    fn said(example: &str, changes: &[(&str, &str)]) -> Option<String> {
        let text = changes.iter().fold(example.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from:?} is not in the example");
            text.replace(from, to)
        });
        let document = Document::from_toml("l4.toml", &text).unwrap();
        still_coming(&document.parse(Config::parse).unwrap())
    }

    #[test]
    fn what_brings_clients_to_a_draining_node_is_named() {
        let standalone = include_str!("../../deploy/examples/l4-standalone.toml");
        let around = |reasons| {
            Some(format!(
                "new clients may go on coming, and are served: {reasons}; move them in another way"
            ))
        };
        let answering = ("answer_arp_for_vips = true", "answer_arp_for_vips = false");
        let nats = (
            "transport = \"local\"",
            "transport = \"nats\"\n[bus.nats]\nservers = [\"10.9.0.5:4222\"]",
        );
        let no_route = "without [bgp] no route is withdrawn";
        assert_eq!(said(standalone, &[answering]), around(no_route));
        assert_eq!(
            said(standalone, &[]),
            around(
                "without [bgp] no route is withdrawn; port net goes on answering ARP and neighbour solicitations for VIPs"
            )
        );
        assert_eq!(
            said(standalone, &[answering, nats]),
            around(
                "without [bgp] no route is withdrawn, unless a bgp-ctl follows this node by the bus"
            )
        );
        let announcing = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.2.0.11\"\n[[bgp.neighbours]]\naddress = \"10.2.0.1\"\nremote_as = 65001\n";
        assert_eq!(
            said(&(standalone.to_owned() + announcing), &[answering]),
            around("[bgp] has announced no route to fd00:2::100, and withdraws none")
        );
    }

    #[test]
    fn a_node_that_withdraws_all_its_vips_has_nothing_to_say() {
        let announcing = include_str!("../../deploy/examples/l4-gateway.toml");
        assert_eq!(said(announcing, &[]), None);
    }
}
