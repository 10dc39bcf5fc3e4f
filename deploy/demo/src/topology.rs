//! The demo's network, as data: which nodes there are, which networks they touch, which addresses they hold.
//!
//! ```text
//!                 client 10.1.0.0/24        external 10.2.0.0/24      internal 10.3.0.0/24        business 10.4.0.0/24
//!   client .10 ─────────┬─────── router .1 ─────────┬────── l4-1 .11 ─────────┬─────── l7-1 .21 ─────────┬── app-1 .31
//!                       │   (BIRD, kernel ECMP)     └────── l4-2 .12 ─────────┼─────── l7-2 .22 ─────────┼── app-2 .32
//!                                                                             └── app-1..3 .31-.33       └── app-3 .33
//!   management 10.9.0.0/24: every node, and nats .5
//! ```
//!
//! The kernel of an l4 node holds .11/.12 only (BGP session, health probes); the VIP and the LocalIPs
//! (10.3.0.100-.101 on l4-1, .110-.111 on l4-2) belong to the gateway's own data plane.

use std::net::Ipv4Addr;

/// The address clients connect to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// The client's address on the client network.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// Autonomous system number of the router.
pub const ROUTER_AS: u32 = 65001;
/// Autonomous system number of the L4 fleet.
pub const L4_AS: u32 = 65010;
/// The L4 nodes.
pub const L4: [&str; 2] = ["l4-1", "l4-2"];
/// The L7 nodes.
pub const L7: [&str; 2] = ["l7-1", "l7-2"];
/// The applications.
pub const APPS: [&str; 3] = ["app-1", "app-2", "app-3"];

/// One of the five networks; each is a bridge in the namespace `fabric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// Between the client and the router.
    Client,
    /// Between the router and the L4 nodes.
    External,
    /// Between the L4 nodes and their targets.
    Internal,
    /// Between the L7 nodes and the applications.
    Business,
    /// Admin listeners and the bus.
    Management,
}

impl Network {
    /// Every network.
    pub const ALL: [Network; 5] = [
        Network::Client,
        Network::External,
        Network::Internal,
        Network::Business,
        Network::Management,
    ];

    /// Name of the interface a node has on this network, also the tail of the bridge's name.
    pub fn interface(self) -> &'static str {
        match self {
            Network::Client => "cli0",
            Network::External => "ext0",
            Network::Internal => "int0",
            Network::Business => "biz0",
            Network::Management => "mgmt0",
        }
    }

    /// The address with the last byte `host` on this network.
    pub fn address(self, host: u8) -> Ipv4Addr {
        let net = match self {
            Network::Client => 1,
            Network::External => 2,
            Network::Internal => 3,
            Network::Business => 4,
            Network::Management => 9,
        };
        Ipv4Addr::new(10, net, 0, host)
    }
}

/// One namespace with its interfaces.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name without the lab's prefix: `l4-1`.
    pub name: &'static str,
    /// Last byte of its address on every network it touches.
    pub host: u8,
    /// The networks it touches.
    pub networks: Vec<Network>,
    /// Where it sends what is not on one of its networks.
    pub gateway: Option<Ipv4Addr>,
    /// Whether its kernel forwards packets: only the router's does.
    pub forwards: bool,
}

impl Node {
    /// Its address on `network`.
    pub fn address(&self, network: Network) -> Ipv4Addr {
        network.address(self.host)
    }
}

/// Every node of the demo.
pub fn nodes() -> Vec<Node> {
    use Network::{Business, Client, External, Internal, Management};
    let node = |name, host, networks: &[Network]| Node {
        name,
        host,
        networks: networks.to_vec(),
        gateway: None,
        forwards: false,
    };
    vec![
        Node {
            gateway: Some(Client.address(1)),
            ..node("client", 10, &[Client, Management])
        },
        Node {
            forwards: true,
            ..node("router", 1, &[Client, External, Management])
        },
        // The kernel's own way back to the client network; the data plane has its own next hops.
        Node {
            gateway: Some(External.address(1)),
            ..node("l4-1", 11, &[External, Internal, Management])
        },
        Node {
            gateway: Some(External.address(1)),
            ..node("l4-2", 12, &[External, Internal, Management])
        },
        node("l7-1", 21, &[Internal, Business, Management]),
        node("l7-2", 22, &[Internal, Business, Management]),
        node("app-1", 31, &[Internal, Business, Management]),
        node("app-2", 32, &[Internal, Business, Management]),
        node("app-3", 33, &[Internal, Business, Management]),
        node("nats", 5, &[Management]),
    ]
}

/// The node called `name`.
pub fn node(name: &str) -> Option<Node> {
    nodes().into_iter().find(|node| node.name == name)
}

/// The node that holds `address` on any network.
pub fn node_at(address: Ipv4Addr) -> Option<&'static str> {
    nodes()
        .iter()
        .find(|node| {
            node.networks
                .iter()
                .any(|network| node.address(*network) == address)
        })
        .map(|node| node.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_nodes_share_an_address() {
        let mut seen = HashSet::new();
        for node in nodes() {
            for network in &node.networks {
                assert!(
                    seen.insert(node.address(*network)),
                    "{} on {network:?} is taken",
                    node.name
                );
            }
        }
    }

    #[test]
    fn interface_names_in_the_fabric_fit_the_kernels_limit() {
        for node in nodes() {
            for network in node.networks {
                let name = format!("{}-{}", node.name, network.interface());
                assert!(name.len() <= 15, "{name} is longer than IFNAMSIZ - 1");
            }
        }
    }

    #[test]
    fn every_address_leads_back_to_its_node() {
        assert_eq!(node_at(Ipv4Addr::new(10, 4, 0, 22)), Some("l7-2"));
        assert_eq!(node_at(Ipv4Addr::new(10, 9, 0, 5)), Some("nats"));
        assert_eq!(node_at(VIP), None);
    }
}
