//! What starting a port tells of its NIC: the MAC, and how far it brings frames to the workers that own them.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::{MacAddr, Spread};

use crate::config::PortConfig;
use crate::dpdk::StartedPort;

/// What a started port's NIC is and does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its hardware address.
    pub mac: MacAddr,
    /// What it does to give frames to their workers. Whatever it does, a frame that arrives elsewhere is handed over.
    pub spread: Spread,
}

impl Nic {
    /// Asks what the port hashes by, puts rules in force where the driver takes them, and says so in the log. Only a port with a queue
    /// for each worker helps.
    pub(crate) fn of(port: &StartedPort, config: &PortConfig, workers: u16) -> Nic {
        let mut nic = Nic {
            mac: MacAddr(port.mac()),
            spread: Spread::default(),
        };
        if workers == 1 || config.queues != workers {
            return nic;
        }
        let name = &config.name;
        nic.spread.rss = match port.rss() {
            Ok(rss) if rss.queues() == workers => Some(Arc::clone(rss)),
            Ok(rss) => {
                let queues = rss.queues();
                tracing::info!(
                    port = name,
                    queues,
                    workers,
                    "the port does not use all its queues"
                );
                None
            }
            Err(why) => {
                tracing::info!(port = name, why, "nobody can tell the queue of a packet");
                None
            }
        };
        nic.follow(port, config, workers);
        tracing::info!(
            port = name,
            clients = nic.clients_by(),
            returns = nic.returns_by(&config.local_ips),
            "how frames find their worker"
        );
        nic
    }

    /// Asks for rules for LocalIPs that have none yet: those of the start, and those that a reload adds. Rules of one that goes stay with
    /// the NIC until the port stops, and are there when it comes back.
    pub(crate) fn follow(&mut self, port: &StartedPort, config: &PortConfig, workers: u16) {
        if workers == 1 || config.queues != workers {
            return;
        }
        let ask = |address| port.steer_by_port(address, workers);
        let Err((address, why)) = self.steer(&config.local_ips, ask) else {
            return;
        };
        let name = &config.name;
        if self.without_rules(&config.local_ips).is_empty() {
            tracing::info!(port = name, why, "no rules on local ports");
        } else {
            let returns = self.returns_by(&config.local_ips);
            tracing::warn!(
                port = name,
                %address,
                why,
                returns,
                "no rules for a LocalIP, as others of the port have: more of its answers may be handed over"
            );
        }
    }

    /// Asks by `ask` for rules for each of `local_ips` that has none; a NIC may take those of one family only.
    ///
    /// # Errors
    /// The first that is refused, and why.
    fn steer(
        &mut self,
        local_ips: &[IpAddr],
        ask: impl Fn(IpAddr) -> Result<(), String>,
    ) -> Result<(), (IpAddr, String)> {
        let mut first = Ok(());
        for address in local_ips {
            if self.spread.by_port.contains(address) {
                continue;
            }
            match ask(*address) {
                Ok(()) => self.spread.by_port.push(*address),
                Err(why) => first = first.and(Err((*address, why))),
            }
        }
        first
    }

    /// What brings packets of clients to their worker, for statuses and the log.
    pub fn clients_by(&self) -> &'static str {
        match self.spread.rss {
            Some(_) => "rss",
            None => "hand-over",
        }
    }

    /// What brings answers of targets to their worker, as [`Nic::clients_by`]: rules if they do for each of the port's LocalIPs, otherwise
    /// what does for those [`Nic::without_rules`].
    pub fn returns_by(&self, local_ips: &[IpAddr]) -> &'static str {
        let ruled = |address| self.spread.by_port.contains(address);
        match &self.spread.rss {
            _ if !local_ips.is_empty() && local_ips.iter().all(ruled) => "rules",
            Some(_) => "rss",
            None => "hand-over",
        }
    }

    /// Those of the port's LocalIPs that got no rules, where others did.
    pub fn without_rules(&self, local_ips: &[IpAddr]) -> Vec<IpAddr> {
        let ruled = |address: &IpAddr| self.spread.by_port.contains(address);
        match local_ips.iter().any(ruled) {
            true => local_ips
                .iter()
                .copied()
                .filter(|address| !ruled(address))
                .collect(),
            false => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn local(n: u8) -> IpAddr {
        IpAddr::from([10, 3, 0, n])
    }

    #[test]
    fn a_local_ip_that_a_reload_adds_gets_rules_and_the_others_keep_theirs() {
        let mut nic = Nic::default();
        let asked = RefCell::new(Vec::new());
        let takes_all = |address| {
            asked.borrow_mut().push(address);
            Ok(())
        };
        assert_eq!(nic.returns_by(&[local(1)]), "hand-over");
        assert_eq!(nic.steer(&[local(1)], takes_all), Ok(()));
        assert_eq!(nic.returns_by(&[local(1)]), "rules");
        assert_eq!(nic.returns_by(&[local(1), local(2)]), "hand-over");
        assert_eq!(nic.steer(&[local(2), local(1)], takes_all), Ok(()));
        assert_eq!(nic.returns_by(&[local(2), local(1)]), "rules");
        assert_eq!(*asked.borrow(), [local(1), local(2)], "each once");
        assert_eq!(nic.returns_by(&[]), "hand-over", "of no LocalIP");
    }

    #[test]
    fn a_local_ip_whose_rules_are_refused_is_told_apart() {
        let mut nic = Nic::default();
        let full = |address| match address == local(2) || address == local(3) {
            true => Err(format!("no room for {address}")),
            false => Ok(()),
        };
        let all = [local(1), local(2), local(3), local(4)];
        let first = Err((local(2), "no room for 10.3.0.2".to_owned()));
        assert_eq!(nic.steer(&all, full), first);
        assert_eq!(nic.without_rules(&all), [local(2), local(3)]);
        assert_eq!(nic.returns_by(&all), "hand-over");
        assert_eq!(nic.spread.by_port, [local(1), local(4)]);
        // Without any rules, none is told apart.
        assert_eq!(Nic::default().without_rules(&all), [] as [IpAddr; 0]);
    }
}
