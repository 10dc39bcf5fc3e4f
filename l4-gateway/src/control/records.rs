//! Records of the bus: what others say of themselves and of targets, and what they are told of this node and its targets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use shared::bus::{
    Change, Key, MAX_REGISTERED, NodeRecord, Record, RegistrationRecord, ServiceState,
    TargetRecord, Tier,
};

use super::{Action, Changed, Control, Offer, Pulse, Service, Target, Verdict};
use crate::config::{ServiceSettings, other_family, other_port, reachable};

/// How long others trust this node's record after the last put, in their connected time.
const NODE_TTL: Duration = Duration::from_secs(3);

impl Control {
    /// Something changed on the bus.
    pub fn bus(&mut self, now: Duration, change: &Change) -> Vec<Action> {
        self.now = now;
        self.expiry.observe(now, change);
        let mut actions = Vec::new();
        match change {
            Change::Snapshot { records, .. } => {
                // What a snapshot does not hold is not known to be gone: servers may have lost their memory. Own probes decide.
                let offers: BTreeSet<Key> = records
                    .iter()
                    .filter(|record| matches!(record, Record::Registration(_)))
                    .map(Record::key)
                    .collect();
                let mut changed = self.lapse(|key| !offers.contains(key));
                for record in records {
                    // What ran out is not brought back by servers that have kept it.
                    if !self.expiry.is_expired(&record.key()) {
                        changed |= self.take_in(record, &mut actions);
                    }
                }
                // A record that came before the offer it belongs to is no left-over.
                actions.retain(
                    |action| !matches!(action, Action::TakeBack(key) if self.checks_target(key)),
                );
                self.after(changed, &mut actions);
            }
            Change::Put(record) => {
                let changed = self.take_in(record, &mut actions);
                self.after(changed, &mut actions);
            }
            Change::Deleted(key) => {
                let changed = self.forget(key);
                actions.extend(self.say_again(key));
                self.after(changed, &mut actions);
            }
            Change::Connected(_) | Change::Heard(_) => {}
        }
        actions
    }

    fn take_in(&mut self, record: &Record, actions: &mut Vec<Action>) -> Changed {
        match record {
            Record::Registration(offer) => match self.offered(offer) {
                Ok(changed) => changed,
                Err(why) => {
                    let RegistrationRecord {
                        service,
                        addr,
                        node,
                        ..
                    } = offer;
                    actions.push(Action::Warn(format!(
                        "registration of {addr} for {service} by {node} ignored: {why}"
                    )));
                    Changed::Nothing
                }
            },
            Record::Target(seen) if seen.seen_by != self.node => {
                let verdict = Verdict {
                    up: seen.up,
                    reason: format!("{} (by {})", seen.reason, seen.seen_by),
                    since_unix_ms: seen.since_unix_ms,
                };
                self.observed(&seen.service, seen.addr, Some(verdict))
            }
            // Left over from an earlier life of this node, or from a target that has gone since.
            Record::Target(_) => {
                let key = record.key();
                if !self.checks_target(&key) {
                    actions.push(Action::TakeBack(key));
                }
                Changed::Nothing
            }
            Record::Drain(drain) if drain.tier == Tier::L4 && drain.id == self.node => {
                self.drain_is(drain.drain)
            }
            _ => Changed::Nothing,
        }
    }

    /// The verdict of this node's own probes on the target that a record's key names, if it probes it.
    fn own_target(&self, key: &Key) -> Option<(&Service, SocketAddr, &Target)> {
        let Key::Target {
            service,
            addr: address,
        } = key
        else {
            return None;
        };
        let service = self.services.named(service)?;
        let (own, target) = service.target_of_record(*address)?;
        service.settings.health.as_ref()?;
        (service.recorded_as(own) == *address).then_some((service, own, target))
    }

    pub(super) fn checks_target(&self, key: &Key) -> bool {
        self.own_target(key).is_some()
    }

    /// Somebody who looks after the target no more took their record back, and ours was under the same key before.
    fn say_again(&self, key: &Key) -> Option<Action> {
        let (service, address, target) = self.own_target(key)?;
        let verdict = target.verdict.as_ref()?;
        Some(Action::Put(seen(&self.node, service, address, verdict)))
    }

