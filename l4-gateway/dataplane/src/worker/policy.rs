//! Whether a new flow is let in, and which target takes it.

use std::net::IpAddr;

use super::{Event, Worker};
use crate::DropReason;
use crate::counters::{ServiceCount, TargetCount};
use crate::emitted::Emitted;
use crate::ids::TargetId;
use crate::policy::{Persistence, Policy, Quota, Refusal};
use crate::rate::SharedRate;
use crate::schedule::{self, Unavailable};
use crate::service::Service;
use crate::sources::{AtLimit, Seat};
use crate::tables::Tables;
use crate::templates::Source;
use crate::time::Now;

/// What a source's hash is of, beside the service.
const LIMITS: u64 = 1 << 32;
const PERSISTENCE: u64 = 2 << 32;
const PERSISTENCE_GROUP: u64 = 3 << 32;

/// The target chosen for a new flow.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) target: TargetId,
    /// Whose flow it is, if that matters.
    source: Option<Source>,
    /// Its source was sent there before.
    kept: bool,
    /// Where its source was sent before, but has no room.
    full: Option<TargetId>,
}

impl Worker {
    /// Whether a client may use a service at all.
    pub(super) fn is_granted(&self, service: &Service, client: IpAddr) -> Result<(), DropReason> {
        match &service.config.policy.access {
            Some(access) if !access.allows(client) => {
                self.cells.service(service.id, ServiceCount::Denied, 1);
                Err(DropReason::Denied)
            }
            _ => Ok(()),
        }
    }

    /// Counts a new flow of a client for its source, unless that or the service is at a limit. Of their rates nothing is taken before all
    /// else is settled ([`Worker::take_rates`]), so that a flow that is turned away uses up nothing of what others could have.
    pub(super) fn seat(
        &self,
        service: &Service,
        client: IpAddr,
        now: Now,
    ) -> Result<Option<Seat>, DropReason> {
        let seat = self.seat_of_source(service, client, now)?;
        let admitted = self.is_below_limits(service, now);
        if let (Err(_), Some(seat)) = (&admitted, seat) {
            self.counters.shared().sources.leave(seat);
        }
        admitted.map(|()| seat)
    }

    fn seat_of_source(
        &self,
        service: &Service,
        client: IpAddr,
        now: Now,
    ) -> Result<Option<Seat>, DropReason> {
        let limits = &service.config.policy.limits;
        if !limits.source.is_limited() {
            return Ok(None);
        }
        let whose = u64::from(service.id.0) | LIMITS;
        let hash = limits.source_prefix.hash(&self.secret, client, whose);
        let sources = &self.counters.shared().sources;
        let count = |count| self.cells.service(service.id, count, 1);
        match sources.enter(hash, now, limits.source) {
            Ok(Some(seat)) => Ok(Some(seat)),
            Ok(None) => {
                count(ServiceCount::SourcesUntracked);
                Ok(None)
            }
            Err(AtLimit::Connections) => {
                count(ServiceCount::LimitedSourceConnections);
                Err(DropReason::SourceConnections)
            }
            Err(AtLimit::Rate) => {
                count(ServiceCount::LimitedSourceRate);
                Err(DropReason::SourceRate)
            }
        }
    }

    fn is_below_limits(&self, service: &Service, now: Now) -> Result<(), DropReason> {
        let (id, quota) = (service.id, service.config.policy.limits.service);
        if !quota.is_limited() {
            return Ok(());
        }
        if quota.connections > 0 && self.counters.service_flows(id) >= u64::from(quota.connections)
        {
            self.cells.service(id, ServiceCount::LimitedConnections, 1);
            return Err(DropReason::ServiceConnections);
        }
        let rate = self.counters.shared().service_rate(id);
        if quota.per_second > 0 && !rate.is_none_or(|rate| rate.has_one(now, quota.per_second)) {
            self.cells.service(id, ServiceCount::LimitedRate, 1);
            return Err(DropReason::ServiceRate);
        }
        Ok(())
    }

