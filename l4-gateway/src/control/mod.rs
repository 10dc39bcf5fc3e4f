//! What the node knows and decides, without doing any of it: targets from the configuration and the bus, their health, the
//! node's own state; out of it the next snapshot for the workers and the records for the bus. No clock, no sockets.

mod down;
mod gradual;
mod intent;
mod records;
mod reload;
mod retired;
mod services;
mod snapshot;
mod targets;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::{Counters, Ids, Tables, TablesError};
use health::{Check, CheckId, Transition};
use shared::bus::{Expiry, Key, NodeRecord, Record};

use crate::config::{Config, PortConfig, ServiceSettings};
use crate::endpoint::Endpoint;
use crate::nic::Nic;

pub use intent::{Intended, Intent, Wish};
use records::{seen, take_back};
use retired::Retired;
pub use retired::{RetiredAddress, RetiredService};
pub use services::Service;
use services::Services;
pub use snapshot::target_id;
use targets::Targets;
pub use targets::{Offer, Target, Verdict};

/// How long the workers are given at least to end the flows of what is gone, before it leaves the snapshot.
const LEAST_CUTTING: Duration = Duration::from_secs(60);

/// What is to be done after something was learned.
#[derive(Debug)]
pub enum Action {
    /// Let the workers forward by this.
    Publish(Box<Tables>),
    /// Put this on the bus.
    Put(Record),
    /// Take this node's record from the bus.
    Leave,
    /// Take this record of a target from the bus if this node wrote it: others may have spoken of the target since.
    TakeBack(Key),
    /// Check these targets' health, and no others.
    Check(Vec<Check>),
    /// Tell people.
    Warn(String),
}

/// The node's knowledge.
pub struct Control {
    node: String,
    addresses: Vec<IpAddr>,
    ports: Vec<PortConfig>,
    nics: Vec<Nic>,
    services: Services,
    ids: Ids,
    /// The last one built, for what the next can take over from it.
    tables: Option<std::sync::Arc<Tables>>,
    expiry: Expiry,
    pulse: Pulse,
    /// An operator asked for it.
    drain: bool,
    /// The process is about to end.
    stopping: bool,
    /// Why it must not serve: another process has its name, and had it first.
    hold: Option<String>,
    /// It has taken its leave: nothing more is told.
    gone: bool,
    /// Whether it was ready at the last look.
    serves: bool,
    /// How often its addresses were to be announced again.
    announcement: u64,
    load: f64,
    /// The time as told last, at most some seconds ago.
    now: Duration,
    /// What others were told last.
    told: Option<NodeRecord>,
    /// What has changed since the last snapshot was built.
    unsettled: Changed,
    /// Addresses and services that the configuration no longer has, and their flows still do.
    retired: Retired,
    /// How long the workers are given to end flows.
    cutting: Duration,
    /// The last snapshot could not be built: numbers of targets that are gone may have been lacking.
    refused: bool,
}

/// Whether frames can be forwarded, and what is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulse {
    /// Workers turn and links are up.
    Beating,
    /// Why not.
    Stalled(String),
}

impl Control {
    /// Knows the configuration and nothing else; `nics` are those of the ports, in order.
    pub fn new(config: &Config, nics: &[Nic]) -> Control {
        let service = |settings| Service::new(settings, Targets::new(settings));
        let services = config.services.iter().map(service);
        Control {
            node: config.node.id.clone(),
            addresses: addresses(&config.ports),
            ports: config.ports.clone(),
            nics: nics.to_vec(),
            services: Services::new(services.collect()),
            ids: Ids::new(&config.limits()),
            tables: None,
            expiry: Expiry::new(),
            pulse: Pulse::Stalled("starting".into()),
            drain: false,
            stopping: false,
            hold: None,
            gone: false,
            serves: false,
            announcement: 0,
            load: 0.0,
            now: Duration::ZERO,
            told: None,
            unsettled: Changed::Nothing,
            retired: Retired::default(),
            cutting: config
                .limits()
                .cutting_time(config.workers.poll.longest_tick())
                .max(LEAST_CUTTING),
            refused: false,
        }
    }

    /// The node's id.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The ports, in the order of the configuration.
    pub fn ports(&self) -> &[PortConfig] {
        &self.ports
    }

