//! The targets of one service and all that is known about each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Changed;
use super::intent::{self, Intent};
use crate::config::ServiceSettings;

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its weight in the configuration, if it is there.
    pub configured: Option<u16>,
    /// It is configured to serve only while no other target does.
    pub sorry: bool,
    /// How it offered itself, if it did.
    pub offer: Option<Offer>,
    /// What an operator wants of it.
    pub intent: Option<Intent>,
    /// What probes say, own or others'; none until somebody knows.
    pub verdict: Option<Verdict>,
    /// What holds until then.
    initially_up: bool,
    /// Whether this node checks it itself.
    checked: bool,
}

/// A registration on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The node that stands behind it.
    pub node: String,
    /// Its share of new flows.
    pub weight: u16,
    /// It wants no new flows.
    pub draining: bool,
    /// It ran out without being withdrawn. Kept for as long as own probes find the target up.
    pub lapsed: bool,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the target serves.
    pub up: bool,
    /// Why.
    pub reason: String,
    /// Since when, by the prober's clock.
    pub since_unix_ms: u64,
}

impl Target {
    /// Its share of new flows: what an operator says goes before what it says itself, and that before the configuration.
    pub fn weight(&self) -> u16 {
        let wanted = self.intent.as_ref().and_then(|intent| intent.weight);
        wanted
            .or(self.offer.as_ref().map(|offer| offer.weight))
            .or(self.configured)
            .unwrap_or(0)
    }

    /// Whether it serves, as far as is known.
    pub fn is_up(&self) -> bool {
        self.verdict
            .as_ref()
            .map_or(self.initially_up, |verdict| verdict.up)
    }

    /// Whether somebody has found that it doesn't serve: more than that it isn't known to.
    pub fn is_known_down(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| !verdict.up)
    }

    /// Whether it asked for no new flows, or an operator did.
    pub fn is_draining(&self) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.draining)
            || self.intent.as_ref().is_some_and(|intent| intent.drain)
    }

    /// Whether new flows go to it.
    pub fn takes_flows(&self) -> bool {
        self.is_up() && !self.is_draining() && self.weight() > 0
    }

    /// Whether anything still speaks for it.
    fn has_reason_to_stay(&self) -> bool {
        self.configured.is_some()
            || self
                .offer
                .as_ref()
                .is_some_and(|offer| !offer.lapsed || (self.checked && self.is_up()))
    }
}

#[derive(Debug)]
pub(super) struct Targets {
    by_address: BTreeMap<SocketAddr, Target>,
    /// What operators want, also of targets that are away.
    intents: BTreeMap<SocketAddr, Intent>,
    initially_up: bool,
    checked: bool,
}

impl Targets {
    pub(super) fn new(settings: &ServiceSettings) -> Targets {
        let initially_up = settings
            .health
            .as_ref()
            .is_none_or(|health| health.initially.is_up());
        let checked = settings.health.is_some();
        let mut targets = Targets {
            by_address: BTreeMap::new(),
            intents: BTreeMap::new(),
            initially_up,
            checked,
        };
        for target in &settings.targets {
            let known = targets.unknown();
            targets.by_address.insert(
                target.address,
                Target {
                    configured: Some(target.weight),
                    sorry: target.sorry,
                    ..known
                },
            );
        }
        targets
    }

    /// The targets of the service by new settings, with what is known of those that stay: a target that was up is not taken for down until
    /// a probe says so, even if it is the first one.
    pub(super) fn succeeded_by(&self, settings: &ServiceSettings) -> Targets {
        let mut targets = Targets::new(settings);
        for (address, known) in &self.by_address {
            let offer = known.offer.clone().filter(|_| settings.from_registrations);
            if offer.is_none() && !targets.by_address.contains_key(address) {
                continue;
            }
            let unknown = targets.unknown();
            let target = targets.by_address.entry(*address).or_insert(unknown);
            target.offer = offer;
            // What probes of others found, or own ones that are no more, holds if they go on.
            if known.checked == target.checked {
                target.verdict.clone_from(&known.verdict);
            } else if target.checked {
                target.initially_up = known.is_up();
            }
        }
        for (address, wanted) in &self.intents {
            if intent::keeps(self, address, settings) {
                targets.intended(*address, Some(wanted.clone()));
            }
        }
        targets
    }

