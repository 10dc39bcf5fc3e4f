//! What the observer watches and what it has seen: services, their targets, and the records that tell others.
//!
//! Pure: bus changes and transitions go in, checks and records come out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use shared::bus::{Change, Expiry, Key, MAX_REGISTERED, Record, TargetRecord};

use crate::check::{Check, CheckId};
use crate::checks::Transition;
use crate::config::ObservedService;
use crate::threshold::State;

/// Services, their targets, and their states as seen from here.
pub struct Observation {
    node: String,
    services: Vec<ObservedService>,
    /// Targets that offer themselves, by service: [`MAX_REGISTERED`] each at most.
    offered: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// Counts down how long an offer is good for without being repeated.
    expiry: Expiry,
    targets: BTreeMap<CheckId, Seen>,
}

/// A target as seen from here.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The service it belongs to.
    pub service: String,
    /// Where the service's traffic goes.
    pub addr: SocketAddr,
    /// Its state.
    pub state: State,
    /// Whether a probe has told; otherwise the state is the configured one.
    pub probed: bool,
    /// Why, in words.
    pub reason: String,
    /// Since when, in milliseconds of Unix time.
    pub since_unix_ms: u64,
}

/// What follows from a change on the bus.
#[derive(Debug, Default, PartialEq)]
pub struct Consequences {
    /// The checks are others than before.
    pub checks_changed: bool,
    /// Records of this node that are no longer true.
    pub delete: Vec<Key>,
    /// An offer that is not followed, its service having enough of them.
    pub left_out: Option<Key>,
}

impl Observation {
    /// What node `node` is to observe, none of it seen yet, `unix_ms` now.
    pub fn new(node: &str, services: Vec<ObservedService>, unix_ms: u64) -> Observation {
        let mut observation = Observation {
            node: node.to_owned(),
            services,
            offered: BTreeMap::new(),
            expiry: Expiry::new(),
            targets: BTreeMap::new(),
        };
        observation.retarget(unix_ms);
        observation
    }

    /// The checks of all targets there are now.
    pub fn checks(&self) -> Vec<Check> {
        self.wanted()
            .into_iter()
            .map(|(id, (service, addr))| service.settings.check(id, addr))
            .collect()
    }

    /// Takes in a change on the bus, at `now` since any start.
    pub fn on_bus(&mut self, change: &Change, now: Duration, unix_ms: u64) -> Consequences {
        self.expiry.observe(now, change);
        let mut consequences = Consequences::default();
        match change {
            Change::Snapshot { records, .. } => {
                let before = std::mem::take(&mut self.offered);
                for record in records {
                    // What ran out is not brought back by servers that have kept it.
                    if !self.expiry.is_expired(&record.key()) {
                        self.on_record(record, &mut consequences);
                    }
                }
                consequences.checks_changed = self.offered != before;
            }
            Change::Put(record) => self.on_record(record, &mut consequences),
            Change::Deleted(key) => consequences.checks_changed = self.withdrawn(key),
            Change::Connected(_) | Change::Heard(_) => {}
        }
        self.settle(unix_ms, consequences)
    }

    /// Goes on with other services; what is seen of targets that stay is kept. Offers for services that are new are not known: the bus has to tell
    /// them anew.
    pub fn on_reload(&mut self, services: Vec<ObservedService>, unix_ms: u64) -> Consequences {
        self.services = services;
        let Self {
            services, offered, ..
        } = self;
        let follows = |name: &String| {
            let mut services = services.iter();
            services.any(|service| service.from_registrations && service.name == *name)
        };
        offered.retain(|name, _| follows(name));
        let consequences = Consequences {
            checks_changed: true,
            ..Consequences::default()
        };
        self.settle(unix_ms, consequences)
    }

    /// Drops the offers that ran out by `now`.
    pub fn on_time(&mut self, now: Duration, unix_ms: u64) -> Consequences {
        let mut consequences = Consequences::default();
        for key in self.expiry.expired(now) {
            consequences.checks_changed |= self.withdrawn(&key);
        }
        self.settle(unix_ms, consequences)
    }

