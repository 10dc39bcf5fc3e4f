//! Who is who: the addresses of clients, VIPs, LocalIPs and targets, and which flow has which.
//!
//! ```text
//!   clients 16.0.0.0/8 ── 10.2.0.1 ── 10.2.0.11 │ gateway │ 10.3.0.11, LocalIPs 10.3.0.100.. ── targets 10.3.1.0..
//! ```

use std::net::Ipv4Addr;

use dataplane::Protocol;

/// The router that all clients are behind.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// The gateway's addresses, towards the clients and towards the targets.
pub(crate) const OUTER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
pub(crate) const INNER: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 11);
/// The first LocalIP and how many follow it.
pub(crate) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
pub(crate) const LOCALS: u32 = 8;
/// Port of every VIP, and the first target port: service `n` is at [`TARGET_PORT`]` + n` on each target.
pub(crate) const VIP_PORT: u16 = 80;
pub(crate) const TARGET_PORT: u16 = 8000;

const CLIENTS: u32 = 16 << 24;
const VIPS: u32 = (10 << 24) + 256;
const TARGETS: u32 = (10 << 24) + (3 << 16) + 256;

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

/// What the gateway is configured with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addressing {
    pub(crate) protocol: Protocol,
    pub(crate) services: u32,
    /// Of each service.
    pub(crate) targets: u32,
}

impl Addressing {
    /// The client of a flow: four flows share an address.
    #[inline]
    pub(crate) fn client(&self, flow: u32) -> Endpoint {
        Endpoint {
            address: CLIENTS + flow / 4,
            port: 20_000 + (flow % 4) as u16,
        }
    }

    /// What the client of a flow talks to.
    #[inline]
    pub(crate) fn vip(&self, flow: u32) -> Endpoint {
        Endpoint {
            address: VIPS + self.service(flow),
            port: VIP_PORT,
        }
    }

    /// Target number `target` of the flow's service.
    #[inline]
    pub(crate) fn target(&self, flow: u32, target: u32) -> Endpoint {
        Endpoint {
            address: TARGETS + target,
            port: TARGET_PORT + self.service(flow) as u16,
        }
    }

    /// LocalIP number `local`, with a port the gateway chose.
    #[inline]
    pub(crate) fn local(&self, local: u32, port: u16) -> Endpoint {
        Endpoint {
            address: LOCAL.to_bits() + local,
            port,
        }
    }

    /// The number of the target that has this address, if it is one's of the flow.
    #[inline]
    pub(crate) fn target_number(&self, flow: u32, at: Endpoint) -> Option<u32> {
        let number = at.address.wrapping_sub(TARGETS);
        (number < self.targets && at == self.target(flow, number)).then_some(number)
    }

    /// The number of the LocalIP with this address, if it is one.
    #[inline]
    pub(crate) fn local_number(&self, at: Endpoint) -> Option<u32> {
        let number = at.address.wrapping_sub(LOCAL.to_bits());
        (number < LOCALS && at.port >= 1024).then_some(number)
    }

    #[inline]
    fn service(&self, flow: u32) -> u32 {
        if self.services == 1 {
            0
        } else {
            flow % self.services
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_flows_have_one_client_and_service() {
        let addressing = Addressing {
            protocol: Protocol::Udp,
            services: 1000,
            targets: 100,
        };
        let flows = 0..200_000;
        let keys: std::collections::HashSet<_> = flows
            .clone()
            .map(|flow| {
                let (client, vip) = (addressing.client(flow), addressing.vip(flow));
                (client.address, client.port, vip.address, vip.port)
            })
            .collect();
        assert_eq!(keys.len(), flows.len());
    }

    #[test]
    fn targets_and_local_ips_are_recognised_and_nobody_else() {
        let addressing = Addressing {
            protocol: Protocol::Tcp,
            services: 10,
            targets: 3,
        };
        assert_eq!(
            addressing.target_number(7, addressing.target(7, 2)),
            Some(2)
        );
        assert_eq!(addressing.target_number(7, addressing.target(8, 2)), None);
        assert_eq!(addressing.target_number(7, addressing.target(7, 3)), None);
        assert_eq!(addressing.local_number(addressing.local(4, 1024)), Some(4));
        assert_eq!(
            addressing.local_number(addressing.local(LOCALS, 1024)),
            None
        );
        assert_eq!(addressing.local_number(addressing.local(0, 1023)), None);
    }
}
