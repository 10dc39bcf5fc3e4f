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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::State;

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
        let config = |text: &str| Config::from_toml("l7.toml", text).unwrap();
        let before = Snapshot::new(config(BEFORE), None);
        let known = &before.upstreams()[0].backends[0];
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
        let kept = &after.upstreams()[0].backends[0];
        assert_eq!((kept.state(), kept.active()), (State::Down, 1));
        drop(under_way);
        assert_eq!(
            kept.active(),
            0,
            "a request that began under the old generation ends in the new one"
        );
        // The same address in another upstream is checked and counted for itself.
        assert_eq!(after.upstreams()[1].backends[0].state(), State::Up);
        assert_eq!(after.upstreams()[2].backends[0].state(), State::Up);
    }
}