    /// Takes in what the checker says of a target; the record that tells others, unless the target is gone by now.
    pub fn on_transition(&mut self, transition: Transition, unix_ms: u64) -> Option<TargetRecord> {
        let seen = self.targets.get_mut(&transition.id)?;
        if seen.state != transition.state || !seen.probed {
            seen.since_unix_ms = unix_ms;
        }
        seen.state = transition.state;
        seen.probed = true;
        seen.reason = transition.reason;
        Some(TargetRecord {
            service: seen.service.clone(),
            addr: seen.addr,
            up: seen.state.is_up(),
            reason: seen.reason.clone(),
            since_unix_ms: seen.since_unix_ms,
            seen_by: self.node.clone(),
        })
    }

    /// The targets as seen from here, by service and address.
    pub fn targets(&self) -> impl Iterator<Item = &Seen> {
        self.targets.values()
    }

    /// Whether every target was probed.
    pub fn complete(&self) -> bool {
        self.targets.values().all(|seen| seen.probed)
    }

    /// Names of the services, also of those without a target.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    /// The keys of all records this node has put.
    pub fn keys(&self) -> Vec<Key> {
        self.targets
            .values()
            .filter(|seen| seen.probed)
            .map(key)
            .collect()
    }

    fn on_record(&mut self, record: &Record, consequences: &mut Consequences) {
        match record {
            Record::Registration(offer) => {
                let follows = |service: &ObservedService| {
                    service.from_registrations && service.name == offer.service
                };
                if !self.services.iter().any(follows) {
                    return;
                }
                let offered = self.offered.entry(offer.service.clone()).or_default();
                if offered.len() < MAX_REGISTERED {
                    consequences.checks_changed |= offered.insert(offer.addr);
                } else if !offered.contains(&offer.addr) {
                    consequences.left_out = Some(record.key());
                }
            }
            // Left over from an earlier life of this node, when it had other targets.
            Record::Target(target) if target.seen_by == self.node => {
                if !self.targets.contains_key(&id(&target.service, target.addr)) {
                    consequences.delete.push(record.key());
                }
            }
            Record::Target(_) | Record::Node(_) | Record::Vip(_) | Record::Drain(_) => {}
        }
    }

    /// Whether there was such an offer.
    fn withdrawn(&mut self, key: &Key) -> bool {
        match key {
            Key::Registration { service, addr } => self
                .offered
                .get_mut(service)
                .is_some_and(|offered| offered.remove(addr)),
            Key::Target { .. } | Key::Node { .. } | Key::Vip { .. } | Key::Drain { .. } => false,
        }
    }

    fn settle(&mut self, unix_ms: u64, mut consequences: Consequences) -> Consequences {
        if consequences.checks_changed {
            consequences.delete.extend(self.retarget(unix_ms));
            // A record that came before the offer it belongs to was no left-over.
            consequences
                .delete
                .retain(|key| !self.targets.values().any(|seen| self::key(seen) == *key));
        }
        consequences
    }

    /// Brings the targets in line with services and offers; the keys of the records of those that went.
    fn retarget(&mut self, unix_ms: u64) -> Vec<Key> {
        let wanted: BTreeMap<CheckId, Seen> = self
            .wanted()
            .into_iter()
            .map(|(id, (service, addr))| {
                let seen = self.targets.get(&id).cloned().unwrap_or_else(|| Seen {
                    service: service.name.clone(),
                    addr,
                    state: service.settings.initially,
                    probed: false,
                    reason: "not probed yet".to_owned(),
                    since_unix_ms: unix_ms,
                });
                (id, seen)
            })
            .collect();
        let before = std::mem::replace(&mut self.targets, wanted);
        before
            .into_iter()
            .filter(|(id, seen)| seen.probed && !self.targets.contains_key(id))
            .map(|(_, seen)| key(&seen))
            .collect()
    }

