//! How frames come from a port to the workers that own them, as far as the port helps.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Rss;

use crate::config::PortConfig;
use crate::dpdk::StartedPort;

/// What a port's NIC does so that frames arrive at their owner. Whatever it does, a frame that arrives elsewhere is handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// The queue of each packet can be worked out by this.
    pub rss: Option<Arc<Rss>>,
    /// Rules give packets to the port's LocalIPs to the queue of the worker that owns their destination port.
    pub by_port: bool,
}

impl Spread {
    /// Puts rules in force on a started port where its driver takes them, asks what it hashes by, and says so in the log. Of help is
    /// only a port with a queue for each worker.
    pub(crate) fn of(port: &StartedPort, config: &PortConfig, workers: u16) -> Spread {
        if workers == 1 || config.queues != workers {
            return Spread::default();
        }
        let name = &config.name;
        let local_ips: Vec<IpAddr> = config.local_ips.iter().map(|ip| IpAddr::V4(*ip)).collect();
        let by_port = !local_ips.is_empty()
            && port
                .steer_by_port(&local_ips, workers)
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
        let spread = Spread { rss, by_port };
        tracing::info!(
            port = name,
            clients = spread.of_clients(),
            returns = spread.of_returns(),
            "how frames find their worker"
        );
        spread
    }

    /// What brings packets of clients to their worker, for statuses.
    pub fn of_clients(&self) -> &'static str {
        match self.rss {
            Some(_) => "rss",
            None => "hand-over",
        }
    }

    /// What brings answers of targets to their worker, for statuses.
    pub fn of_returns(&self) -> &'static str {
        match (self.by_port, &self.rss) {
            (true, _) => "rules",
            (false, Some(_)) => "rss",
            (false, None) => "hand-over",
        }
    }
}
