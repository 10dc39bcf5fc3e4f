//! Whether a new flow is let in, and which target takes it.

use std::net::IpAddr;

use super::{Event, Worker};
use crate::DropReason;
use crate::counters::{ServiceCount, TargetCount};
use crate::emitted::Emitted;
use crate::ids::TargetId;
use crate::policy::{Policy, Refusal};
use crate::schedule::{self, Unavailable};
use crate::service::Service;
use crate::sources::{AtLimit, Entry, Seat};
use crate::tables::Tables;
use crate::templates::Source;
use crate::time::Now;

/// What a source's hash is of, beside the service.
const LIMITS: u64 = 1 << 32;
const PERSISTENCE: u64 = 2 << 32;

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

    /// Counts a new flow of a client against the limits of its source, then of the service: in this order, so that a source that is
    /// turned away uses up nothing of what is there for all.
    pub(super) fn seat(
        &self,
        service: &Service,
        client: IpAddr,
        now: Now,
    ) -> Result<Option<Seat>, DropReason> {
        let seat = self.seat_of_source(service, client, now)?;
        let admitted = self.is_below_limits(service, now);
        if let (Err(_), Some(seat)) = (&admitted, seat) {
            self.counters.commons().sources.leave(seat);
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
        let sources = &self.counters.commons().sources;
        let count = |count| self.cells.service(service.id, count, 1);
        match sources.enter(hash, now, limits.source) {
            Ok(Entry::Seated(seat)) => Ok(Some(seat)),
            Ok(Entry::Passed) => Ok(None),
            Ok(Entry::Untracked) => {
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
        let rate = self.counters.commons().service_rate(id);
        if quota.per_second > 0 && !rate.is_none_or(|rate| rate.take(now, quota.per_second)) {
            self.cells.service(id, ServiceCount::LimitedRate, 1);
            return Err(DropReason::ServiceRate);
        }
        Ok(())
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
    ) -> Result<TargetId, DropReason> {
        let id = service.id;
        let mut cursor = self.cursors.get(id.0 as usize).copied().unwrap_or(0);
        let has_room = |target| has_flow(self, target) || self.has_room(service, target, now);
        let chosen = self.choose(tables, now, service, &mut cursor, client, has_room);
        if let Some(place) = self.cursors.get_mut(id.0 as usize) {
            *place = cursor;
        }
        match chosen {
            Ok(target) => Ok(target),
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
    ) -> Result<TargetId, Unavailable> {
        let templates = &self.counters.commons().templates;
        let source = self.source(service, client.0);
        let mut full = None;
        if let Some(target) = source.and_then(|source| templates.find(source, now))
            && takes_flows(tables, service, target)
        {
            if has_room(target) {
                self.cells.service(service.id, ServiceCount::Persisted, 1);
                return Ok(target);
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
        let usable = |target| full != Some(target) && takes_flows(tables, service, target);
        Ok(source.map_or(chosen, |source| {
            templates.settle(source, chosen, now, usable)
        }))
    }

    /// Whether a target is below its limits.
    fn has_room(&self, service: &Service, target: TargetId, now: Now) -> bool {
        let quota = service.config.policy.limits.target;
        if !quota.is_limited() {
            return true;
        }
        let rate = self.counters.commons().target_rate(target);
        let has_room = (quota.connections == 0
            || self.counters.target_flows(target) < u64::from(quota.connections))
            && (quota.per_second == 0 || rate.is_none_or(|rate| rate.take(now, quota.per_second)));
        if !has_room {
            self.cells.target(target, TargetCount::AtLimit, 1);
        }
        has_room
    }

    /// Notes that a flow which keeps its source at its target was alive until now.
    pub(super) fn persist(&self, tables: &Tables, now: Now, number: u32) {
        let flow = self.flows.get(number);
        let client = self.flows.addresses(number).client;
        if let Some(service) = tables.service(flow.service())
            && let Some(source) = self.source(service, client)
        {
            let templates = &self.counters.commons().templates;
            templates.refresh(source, flow.target_id, now);
        }
    }

    /// What a client of a service with persistence is known by.
    fn source(&self, service: &Service, client: IpAddr) -> Option<Source> {
        let persistence = service.config.policy.persistence?;
        let whose = u64::from(service.id.0) | PERSISTENCE;
        let hash = persistence.prefix.hash(&self.secret, client, whose);
        Some(Source::new(hash, persistence.timeout))
    }
}

/// What a packet gets for which no flow was created.
pub(super) fn refusal(policy: &Policy, reason: DropReason) -> Refusal {
    match reason {
        DropReason::Denied => policy.on_denied,
        DropReason::ServiceConnections
        | DropReason::ServiceRate
        | DropReason::SourceConnections
        | DropReason::SourceRate
        | DropReason::TargetLimits => policy.on_limit,
        _ => Refusal::Reset,
    }
}

/// Whether a target remembered for a service still is one of its, and gets new flows.
fn takes_flows(tables: &Tables, service: &Service, target: TargetId) -> bool {
    let target = tables.target(target);
    target.is_some_and(|target| target.service == service.id && target.config.takes_flows())
}