    fn offered(&mut self, record: &RegistrationRecord) -> Result<Changed, String> {
        if self.services.has_vip(record.addr.ip()) {
            return Err(format!("{} is a VIP of this node", record.addr.ip()));
        }
        let Some(service) = self.services.named_mut(&record.service) else {
            return Ok(Changed::Nothing);
        };
        if !service.settings.from_registrations {
            return Ok(Changed::Nothing);
        }
        let address = record.addr;
        if let Some((why, _)) = other_family(address, service.settings.vip) {
            return Err(why);
        }
        let ServiceSettings {
            mode,
            client_address,
            ports,
            ..
        } = service.settings;
        if let Some((why, _)) = other_port(address, mode, ports) {
            return Err(why);
        }
        reachable(address.ip(), mode, client_address, &self.ports).map_err(|(why, _)| why)?;
        if service.targets.get(&address).is_none() && service.targets.registered() >= MAX_REGISTERED
        {
            return Err(format!(
                "the service has {MAX_REGISTERED} registered targets already"
            ));
        }
        let weight = record.weight.min(u32::from(crate::config::MOST_WEIGHT)) as u16;
        let offer = Offer {
            node: record.node.clone(),
            weight,
            draining: record.draining,
            lapsed: false,
        };
        Ok(service.targets.offered(address, offer))
    }

    /// Only services without checks of their own listen to what others see.
    fn observed(
        &mut self,
        service: &str,
        address: SocketAddr,
        verdict: Option<Verdict>,
    ) -> Changed {
        match self.services.named_mut(service) {
            Some(service) if service.settings.health.is_none() => {
                let known = service.target_of_record(address);
                let address = known.map_or(address, |(own, _)| own);
                service.targets.observed(address, verdict)
            }
            _ => Changed::Nothing,
        }
    }

    fn forget(&mut self, key: &Key) -> Changed {
        match key {
            Key::Registration {
                service,
                addr: address,
            } => {
                let service = self.services.named_mut(service);
                service.map_or(Changed::Nothing, |service| {
                    service.targets.withdrawn(address)
                })
            }
            Key::Target { service, addr } => self.observed(service, *addr, None),
            Key::Drain { tier: Tier::L4, id } if *id == self.node => self.drain_is(false),
            _ => Changed::Nothing,
        }
    }

    /// Nobody stands behind these offers any more.
    pub(super) fn lapse(&mut self, gone: impl Fn(&Key) -> bool) -> Changed {
        let mut changed = Changed::Nothing;
        for service in self.services.iter_mut() {
            let name = &service.settings.name;
            let gone = |address: &SocketAddr| {
                gone(&Key::Registration {
                    service: name.clone(),
                    addr: *address,
                })
            };
            changed = changed.max(service.targets.lapse(gone));
        }
        changed
    }

    fn drain_is(&mut self, drain: bool) -> Changed {
        let changed = if self.drain == drain {
            Changed::Nothing
        } else {
            Changed::Node
        };
        self.drain = drain;
        self.look_whether_it_serves();
        if !drain && changed == Changed::Nothing && self.serves {
            // Whoever asks for what is so already may have lost the addresses to another.
            self.announce_again();
        }
        changed
    }

    fn record(&self) -> NodeRecord {
        let services = self.services.iter().map(|service| {
            let (healthy, total) = service.counts();
            ServiceState {
                service: service.settings.name.clone(),
                vip: service.settings.vip,
                healthy,
                total,
            }
        });
        NodeRecord {
            tier: Tier::L4,
            id: self.node.clone(),
            addresses: self.addresses.clone(),
            ready: self.ready().is_ok(),
            draining: self.is_draining(),
            forwarding: self.pulse == Pulse::Beating,
            load: self.load,
            software: concat!("l4-gateway ", env!("CARGO_PKG_VERSION")).into(),
            services: services.collect(),
            ttl_ms: NODE_TTL.as_millis() as u64,
        }
    }

    pub(super) fn tell(&mut self) -> Option<Action> {
        if self.gone {
            return None;
        }
        let record = self.record();
        self.told = Some(record.clone());
        Some(Action::Put(Record::Node(record)))
    }

    pub(super) fn told_if_changed(&mut self) -> Vec<Action> {
        match self.told.as_ref() == Some(&self.record()) {
            true => Vec::new(),
            false => self.tell().into_iter().collect(),
        }
    }
}

/// What others are told of a target that `node` probes.
pub(super) fn seen(
    node: &str,
    service: &Service,
    address: SocketAddr,
    verdict: &Verdict,
) -> Record {
    Record::Target(TargetRecord {
        service: service.settings.name.clone(),
        addr: service.recorded_as(address),
        up: verdict.up,
        reason: shortened(&verdict.reason),
        since_unix_ms: verdict.since_unix_ms,
        seen_by: node.to_owned(),
    })
}

pub(super) fn take_back(service: &Service, address: SocketAddr) -> Action {
    Action::TakeBack(Key::Target {
        service: service.settings.name.clone(),
        addr: service.recorded_as(address),
    })
}

/// Free text in records is bounded.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(120)
        .collect()
}
