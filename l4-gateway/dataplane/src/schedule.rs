//! Which target takes a new flow. The control side lays out what can be laid out ([`plan`]); a worker keeps a cursor.

mod maglev;
mod wrr;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::ids::TargetId;
use crate::service::{Scheduler, Service, Target};

/// The layout of a scheduler over its eligible targets: places in that list.
pub(crate) fn plan<'t>(
    scheduler: Scheduler,
    targets: impl Iterator<Item = &'t Target>,
) -> Arc<[u16]> {
    let weighted: Vec<(SocketAddr, u16)> = targets
        .map(|target| (target.config.address, target.config.weight))
        .collect();
    match scheduler {
        Scheduler::RoundRobin | Scheduler::WeightedLeastConnections => Arc::new([]),
        Scheduler::WeightedRoundRobin => {
            wrr::sequence(weighted.iter().map(|(_, weight)| *weight)).into()
        }
        Scheduler::Maglev => maglev::table(&weighted).into(),
    }
}

/// Chooses a target for a client; none if none is eligible.
///
/// `cursor` is this worker's for this service; `flows` tells how many flows this worker has to a target, `weight` a
/// target's weight.
pub(crate) fn choose(
    service: &Service,
    cursor: &mut u32,
    client: (IpAddr, u16),
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
) -> Option<TargetId> {
    let place = match service.config.scheduler {
        Scheduler::RoundRobin => turn(cursor, service.eligible.len())?,
        Scheduler::WeightedRoundRobin => {
            usize::from(service.plan[turn(cursor, service.plan.len())?])
        }
        Scheduler::WeightedLeastConnections => least_connections(&service.eligible, flows, weight)?,
        Scheduler::Maglev => usize::from(*service.plan.get(maglev::slot(
            client.0,
            client.1,
            service.plan.len(),
        )?)?),
    };
    service.eligible.get(place).copied()
}

/// The next of `n` turns.
fn turn(cursor: &mut u32, n: usize) -> Option<usize> {
    let turn = (*cursor as usize).checked_rem(n)?;
    *cursor = (turn + 1) as u32;
    Some(turn)
}

/// The target with the fewest flows per weight, counting the one about to come; the first of equals.
fn least_connections(
    eligible: &[TargetId],
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (place, id) in eligible.iter().enumerate() {
        let (flows, weight) = (flows(*id) + 1, u64::from(weight(*id)));
        // flows / weight < best.flows / best.weight, without dividing.
        if best.is_none_or(|(_, least, of)| flows * of < least * weight) {
            best = Some((place, flows, weight));
        }
    }
    best.map(|(place, ..)| place)
}

#[cfg(test)]
mod tests;
