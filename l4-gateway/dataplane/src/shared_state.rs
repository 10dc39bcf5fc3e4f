//! What all workers of a process keep together: the rates of services and targets, what is known of sources, asked for new
//! flows only, and only where a service has limits or persistence; and which routers answer. All else is each worker's own.

use crate::ids::{ServiceId, TargetId};
use crate::limits::Limits;
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
}
