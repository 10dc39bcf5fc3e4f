//! The services of a node, found by their names: records and checks name them, thousands in a second.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use dataplane::ServiceId;

use super::down::{Down, Health};
use super::gradual::{self, Cutting, Gradual, Pace, Seen};
use super::intent::Intent;
use super::targets::{Target, Targets};
use crate::config::ServiceSettings;

/// Who takes the new flows of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Targets, as a rule.
    Targets,
    /// Its sorry targets alone.
    Sorry,
    /// Nobody.
    Nobody,
}

/// One service with its targets.
#[derive(Debug)]
pub struct Service {
    /// As configured.
    pub settings: ServiceSettings,
    /// Its number in the data plane.
    pub id: Option<ServiceId>,
    pub(super) targets: Targets,
    gradual: Gradual,
    down: Down,
    /// Who took its new flows when it was last asked for news; none before it served.
    standing: Option<Standing>,
}

impl Service {
    pub(super) fn new(settings: &ServiceSettings, targets: Targets) -> Service {
        Service {
            settings: settings.clone(),
            id: None,
            targets,
            gradual: Gradual::default(),
            down: Down::default(),
            standing: None,
        }
    }

    /// The service by new settings, with what is known of its targets.
    pub(super) fn succeeded_by(&self, settings: &ServiceSettings, now: Duration) -> Service {
        let mut successor = Service {
            gradual: self.gradual.clone(),
            down: self.down.clone(),
            standing: self.standing,
            ..Service::new(settings, self.targets.succeeded_by(settings))
        };
        for (address, target) in self.targets.iter() {
            if target.is_known_down() && successor.targets.get(address).is_none() {
                successor.down.removed(now, *address);
            }
        }
        successor
    }

    /// The targets, by address.
    pub fn targets(&self) -> impl Iterator<Item = (&SocketAddr, &Target)> {
        self.targets.iter()
    }

    /// The address by which records name a target: of one that has the ports of its service, with the port that is probed.
    pub(super) fn recorded_as(&self, address: SocketAddr) -> SocketAddr {
        let probed = self.settings.health.as_ref().and_then(|check| check.port);
        match (address.port(), probed) {
            (0, Some(port)) => SocketAddr::new(address.ip(), port),
            _ => address,
        }
    }

    /// The target that a record means: one of that port, or one on that host that has the ports of its service.
    pub(super) fn target_of_record(&self, named: SocketAddr) -> Option<(SocketAddr, &Target)> {
        let open = SocketAddr::new(named.ip(), 0);
        let mut addresses = [named, open].into_iter();
        addresses.find_map(|address| Some((address, self.targets.get(&address)?)))
    }

    /// What operators want of targets that are away.
    pub fn absent_intents(&self) -> impl Iterator<Item = (&SocketAddr, &Intent)> {
        let intents = self.targets.intents();
        intents.filter(|(address, _)| self.targets.get(address).is_none())
    }

    /// Targets that get new flows, and all.
    pub fn counts(&self) -> (u32, u32) {
        let sorry = self.is_sorry();
        let healthy = self
            .targets
            .iter()
            .filter(|(_, target)| target.takes_flows() && target.sorry == sorry)
            .count();
        (healthy as u32, self.targets.iter().count() as u32)
    }

    /// What there is to say where others take its new flows than at the last call. A service that has not served yet says nothing.
    pub(super) fn news(&mut self) -> Option<String> {
        let now = match self.counts().0 {
            0 => Standing::Nobody,
            _ if self.is_sorry() => Standing::Sorry,
            _ => Standing::Targets,
        };
        let before = match self.standing {
            None if now == Standing::Nobody => return None,
            before => before,
        };
        self.standing = Some(now);
        let what = match (before, now) {
            (None, Standing::Targets) => return None,
            (before, now) if before == Some(now) => return None,
            (_, Standing::Targets) => "targets take new flows again",
            (_, Standing::Sorry) => "only its sorry targets take new flows",
            (_, Standing::Nobody) => "no target takes new flows",
        };
        Some(format!("service {}: {what}", self.settings.name))
    }

    /// Whether no target takes new flows but those that are there for this case.
    pub fn is_sorry(&self) -> bool {
        let takes = |sorry| {
            let mut targets = self.targets.iter();
            targets.any(|(_, target)| target.sorry == sorry && target.takes_flows())
        };
        takes(true) && !takes(false)
    }

