//! Metrics of the node as a whole: every series the configuration bounds, registered when it comes into force, and the gauges that
//! mirror state, brought up to date before a scrape.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use metrics::gauge;

use super::view::View;
use crate::edge;
use crate::exchange::snapshot::Snapshot;
use crate::http::Violation;
use crate::observe::metrics as observed;

/// Registers what a snapshot's own handles don't: call it for each snapshot before it is served.
pub(super) fn register(snapshot: &Snapshot) {
    observed::register();
    for (listener, metrics) in snapshot.config.listeners.iter().zip(snapshot.listeners()) {
        let violations = Violation::ALL.iter().map(|violation| violation.name());
        let expects = listener.proxy_protocol.is_some();
        let instead = edge::instead_of_headers().filter(|_| expects);
        metrics.register(violations, instead);
    }
}

/// A gauge and its labels.
type Series = (&'static str, Vec<(&'static str, String)>);

/// The gauges that are set before a scrape. One whose subject has left the configuration is set to NaN: the recorder can't forget it, and its
/// last value would go on being true.
#[derive(Debug, Default)]
pub(super) struct Mirror(Mutex<BTreeMap<Series, bool>>);

impl Mirror {
    /// Brings all of them up to date.
    pub(super) fn refresh(&self, view: &View, draining: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values_mut().for_each(|current| *current = false);
        let mut set = |name: &'static str, labels: Vec<(&'static str, String)>, value: f64| {
            gauge!(name, &labels).set(value);
            known.insert((name, labels), true);
        };
        for upstream in view.snapshot.upstreams() {
            for member in &upstream.members {
                let labels = vec![
                    ("upstream", upstream.name.to_string()),
                    ("backend", member.backend.address().to_string()),
                ];
                let up = f64::from(u8::from(member.is_available()));
                set("weir_l7_backend_up", labels.clone(), up);
                let active = f64::from(member.backend.active());
                set("weir_l7_backend_active", labels, active);
            }
        }
        for listener in &view.snapshot.config.listeners {
            let label = vec![("listener", listener.name.clone())];
            let limit = listener.max_connections as f64;
            set("weir_l7_connections_limit", label, limit);
        }
        for served in view.certificates().iter() {
            let label = vec![("certificate", served.file())];
            let expiry = served.chain.leaf().not_after as f64;
            set(
                "weir_l7_certificate_expiry_timestamp_seconds",
                label,
                expiry,
            );
        }
        set(
            "weir_l7_draining",
            Vec::new(),
            f64::from(u8::from(draining)),
        );
        known.retain(|(name, labels), current| {
            if !*current {
                gauge!(*name, labels).set(f64::NAN);
            }
            *current
        });
    }
}
