//! How many local ports are left towards each target: to be seen before they run out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Tables;
use crate::counters::Counters;
use crate::ids::TargetId;
use crate::limits::Limits;
use crate::service::{Mode, Protocol, Target};

impl Tables {
    /// The local ports that are free towards each target, over all workers and the LocalIPs used to reach it; none for targets that
    /// answer clients themselves. Targets of several services at one address share theirs, and one that gets packets at
    /// many ports has as many as if they were one. Flows over a LocalIP that left the snapshot count
    /// as if they were over one of those left, so the number is rather too low.
    ///
    /// A worker has its share of these: a client whose worker has none left is refused while others have.
    #[must_use]
    pub fn free_ports(&self, counters: &Counters, limits: &Limits) -> HashMap<TargetId, u64> {
        let of_one = u64::from(limits.last_port)
            .saturating_sub(u64::from(limits.first_port.max(1)))
            .saturating_add(1);
        let rewritten = || {
            self.targets().filter_map(|target| {
                let config = &self.service(target.service)?.config;
                (config.mode == Mode::FullNat).then_some((target, config.protocol))
            })
        };
        let mut used: HashMap<(SocketAddr, Protocol), u64> = HashMap::new();
        for (target, protocol) in rewritten() {
            *used.entry((target.config.address, protocol)).or_default() +=
                counters.target(target.id).flows_active;
        }
        let free = |(target, protocol): (&Target, Protocol)| {
            let used = used.get(&(target.config.address, protocol));
            let all = of_one * self.local_ips_towards(target);
            (target.id, all.saturating_sub(used.copied().unwrap_or(0)))
        };
        rewritten().map(free).collect()
    }

    fn local_ips_towards(&self, target: &Target) -> u64 {
        match target.config.address.ip() {
            IpAddr::V4(_) => self.v4.local_ips_on(target.port).count() as u64,
            IpAddr::V6(_) => self.v6.local_ips_on(target.port).count() as u64,
        }
    }
}
