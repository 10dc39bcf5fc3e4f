//! A new configuration for the running process: all of the file is in force afterwards, or nothing has changed.
//!
//! ```text
//!  SIGHUP ──┐                      refused: mistakes, files that can't be used, what needs a restart, what the tier refuses
//!  reload ──┴▶ read ─▶ check ─▶ compare ─▶ follow ─▶ remember and count
//!  plan   ───▶ (text) ▶ check ─▶ compare ─▶ what would end
//! ```
//!
//! A tier gives its [`Configuration`], and what follows a new one: [`Follow`]. Whether a key can change while the process runs is said where it
//! is parsed ([`Table::live`](crate::config::Table::live)).

mod last;
mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::admin::{CommandError, asker};
use crate::config::{Change, Configuration, Loaded, Unusable, Warning, Written, changes};

pub use last::Standing;
pub(crate) use plan::LONGEST_PLAN;
pub use plan::Plan;

/// Most changes that one reload logs.
const MOST_LOGGED: usize = 200;

/// The part of a tier that runs by a configuration, and goes on by another.
pub trait Follow<C>: Send + Sync + 'static {
    /// Goes on by `step.after`, all of it, or stays as it is and says why, a line each. At this point the file was read without mistakes, nothing
    /// that needs a restart is among the changes, and no other reload is under way.
    fn follow(&self, step: Step<C>) -> BoxFuture<'static, Result<(), String>>;

    /// What else operators should know of it: among the warnings of a reload, asked for before it, and of a plan; a line each.
    fn notes(&self, step: Step<C>) -> BoxFuture<'static, Vec<String>> {
        let _ = step;
        std::future::ready(Vec::new()).boxed()
    }

    /// What clients and peers would notice of it: which connections, flows or sessions would end, and why; a line each.
    fn would_end(&self, step: Step<C>) -> BoxFuture<'static, Vec<String>>;
}

/// From the configuration in force to the next.
#[derive(Debug)]
pub struct Step<C> {
    /// What is in force.
    pub before: Arc<C>,
    /// What is to be.
    pub after: Arc<C>,
    /// What differs, at least one thing.
    pub changes: Arc<[Change]>,
}

impl<C> Clone for Step<C> {
    fn clone(&self) -> Self {
        Self {
            before: self.before.clone(),
            after: self.after.clone(),
            changes: self.changes.clone(),
        }
    }
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Empty if the file says what was in force already.
    pub changes: Arc<[Change]>,
    /// What the new configuration is warned of.
    pub warnings: Vec<Warning>,
    /// What else operators should know.
    pub notes: Vec<String>,
}

/// Reads the file again when asked to. Clones are the same.
pub struct Reloader<C>(Arc<Inner<C>>);

impl<C> Clone for Reloader<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<C> {
    current: ArcSwap<C>,
    running: ArcSwapOption<Box<dyn Follow<C>>>,
    standing: ArcSwap<Standing>,
    leaving: AtomicBool,
    /// A reload that a signal asked for waits for its turn.
    signalled: AtomicBool,
    /// One reload or plan at a time; what is in force, to compare with.
    turn: Arc<Mutex<Written>>,
}

impl<C: Configuration> Reloader<C> {
    /// For a process that starts by `loaded`. Until [`Self::followed_by`], reloads are refused.
    pub fn new(loaded: Loaded<C>) -> Self {
        let Loaded {
            file,
            config,
            warnings: _,
            written,
        } = loaded;
        let last = Standing::started(file);
        last::describe(C::TIER);
        last.count(C::TIER);
        Self(Arc::new(Inner {
            current: ArcSwap::new(config),
            running: ArcSwapOption::empty(),
            standing: ArcSwap::from_pointee(last),
            leaving: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            turn: Arc::new(Mutex::new(written)),
        }))
    }

    /// Names what goes on by new configurations: the process has started.
    pub fn followed_by(&self, running: impl Follow<C>) {
        self.0.running.store(Some(Arc::new(Box::new(running))));
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<C> {
        self.0.current.load_full()
    }

    /// The process is leaving: from here on, reloads and plans are refused. Waits for one that is under way.
    pub async fn close(&self) {
        self.0.leaving.store(true, Ordering::Release);
        drop(self.0.turn.lock().await);
    }

    /// Leaves by `leaving`, with no reload or plan coming between: those asked for meanwhile wait, and are refused if it succeeds. Otherwise the
    /// process stays, and they go on.
    ///
    /// # Errors
    /// Those of `leaving`.
    pub async fn leave<T, E>(&self, leaving: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let _turn = self.0.turn.lock().await;
        let left = leaving.await;
        if left.is_ok() {
            self.0.leaving.store(true, Ordering::Release);
        }
        left
    }

    /// How things stand, for `/status` under `configuration`.
    pub fn standing(&self) -> Standing {
        Standing::clone(&self.0.standing.load())
    }

    /// Reads the file, and puts it in force if all of it can be while the process runs. Returns what changed.
    ///
    /// # Errors
    /// What is wrong or needs a restart, a line each; nothing has changed then.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, String> {
        let reloader = self.clone();
        let asked_by = by.to_owned();
        // In a task of its own: who asked may go away, and half a reload must not be what is left.
        let task = tokio::spawn(async move {
            let written = reloader.turn().await;
            reloader.take_turn(&asked_by, written).await
        });
        task.await
            .map_err(|error| format!("the reload broke off: {error}"))?
    }

