//! Looks after workers, links and routers, and says when they stop or come back.
//!
//! Drivers that report changes of the link (LSC interrupts) are looked at when they do. Few virtual ones do, so all links are looked at
//! every 10 ms besides; of af_packet the kernel's carrier, as the driver's own state never changes.
//!
//! An interface that is deleted, or moved to another network namespace, takes its port's link for good. A node that forwards nothing any more for want of
//! it leaves once the interface is back, for the service manager to start it again. Opening the device anew within the process would save nothing: the
//! VIPs were withdrawn, so that the clients are at other nodes.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient};
use dataplane::{Living, NextHop, RouterState, Tables};
use metrics::counter;
use shared::telemetry::monotonic;

use super::PulseIs;
use crate::control::Pulse;
use crate::dpdk::link_changed;
use crate::forwarder::{Forwarder, PortLink};
use crate::liveness::Liveness;
use crate::ways::Ways;

/// Between two looks at links and routers.
const LINKS: Duration = Duration::from_millis(10);

/// A node that forwards goes on doing so for this long without a router that answers: a bond or a router that fails over takes about a second,
/// and withdrawing the VIPs for that would cost more.
const ROUTERLESS: Duration = Duration::from_secs(2);

/// After so long without an answer since it was configured, a router is reported, once.
const UNHEARD: Duration = Duration::from_secs(2);

/// Watches heartbeats, links and routers.
pub struct Watchdog {
    forwarder: Arc<Forwarder>,
    names: Vec<String>,
    liveness: Liveness,
    /// Why the workers don't forward, if they don't.
    stalled: Option<String>,
    /// Each port's link.
    links: Vec<PortLink>,
    /// The snapshot that was looked at last, and which of its routers answer.
    seen: Option<(Arc<Tables>, Living)>,
    /// The routers that have never answered, since when they are asked, and whether that was logged.
    unheard: Vec<(NextHop, Duration, bool)>,
    /// Why the links leave no way, if they don't.
    cut_off: Option<String>,
    /// Since when no router towards clients answers, and what is to be said of it.
    routerless: Option<(Duration, String)>,
    to: Recipient<PulseIs>,
    told: Option<Pulse>,
    ended: Option<Box<dyn FnOnce(Failure)>>,
}

/// What only a new process puts right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A worker's loop has ended by itself.
    Worker(usize),
    /// A port lost its interface, and one of that name is there again.
    InterfaceReplaced {
        /// The port's name.
        port: String,
        /// The interface's.
        interface: String,
    },
}

