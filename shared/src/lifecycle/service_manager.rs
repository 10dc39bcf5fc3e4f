//! What a process tells the service manager that started it.

use sd_notify::NotifyState;

/// Tells systemd that the process is ready (`Type=notify`). Where nobody asked to be told, nothing happens.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that another process is the unit's main process from now on.
pub fn tell_successor(process: u32) {
    tell(&[NotifyState::MainPid(process)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
