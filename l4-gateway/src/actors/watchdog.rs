//! Looks after workers and links, and says when they stop or come back.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Recipient};
use shared::telemetry::monotonic;

use super::PulseIs;
use crate::control::Pulse;
use crate::forwarder::Forwarder;
use crate::liveness::Liveness;

/// Watches heartbeats and links.
pub struct Watchdog {
    forwarder: Arc<Forwarder>,
    names: Vec<String>,
    liveness: Liveness,
    to: Recipient<PulseIs>,
    told: Option<Pulse>,
    ended: Option<Box<dyn FnOnce(usize)>>,
}

impl Watchdog {
    /// Watches the workers and ports of `forwarder`; the ports are called by `names`. `ended` is called once if a worker's loop ends by itself.
    pub fn new(
        forwarder: Arc<Forwarder>,
        names: Vec<String>,
        limit: Duration,
        to: Recipient<PulseIs>,
        ended: impl FnOnce(usize) + 'static,
    ) -> Watchdog {
        let liveness = Liveness::new(forwarder.worker_states().len(), limit);
        Watchdog {
            forwarder,
            names,
            liveness,
            to,
            told: None,
            ended: Some(Box::new(ended)),
        }
    }

    fn look(&mut self, _: &mut Context<Watchdog>) {
        if let Some(worker) = self.forwarder.ended_workers().first()
            && let Some(ended) = self.ended.take()
        {
            ended(*worker);
        }
        let beats: Vec<u64> = self
            .forwarder
            .worker_states()
            .iter()
            .map(|state| state.heartbeat())
            .collect();
        let still = self.liveness.look(monotonic(), beats.iter().copied());
        let down = self.forwarder.links().iter().position(|up| !up);
        let pulse = match (still.first(), down) {
            (Some(worker), _) if beats[*worker] == 0 => {
                Pulse::Stalled(format!("worker {worker} is starting"))
            }
            (Some(worker), _) => Pulse::Stalled(format!("worker {worker} does not turn its loop")),
            (None, Some(port)) => {
                Pulse::Stalled(format!("the link of port {} is down", self.names[port]))
            }
            (None, None) => Pulse::Beating,
        };
        if self.told.as_ref() != Some(&pulse) {
            match &pulse {
                Pulse::Beating => tracing::info!("forwarding: workers turn and links are up"),
                Pulse::Stalled(why) if self.told.is_none() => {
                    tracing::info!(why, "not forwarding yet");
                }
                Pulse::Stalled(why) => tracing::error!(why, "not forwarding"),
            }
            self.told = Some(pulse.clone());
            self.to.do_send(PulseIs(pulse));
        }
    }
}

impl Actor for Watchdog {
    type Context = Context<Watchdog>;

    fn started(&mut self, context: &mut Context<Watchdog>) {
        context.run_interval(self.liveness.interval(), Watchdog::look);
    }
}
