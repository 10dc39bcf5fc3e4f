//! Routing control running on a thread of its own, as l4-gateway runs it, with a bus the test writes to.

#![allow(dead_code, unreachable_pub)] // each test crate uses its part

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix::Addr;
use bgp_ctl::session::State;
use bgp_ctl::{BgpSection, RouteControl, SetForce, Shutdown, StatusBoard};
use shared::bus::{Bus, NodeRecord, ServiceState, Tier};
use shared::config::Document;

pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

pub struct Running {
    pub bus: Bus,
    pub status: StatusBoard,
    pub control: Addr<RouteControl>,
    arbiter: actix::ArbiterHandle,
}

impl Running {
    /// Starts with `[bgp]` of `toml`, following node l4-1. The node is not known yet.
    pub fn start(toml: &str) -> Self {
        Self::by(toml, RouteControl::start_reporting)
    }

    /// The same as part of node l4-1, which has not told of itself yet.
    pub fn within(toml: &str) -> Self {
        Self::by(toml, RouteControl::start_within)
    }

    fn by(
        toml: &str,
        start: fn(BgpSection, String, Bus, StatusBoard) -> Addr<RouteControl>,
    ) -> Self {
        let section = section(toml);
        let (bus, status) = (Bus::local(), StatusBoard::default());
        let (started, running) = mpsc::channel();
        let (thread_bus, thread_status) = (bus.clone(), status.clone());
        std::thread::spawn(move || {
            let system = actix::System::new();
            let control = system
                .block_on(async { start(section, "l4-1".to_owned(), thread_bus, thread_status) });
            started
                .send((control, actix::System::current().arbiter().clone()))
                .unwrap();
            system.run().unwrap();
        });
        let (control, arbiter) = running
            .recv_timeout(Duration::from_secs(5))
            .expect("routing control starts");
        Self {
            bus,
            status,
            control,
            arbiter,
        }
    }

    pub fn established(&self) -> bool {
        self.status
            .read()
            .neighbours
            .values()
            .any(|neighbour| neighbour.state == State::Established)
    }

    pub fn last_error(&self) -> String {
        let status = self.status.read();
        status
            .neighbours
            .values()
            .find_map(|neighbour| neighbour.last_error.clone())
            .unwrap_or_default()
    }

    pub fn why(&self, vip: Ipv4Addr) -> String {
        self.status
            .read()
            .vips
            .get(&vip)
            .map(|vip| vip.why.clone())
            .unwrap_or_default()
    }

    pub fn force(&self, force: SetForce) {
        self.control.do_send(force);
    }

    /// The clean exit; returns when it is done.
    pub fn shut_down(&self, text: &str) {
        let (control, text) = (self.control.clone(), text.to_owned());
        let (done, waiting) = mpsc::channel();
        self.arbiter.spawn(async move {
            control.send(Shutdown { text }).await.unwrap();
            done.send(()).unwrap();
        });
        waiting
            .recv_timeout(Duration::from_secs(10))
            .expect("the clean exit ends");
    }
}

pub fn section(toml: &str) -> BgpSection {
    let document = Document::from_toml("test.toml", toml).unwrap();
    document
        .parse(BgpSection::parse)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A node that forwards, with one service on [`VIP`].
pub fn node(healthy: u32) -> NodeRecord {
    NodeRecord {
        tier: Tier::L4,
        id: "l4-1".to_owned(),
        addresses: Vec::new(),
        ready: true,
        draining: false,
        forwarding: true,
        load: 0.0,
        software: "test".to_owned(),
        services: vec![ServiceState {
            service: "web".to_owned(),
            vip: IpAddr::V4(VIP),
            healthy,
            total: 3,
        }],
        ttl_ms: 0,
    }
}

/// Waits until `condition` holds, and returns how long that took.
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_micros(500));
    }
    start.elapsed()
}
