//! A new configuration for the running node: all of the file is in force afterwards, or nothing has changed but that NICs may have
//! rules for LocalIPs of the refused one, which nobody uses ([`crate::forwarder::Forwarder::follow`]).

use std::path::PathBuf;
use std::sync::Arc;

use actix::Addr;
use arc_swap::ArcSwap;
use metrics::gauge;
use serde::Serialize;
use shared::bus::unix_ms;
use tokio::sync::Mutex;

use crate::actors::{ControlPlane, Reload};
use crate::config::{Changes, Config};

/// The configuration in force.
pub(crate) type Current = Arc<ArcSwap<Config>>;

/// Reads the file again when asked to.
pub(crate) struct Reloader {
    file: PathBuf,
    current: Current,
    control: Addr<ControlPlane>,
    last: ArcSwap<LastReload>,
    /// One at a time.
    turn: Mutex<()>,
}

/// How the last reload went, or the start if there was none.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LastReload {
    /// The file.
    file: String,
    /// Since when the configuration in force is, in milliseconds of Unix time.
    in_force_since_unix_ms: u64,
    /// Why the last reload changed nothing; none if it did.
    refused: Option<String>,
}

impl Reloader {
    /// For a node that started by `file`, whose configuration is `current`.
    pub(crate) fn new(file: PathBuf, current: Current, control: Addr<ControlPlane>) -> Reloader {
        // Who hears of it may be in another directory.
        let file = std::path::absolute(&file).unwrap_or(file);
        let last = LastReload {
            file: file.display().to_string(),
            in_force_since_unix_ms: unix_ms(),
            refused: None,
        };
        let reloader = Reloader {
            file,
            current,
            control,
            last: ArcSwap::from_pointee(last.clone()),
            turn: Mutex::default(),
        };
        reloader.note(last);
        reloader
    }

    /// Reads the file, and puts it in force if all of it can be while the node runs. Returns what changed, a line each.
    ///
    /// # Errors
    /// What is wrong or needs a restart, a line each; nothing has changed then.
    pub(crate) async fn reload(&self, by: &str) -> Result<Vec<String>, String> {
        let _turn = self.turn.lock().await;
        let result = self.replace().await;
        let last = LastReload::clone(&self.last.load());
        match &result {
            Ok(changes) => {
                tracing::info!(by, changes = changes.len(), "configuration reloaded");
                for change in changes {
                    tracing::info!(change, "configuration");
                }
                for warning in self.current.load().warnings() {
                    tracing::warn!("{warning}");
                }
                self.note(LastReload {
                    in_force_since_unix_ms: unix_ms(),
                    refused: None,
                    ..last
                });
            }
            Err(why) => {
                for line in why.lines() {
                    tracing::error!(by, "configuration not reloaded: {line}");
                }
                self.note(LastReload {
                    refused: Some(why.clone()),
                    ..last
                });
            }
        }
        result
    }

    /// How the last one went.
    pub(crate) fn last(&self) -> Arc<LastReload> {
        self.last.load_full()
    }

    async fn replace(&self) -> Result<Vec<String>, String> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&file)).await;
        let config = read
            .map_err(|error| format!("reading the file: {error}"))?
            .map_err(|mistakes| mistakes.to_string())?;
        let before = self.current.load();
        let Changes { live, restart } = Changes::between(&before.written, &config.written);
        if !restart.is_empty() {
            let keys: Vec<String> = restart
                .iter()
                .map(|key| format!("{key}: takes effect by a restart only"))
                .collect();
            let rest = match live.len() {
                0 => String::new(),
                count => format!("\nput them back to have the other changes ({count}) without one"),
            };
            return Err(keys.join("\n") + &rest);
        }
        let config = Arc::new(config);
        match self.control.send(Reload(config.clone())).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                return Err(format!(
                    "{}: can't be forwarded by: {why}",
                    self.file.display()
                ));
            }
            Err(_) => return Err("the node is leaving".into()),
        }
        self.current.store(config);
        Ok(live)
    }

    fn note(&self, last: LastReload) {
        let successful = f64::from(u8::from(last.refused.is_none()));
        gauge!("weir_l4_config_last_reload_successful").set(successful);
        let seconds = last.in_force_since_unix_ms as f64 / 1e3;
        gauge!("weir_l4_config_last_reload_success_timestamp_seconds").set(seconds);
        self.last.store(Arc::new(last));
    }
}