    /// The services, in the order of the configuration.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Whether the node can take new traffic.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(why) = &self.hold {
            return Err(why.clone());
        }
        match &self.pulse {
            _ if self.stopping => Err("stopping".into()),
            _ if self.drain => Err("draining".into()),
            Pulse::Stalled(why) => Err(why.clone()),
            Pulse::Beating => Ok(()),
        }
    }

    /// Whether an operator, or the end of the process, is emptying the node.
    pub fn is_draining(&self) -> bool {
        self.drain || self.stopping
    }

    /// Why it must not serve, if it must not.
    pub fn hold(&self) -> Option<&str> {
        self.hold.as_deref()
    }

    /// Another process has this node's name and had it first, or no longer. Told with the next tick.
    pub fn hold_is(&mut self, hold: Option<String>) {
        self.hold = hold;
        self.look_whether_it_serves();
    }

    /// Whether frames are forwarded.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// What there is to do at the very start, beside the first snapshot.
    pub fn begin(&mut self) -> Vec<Action> {
        let mut actions = vec![Action::Check(self.checks())];
        actions.extend(self.tell());
        actions
    }

    /// The first snapshot.
    ///
    /// # Errors
    /// When the configuration does not make one.
    pub fn first_tables(&mut self) -> Result<Tables, TablesError> {
        self.build()
    }

    /// Takes note that `tables` are in force.
    pub fn published(&mut self, tables: std::sync::Arc<Tables>) {
        self.tables = Some(tables);
    }

    /// Gives numbers of targets that are gone back; to be called when every worker runs on the snapshot in force.
    pub fn reclaim(&mut self, counters: &Counters) {
        if let Some(tables) = &self.tables {
            self.ids.reclaim(tables, counters);
        }
    }

    /// Gives up addresses and services of the configuration before that no flow uses any more, or for too long; about once a second.
    pub fn retire(&mut self, now: Duration, counters: &Counters) {
        let Control { cutting, ids, .. } = self;
        if self.retired.release(now, *cutting, ids, counters) {
            self.unsettled |= Changed::States;
        }
    }

    /// Addresses of the configuration before that flows still use.
    pub fn retired_addresses(&self, now: Duration, counters: &Counters) -> Vec<RetiredAddress> {
        self.retired.addresses(now, &self.ids, counters)
    }

    /// Services of the configuration before that still have flows.
    pub fn retired_services(&self, now: Duration, counters: &Counters) -> Vec<RetiredService> {
        self.retired.services(now, &self.ids, counters)
    }

    /// A health check has news.
    pub fn health(&mut self, unix_ms: u64, transition: &Transition) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some((service, address)) = named(&transition.id) else {
            return actions;
        };
        let Some(service) = self.services.named_mut(service) else {
            return actions;
        };
        let verdict = Verdict {
            up: transition.state.is_up(),
            reason: transition.reason.clone(),
            since_unix_ms: unix_ms,
        };
        let record = seen(&self.node, service, address, &verdict);
        if !service.targets.checked(address, verdict) {
            return actions;
        }
        actions.push(Action::Put(record));
        self.after(Changed::States, &mut actions);
        actions
    }

    /// Workers or links stopped or came back.
    pub fn pulse_is(&mut self, pulse: Pulse) -> Vec<Action> {
        self.pulse = pulse;
        self.look_whether_it_serves();
        self.told_if_changed()
    }

    /// What this node answers for is announced again.
    pub fn announce_again(&mut self) {
        self.announcement += 1;
        self.unsettled |= Changed::States;
    }

    /// Where the node serves again, its segments are told: another may have taken its addresses over, and switches have forgotten where it is.
    fn look_whether_it_serves(&mut self) {
        let serves = self.ready().is_ok();
        if serves && !self.serves {
            self.announce_again();
        }
        self.serves = serves;
    }

    /// The process is about to end: others should send elsewhere.
    pub fn stop(&mut self) -> Vec<Action> {
        self.stopping = true;
        self.told_if_changed()
    }

    /// The process ends now: the node's record goes, and none follows it.
    pub fn leave(&mut self) -> Vec<Action> {
        self.gone = true;
        vec![Action::Leave]
    }

    /// Time went by: offers may have run out, and others want to hear that this node is alive. About once a second.
    pub fn tick(&mut self, now: Duration, load: f64) -> Vec<Action> {
        self.now = now;
        self.load = load.clamp(0.0, 1.0);
        let expired: BTreeSet<Key> = self.expiry.expired(now).into_iter().collect();
        let mut changed = match self.refused {
            true => Changed::States,
            false if self.is_due(now) => Changed::States,
            false => Changed::Nothing,
        };
        if !expired.is_empty() {
            changed |= self.lapse(|key| expired.contains(key));
        }
        let mut actions = Vec::new();
        self.after(changed, &mut actions);
        actions.extend(self.tell());
        actions
    }

    fn is_due(&self, now: Duration) -> bool {
        let mut services = self.services.iter();
        services.any(|service| service.is_due(now, self.cutting))
    }

    /// Notes a change; what concerns the node alone is told at once.
    fn after(&mut self, changed: Changed, actions: &mut Vec<Action>) {
        self.unsettled |= changed;
        if changed == Changed::Node {
            actions.extend(self.told_if_changed());
        }
    }

    /// Whether [`Control::settle`] has something to do.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled >= Changed::States
    }

    /// Makes one snapshot of all that changed since the last. It costs time in proportion to all targets, so whoever calls it sees to it
    /// that a stream of changes does not become a stream of snapshots.
    pub fn settle(&mut self) -> Vec<Action> {
        let mut changed = std::mem::replace(&mut self.unsettled, Changed::Nothing);
        let mut actions = Vec::new();
        for service in self.services.iter_mut() {
            let gone = service.sweep(self.now);
            if gone.is_empty() {
                continue;
            }
            changed |= Changed::Targets;
            if service.settings.health.is_some() {
                let records = gone.into_iter().map(|address| take_back(service, address));
                actions.extend(records);
            }
        }
        if changed >= Changed::States {
            let built = self.build();
            self.refused = built.is_err();
            match built {
                Ok(tables) => actions.push(Action::Publish(Box::new(tables))),
                Err(error) => actions.push(Action::Warn(format!(
                    "the tables stay as they are: {error}"
                ))),
            }
            let news = self.services.iter_mut().filter_map(Service::news);
            actions.extend(news.map(Action::Warn));
            actions.extend(self.told_if_changed());
        }
        if changed >= Changed::Targets {
            actions.push(Action::Check(self.checks()));
        }
        actions
    }

    fn build(&mut self) -> Result<Tables, TablesError> {
        for service in self.services.iter_mut() {
            service.look(self.now, self.cutting);
        }
        let known = (&*self.ports, &*self.nics);
        let builder = snapshot::describe(known, &self.services, &self.retired, self.announcement);
        let tables = builder.build(&mut self.ids, self.tables.as_deref())?;
        number(&mut self.services, &tables);
        Ok(tables)
    }

    fn checks(&self) -> Vec<Check> {
        let of_service = |service: &Service| {
            let settings = service.settings.health.clone();
            let name = service.settings.name.clone();
            let addresses: Vec<SocketAddr> = service
                .targets
                .iter()
                .map(|(address, _)| *address)
                .collect();
            settings.into_iter().flat_map(move |settings| {
                let name = name.clone();
                addresses
                    .clone()
                    .into_iter()
                    .map(move |address| settings.check(check_id(&name, address), address))
            })
        };
        self.services.iter().flat_map(of_service).collect()
    }
}

