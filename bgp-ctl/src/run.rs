//! Routing control as a process of its own: what it starts, and what it does when it leaves.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::bus::{Bus, Tier};
use shared::config::Loaded;
use shared::lifecycle::{Service, Start, StartError, listen};
use shared::presence::{BEAT, Presence, bystander};
use shared::telemetry::WorkerTime;

use crate::actors::route_control::{RouteControl, Shutdown};
use crate::admin::Front;
use crate::config::Config;
use crate::reload::Following;
use crate::status::StatusBoard;

/// How long others believe that this process is there without hearing more.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// Follows a node until asked to terminate. To be called within an actix system.
///
/// # Errors
/// If something it needs at the start is not to be had.
pub(crate) async fn run(loaded: Loaded<Config>) -> Result<(), StartError> {
    let config = loaded.config.clone();
    let start = Start::new(loaded, &config.log, &[])?;
    let listener = listen(config.admin.listen)?;
    let reloader = start.reloader.clone();

    let bus = Bus::start(&config.bus, &config.node.id);
    let status = StatusBoard::default();
    let control = RouteControl::start_reporting(
        config.bgp.clone(),
        config.follow.clone(),
        bus.clone(),
        status.clone(),
    );
    reloader.followed_by(Following {
        control: control.clone(),
        status: status.clone(),
    });
    let front = Arc::new(Front {
        status,
        control,
        bus: bus.clone(),
        reloader,
    });
    let presence = Arc::new(Mutex::new(Presence::new(bus.clone())));
    let serving = start.serve(listener, front.clone(), bus, pending())?;
    tracing::info!(node = config.node.id, admin = %config.admin.listen, "bgp-ctl runs");
    actix_rt::spawn(beat(presence.clone(), config.node.id.clone()));
    let routing = Routing { front, presence };
    serving.until_left(&routing, pending()).await;
    Ok(())
}

/// Routing control, as the process's signals ask it.
struct Routing {
    front: Arc<Front>,
    presence: Arc<Mutex<Presence>>,
}

impl Service for Routing {
    async fn drain(&self, wanted: bool) {
        // What it warns of is in the log.
        self.front.drain(wanted, "signal".to_owned());
    }

    async fn take_leave(&self, why: &str) {
        lock(&self.presence).leave();
        let text = why.to_owned();
        let _ = self.front.control.send(Shutdown { text }).await;
    }
}

/// Says that this process is there. That the record comes back also proves that this process hears of the node it follows, without which that one is
/// never taken for gone.
async fn beat(presence: Arc<Mutex<Presence>>, id: String) {
    let mut beats = tokio::time::interval(BEAT);
    let mut time = WorkerTime::new(
        "weir_bgp_worker_busy_ratio",
        "weir_bgp_worker_time_seconds",
        0,
    );
    loop {
        beats.tick().await;
        let software = concat!("bgp-ctl ", env!("CARGO_PKG_VERSION"));
        let record = bystander(Tier::Bgp, &id, software, true, TRUSTED_FOR);
        lock(&presence).say([record.into()]);
        time.tick();
    }
}

fn lock(presence: &Mutex<Presence>) -> MutexGuard<'_, Presence> {
    presence.lock().unwrap_or_else(PoisonError::into_inner)
}
