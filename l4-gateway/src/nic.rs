//! What starting a port tells of its NIC: the MAC, and how far it brings frames to the workers that own them.

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
    /// Puts rules in force where the driver takes them, asks what the port hashes by, and says so in the log. Only a port with a queue
    /// for each worker helps.
    pub(crate) fn of(port: &StartedPort, config: &PortConfig, workers: u16) -> Nic {
        let mac = MacAddr(port.mac());
        if workers == 1 || config.queues != workers {
            return Nic {
                mac,
                spread: Spread::default(),
            };
        }
        let name = &config.name;
        let by_port = !config.local_ips.is_empty()
            && port
                .steer_by_port(&config.local_ips, workers)
                .inspect_err(|why| tracing::info!(port = name, why, "no rules on local ports"))
                .is_ok();
        let rss = match port.rss() {
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
        let nic = Nic {
            mac,
            spread: Spread { rss, by_port },
        };
        tracing::info!(
            port = name,
            clients = nic.clients_by(),
            returns = nic.returns_by(),
            "how frames find their worker"
        );
        nic
    }

    /// What brings packets of clients to their worker, for statuses and the log.
    pub fn clients_by(&self) -> &'static str {
        match self.spread.rss {
            Some(_) => "rss",
            None => "hand-over",
        }
    }

    /// What brings answers of targets to their worker, as [`Nic::clients_by`].
    pub fn returns_by(&self) -> &'static str {
        match (self.spread.by_port, &self.spread.rss) {
            (true, _) => "rules",
            (false, Some(_)) => "rss",
            (false, None) => "hand-over",
        }
    }
}
