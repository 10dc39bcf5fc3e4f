//! A new configuration for a running node.

use std::time::Duration;

use dataplane::{PortRange, TablesError};

use super::records::take_back;
use super::retired::Key;
use super::services::Services;
use super::targets::Targets;
use super::{Action, Changed, Control, Service, addresses, number, snapshot};
use crate::config::{Config, ServiceSettings};
use crate::nic::Nic;

impl Control {
    /// Goes on by `config`: services, targets and addresses become what it says, and what is known of those that stay is kept. Registrations and
    /// others' views of services that are new are not known yet: the caller has the bus tell its records anew. `now` is the time of
    /// [`Control::tick`]; `nics` are what the ports' do for it, in order.
    ///
    /// # Errors
    /// When no snapshot can be made of it; nothing has changed then.
    pub fn reload(
        &mut self,
        now: Duration,
        config: &Config,
        nics: Vec<Nic>,
    ) -> Result<Vec<Action>, TablesError> {
        let successor = |settings: &ServiceSettings| match self.services.named(&settings.name) {
            Some(before) => before.succeeded_by(settings, now),
            None => Service::new(settings, Targets::new(settings)),
        };
        let mut services: Vec<Service> = config.services.iter().map(successor).collect();
        for service in &mut services {
            service.sweep(now);
            service.look(now, self.cutting);
        }
        let kept = self.keep_numbers(&services);
        let mut used = snapshot::used(&self.ports, &self.services);
        for (before, _) in &kept {
            used.services.remove(before);
        }
        let retired = self.retired.change(
            now,
            config.drain.removed_addresses,
            &used,
            &snapshot::used(&config.ports, &services),
        );
        let known = (&*config.ports, &*nics);
        let builder = snapshot::describe(known, &services, &retired, self.announcement);
        let built = builder.build(&mut self.ids, self.tables.as_deref());
        if built.is_err() {
            for ((vip, protocol, before), after) in kept.into_iter().rev() {
                self.ids.change_ports(vip, protocol, after, before);
            }
        }
        let tables = built?;
        number(&mut services, &tables);

        let mut actions = vec![Action::Publish(Box::new(tables))];
        let before = std::mem::replace(&mut self.services, Services::new(services));
        for service in before
            .iter()
            .filter(|service| service.settings.health.is_some())
        {
            let records = service
                .targets()
                .map(|(address, _)| take_back(service, *address));
            actions.extend(records.filter(
                |action| !matches!(action, Action::TakeBack(key) if self.checks_target(key)),
            ));
        }
        self.retired = retired;
        self.nics = nics;
        self.ports.clone_from(&config.ports);
        self.addresses = addresses(&config.ports);
        self.unsettled = Changed::Nothing;
        self.refused = false;
        actions.push(Action::Check(self.checks()));
        actions.extend(self.told_if_changed());
        Ok(actions)
    }

    /// Has services keep their flows whose ports change, if some stay the same: each that does, with the ports it gets.
    fn keep_numbers(&mut self, services: &[Service]) -> Vec<(Key, PortRange)> {
        let mut kept = Vec::new();
        for Service {
            settings: after, ..
        } in services
        {
            let Some(Service {
                settings: before, ..
            }) = self.services.named(&after.name)
            else {
                continue;
            };
            let (vip, protocol, ports) = (before.vip, before.protocol, before.ports);
            if ports != after.ports
                && before.goes_on_as(after)
                && self.ids.change_ports(vip, protocol, ports, after.ports)
            {
                kept.push(((vip, protocol, ports), after.ports));
            }
        }
        kept
    }
}
