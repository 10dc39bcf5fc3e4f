//! Which flows an operator means: the filter of `flows` and `capture`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dataplane::{FlowState, FlowView, Protocol, ServiceId};
use serde::Deserialize;
use shared::config::Cidr;

use crate::endpoint::Endpoint;

/// An end of a flow: an address, a network, or an address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All addresses of a network; a single one is its longest prefix.
    Network(Cidr),
    /// One address and port.
    Socket(SocketAddr),
}

impl End {
    /// All ports of one address.
    pub fn of_host(address: IpAddr) -> Option<End> {
        let address = address.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        Cidr::new(address, longest).map(End::Network)
    }

    /// Whether it means this address and port; port 0 stands for one that is not known (fragments, ICMP).
    pub fn matches(self, end: SocketAddr) -> bool {
        match self {
            End::Network(network) => network.contains(end.ip()),
            End::Socket(socket) => {
                socket.ip() == end.ip() && (end.port() == socket.port() || end.port() == 0)
            }
        }
    }
}

impl FromStr for End {
    type Err = String;

    /// An IPv4 address written as an IPv6 one (`::ffff:10.2.0.1`) is taken for the IPv4 one: no flow has the other. A target that has the ports
    /// of its service may be written as it is shown, `10.3.0.21:*`.
    fn from_str(text: &str) -> Result<End, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let socket = SocketAddr::new(socket.ip().to_canonical(), socket.port());
            return Ok(End::Socket(socket));
        }
        if let Ok(Endpoint(every_port)) = text.parse::<Endpoint>() {
            return End::of_host(every_port.ip()).ok_or_else(String::new);
        }
        match text.parse::<Cidr>() {
            Ok(network) => Ok(End::Network(network)),
            Err(_) => Err(
                "expected an address (10.2.0.1), a network (10.2.0.0/24, 2001:db8::/64) or an address with a port (10.2.0.1:80, [2001:db8::1]:80)"
                    .into(),
            ),
        }
    }
}

impl TryFrom<String> for End {
    type Error = String;

    fn try_from(text: String) -> Result<End, String> {
        text.parse()
            .map_err(|why: String| format!("{text:?}: {why}"))
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<End, D::Error> {
        String::deserialize(from)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for End {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Network(network) => network.fmt(to),
            End::Socket(socket) => socket.fmt(to),
        }
    }
}

/// The four ends of a flow; each part that is given must match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: Option<End>,
    /// What it talks to.
    pub vip: Option<End>,
    /// Who the target sees: a LocalIP and port.
    pub local: Option<End>,
    /// The target.
    pub target: Option<End>,
}

impl Ends {
    /// Whether a flow with these ends is meant; an end that is not known matches nothing that was asked for.
    pub fn matches(
        &self,
        client: Option<SocketAddr>,
        vip: Option<SocketAddr>,
        local: Option<SocketAddr>,
        target: Option<SocketAddr>,
    ) -> bool {
        let fits = |wanted: Option<End>, end: Option<SocketAddr>| {
            wanted.is_none_or(|wanted| end.is_some_and(|end| wanted.matches(end)))
        };
        fits(self.client, client)
            && fits(self.vip, vip)
            && fits(self.local, local)
            && fits(self.target, target)
    }

    /// Whether nothing is asked for.
    pub fn is_any(&self) -> bool {
        *self == Ends::default()
    }
}

/// Picks flows; each part that is given must match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// By their ends.
    pub ends: Ends,
    /// By their service.
    pub service: Option<ServiceId>,
    /// By what they are made of.
    pub protocol: Option<Protocol>,
    /// By how far they are.
    pub state: Option<FlowState>,
    /// Only flows on which something may still be sent.
    pub open: bool,
}

impl FlowFilter {
    /// Whether a flow is wanted.
    pub fn matches(&self, flow: &FlowView) -> bool {
        self.protocol.is_none_or(|wanted| flow.protocol == wanted)
            && self.service.is_none_or(|wanted| flow.service == wanted)
            && self.state.is_none_or(|wanted| flow.state == wanted)
            && !(self.open && is_over(flow))
            && self.ends.matches(
                Some(flow.client),
                Some(flow.vip),
                flow.local,
                Some(flow.target),
            )
    }
}