    fn unknown(&self) -> Target {
        Target {
            configured: None,
            sorry: false,
            offer: None,
            intent: None,
            verdict: None,
            initially_up: self.initially_up,
            checked: self.checked,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &Target)> {
        self.by_address.iter()
    }

    pub(super) fn get(&self, address: &SocketAddr) -> Option<&Target> {
        self.by_address.get(address)
    }

    /// What operators want, by target; of those that are away too.
    pub(super) fn intents(&self) -> impl Iterator<Item = (&SocketAddr, &Intent)> {
        self.intents.iter()
    }

    pub(super) fn intent(&self, address: &SocketAddr) -> Option<&Intent> {
        self.intents.get(address)
    }

    /// What an operator wants of a target, or nothing any more.
    pub(super) fn intended(&mut self, address: SocketAddr, intent: Option<Intent>) {
        if let Some(target) = self.by_address.get_mut(&address) {
            target.intent.clone_from(&intent);
        }
        match intent {
            Some(intent) => self.intents.insert(address, intent),
            None => self.intents.remove(&address),
        };
    }

    /// Targets that came by registration.
    pub(super) fn registered(&self) -> usize {
        self.by_address
            .values()
            .filter(|target| target.offer.is_some())
            .count()
    }

    pub(super) fn offered(&mut self, address: SocketAddr, offer: Offer) -> Changed {
        let unknown = Target {
            intent: self.intents.get(&address).cloned(),
            ..self.unknown()
        };
        let is_new = !self.by_address.contains_key(&address);
        let target = self.by_address.entry(address).or_insert(unknown);
        let before = target.clone();
        target.offer = Some(offer);
        match () {
            () if is_new => Changed::Targets,
            // Who stands behind it, and whether it had lapsed, makes no difference to the workers.
            () if (before.weight(), before.is_draining())
                == (target.weight(), target.is_draining()) =>
            {
                Changed::Nothing
            }
            () => Changed::States,
        }
    }

    /// The offer was taken back on purpose.
    pub(super) fn withdrawn(&mut self, address: &SocketAddr) -> Changed {
        match self.by_address.get_mut(address) {
            Some(target) if target.offer.is_some() => {
                target.offer = None;
                Changed::States
            }
            _ => Changed::Nothing,
        }
    }

    /// The offers for which `gone` holds ran out.
    pub(super) fn lapse(&mut self, gone: impl Fn(&SocketAddr) -> bool) -> Changed {
        let mut changed = Changed::Nothing;
        for (address, target) in &mut self.by_address {
            if let Some(offer) = &mut target.offer
                && gone(address)
            {
                offer.lapsed = true;
                changed = Changed::States;
            }
        }
        changed
    }

    /// An own probe's verdict; false if the target is not known.
    pub(super) fn checked(&mut self, address: SocketAddr, verdict: Verdict) -> bool {
        let Some(target) = self.by_address.get_mut(&address) else {
            return false;
        };
        target.verdict = Some(verdict);
        true
    }

    /// What others see of a target that is not checked here.
    pub(super) fn observed(&mut self, address: SocketAddr, verdict: Option<Verdict>) -> Changed {
        match self.by_address.get_mut(&address) {
            Some(target) => {
                let was_up = target.is_up();
                target.verdict = verdict;
                if was_up == target.is_up() {
                    Changed::Nothing
                } else {
                    Changed::States
                }
            }
            None => Changed::Nothing,
        }
    }

    /// Removes what nothing speaks for. Not before a snapshot is due: a target that is withdrawn and offered again meanwhile keeps what
    /// its probes found, as their verdict would not be repeated.
    pub(super) fn sweep(&mut self) -> Vec<(SocketAddr, Target)> {
        let gone = self
            .by_address
            .extract_if(.., |_, target| !target.has_reason_to_stay());
        gone.collect()
    }
}