    /// Takes one of each rate that a new flow falls under; which is used up, if other workers were faster since it was asked for.
    pub(super) fn take_rates(
        &self,
        service: &Service,
        seat: Option<Seat>,
        target: TargetId,
        now: Now,
    ) -> Result<(), DropReason> {
        let (limits, shared) = (&service.config.policy.limits, self.counters.shared());
        let takes = |rate: Option<&SharedRate>, quota: Quota| {
            quota.per_second == 0 || rate.is_none_or(|rate| rate.take(now, quota.per_second))
        };
        let of_source = limits.source.per_second;
        let (count, reason) = if let Some(seat) = seat
            && of_source > 0
            && !shared.sources.take(seat, now, of_source)
        {
            (ServiceCount::LimitedSourceRate, DropReason::SourceRate)
        } else if !takes(shared.service_rate(service.id), limits.service) {
            (ServiceCount::LimitedRate, DropReason::ServiceRate)
        } else if !takes(shared.target_rate(target), limits.target) {
            self.cells.target(target, TargetCount::AtLimit, 1);
            (ServiceCount::LimitedTargets, DropReason::TargetLimits)
        } else {
            return Ok(());
        };
        self.cells.service(service.id, count, 1);
        Err(reason)
    }

    /// The target for a new flow of a client. `has_flow` tells of targets to which the client has one already, so that their limits don't
    /// matter.
    pub(super) fn pick(
        &mut self,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
        service: &Service,
        client: (IpAddr, u16),
        has_flow: impl Fn(&Self, TargetId) -> bool,
    ) -> Result<Choice, DropReason> {
        let id = service.id;
        let mut cursor = self.cursors.get(id.0 as usize).copied().unwrap_or(0);
        let has_room = |target| has_flow(self, target) || self.has_room(service, target, now);
        let chosen = self.choose(tables, now, service, &mut cursor, client, has_room);
        if let Some(place) = self.cursors.get_mut(id.0 as usize) {
            *place = cursor;
        }
        match chosen {
            Ok(choice) => Ok(choice),
            Err(Unavailable::AtLimit) => {
                self.cells.service(id, ServiceCount::LimitedTargets, 1);
                Err(DropReason::TargetLimits)
            }
            Err(Unavailable::NoTarget) => {
                self.cells.service(id, ServiceCount::NoTarget, 1);
                let due = self.reports.no_target.pass(now);
                self.report_if(due, out, Event::NoTarget { service: id });
                Err(DropReason::NoTarget)
            }
        }
    }

    /// The target that a persistent source is to stay with, else the scheduler's choice.
    fn choose(
        &self,
        tables: &Tables,
        now: Now,
        service: &Service,
        cursor: &mut u32,
        client: (IpAddr, u16),
        has_room: impl Fn(TargetId) -> bool,
    ) -> Result<Choice, Unavailable> {
        let templates = &self.counters.shared().templates;
        let source = self.source(service, client.0);
        let choice = |target, kept, full| Choice {
            target,
            source,
            kept,
            full,
        };
        let mut full = None;
        let kept = source.and_then(|source| templates.find(source, now));
        if let Some(target) = kept.and_then(|kept| on_same_host(tables, service, kept))
            && takes_flows(tables, service, target)
        {
            if has_room(target) {
                return Ok(choice(target, true, None));
            }
            full = Some(target);
        }
        // All of a source count as one client: nodes that hash choose alike for it.
        let client = match service.config.policy.persistence {
            Some(persistence) => (persistence.prefix.of(client.0), 0),
            None => client,
        };
        let weight = |target| {
            let target = tables.target(target);
            target.map_or(0, |target| target.config.weight)
        };
        let flows = |target| self.counters.target_flows(target);
        let chosen = schedule::choose(service, cursor, client, flows, weight, has_room)?;
        Ok(choice(chosen, false, full))
    }

