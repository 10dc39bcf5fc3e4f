//! What workers read while they serve: swapped whole, never changed in place (apart from the atomics in backends).

use crate::config::{Config, Protocol};
use crate::observe::metrics::ListenerMetrics;
use crate::policy::{Router, UpstreamId};
use crate::upstream::Upstream;
use std::sync::Arc;

/// One generation of the configuration, ready to serve from.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up from 1 with every reload of the process.
    pub number: u64,
    /// What it was made from: listeners, certificates, forwarding, timeouts.
    pub config: Arc<Config>,
    /// Host and path to upstream.
    pub router: Router,
    upstreams: Box<[Arc<Upstream>]>,
    listeners: Box<[Arc<ListenerMetrics>]>,
}

impl Snapshot {
    /// Builds a snapshot. Backends that `previous` had too keep their state and their counts.
    pub fn new(config: Arc<Config>, previous: Option<&Snapshot>) -> Snapshot {
        let router = Router::new(&config.routes);
        let upstreams: Box<[_]> = config
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
        let upstream = |id: UpstreamId| {
            let upstream: Option<&Arc<Upstream>> = upstreams.get(id.0);
            upstream.map_or("", |upstream| &*upstream.name)
        };
        let listeners = config.listeners.iter().map(|listener| {
            let routes = router.routes().iter();
            let routes = routes.map(|route| (&*route.name, upstream(route.upstream)));
            let tls = listener.protocol == Protocol::Https;
            Arc::new(ListenerMetrics::new(&listener.name, tls, routes))
        });
        Snapshot {
            listeners: listeners.collect(),
            number: previous.map_or(0, |snapshot| snapshot.number) + 1,
            config,
            router,
            upstreams,
        }
    }

    /// All upstreams; an [`UpstreamId`] is an index into them.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The metrics of its listeners, in their order.
    pub(crate) fn listeners(&self) -> &[Arc<ListenerMetrics>] {
        &self.listeners
    }

    /// The metrics of the listener of a name, which is likely number `index`; none if this generation has none of that name.
    pub(crate) fn listener(&self, index: usize, name: &str) -> Option<&ListenerMetrics> {
        let named = |metrics: &&Arc<ListenerMetrics>| metrics.name() == name;
        let likely = self.listeners.get(index).filter(named);
        likely
            .or_else(|| self.listeners.iter().find(named))
            .map(Arc::as_ref)
    }

    /// The upstream of a route of this snapshot.
    pub fn upstream(&self, id: UpstreamId) -> Option<&Arc<Upstream>> {
        self.upstreams.get(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::State;

    const BEFORE: &str = r#"
[node]
id = "l7-1"
[[listeners]]
name = "web"
address = "127.0.0.1:8080"
[[routes]]
hosts = ["a.test"]
upstream = "a"
[[routes]]
hosts = ["b.test"]
upstream = "b"
[upstreams.a]
backends = [{ address = "10.0.0.1:80" }, { address = "10.0.0.2:80" }]
[upstreams.b]
backends = [{ address = "10.0.0.1:80" }]
"#;

    #[test]
    fn a_new_generation_keeps_what_is_known_of_backends_that_stay() {
        let config = |text: &str| Arc::new(Config::from_toml("l7.toml", text).unwrap());
        let before = Snapshot::new(config(BEFORE), None);
        let known = &before.upstreams()[0].members[0].backend;
        known.set_state(State::Down);
        let under_way = known.begin();

        let text = BEFORE.replace(
            "[upstreams.b]",
            "[upstreams.aa]\nbackends = [{ address = \"10.0.0.1:80\" }]\n[upstreams.b]",
        );
        let after = Snapshot::new(config(&text), Some(&before));
        assert_eq!(
            after
                .upstreams()
                .iter()
                .map(|upstream| &*upstream.name)
                .collect::<Vec<_>>(),
            ["a", "aa", "b"]
        );
        let kept = &after.upstreams()[0].members[0].backend;
        assert_eq!((kept.state(), kept.active()), (State::Down, 1));
        drop(under_way);
        assert_eq!(
            kept.active(),
            0,
            "a request that began under the old generation ends in the new one"
        );
        // The same address in another upstream is checked and counted for itself.
        assert_eq!(after.upstreams()[1].members[0].backend.state(), State::Up);
        assert_eq!(after.upstreams()[2].members[0].backend.state(), State::Up);
    }
}