    fn wanted(&self) -> BTreeMap<CheckId, (&ObservedService, SocketAddr)> {
        let mut wanted = BTreeMap::new();
        for service in &self.services {
            let offered = self.offered.get(&service.name).into_iter().flatten();
            for &addr in service.targets.iter().chain(offered) {
                wanted.insert(id(&service.name, addr), (service, addr));
            }
        }
        wanted
    }
}

fn id(service: &str, addr: SocketAddr) -> CheckId {
    format!("{service}/{addr}").into()
}

fn key(seen: &Seen) -> Key {
    Key::Target {
        service: seen.service.clone(),
        addr: seen.addr,
    }
}

#[cfg(test)]
mod tests {
    use shared::bus::{Heard, Prefix, RegistrationRecord};

    use super::*;
    use crate::settings::CheckSettings;

    const STATIC: &str = "10.0.0.1:80";
    const OFFERED: &str = "10.0.0.2:80";

    fn observation() -> Observation {
        let web = ObservedService {
            name: "web".to_owned(),
            targets: vec![STATIC.parse().unwrap()],
            from_registrations: true,
            settings: CheckSettings {
                port: Some(8080),
                ..CheckSettings::default()
            },
        };
        let fixed = ObservedService {
            name: "fixed".to_owned(),
            from_registrations: false,
            ..web.clone()
        };
        Observation::new("observer-1", vec![web, fixed], 1)
    }

    fn offer(service: &str, addr: &str, ttl_ms: u64) -> Record {
        let node = "l7-1".to_owned();
        RegistrationRecord {
            service: service.to_owned(),
            addr: addr.parse().unwrap(),
            node,
            weight: 1,
            draining: false,
            ttl_ms,
        }
        .into()
    }

    fn target(service: &str, addr: &str, seen_by: &str) -> Record {
        TargetRecord {
            service: service.to_owned(),
            addr: addr.parse().unwrap(),
            up: true,
            reason: "connected".to_owned(),
            since_unix_ms: 0,
            seen_by: seen_by.to_owned(),
        }
        .into()
    }

    fn snapshot(records: Vec<Record>) -> Change {
        Change::Snapshot {
            prefix: Prefix::All,
            records,
        }
    }

    fn ids(observation: &Observation) -> Vec<String> {
        observation
            .checks()
            .iter()
            .map(|check| check.id.to_string())
            .collect()
    }

    fn up(id: &str) -> Transition {
        Transition {
            id: id.into(),
            address: OFFERED.parse().unwrap(),
            state: State::Up,
            reason: "connected".to_owned(),
            first: true,
        }
    }

    #[test]
    fn offers_are_followed_where_the_service_says_so() {
        let mut observation = observation();
        let second = Duration::from_secs(1);
        assert_eq!(ids(&observation), ["fixed/10.0.0.1:80", "web/10.0.0.1:80"]);
        let snapshot = snapshot(vec![
            offer("web", OFFERED, 0),
            offer("web", STATIC, 0),
            offer("fixed", OFFERED, 0),
            offer("other", OFFERED, 0),
        ]);
        assert!(observation.on_bus(&snapshot, second, 2).checks_changed);
        assert_eq!(
            ids(&observation),
            ["fixed/10.0.0.1:80", "web/10.0.0.1:80", "web/10.0.0.2:80"]
        );
        assert_eq!(
            observation.checks()[0].address,
            "10.0.0.1:8080".parse().unwrap()
        );

        let again = Change::Put(offer("web", OFFERED, 0));
        assert_eq!(
            observation.on_bus(&again, second, 2),
            Consequences::default()
        );

        let record = observation.on_transition(up("web/10.0.0.2:80"), 7).unwrap();
        assert_eq!(
            (record.addr, record.up, record.since_unix_ms),
            (OFFERED.parse().unwrap(), true, 7)
        );

        let consequences =
            observation.on_bus(&Change::Deleted(offer("web", OFFERED, 0).key()), second, 3);
        assert_eq!(
            consequences,
            Consequences {
                checks_changed: true,
                delete: vec![target("web", OFFERED, "").key()],
                left_out: None,
            }
        );
        assert_eq!(ids(&observation), ["fixed/10.0.0.1:80", "web/10.0.0.1:80"]);
        assert_eq!(
            observation.on_transition(up("web/10.0.0.2:80"), 8),
            None,
            "it is gone"
        );
        let gone = Change::Deleted(offer("web", STATIC, 0).key());
        observation.on_bus(&gone, second, 3);
        assert_eq!(
            ids(&observation),
            ["fixed/10.0.0.1:80", "web/10.0.0.1:80"],
            "configured targets stay"
        );
    }

