//! The node's certificates as its log and `/status` show them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::view::{Board, View};
use crate::edge::tls::{Expiry, Served};

/// How often their expiry is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Logs from time to time that the end of what is served is near. Runs as long as the actix system does.
pub(super) fn follow(board: Board) {
    actix_rt::spawn(async move {
        let mut ticks = tokio::time::interval(LOOK);
        let none: Arc<[Served]> = Arc::default();
        let mut expiry = Expiry::new(none.clone());
        loop {
            ticks.tick().await;
            let identity = board.load().identity.clone();
            let served =
                identity.map_or_else(|| none.clone(), |identity| identity.served().clone());
            let now = SystemTime::now();
            if !Arc::ptr_eq(&served, expiry.served()) {
                expiry = Expiry::new(served);
                // Of these it has just been said by whoever read the configuration.
                expiry.due(now);
            }
            for doubt in expiry
                .due(now)
                .into_iter()
                .flat_map(|served| served.doubts(now))
            {
                tracing::warn!("{doubt}");
            }
        }
    });
}

/// For `/status`, in the order of the configuration.
pub(super) fn status(view: &View, now: SystemTime) -> Vec<Value> {
    let certificates = view.certificates().iter();
    certificates
        .map(|served| {
            let leaf = served.chain.leaf();
            let doubts = served.doubts(now).into_iter().map(|doubt| doubt.message);
            json!({
                "certificate": served.file(),
                "names": served.names(),
                "default": served.settings.default,
                "subject": leaf.subject,
                "issuer": leaf.issuer,
                "key": leaf.key,
                "fingerprint": leaf.fingerprint,
                "not_before": leaf.not_before,
                "not_after": leaf.not_after,
                "expires": leaf.last_day(),
                "chain": served.chain.descriptions().len(),
                "warnings": doubts.collect::<Vec<_>>(),
            })
        })
        .collect()
}
