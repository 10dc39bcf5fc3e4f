//! The services of a node, found by their names: records and checks name them, thousands in a second.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use dataplane::ServiceId;

use super::gradual::{self, Cutting, Gradual, Pace, Seen};
use super::targets::{Target, Targets};
use crate::config::ServiceSettings;

/// One service with its targets.
#[derive(Debug)]
pub struct Service {
    /// As configured.
    pub settings: ServiceSettings,
    /// Its number in the data plane.
    pub id: Option<ServiceId>,
    pub(super) targets: Targets,
    pub(super) gradual: Gradual,
}

impl Service {
    pub(super) fn new(settings: &ServiceSettings, targets: Targets, gradual: Gradual) -> Service {
        Service {
            settings: settings.clone(),
            id: None,
            targets,
            gradual,
        }
    }

    /// The targets, by address.
    pub fn targets(&self) -> impl Iterator<Item = (&SocketAddr, &Target)> {
        self.targets.iter()
    }

    /// Targets that take new flows, and all.
    pub fn counts(&self) -> (u32, u32) {
        let healthy = self
            .targets
            .iter()
            .filter(|(_, target)| target.takes_flows())
            .count();
        (healthy as u32, self.targets.iter().count() as u32)
    }

    /// A target's weight, or the part of it that the target has reached while it starts slowly.
    pub fn effective_weight(&self, address: SocketAddr, target: &Target) -> f64 {
        f64::from(target.weight()) * f64::from(self.gradual.share(address))
            / f64::from(gradual::FULL)
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
    }

    /// Whether its targets have come or gone further since the last look.
    pub(super) fn is_due(&self, now: Duration, cutting: Duration) -> bool {
        self.gradual.is_due(now, self.pace(cutting))
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
