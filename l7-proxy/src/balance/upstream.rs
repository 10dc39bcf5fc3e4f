//! An upstream: its settings and its backends.

use super::{Backend, State};
use crate::config::UpstreamSettings;
use std::sync::Arc;

/// A named pool of backends.
#[derive(Debug)]
pub struct Upstream {
    /// The name routes, logs and metrics use.
    pub name: Arc<str>,
    /// Timeouts, retries, keep-alive, health.
    pub settings: UpstreamSettings,
    /// Its backends; a [`super::Balancer`] answers with an index into them.
    pub backends: Box<[Arc<Backend>]>,
}

impl Upstream {
    /// Builds the upstream, taking over the backends of `previous` that are the same (address and weight), with their state and counts.
    pub fn new(settings: UpstreamSettings, previous: Option<&Upstream>) -> Upstream {
        let initially = match settings.health.as_ref().map(|health| health.initially) {
            Some(health::State::Down) => State::Down,
            Some(health::State::Up) | None => State::Up,
        };
        let fresh = |address, weight| {
            let backend = Backend::new(address, weight);
            backend.set_state(initially);
            Arc::new(backend)
        };
        let backends = settings
            .backends
            .iter()
            .map(|wanted| {
                let same = |old: &&Arc<Backend>| old.address() == wanted.address;
                match previous.and_then(|upstream| upstream.backends.iter().find(same)) {
                    Some(old) if old.weight() == wanted.weight => Arc::clone(old),
                    // A new weight is a new object (weights are read without a lock), but what is known about the address still holds.
                    Some(old) => {
                        let backend = Backend::new(wanted.address, wanted.weight);
                        backend.set_state(old.state());
                        Arc::new(backend)
                    }
                    None => fresh(wanted.address, wanted.weight),
                }
            })
            .collect();
        Upstream {
            name: settings.name.as_str().into(),
            settings,
            backends,
        }
    }

    /// How many backends may get requests now.
    pub fn available(&self) -> usize {
        self.backends
            .iter()
            .filter(|backend| backend.is_available())
            .count()
    }
}