/// Whether all that will be heard of its connection's end was heard. Where the target answers past the node, that is what the client sends.
fn is_over(flow: &FlowView) -> bool {
    match flow.state {
        FlowState::TimeWait | FlowState::Closed => true,
        FlowState::FinClient => flow.local.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::TargetId;

    use super::*;

    #[test]
    fn a_flow_is_open_until_all_that_is_heard_of_it_has_ended() {
        use FlowState::{
            Closed, Established, FinClient, FinTarget, SynAnswered, SynReceived, TimeWait, Udp,
        };
        let address = "10.2.0.1:80".parse().unwrap();
        let open = FlowFilter {
            open: true,
            ..FlowFilter::default()
        };
        // Through a LocalIP both ends are heard, else the client alone.
        for (local, over) in [
            (Some(address), &[TimeWait, Closed][..]),
            (None, &[FinClient, TimeWait, Closed]),
        ] {
            for state in [
                Udp,
                SynReceived,
                SynAnswered,
                Established,
                FinClient,
                FinTarget,
                TimeWait,
                Closed,
            ] {
                let flow = FlowView {
                    client: address,
                    vip: address,
                    local,
                    target: address,
                    protocol: Protocol::Tcp,
                    state,
                    timed_as: state,
                    service: ServiceId(0),
                    target_id: TargetId(0),
                    expires_in: Duration::ZERO,
                };
                assert!(FlowFilter::default().matches(&flow));
                let wanted = !over.contains(&state);
                assert_eq!(open.matches(&flow), wanted, "{state:?} from {local:?}");
            }
        }
    }

    fn end(text: &str) -> End {
        text.parse().unwrap()
    }

    #[test]
    fn ends_are_addresses_networks_or_sockets_of_both_families() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (wanted, matched, other) in [
            ("10.2.0.1", "10.2.0.1:5", "10.2.0.2:5"),
            ("10.2.0.0/24", "10.2.0.9:5", "10.2.1.9:5"),
            ("10.2.0.1:80", "10.2.0.1:80", "10.2.0.1:81"),
            ("10.2.0.1:*", "10.2.0.1:5", "10.2.0.2:5"),
            ("[2001:db8::1]:*", "[2001:db8::1]:5", "[2001:db8::2]:5"),
            ("2001:db8::1", "[2001:db8::1]:5", "[2001:db8::2]:5"),
            ("2001:db8::/64", "[2001:db8::9]:5", "[2001:db8:0:1::9]:5"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80", "[2001:db8::1]:81"),
            ("10.0.0.0/8", "10.2.0.1:80", "[2001:db8::1]:80"),
            ("::ffff:10.2.0.1", "10.2.0.1:5", "10.2.0.2:5"),
            ("[::ffff:10.2.0.1]:80", "10.2.0.1:80", "10.2.0.1:81"),
        ] {
            assert!(end(wanted).matches(at(matched)), "{wanted} is {matched}");
            assert!(!end(wanted).matches(at(other)), "{wanted} is not {other}");
        }
        for wrong in [
            "",
            "10.2.0",
            "10.2.0.0/33",
            "host:80",
            "10.2.0.1:99999",
            "10.2.0:*",
        ] {
            let why = wrong.parse::<End>().unwrap_err();
            assert!(why.starts_with("expected an address"), "{wrong}: {why}");
        }
    }

    #[test]
    fn an_end_that_is_not_known_matches_only_what_was_not_asked_for() {
        let wanted = Ends {
            client: Some(end("10.2.0.1")),
            ..Ends::default()
        };
        let client = Some("10.2.0.1:5".parse().unwrap());
        assert!(wanted.matches(client, None, None, None));
        assert!(!wanted.matches(None, client, client, client));
        assert!(Ends::default().matches(None, None, None, None) && Ends::default().is_any());
    }
}
