//! What one worker serves a generation of the configuration with. A request pins the generation that was current when its head was
//! complete, and is routed, balanced, logged and counted by it however long it takes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::policy::{Route, UpstreamId};
use crate::upstream::{Asking, Balancer, Likeness, Member, Outcome, Pool, Shelf, Tried, Upstream};

/// A snapshot, and what this worker adds to it.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) snapshot: Arc<Snapshot>,
    /// By [`UpstreamId`].
    upstreams: Box<[Served]>,
}

/// An upstream as this worker serves it.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) upstream: Arc<Upstream>,
    balancer: RefCell<Balancer>,
    /// Idle connections, by member.
    shelves: Box<[Rc<Shelf>]>,
}

impl Generation {
    /// For worker number `worker`, whose connections are in `pool`. Balancers go on where those of `previous` are.
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        worker: usize,
        pool: &Pool,
        previous: Option<&Generation>,
    ) -> Generation {
        let before: HashMap<&str, &Served> = previous
            .into_iter()
            .flat_map(|generation| &generation.upstreams)
            .map(|served| (&*served.upstream.name, served))
            .collect();
        let served = |upstream: &Arc<Upstream>| {
            let balancer = match before.get(&*upstream.name) {
                Some(before) => {
                    Balancer::new(upstream.clone(), worker, Some(&before.balancer.borrow()))
                }
                None => Balancer::new(upstream.clone(), worker, None),
            };
            let shelf = |member: &Member| {
                let likeness = Likeness::new(upstream, member.backend.address());
                pool.shelf(likeness, upstream.settings.keep_alive)
            };
            Served {
                balancer: RefCell::new(balancer),
                shelves: upstream.members.iter().map(shelf).collect(),
                upstream: upstream.clone(),
            }
        };
        Generation {
            upstreams: snapshot.upstreams().iter().map(served).collect(),
            snapshot,
        }
    }

    /// A route by its number.
    pub(crate) fn route(&self, number: usize) -> Option<&Route> {
        self.snapshot.router.routes().get(number)
    }

    /// The upstream of one of its routes.
    pub(crate) fn upstream(&self, id: UpstreamId) -> Option<&Served> {
        self.upstreams.get(id.0)
    }

    /// Where this generation's idle connections are.
    pub(crate) fn shelves(&self) -> Vec<Rc<Shelf>> {
        let shelves = self.upstreams.iter().flat_map(|served| &*served.shelves);
        shelves.cloned().collect()
    }
}

impl Served {
    /// The backend for a request's next try, as an index into the upstream's members.
    pub(crate) fn choose(&self, asking: &Asking<'_>, tried: &Tried) -> Option<usize> {
        self.balancer.borrow_mut().choose(asking, tried)
    }

    /// What came of a try at the member with that index.
    pub(crate) fn told(&self, index: usize, outcome: Outcome) {
        if let Some(member) = self.upstream.members.get(index) {
            match outcome {
                Outcome::Answered(status, took) => member.metrics.answered(status.as_u16(), took),
                Outcome::Failed(reason) => member.metrics.failed(reason),
            }
        }
        self.balancer.borrow_mut().told(index, outcome);
    }

    /// A member, and where its idle connections are.
    pub(crate) fn member(&self, index: usize) -> Option<(&Member, &Rc<Shelf>)> {
        self.upstream
            .members
            .get(index)
            .zip(self.shelves.get(index))
    }
}
