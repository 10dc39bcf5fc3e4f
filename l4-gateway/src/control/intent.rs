//! What an operator wants of single targets, whatever the configuration and registrations say, until it is taken back.
//!
//! It holds for this node alone and is nowhere but in its memory: it ends with the process. A target that registers keeps it while it is
//! away, since who drains a host to restart it does not want it back before saying so. One of the configuration has it for as long as it
//! is configured.

use std::net::SocketAddr;

use serde::Serialize;
use shared::admin::{Asked, no_such};

use super::targets::Targets;
use super::{Action, Changed, Control};
use crate::config::{Config, ServiceSettings};
use crate::endpoint::Endpoint;

/// What an operator wants of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// It gets no new flows.
    pub drain: bool,
    /// Its share of new flows, in place of its own.
    pub weight: Option<u16>,
    /// Who said so last.
    pub by: String,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// Since when it is so, in milliseconds of Unix time.
    pub since_unix_ms: u64,
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// No new flows.
    Drain,
    /// This share of them.
    Weight(u16),
    /// What configuration and registration say.
    Enable,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// What holds of the target now.
    pub intent: Option<Intent>,
    /// Targets of the service that get new flows.
    pub healthy: u32,
    /// Whether those are its sorry targets.
    pub sorry: bool,
}

impl Wish {
    /// What holds after it.
    fn after(self, before: Option<&Intent>, asked: Asked) -> Option<Intent> {
        let (was_drained, weight) =
            before.map_or((false, None), |intent| (intent.drain, intent.weight));
        let (drain, weight) = match self {
            Wish::Drain => (true, weight),
            Wish::Weight(weight) => (was_drained, Some(weight)),
            Wish::Enable => return None,
        };
        let same = before.filter(|intent| (intent.drain, intent.weight) == (drain, weight));
        Some(Intent {
            drain,
            weight,
            by: asked.by,
            reason: asked.reason,
            since_unix_ms: same.map_or(asked.since_unix_ms, |intent| intent.since_unix_ms),
        })
    }
}

impl Control {
    /// An operator wants something of a target; in force with the next snapshot.
    ///
    /// # Errors
    /// If there is no such target, nor anything wanted of it from before.
    pub fn intend(
        &mut self,
        service: &str,
        address: SocketAddr,
        wish: Wish,
        asked: Asked,
    ) -> Result<(Intended, Vec<Action>), String> {
        let Some(found) = self.services.named_mut(service) else {
            let names = self.services.iter().map(|known| &*known.settings.name);
            return Err(no_such("service", service, names));
        };
        let before = found.targets.intent(&address);
        if before.is_none() && found.targets.get(&address).is_none() {
            return Err(format!(
                "{} is not a target of service {service}: see `l4-gateway targets --service {service}`",
                Endpoint(address)
            ));
        }
        let intent = wish.after(before, asked);
        found.targets.intended(address, intent.clone());
        let (healthy, sorry) = (found.counts().0, found.is_sorry());
        let mut actions = Vec::new();
        self.after(Changed::States, &mut actions);
        let intended = Intended {
            intent,
            healthy,
            sorry,
        };
        Ok((intended, actions))
    }

    /// What a reload to `config` forgets of what operators want, a line each.
    pub fn forgets(&self, config: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        for service in self.services.iter() {
            let name = &service.settings.name;
            let mut after = config.services.iter();
            let after = after.find(|after| after.name == *name);
            for (address, intent) in service.targets.intents() {
                if after.is_some_and(|after| keeps(&service.targets, address, after)) {
                    continue;
                }
                let left = match after {
                    Some(_) => "the target is no longer configured",
                    None => "the service is no longer configured",
                };
                lines.push(format!(
                    "service {name}: what {} wanted of target {} ({}) is forgotten: {left}",
                    intent.by,
                    Endpoint(*address),
                    words(intent)
                ));
            }
        }
        lines
    }
}

/// Whether the intent for a target outlasts a reload: it is configured, or came by registration and may come so again.
pub(super) fn keeps(targets: &Targets, address: &SocketAddr, after: &ServiceSettings) -> bool {
    let mut configured = after.targets.iter();
    let registers = targets
        .get(address)
        .is_none_or(|target| target.configured.is_none() || target.offer.is_some());
    (after.from_registrations && registers) || configured.any(|target| target.address == *address)
}

/// `drain`, `weight 3` or both.
fn words(intent: &Intent) -> String {
    let drain = intent.drain.then(|| "drain".to_owned());
    let weight = intent.weight.map(|weight| format!("weight {weight}"));
    let words: Vec<String> = drain.into_iter().chain(weight).collect();
    words.join(", ")
}