    /// The target for a flow that is about to be: the one chosen, which its source stays with from here on, unless another worker has just
    /// sent the source elsewhere.
    pub(super) fn settle(
        &self,
        tables: &Tables,
        now: Now,
        service: &Service,
        choice: &Choice,
    ) -> TargetId {
        let Choice {
            target: chosen,
            source,
            kept,
            full,
        } = *choice;
        if kept {
            self.cells.service(service.id, ServiceCount::Persisted, 1);
            return chosen;
        }
        let Some(source) = source else {
            return chosen;
        };
        let own = |settled| on_same_host(tables, service, settled);
        let usable = |target| {
            target == chosen
                || full != Some(target)
                    && takes_flows(tables, service, target)
                    && self.has_room(service, target, now)
        };
        let templates = &self.counters.shared().templates;
        let usable = |settled| own(settled).is_some_and(usable);
        let settled = templates.settle(source, chosen, now, usable);
        own(settled).unwrap_or(chosen)
    }

    /// Whether a target is below its limits.
    fn has_room(&self, service: &Service, target: TargetId, now: Now) -> bool {
        let quota = service.config.policy.limits.target;
        if !quota.is_limited() {
            return true;
        }
        let rate = self.counters.shared().target_rate(target);
        let has_room = (quota.connections == 0
            || self.counters.target_flows(target) < u64::from(quota.connections))
            && (quota.per_second == 0
                || rate.is_none_or(|rate| rate.has_one(now, quota.per_second)));
        if !has_room {
            self.cells.target(target, TargetCount::AtLimit, 1);
        }
        has_room
    }

    /// Notes that a flow which keeps its source at its target was alive until now, or until its last packet if its connection is closed:
    /// what is left of it then is there for late segments.
    pub(super) fn persist(&self, tables: &Tables, now: Now, number: u32) {
        let flow = self.flows.get(number);
        let alive = if flow.is_closed() {
            let kept = tables.timeout(flow.service(), flow.progress.timed_as());
            Now::of_tick(flow.deadline.saturating_sub(kept)).min(now)
        } else {
            now
        };
        let client = self.flows.addresses(number).client;
        if let Some(service) = tables.service(flow.service())
            && let Some(source) = self.source(service, client)
        {
            let templates = &self.counters.shared().templates;
            let is_it = |kept| {
                kept == flow.target_id
                    || on_same_host(tables, service, kept) == Some(flow.target_id)
            };
            templates.refresh(source, is_it, alive, now);
        }
    }

    /// What a client of a service with persistence is known by. Not where each datagram goes its own way.
    #[inline]
    fn source(&self, service: &Service, client: IpAddr) -> Option<Source> {
        let persistence = service.config.policy.persistence?;
        (!service.config.is_one_packet()).then(|| self.source_of(service, persistence, client))
    }

    #[inline(never)]
    fn source_of(&self, service: &Service, persistence: Persistence, client: IpAddr) -> Source {
        let whose = match persistence.group {
            None => u64::from(service.id.0) | PERSISTENCE,
            Some(group) => group.number(&self.secret, PERSISTENCE_GROUP),
        };
        let hash = persistence.prefix.hash(&self.secret, client, whose);
        let source = persistence.prefix.of(client);
        Source::new(source, hash, persistence.timeout)
    }
}

/// What a packet gets for which no flow was created.
pub(super) fn refusal(policy: &Policy, reason: DropReason) -> Refusal {
    match reason {
        DropReason::Denied => policy.on_denied,
        DropReason::BadTransportChecksum => Refusal::Drop,
        DropReason::ServiceConnections
        | DropReason::ServiceRate
        | DropReason::SourceConnections
        | DropReason::SourceRate
        | DropReason::TargetLimits => policy.on_limit,
        _ => Refusal::Reset,
    }
}

/// Whether a target remembered for a service still is one of its, and gets new flows.
pub(super) fn takes_flows(tables: &Tables, service: &Service, target: TargetId) -> bool {
    let target = tables.target(target);
    target.is_some_and(|target| target.service == service.id && target.config.takes_flows())
}