    /// As [`Self::reload`], for a signal: what comes of it is in the log and the status. Signals that come before the reload has its turn are one:
    /// it reads the file as it is then.
    pub fn reload_on_signal(&self) {
        if self.0.signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        let reloader = self.clone();
        tokio::spawn(async move {
            let written = reloader.turn().await;
            reloader.0.signalled.store(false, Ordering::Release);
            reloader.take_turn("signal", written).await.is_ok()
        });
    }

    /// Carries out `reload` and `plan`; none if it is another command.
    pub fn command(
        &self,
        name: &str,
        args: &Value,
    ) -> Option<BoxFuture<'static, Result<Value, CommandError>>> {
        let reloader = self.clone();
        let args = args.clone();
        match name {
            "reload" => Some(
                async move {
                    let by = asker(&args)?;
                    let reloaded = reloader.reload(&by).await.map_err(CommandError::Refused)?;
                    let changes = reloaded.changes.iter().map(ToString::to_string);
                    let warnings = reloaded.warnings.iter().map(ToString::to_string);
                    let warnings = warnings.chain(reloaded.notes);
                    Ok(json!({
                        "file": reloader.standing().file,
                        "changes": changes.collect::<Vec<_>>(),
                        "warnings": warnings.collect::<Vec<_>>(),
                    }))
                }
                .boxed(),
            ),
            "plan" => Some(async move { reloader.plan(args).await }.boxed()),
            _ => None,
        }
    }

    async fn turn(&self) -> OwnedMutexGuard<Written> {
        self.0.turn.clone().lock_owned().await
    }

    async fn take_turn(
        &self,
        by: &str,
        mut written: OwnedMutexGuard<Written>,
    ) -> Result<Reloaded, String> {
        let result = self.replace(&mut written).await;
        let last = self.0.standing.load();
        let next = match &result {
            Ok(Reloaded {
                changes,
                warnings,
                notes,
            }) => {
                tracing::info!(by, changes = changes.len(), "configuration reloaded");
                for change in changes.iter().take(MOST_LOGGED) {
                    tracing::info!("configuration: {change}");
                }
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                for note in notes {
                    tracing::warn!("{note}");
                }
                last.succeeded(by, changes)
            }
            Err(why) => {
                tracing::error!(by, "configuration not reloaded: {}", in_short(why));
                last.refused(by, why)
            }
        };
        next.count(C::TIER);
        self.0.standing.store(Arc::new(next));
        result
    }

    async fn replace(&self, written: &mut OwnedMutexGuard<Written>) -> Result<Reloaded, String> {
        let running = self.running()?;
        let file = self.standing().file;
        let read = tokio::task::spawn_blocking(move || {
            Loaded::<C>::read(file.as_ref(), Unusable::Refuses)
        });
        let loaded = read
            .await
            .map_err(|error| format!("reading the file: {error}"))??;
        let step = self.step(written, &loaded);
        refuse_restarts::<C>(&step.changes)?;
        let mut notes = Vec::new();
        if !step.changes.is_empty() {
            declared_as_applied(&step)?;
            notes = running.notes(step.clone()).await;
            running.follow(step.clone()).await?;
            self.0.current.store(step.after.clone());
        }
        **written = loaded.written;
        Ok(Reloaded {
            changes: step.changes,
            warnings: loaded.warnings,
            notes,
        })
    }

    fn running(&self) -> Result<Arc<Box<dyn Follow<C>>>, String> {
        if self.0.leaving.load(Ordering::Acquire) {
            return Err("the process is leaving".into());
        }
        let running = self.0.running.load_full();
        running.ok_or_else(|| "the process is still starting".into())
    }

    fn step(&self, written: &Written, loaded: &Loaded<C>) -> Step<C> {
        Step {
            before: self.current(),
            after: loaded.config.clone(),
            changes: changes(written, &loaded.written).into(),
        }
    }
}

/// A refusal in one line, for the log: the status has the rest.
fn in_short(why: &str) -> String {
    let mut lines = why.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more, see status)"),
    }
}

/// # Errors
/// The keys that need a restart, a line each.
fn refuse_restarts<C: Configuration>(changes: &[Change]) -> Result<(), String> {
    let (live, restart): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| change.live);
    if restart.is_empty() {
        return Ok(());
    }
    let only_by = only_by::<C>();
    let line = |change: &&Change| {
        let message = format!("takes effect {only_by}");
        change.place.mistake(message, "").to_string()
    };
    let keys: Vec<String> = restart.iter().map(line).collect();
    let rest = match live.len() {
        0 => String::new(),
        count => format!("\nput them back to have the other changes ({count}) without one"),
    };
    Err(keys.join("\n") + &rest)
}

/// How a change that no reload makes takes effect.
fn only_by<C: Configuration>() -> String {
    match C::UPGRADE {
        Some(upgrade) => format!("by a restart or `{upgrade}` only"),
        None => "by a restart only".into(),
    }
}

/// Whether what changes is what the tier applies.
///
/// # Errors
/// If a key that needs a restart was declared to be live: it must not be taken for applied.
fn declared_as_applied<C: Configuration>(step: &Step<C>) -> Result<(), String> {
    if step.before.is_fixed_as(&step.after) {
        return Ok(());
    }
    let keys: Vec<&str> = step
        .changes
        .iter()
        .map(|change| change.key.as_str())
        .collect();
    Err(format!(
        "one of these takes effect by a restart only, though it is declared otherwise (please report it): {}",
        keys.join(", ")
    ))
}

#[cfg(test)]
mod tests;
