//! Addresses that a reload took out of the configuration, for as long as flows use them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Counters, Ids, Retired as Role, TablesBuilder};
use serde::Serialize;

/// An address is kept for so long at least: workers may still be making flows with it by the snapshot before.
const LEAST: Duration = Duration::from_secs(2);

/// See the module. Times are of a clock that never goes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Retired(BTreeMap<IpAddr, Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    role: Role,
    since: Duration,
    /// When it goes, even if flows use it.
    until: Duration,
}

/// An address that is kept for its flows only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetiredView {
    /// The address.
    pub address: IpAddr,
    /// `vip` or `local_ip`.
    pub role: &'static str,
    /// Flows that use it.
    pub flows: u64,
    /// How much longer they may, in seconds.
    pub seconds_left: u64,
}

impl Retired {
    /// What retires when the roles of addresses change from `before` to `after`, for `limit` at most. Addresses that have a role again are not retired any
    /// more; those that were retired before keep their time.
    pub(super) fn change(
        &self,
        now: Duration,
        limit: Duration,
        before: &BTreeMap<IpAddr, Role>,
        after: &BTreeMap<IpAddr, Role>,
    ) -> Retired {
        let mut entries = self.0.clone();
        let until = now + limit;
        for (address, role) in before {
            entries.entry(*address).or_insert(Entry {
                role: *role,
                since: now,
                until,
            });
        }
        entries.retain(|address, entry| !after.contains_key(address) && entry.until > now);
        Retired(entries)
    }

    /// Gives up what no flow uses any more, and what has had its time. Whether there was something.
    pub(super) fn release(&mut self, now: Duration, ids: &Ids, counters: &Counters) -> bool {
        let before = self.0.len();
        self.0.retain(|address, entry| {
            let in_use = || ids.flows_of(*address, counters) > 0;
            now < entry.until && (now < entry.since + LEAST || in_use())
        });
        self.0.len() != before
    }

    pub(super) fn describe(&self, builder: &mut TablesBuilder) {
        for (address, entry) in &self.0 {
            builder.retired(*address, entry.role);
        }
    }

    pub(super) fn view(&self, now: Duration, ids: &Ids, counters: &Counters) -> Vec<RetiredView> {
        let view = |(address, entry): (&IpAddr, &Entry)| RetiredView {
            address: *address,
            role: match entry.role {
                Role::Vip { .. } => "vip",
                Role::LocalIp => "local_ip",
            },
            flows: ids.flows_of(*address, counters),
            seconds_left: entry.until.saturating_sub(now).as_secs(),
        };
        self.0.iter().map(view).collect()
    }
}