/// The target of a service that a source is to stay with which was sent to `kept`: that one; where a service of the same group sent it there, the
/// one on the same host.
fn on_same_host(tables: &Tables, service: &Service, kept: TargetId) -> Option<TargetId> {
    let kept = tables.target(kept)?;
    if kept.service == service.id {
        return Some(kept.id);
    }
    let group = |service: &Service| service.config.policy.persistence?.group;
    let sent_by = tables.service(kept.service)?;
    if group(service).is_none() || group(service) != group(sent_by) {
        return None;
    }
    // Several are alike, but for those that take no flows.
    let mut targets = service.targets_on(tables, kept.config.address.ip());
    let usable = targets.find(|target| target.config.takes_flows());
    usable.map(|target| target.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::NextHops;
    use crate::{
        Counters, FlowLimits, Ids, Limits, Persistence, Port, PortIndex, Protocol, Secret, Segment,
        ServiceConfig, SourcePrefix, TargetConfig,
    };

    /// Targets 1 and 2, each with room for one flow; sources stay with theirs.
    fn tables(limits: &Limits) -> Tables {
        let mut builder = Tables::builder();
        builder.port(Port {
            index: PortIndex(0),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            ipv4: Some(Segment {
                address: [10, 3, 0, 11].into(),
                prefix: 24,
                gateways: NextHops::ON_LINK,
            }),
            ipv6: None,
            mtu: 1500,
            answers: true,
            announce_every: None,
            hears_kernel: false,
        });
        builder.local_ip([10, 3, 0, 100]);
        let mut service = ServiceConfig::new([10, 0, 0, 100], Protocol::Tcp, 80);
        service.targets = [1, 2]
            .map(|n| TargetConfig {
                address: ([10, 3, 0, n], 80).into(),
                weight: 1,
                up: true,
                draining: false,
                cut: false,
            })
            .to_vec();
        service.policy.persistence = Some(Persistence {
            timeout: Duration::from_secs(60),
            prefix: SourcePrefix::default(),
            group: None,
        });
        service.policy.limits = FlowLimits {
            target: Quota {
                connections: 0,
                per_second: 1,
            },
            ..FlowLimits::default()
        };
        builder.service(service);
        builder.build(&mut Ids::new(limits), None).unwrap()
    }

    /// Two workers choose for a source at once. The second goes where the first did, unless there is no room left, which is asked of that
    /// target.
    #[test]
    fn a_choice_that_another_worker_has_made_is_followed_where_it_has_room() {
        let limits = Limits {
            flows: 64,
            ..Limits::default()
        };
        for is_full in [false, true] {
            let (tables, counters) = (tables(&limits), Arc::new(Counters::new(2, &limits)));
            let mut workers = [0, 1].map(|index| {
                let counters = Arc::clone(&counters);
                Worker::new(index, 2, &limits, Secret::new([7; 32]), counters)
            });
            let service = tables.services().next().unwrap();
            let client = (IpAddr::from([10, 1, 0, 1]), 4000);
            let [first, second] = workers.each_mut().map(|worker| {
                let mut out = Emitted::new();
                worker
                    .pick(&tables, Now(0), &mut out, service, client, |_, _| false)
                    .unwrap()
            });
            assert_ne!(first.target, second.target, "workers begin at other turns");
            let settle = |worker: &Worker, choice| worker.settle(&tables, Now(0), service, choice);
            assert_eq!(settle(&workers[0], &first), first.target);
            if is_full {
                let taken = workers[0].take_rates(service, None, first.target, Now(0));
                assert_eq!(taken, Ok(()));
            }
            let expected = if is_full { second } else { first }.target;
            assert_eq!(settle(&workers[1], &second), expected);
            // Nothing but what was taken is used up.
            for target in &service.eligible {
                let has_room = workers[1].has_room(service, *target, Now(0));
                assert_eq!(has_room, !(is_full && *target == first.target));
            }
        }
    }
}
