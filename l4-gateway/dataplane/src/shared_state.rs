//! What all workers of a process keep together: the rates of services and targets, what is known of sources, asked for new
//! flows only, and only where a service has limits or persistence; which routers answer; and when LocalIPs were defended. All else is
//! each worker's own.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Now;
use crate::ids::{LocalIpId, ServiceId, TargetId};
use crate::limits::{DEFENCE_INTERVAL, Limits};
use crate::next_hops::SharedLiving;
use crate::rate::SharedRate;
use crate::sources::Sources;
use crate::templates::Templates;

#[derive(Debug)]
pub(crate) struct SharedState {
    pub(crate) sources: Sources,
    pub(crate) templates: Templates,
    pub(crate) living: SharedLiving,
    services: Box<[SharedRate]>,
    targets: Box<[SharedRate]>,
    /// From when on each LocalIP may be defended again, milliseconds.
    defences: Box<[AtomicU64]>,
}

impl SharedState {
    pub(crate) fn new(limits: &Limits) -> Self {
        let rates = |n: u32| (0..n).map(|_| SharedRate::default()).collect();
        Self {
            sources: Sources::new(limits.sources),
            templates: Templates::new(limits.sources),
            living: SharedLiving::default(),
            services: rates(limits.services),
            targets: rates(limits.targets),
            defences: (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How fast a service gets new flows; none for a number never given out.
    pub(crate) fn service_rate(&self, id: ServiceId) -> Option<&SharedRate> {
        self.services.get(id.0 as usize)
    }

    /// How fast a target gets new flows; none for a number never given out.
    pub(crate) fn target_rate(&self, id: TargetId) -> Option<&SharedRate> {
        self.targets.get(id.0 as usize)
    }

    /// Whether a LocalIP may be defended now: once in a while by the whole node, whose workers all hear of a conflict, or two that have the same
    /// address would drive each other. It counts as done then.
    pub(crate) fn may_defend(&self, id: LocalIpId, now: Now) -> bool {
        let now = now.millis();
        let next = |due| (due <= now).then_some(now + DEFENCE_INTERVAL);
        self.defences.get(usize::from(id.0)).is_some_and(|due| {
            due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                .is_ok()
        })
    }
}