    #[test]
    fn offers_expire_only_while_they_would_be_heard() {
        let mut observation = observation();
        let at = Duration::from_secs;
        let heard = |since, until| {
            Change::Heard(Heard {
                since: at(since),
                until: at(until),
            })
        };
        observation.on_bus(&Change::Connected(true), at(0), 0);
        observation.on_bus(&heard(0, 1), at(1), 0);
        observation.on_bus(&Change::Put(offer("web", OFFERED, 3000)), at(1), 0);
        assert_eq!(observation.on_time(at(1000), 0), Consequences::default());
        observation.on_bus(&heard(998, 1000), at(1000), 0);
        assert!(!observation.on_time(at(1001), 0).checks_changed);
        observation.on_bus(&heard(998, 1001), at(1001), 0);
        assert!(observation.on_time(at(1001), 0).checks_changed);
        assert_eq!(ids(&observation).len(), 2);
    }

    #[test]
    fn a_member_gone_mad_is_not_probed_without_end() {
        let mut observation = observation();
        let put = |observation: &mut Observation, port: usize| {
            let offer = offer("web", &format!("10.0.0.3:{port}"), 0);
            let key = offer.key();
            let consequences = observation.on_bus(&Change::Put(offer), Duration::ZERO, 0);
            (key, consequences)
        };
        for port in 1..=2000 {
            let (key, consequences) = put(&mut observation, port);
            let follows = port <= MAX_REGISTERED;
            assert_eq!(consequences.checks_changed, follows);
            assert_eq!(consequences.left_out, (!follows).then_some(key));
        }
        assert_eq!(observation.checks().len(), 2 + MAX_REGISTERED);

        let (known, consequences) = put(&mut observation, 1);
        assert_eq!(consequences, Consequences::default(), "it is one of them");
        observation.on_bus(&Change::Deleted(known), Duration::ZERO, 0);
        let (_, consequences) = put(&mut observation, 2000);
        assert!(consequences.checks_changed, "there is room now");
    }

    #[test]
    fn records_left_over_from_an_earlier_life_are_deleted() {
        let mut observation = observation();
        let snapshot = snapshot(vec![
            target("web", STATIC, "observer-1"),
            target("web", "10.0.0.9:80", "observer-1"),
            target("web", "10.0.0.8:80", "observer-2"),
            target("web", OFFERED, "observer-1"),
            offer("web", OFFERED, 0),
        ]);
        let consequences = observation.on_bus(&snapshot, Duration::ZERO, 0);
        assert_eq!(
            consequences.delete,
            [target("web", "10.0.0.9:80", "").key()]
        );
    }

    #[test]
    fn time_in_a_state_counts_from_its_change() {
        let mut observation = observation();
        assert!(!observation.complete());
        let since = |observation: &mut Observation, state, unix_ms| {
            let transition = Transition {
                state,
                ..up("web/10.0.0.1:80")
            };
            observation
                .on_transition(transition, unix_ms)
                .unwrap()
                .since_unix_ms
        };
        assert_eq!(since(&mut observation, State::Up, 10), 10);
        assert_eq!(since(&mut observation, State::Up, 20), 10);
        assert_eq!(since(&mut observation, State::Down, 30), 30);
        observation.on_transition(up("fixed/10.0.0.1:80"), 40);
        assert!(observation.complete());
        assert_eq!(observation.keys().len(), 2);
    }
}