impl Watchdog {
    /// Watches the workers and ports of `forwarder`; the ports are called by `names`. `ended` is called once if there is something
    /// that only a new process puts right.
    pub fn new(
        forwarder: Arc<Forwarder>,
        names: Vec<String>,
        limit: Duration,
        to: Recipient<PulseIs>,
        ended: impl FnOnce(Failure) + 'static,
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
            seen: None,
            unheard: Vec::new(),
            cut_off: None,
            routerless: None,
            to,
            told: None,
            ended: Some(Box::new(ended)),
        }
    }

    fn look_at_workers(&mut self) {
        if let Some(worker) = self.forwarder.ended_workers().first() {
            self.fail(Failure::Worker(*worker));
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
        let mut link_is_back = false;
        for ((name, link), was) in self.names.iter().zip(&links).zip(&self.links) {
            if link.up != was.up {
                tracing::warn!(port = name, up = link.up, "link");
                counter!("weir_l4_port_link_changes_total", "port" => name.clone()).increment(1);
                link_is_back |= link.up;
            }
            if link.lost.len() != was.lost.len() {
                let interfaces: Vec<&str> = link.lost.iter().map(|lost| &*lost.name).collect();
                tracing::error!(
                    port = name,
                    interfaces = interfaces.join(", "),
                    "deleted, or moved to another network namespace: a restart opens it again"
                );
            }
        }
        let have_changed = links != self.links;
        self.links = links;
        self.look_at_routers(have_changed);
        self.tell(link_is_back);
        // Whoever forwards by other ports is restarted when its operator thinks fit.
        if (self.cut_off.is_some() || self.routerless.is_some())
            && self.told != Some(Pulse::Beating)
            && let Some(failure) = replaced(&self.names, &self.links)
        {
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if let Some(ended) = self.ended.take() {
            ended(failure);
        }
    }

    /// Looks which routers answer, and what way that and the links leave.
    fn look_at_routers(&mut self, links_have_changed: bool) {
        let tables = self.forwarder.tables();
        // A new snapshot is not the workers' yet: what was found out by the last one holds.
        let Some(living) = self.forwarder.living(&tables) else {
            return;
        };
        let now = monotonic();
        self.say_who_is_unheard(now);
        let (known, lived) = match &self.seen {
            Some((known, lived)) => {
                if Arc::ptr_eq(known, &tables) && living == *lived && !links_have_changed {
                    return;
                }
                (known.routers(), *lived)
            }
            None => (&[][..], Living::default()),
        };
        self.say_what_changed((known, lived), (tables.routers(), living));
        self.unheard = still_unheard(&self.unheard, tables.routers(), living, now);
        let links = self.names.iter().zip(&self.links);
        let down: Vec<Option<String>> = links
            .map(|(port, link)| (!link.up).then(|| why_down(port, link)))
            .collect();
        let ways = Ways {
            tables: &tables,
            names: &self.names,
            down: &down,
            living,
        };
        self.cut_off = ways.none_by_links();
        self.routerless = ways.none_by_routers().map(|why| {
            let since = self.routerless.as_ref().map(|(since, _)| *since);
            (since.unwrap_or(now), why)
        });
        self.seen = Some((tables, living));
    }

    fn say_what_changed(
        &self,
        (before, lived): (&[NextHop], Living),
        (now, lives): (&[NextHop], Living),
    ) {
        for (place, router) in now.iter().enumerate() {
            let known = before.iter().position(|known| known == router);
            let did = known.map_or(RouterState::Unheard, |known| lived.state(known));
            let does = lives.state(place);
            let (port, address) = (self.names.get(usize::from(router.port.0)), router.address);
            match (did, does) {
                (did, does) if did == does => {}
                (_, RouterState::Unheard) => {}
                (RouterState::Lossy, RouterState::Up) => {
                    tracing::info!(port, %address, "the router answers reliably again");
                }
                (_, RouterState::Up) => tracing::info!(port, %address, "the router answers"),
                (_, RouterState::Lossy) => tracing::warn!(
                    port,
                    %address,
                    "the router leaves many questions unanswered, or comes and goes: it is used only where there is no better one"
                ),
                (_, RouterState::Down) => {
                    tracing::warn!(port, %address, "the router does not answer");
                }
            }
        }
    }

    /// Says of each router that has not answered yet that it hasn't, once.
    fn say_who_is_unheard(&mut self, now: Duration) {
        for (router, since, is_told) in &mut self.unheard {
            if !*is_told && now.saturating_sub(*since) >= UNHEARD {
                *is_told = true;
                let port = self.names.get(usize::from(router.port.0));
                tracing::warn!(
                    port,
                    address = %router.address,
                    "the router has not answered since it was configured: it is still being asked"
                );
            }
        }
    }

    fn tell(&mut self, link_is_back: bool) {
        let routerless = self.routerless.as_ref().filter(|(since, _)| {
            let is_beating = self.told == Some(Pulse::Beating);
            !is_beating || monotonic().saturating_sub(*since) >= ROUTERLESS
        });
        let why = self.stalled.as_ref().or(self.cut_off.as_ref());
        let why = why.or(routerless.map(|(_, why)| why));
        let pulse = match (why, &self.seen) {
            (Some(why), _) => Pulse::Stalled(why.clone()),
            (None, Some(_)) => Pulse::Beating,
            (None, None) => Pulse::Stalled("the workers have no routes yet".into()),
        };
        if self.told.as_ref() != Some(&pulse) {
            match &pulse {
                Pulse::Beating => {
                    tracing::info!("forwarding: workers turn, links are up and routers answer")
                }
                Pulse::Stalled(why) if self.told.is_none() => {
                    tracing::info!(why, "not forwarding yet");
                }
                Pulse::Stalled(why) => tracing::error!(why, "not forwarding"),
            }
            self.told = Some(pulse.clone());
        } else if !link_is_back {
            return;
        }
        self.to.do_send(PulseIs {
            pulse,
            link_is_back,
        });
    }
}

/// The routers that have never answered: since `now`, those that are not among them yet.
fn still_unheard(
    before: &[(NextHop, Duration, bool)],
    routers: &[NextHop],
    living: Living,
    now: Duration,
) -> Vec<(NextHop, Duration, bool)> {
    let places = routers.iter().enumerate();
    places
        .filter(|(place, _)| living.state(*place) == RouterState::Unheard)
        .map(|(_, router)| {
            let known = before.iter().find(|(known, ..)| known == router);
            known.copied().unwrap_or((*router, now, false))
        })
        .collect()
}

fn why_down(port: &str, link: &PortLink) -> String {
    match link.lost.first() {
        None => format!("the link of port {port} is down"),
        Some(lost) => format!(
            "the link of port {port} is down: interface {} was deleted or moved to another network namespace; the gateway ends, to be started again, \
             once it is back and up",
            lost.name
        ),
    }
}

/// A port without a link that a restart would give one. Not where a bond has another member.
fn replaced(names: &[String], links: &[PortLink]) -> Option<Failure> {
    let mut down = names.iter().zip(links).filter(|(_, link)| !link.up);
    down.find_map(|(port, link)| {
        let back = link.lost.iter().find(|lost| lost.is_back)?;
        Some(Failure::InterfaceReplaced {
            port: port.clone(),
            interface: back.name.clone(),
        })
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::LostInterface;

    fn link(up: bool, lost: &[(&str, bool)]) -> PortLink {
        let lost = lost.iter().map(|(name, is_back)| LostInterface {
            name: (*name).to_owned(),
            is_back: *is_back,
        });
        PortLink {
            up,
            lost: lost.collect(),
        }
    }

    #[test]
    fn a_node_ends_for_an_interface_that_is_back_under_a_port_without_a_link() {
        let names = ["ext".to_owned(), "int".to_owned()];
        for (what, links, interface) in [
            ("all is well", [link(true, &[]), link(true, &[])], None),
            ("no carrier", [link(false, &[]), link(true, &[])], None),
            (
                "still gone",
                [link(false, &[("eth0", false)]), link(true, &[])],
                None,
            ),
            (
                "back",
                [link(true, &[]), link(false, &[("eth1", true)])],
                Some("eth1"),
            ),
            (
                "a member is back, and the bond has another",
                [link(true, &[("eth0", true)]), link(true, &[])],
                None,
            ),
            (
                "a bond lost all members, and one is back",
                [
                    link(false, &[("eth0", false), ("eth2", true)]),
                    link(true, &[]),
                ],
                Some("eth2"),
            ),
        ] {
            let failure = replaced(&names, &links);
            let found = failure.as_ref().map(|failure| match failure {
                Failure::InterfaceReplaced { interface, .. } => &**interface,
                Failure::Worker(_) => "a worker",
            });
            assert_eq!(found, interface, "{what}");
        }
    }
}
