//! Looks after workers and links, and says when they stop or come back.
//!
//! Drivers that report changes of the link (LSC interrupts) are looked at when they do. Few virtual ones do, so all links are looked at
//! every 10 ms besides; of af_packet the kernel's carrier, as the driver's own state never changes.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use metrics::counter;
use shared::telemetry::monotonic;

use super::PulseIs;
use crate::control::Pulse;
use crate::dpdk::link_changed;
use crate::forwarder::Forwarder;
use crate::liveness::Liveness;

/// Between two looks at the links.
const LINKS: Duration = Duration::from_millis(10);

/// Watches heartbeats and links.
pub struct Watchdog {
    forwarder: Arc<Forwarder>,
    names: Vec<String>,
    liveness: Liveness,
    /// Why the workers don't forward, if they don't, and whether each link is up.
    stalled: Option<String>,
    links: Vec<bool>,
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
        for name in &names {
            counter!("weir_l4_port_link_changes_total", "port" => name.clone()).absolute(0);
        }
        let liveness = Liveness::new(forwarder.worker_states().len(), limit);
        Watchdog {
            forwarder,
            names,
            liveness,
            stalled: None,
            links: Vec::new(),
            to,
            told: None,
            ended: Some(Box::new(ended)),
        }
    }

    fn look_at_workers(&mut self) {
        if let Some(worker) = self.forwarder.ended_workers().first()
            && let Some(ended) = self.ended.take()
        {
            ended(*worker);
        }
        let states = self.forwarder.worker_states();
        let beats: Vec<u64> = states.iter().map(|state| state.heartbeat()).collect();
        let still = self.liveness.look(monotonic(), beats.iter().copied());
        self.stalled = still.first().map(|worker| match beats.get(*worker) {
            Some(0) => format!("worker {worker} is starting"),
            _ => format!("worker {worker} does not turn its loop"),
        });
        self.look_at_links();
    }

    fn look_at_links(&mut self) {
        let links = self.forwarder.links();
        for ((name, up), was_up) in self.names.iter().zip(&links).zip(&self.links) {
            if up != was_up {
                tracing::warn!(port = name, up, "link");
                counter!("weir_l4_port_link_changes_total", "port" => name.clone()).increment(1);
            }
        }
        self.links = links;
        self.tell();
    }

    fn tell(&mut self) {
        let down = self.links.iter().zip(&self.names).find(|(up, _)| !**up);
        let pulse = match (&self.stalled, down) {
            (Some(why), _) => Pulse::Stalled(why.clone()),
            (None, Some((_, port))) => Pulse::Stalled(format!("the link of port {port} is down")),
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
        self.look_at_workers();
        let interval = self.liveness.interval();
        context.run_interval(interval, |watchdog, _| watchdog.look_at_workers());
        context.run_interval(LINKS, |watchdog, _| watchdog.look_at_links());
        let watchdog = context.address();
        actix_rt::spawn(async move {
            loop {
                link_changed().await;
                if watchdog.send(LinkChanged).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Some driver has reported a change.
#[derive(Message)]
#[rtype(result = "()")]
struct LinkChanged;

impl Handler<LinkChanged> for Watchdog {
    type Result = ();

    fn handle(&mut self, _: LinkChanged, _: &mut Context<Watchdog>) {
        self.look_at_links();
    }
}