/// How far a change reaches, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Changed {
    /// Not at all.
    Nothing,
    /// The node's own state.
    Node,
    /// States or weights of targets.
    States,
    /// Which targets there are.
    Targets,
}

impl std::ops::BitOrAssign for Changed {
    fn bitor_assign(&mut self, other: Changed) {
        *self = (*self).max(other);
    }
}

/// The addresses that others know a node by.
fn addresses(ports: &[PortConfig]) -> Vec<IpAddr> {
    let own = ports.iter().flat_map(|port| {
        let own = port.addresses.iter().map(|network| network.address);
        own.chain(port.local_ips.clone())
    });
    own.collect()
}

/// Notes the numbers that a snapshot gives the services.
fn number(services: &mut [Service], tables: &Tables) {
    for service in services {
        let ServiceSettings {
            vip,
            protocol,
            ports,
            ..
        } = service.settings;
        service.id = tables
            .service_of(vip, ports, protocol)
            .map(|found| found.id);
    }
}

/// A check is named `<service> <address>`; names of services have no blanks.
fn check_id(service: &str, address: SocketAddr) -> String {
    format!("{service} {}", Endpoint(address))
}

/// What [`check_id`] was made of.
fn named(id: &CheckId) -> Option<(&str, SocketAddr)> {
    let (service, address) = id.as_str().split_once(' ')?;
    let Endpoint(address) = address.parse().ok()?;
    Some((service, address))
}

#[cfg(test)]
mod tests;
