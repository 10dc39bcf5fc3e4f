//! Whose flows are to be ended.

use std::net::IpAddr;

use super::Tables;
use crate::flow::Flow;
use crate::ids::{Ids, LocalIpId, ServiceId, TargetId};
use crate::port_range::PortRange;
use crate::service::Protocol;

/// What has left the configuration, and whose flows have had their time. Targets of services that stay are cut by
/// [`crate::TargetConfig::cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// A service, by its VIP, protocol and ports.
    Service(IpAddr, Protocol, PortRange),
    /// A LocalIP.
    LocalIp(IpAddr),
}

/// What a snapshot says of it.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    pub(crate) targets: Vec<TargetId>,
    /// Sorted.
    pub(crate) services: Vec<ServiceId>,
    pub(crate) local_ips: Vec<LocalIpId>,
}

impl Cuts {
    /// Of `tables`, which are whole but for this. What is configured again is not cut, and what has no number has no flows.
    pub(super) fn new(tables: &Tables, cuts: &[Cut], ids: &Ids) -> Self {
        let service = |cut: &Cut| match *cut {
            Cut::Service(vip, protocol, ports) => ids.known_service(vip, protocol, ports),
            Cut::LocalIp(_) => None,
        };
        let local_ip = |cut: &Cut| match *cut {
            Cut::LocalIp(address) => ids.known_local_ip(address),
            Cut::Service(..) => None,
        };
        let is_configured = |id: &LocalIpId| tables.local_ips.iter().any(|local| local.id == *id);
        let targets = tables.targets().filter(|target| target.config.cut);
        let services = cuts.iter().filter_map(service);
        let local_ips = cuts.iter().filter_map(local_ip);
        let mut cuts = Self {
            targets: targets.map(|target| target.id).collect(),
            services: services
                .filter(|id| tables.service(*id).is_none())
                .collect(),
            local_ips: local_ips.filter(|id| !is_configured(id)).collect(),
        };
        cuts.services.sort_unstable();
        cuts
    }
}

impl Tables {
    /// Whether a flow is to be ended.
    pub(crate) fn cuts_flow(&self, flow: &Flow) -> bool {
        let target = self.target(flow.target_id);
        target.is_some_and(|target| target.config.cut)
            || self.cuts.services.binary_search(&flow.service()).is_ok()
            || flow
                .local_ip()
                .is_some_and(|id| self.cuts.local_ips.contains(&id))
    }
}
