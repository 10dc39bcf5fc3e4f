//! What the control side shows of itself: to `/status`, metrics and commands, which read it without asking an actor.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dataplane::{FlowLimits, Persistence, ServiceId, TargetId};
use serde::Serialize;

use crate::attempts::Attempts;
use crate::control::{Intent, RetiredAddress, RetiredService};
use crate::endpoint::{Endpoint, Ports};
use crate::rates::Rates;

/// What the control side knows, for `/status` and metrics.
#[derive(Debug, Clone, Default, Serialize)]
pub struct View {
    /// Why the node is not ready; none if it is.
    pub not_ready: Option<String>,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Whether frames are forwarded.
    pub forwarding: bool,
    /// The services, in the order of the configuration.
    pub services: Vec<ServiceView>,
    /// The workers, by number; empty in the first second.
    pub loads: Vec<Load>,
    /// Addresses that left the configuration and are kept for their flows.
    pub retired_addresses: Vec<RetiredAddress>,
    /// Services that left it and still have flows.
    pub retired_services: Vec<RetiredService>,
}

/// What a worker did in the last second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// The share of its time in which it had frames, 0.0 to 1.0.
    pub busy: f64,
    /// CPU cycles of that time for each frame received or taken over; 0 in a second without.
    pub cycles_per_frame: f64,
}

/// A service as the control side knows it.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its VIP.
    pub vip: IpAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its ports.
    pub port: Ports,
    /// How packets reach its targets, as the configuration has it.
    pub mode: &'static str,
    /// How new flows are spread, as the configuration has it.
    pub scheduler: &'static str,
    /// How targets learn the client's address, as the configuration has it.
    pub client_address: &'static str,
    /// Whether sources stay with their target.
    #[serde(skip)]
    pub persistence: Option<Persistence>,
    /// The name of its group.
    #[serde(skip)]
    pub persistence_group: Option<String>,
    /// What it and its targets take at most.
    #[serde(skip)]
    pub limits: FlowLimits,
    /// What comes a second.
    pub rates: Rates,
    /// What operators want of targets that are away.
    pub absent_intents: Vec<(Endpoint, Intent)>,
    /// Targets that get new flows.
    pub healthy: u32,
    /// Whether those are its sorry targets.
    pub sorry: bool,
    /// All its targets.
    pub targets: Vec<TargetView>,
    /// Its number in the data plane.
    #[serde(skip)]
    pub id: Option<ServiceId>,
}

/// A target as the control side knows it.
#[derive(Debug, Clone, Serialize)]
pub struct TargetView {
    /// Where it listens.
    pub address: Endpoint,
    /// Its share of new flows.
    pub weight: u16,
    /// What it gets of it now: less while it starts slowly.
    pub effective_weight: f64,
    /// Whether it serves.
    pub up: bool,
    /// Whether it wants no new flows.
    pub draining: bool,
    /// Whether it gets some only while no other target takes any.
    pub sorry: bool,
    /// What an operator wants of it.
    pub operator: Option<Intent>,
    /// The node that registered it; none for targets of the configuration.
    pub registered_by: Option<String>,
    /// What probes found.
    pub reason: String,
    /// Since when, in milliseconds of Unix time; 0 if nobody probed yet.
    pub since_unix_ms: u64,
    /// What comes a second.
    pub rates: Rates,
    /// What connect attempts told in the last second.
    pub last_second: Attempts,
    /// Its number in the data plane.
    #[serde(skip)]
    pub id: Option<TargetId>,
}

/// Where ControlPlane leaves its [`View`] for anybody to read.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<ArcSwap<View>>);

impl Board {
    /// Leaves a view.
    pub(super) fn show(&self, view: Arc<View>) {
        self.0.store(view);
    }

    /// The latest view.
    pub fn read(&self) -> Arc<View> {
        self.0.load_full()
    }
}
