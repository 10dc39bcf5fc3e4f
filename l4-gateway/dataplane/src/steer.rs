//! Which worker a packet belongs to.
//!
//! The owner follows from the packet and from what doesn't change while the process runs: the ports' NICs and how many workers there
//! are. The queue a packet came in on has no say: whoever receives a packet of another worker hands it over, so a NIC that hashes
//! otherwise than it says costs time, not packets. The NIC's part is to bring most packets to their owner, and ours to choose
//! owners, and local ports, accordingly:
//!
//! - a packet to a LocalIP belongs to the worker its destination port names, which chose it. Rules of the NIC give it to that worker's
//!   queue ([`Spread::by_port`]); on a LocalIP without them the worker prefers ports whose answers RSS brings to it
//!   ([`Steering::of_answers`]);
//! - any other is a client's. Where the NIC's RSS can be told ([`Spread::rss`]), the queue that it gives a whole packet of this kind to
//!   is the owner, be this one a fragment or quoted in an ICMP error; elsewhere a keyed hash names it.
//!
//! Clients of one prefix have many owners. What must be the same for all of them (persistence, limits per source) is kept where all
//! workers look ([`crate::shared_state`]), so that it doesn't depend on the owner.

use std::net::IpAddr;
use std::sync::Arc;

use crate::family::Family;
use crate::flow::Tuple;
use crate::port::PortIndex;
use crate::ports::PortPool;
use crate::rss::Rss;
use crate::tables::{LocalIp, Tables};

/// What a port's NIC does so that packets arrive at the queue of their owner: queue n is worker n's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How the NIC chooses the queue of a packet, if its driver says so. It is used if it has as many queues as there are workers. It
    /// must not change while the process runs, or flows would be looked for where they aren't.
    pub rss: Option<Arc<Rss>>,
    /// LocalIPs for which rules give packets to the queue that is their destination port modulo the workers. Others may join them.
    pub by_port: Vec<IpAddr>,
}

/// What a snapshot knows of the ports' NICs.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// By which answers arrive, of ports with a LocalIP that has no rules.
    answers: Vec<(PortIndex, Arc<Rss>)>,
    /// Of the port that clients' packets are taken to come in on: the first without LocalIPs, or the first. All ports have the same
    /// key, so that mostly it doesn't matter which.
    clients: Option<Arc<Rss>>,
}

impl Steering {
    /// `clients` is what the snapshot before took; without one, that is chosen here.
    pub(crate) fn new(
        ports: &[(PortIndex, Spread)],
        local_ips: &[LocalIp],
        clients: Option<&Steering>,
    ) -> Self {
        let on = |port| local_ips.iter().filter(move |local| local.port == port);
        let rss =
            |(port, spread): &(PortIndex, Spread)| Some((*port, Arc::clone(spread.rss.as_ref()?)));
        let lacks_rules = |(port, _): &(PortIndex, Arc<Rss>)| on(*port).any(|local| !local.by_port);
        let chosen = || {
            let outer = ports.iter().filter(|(port, _)| on(*port).next().is_none());
            outer.chain(ports).find_map(rss).map(|(_, rss)| rss)
        };
        Self {
            answers: ports.iter().filter_map(rss).filter(lacks_rules).collect(),
            clients: match clients {
                Some(before) => before.clients.clone(),
                None => chosen(),
            },
        }
    }

    /// The RSS that makes clients' packets their owner's, if there is one.
    #[inline]
    pub(crate) fn clients(&self, workers: u16) -> Option<&Rss> {
        self.clients
            .as_deref()
            .filter(|rss| rss.queues() == workers)
    }

    /// The RSS by which a worker should choose local ports towards targets behind a port, on LocalIPs without rules; none where there
    /// are no such, or nobody knows.
    pub(crate) fn of_answers(&self, port: PortIndex, workers: u16) -> Option<&Rss> {
        self.answers
            .iter()
            .find(|(index, _)| *index == port)
            .map(|(_, rss)| rss.as_ref())
            .filter(|rss| rss.queues() == workers)
    }
}

/// The owner of a packet's flow.
pub(crate) fn owner<V: Family>(tables: &Tables, tuple: &Tuple<V>, hash: u64, workers: u16) -> u16 {
    if tables.net::<V>().is_local_ip(tuple.destination) {
        return PortPool::owner(tuple.destination_port, workers);
    }
    let queue = tables.steering().clients(workers).and_then(|rss| {
        let (from, to) = tuple.ends();
        rss.queue(tuple.protocol, from, to)
    });
    queue.unwrap_or_else(|| by_hash(hash, workers))
}

/// The owner, where that can be told at the cost of a few instructions. Where it takes the NIC's hash, whoever has the packet's flow
/// is the owner, and only for a packet without flow [`owner`] is asked.
#[inline]
pub(crate) fn owner_at_once<V: Family>(
    tables: &Tables,
    tuple: &Tuple<V>,
    hash: u64,
    workers: u16,
) -> Option<u16> {
    if tables.net::<V>().is_local_ip(tuple.destination) {
        Some(PortPool::owner(tuple.destination_port, workers))
    } else if tables.steering().clients(workers).is_some() {
        None
    } else {
        Some(by_hash(hash, workers))
    }
}

/// By bits that neither pick the bucket nor make the tag, or each worker would use a part of its index only.
#[inline]
fn by_hash(hash: u64, workers: u16) -> u16 {
    ((((hash >> 32) & 0xffff) * u64::from(workers)) >> 16) as u16
}
