//! What others see of a source that stays with its target.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::counters::Counters;
use crate::ids::ServiceId;
use crate::policy::PersistenceGroup;
use crate::tables::Tables;
use crate::templates::whole_seconds;
use crate::time::Now;

/// One source, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistenceView {
    /// The service that sent it there.
    pub service: ServiceId,
    /// Whose services all send it to that host, if several do.
    pub group: Option<PersistenceGroup>,
    /// The first address of the source.
    pub source: IpAddr,
    /// How many leading bits of a client's address are the source's.
    pub prefix: u8,
    /// Where its new flows go, if it takes any.
    pub target: SocketAddr,
    /// Until it is forgotten without another flow, and without one that is alive.
    pub expires_in: Duration,
}

impl Counters {
    /// The sources that stay with a target of the snapshot, in no order. Walks all that can be remembered; `now` is the workers' time.
    pub fn persistence(&self, tables: &Tables, now: Now) -> impl Iterator<Item = PersistenceView> {
        let remembered = self.shared().templates.remembered(now);
        remembered.filter_map(|remembered| {
            let target = tables.target(remembered.target)?;
            let service = tables.service(target.service)?;
            let persistence = service.config.policy.persistence?;
            let timeout = Duration::from_secs(whole_seconds(persistence.timeout));
            Some(PersistenceView {
                service: service.id,
                group: persistence.group,
                source: remembered.source,
                prefix: match remembered.source {
                    IpAddr::V4(_) => persistence.prefix.v4,
                    IpAddr::V6(_) => persistence.prefix.v6,
                },
                target: target.config.address,
                expires_in: timeout.checked_sub(remembered.age)?,
            })
        })
    }
}
