//! Which target takes a new flow. The control side lays out what can be laid out ([`plan`]); a worker keeps a cursor.

mod least;
mod maglev;
mod wrr;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::ids::TargetId;
use crate::limits::TARGET_TRIES;
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
        Scheduler::RoundRobin | Scheduler::LeastConnections => Arc::new([]),
        Scheduler::WeightedLeastConnections if !least::draws(weighted.len()) => Arc::new([]),
        Scheduler::WeightedLeastConnections => {
            wrr::places(weighted.into_iter().map(|(_, weight)| weight)).into()
        }
        Scheduler::WeightedRoundRobin => {
            wrr::sequence(weighted.into_iter().map(|(_, weight)| weight)).into()
        }
        Scheduler::SourceHash | Scheduler::Maglev => maglev::table(&weighted).into(),
    }
}

/// Why no target takes a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// None is eligible.
    NoTarget,
    /// All that were asked are at their limits.
    AtLimit,
}

/// Chooses a target for a client.
///
/// `cursor` is this worker's for this service; `flows` tells how many flows there are to a target, `weight` a target's weight, and
/// `has_room` whether a target is below its limits. If the one whose turn it is has none, up to [`TARGET_TRIES`] others are asked, from a
/// place that differs by client: its share goes to all of them.
pub(crate) fn choose(
    service: &Service,
    cursor: &mut u32,
    client: (IpAddr, u16),
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
    has_room: impl Fn(TargetId) -> bool,
) -> Result<TargetId, Unavailable> {
    let chosen = place(service, cursor, client, flows, weight).ok_or(Unavailable::NoTarget)?;
    let eligible = |place: usize| service.eligible.get(place).copied();
    let first = eligible(chosen).ok_or(Unavailable::NoTarget)?;
    if has_room(first) {
        return Ok(first);
    }
    let others = service.eligible.len() - 1;
    let from = maglev::slot(client.0, client.1, others).unwrap_or(0);
    (0..others.min(TARGET_TRIES))
        .map(|step| (chosen + 1 + (from + step) % others) % (others + 1))
        .filter_map(eligible)
        .find(|target| has_room(*target))
        .ok_or(Unavailable::AtLimit)
}

/// The place among the eligible targets that the scheduler says.
fn place(
    service: &Service,
    cursor: &mut u32,
    client: (IpAddr, u16),
    flows: impl Fn(TargetId) -> u64,
    weight: impl Fn(TargetId) -> u16,
) -> Option<usize> {
    let (plan, eligible) = (&service.plan, &service.eligible);
    let slot = |port| maglev::slot(client.0, port, plan.len());
    match service.config.scheduler {
        Scheduler::RoundRobin => turn(cursor, eligible.len()),
        Scheduler::WeightedRoundRobin => plan.get(turn(cursor, plan.len())?).map(place_of),
        Scheduler::LeastConnections => least::place(eligible, plan, cursor, flows, |_| 1),
        Scheduler::WeightedLeastConnections => least::place(eligible, plan, cursor, flows, weight),
        Scheduler::SourceHash => plan.get(slot(0)?).map(place_of),
        Scheduler::Maglev => plan.get(slot(client.1)?).map(place_of),
    }
}

fn place_of(planned: &u16) -> usize {
    usize::from(*planned)
}

/// The next of `n` turns.
fn turn(cursor: &mut u32, n: usize) -> Option<usize> {
    let turn = (*cursor as usize).checked_rem(n)?;
    *cursor = (turn + 1) as u32;
    Some(turn)
}

#[cfg(test)]
mod tests;