    /// A target's weight, or the part of it that the target has reached while it starts slowly; 0 for a sorry target while others serve.
    pub fn effective_weight(&self, address: SocketAddr, target: &Target) -> f64 {
        if target.sorry && !self.is_sorry() {
            return 0.0;
        }
        f64::from(target.weight()) * f64::from(self.gradual.share(address))
            / f64::from(gradual::FULL)
    }

    /// Removes the targets that nothing speaks for: who they were.
    pub(super) fn sweep(&mut self, now: Duration) -> Vec<SocketAddr> {
        let gone = self.targets.sweep();
        for (address, target) in &gone {
            if target.is_known_down() {
                self.down.removed(now, *address);
            }
        }
        gone.into_iter().map(|(address, _)| address).collect()
    }

    /// Sees how far its targets have come and gone, for the next snapshot; ending a target's flows takes `cutting` at most.
    pub(super) fn look(&mut self, now: Duration, cutting: Duration) {
        let seen = |(address, target): (&SocketAddr, &Target)| Seen {
            address: *address,
            takes_flows: target.takes_flows(),
            is_left: target.is_draining() || target.weight() == 0,
        };
        let (pace, targets) = (self.pace(cutting), self.targets.iter().map(seen));
        self.gradual.look(now, pace, targets);
        // Flows that a sorry target has when others are back leave it as they leave a target that is down.
        let is_sorry = self.is_sorry();
        let health = |(address, target): (&SocketAddr, &Target)| {
            let rests = target.sorry && !is_sorry;
            Health {
                address: *address,
                takes_flows: target.takes_flows() && !rests,
                is_down: target.is_known_down() || rests,
            }
        };
        let cut_down = self.cut_down(cutting);
        self.down
            .look(now, cut_down, self.targets.iter().map(health));
    }

    /// Whether its targets have come or gone further since the last look.
    pub(super) fn is_due(&self, now: Duration, cutting: Duration) -> bool {
        self.gradual.is_due(now, self.pace(cutting))
            || self.down.is_due(now, self.cut_down(cutting))
    }

    /// A target's share of its weight, of [`gradual::FULL`], if any target's is less than full.
    pub(super) fn shares(&self) -> Option<impl Fn(SocketAddr) -> u16> {
        let gradual = &self.gradual;
        gradual
            .grows()
            .then_some(move |address| gradual.share(address))
    }

    /// Whether the flows to a target are to be cut.
    pub(super) fn is_cut(&self, address: SocketAddr) -> bool {
        self.gradual.is_cut(address) || self.down.is_cut(address)
    }

    /// Targets that are gone, while flows to them may be left, and whether they were down.
    pub(super) fn gone(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let left = self.gradual.gone();
        let down = self.down.gone().map(|address| (address, true));
        let rest = left.iter().filter(|address| !self.down.is_gone(**address));
        down.chain(rest.map(|address| (*address, false)))
    }

    fn cut_down(&self, cutting: Duration) -> Option<Cutting> {
        self.settings.cut_down_after.map(|after| Cutting {
            after,
            takes: cutting,
        })
    }

    fn pace(&self, cutting: Duration) -> Pace {
        Pace {
            slow_start: self.settings.slow_start,
            cut: self.settings.cut_drained_after.map(|after| Cutting {
                after,
                takes: cutting,
            }),
        }
    }
}

/// All services, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Services {
    list: Vec<Service>,
    places: HashMap<String, usize>,
    vips: HashSet<IpAddr>,
}

impl Services {
    /// Makes the collection. The configuration has made sure that no two services have the same name.
    pub(super) fn new(list: Vec<Service>) -> Services {
        let name = |(place, service): (usize, &Service)| (service.settings.name.clone(), place);
        Services {
            places: list.iter().enumerate().map(name).collect(),
            vips: list.iter().map(|service| service.settings.vip).collect(),
            list,
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<&Service> {
        self.list.get(*self.places.get(name)?)
    }

    pub(super) fn named_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.list.get_mut(*self.places.get(name)?)
    }

    /// Whether clients of any of them connect to the address.
    pub(super) fn has_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }
}

impl Deref for Services {
    type Target = [Service];

    fn deref(&self) -> &[Service] {
        &self.list
    }
}

impl DerefMut for Services {
    fn deref_mut(&mut self) -> &mut [Service] {
        &mut self.list
    }
}
