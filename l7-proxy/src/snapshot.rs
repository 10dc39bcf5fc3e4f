//! What workers read while they serve: swapped whole, never changed in place (apart from the atomics in backends).

use crate::balance::Upstream;
use crate::config::Config;
use crate::route::{Router, UpstreamId};
use std::sync::Arc;

/// One generation of the configuration, ready to serve from.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was made from: listeners, certificates, forwarding, timeouts.
    pub config: Config,
    /// Host and path to upstream.
    pub router: Router,
    upstreams: Box<[Arc<Upstream>]>,
}

impl Snapshot {
    /// Builds a snapshot. Backends that `previous` had too keep their state and their counts.
    pub fn new(config: Config, previous: Option<&Snapshot>) -> Snapshot {
        let router = Router::new(&config.routes);
        let upstreams = config
            .upstreams
            .iter()
            .map(|settings| {
                let before = previous.and_then(|snapshot| {
                    snapshot
                        .upstreams
                        .iter()
                        .find(|upstream| *upstream.name == *settings.name)
                });
                Arc::new(Upstream::new(settings.clone(), before.map(Arc::as_ref)))
            })
            .collect();
        Snapshot {
            config,
            router,
            upstreams,
        }
    }

    /// All upstreams; an [`UpstreamId`] is an index into them.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The upstream of a route of this snapshot.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Arc<Upstream>> {
        self.upstreams.get(id.0)
    }
}
