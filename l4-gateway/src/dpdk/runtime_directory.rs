//! DPDK's runtime directory (`/run/dpdk/<prefix>`), which DPDK makes and leaves behind.
//!
//! What the gateway has in it is the socket of DPDK's telemetry, which DPDK removes when the process exits; so the directory goes after that, by a
//! handler that was registered before. It is only ever removed empty: whoever else uses the same prefix has a socket or a file in it. A process that
//! was killed leaves its socket; the next one with the prefix removes those on which nobody listens.

use std::ffi::CStr;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The beginning of the sockets' names; a second process appends its number.
const SOCKET: &[u8] = b"dpdk_telemetry.v2";
/// A socket is bound a moment before it is listened on: younger ones are left alone.
const YOUNG: Duration = Duration::from_secs(1);

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Has the directory removed when the process exits, if it is empty then. To be called before EAL starts, whose own handlers then run first.
pub(super) fn remove_at_exit() {
    // SAFETY: a plain function that stays valid, may run on any thread and does not unwind.
    let status = unsafe { libc::atexit(remove) };
    if status != 0 {
        tracing::debug!(
            "DPDK's runtime directory will be left behind: no room for an exit handler"
        );
    }
}

/// To be called once EAL has started, or failed to: notes which directory it is, and removes what dead processes left in it.
pub(super) fn sweep() {
    // SAFETY: returns a static string, empty while there is no directory.
    let name = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    if name.is_empty() {
        return;
    }
    let directory = DIRECTORY.get_or_init(|| std::ffi::OsStr::from_bytes(name.to_bytes()).into());
    if let Err(error) = sweep_in(directory) {
        tracing::debug!(directory = %directory.display(), %error, "not swept");
    }
}

fn sweep_in(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_dead(&entry)? {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether it is a telemetry socket on which nobody listens.
fn is_dead(entry: &DirEntry) -> std::io::Result<bool> {
    if !entry.file_name().as_bytes().starts_with(SOCKET) || !entry.file_type()?.is_socket() {
        return Ok(false);
    }
    let age = entry.metadata()?.modified()?.elapsed();
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    Ok(age.is_ok_and(|age| age > YOUNG) && UnixStream::connect(entry.path()).is_err_and(refused))
}

extern "C" fn remove() {
    if let Some(directory) = DIRECTORY.get() {
        // That it isn't empty, or gone, is as good.
        let _left = fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_of_dead_processes_are_swept_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let living = UnixListener::bind(path("dpdk_telemetry.v2")).unwrap();
        for dead in ["dpdk_telemetry.v2:1", "mp_socket"] {
            drop(UnixListener::bind(path(dead)).unwrap());
        }
        fs::write(path("dpdk_telemetry.v2.txt"), "").unwrap();
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        sweep_in(directory.path()).unwrap();
        assert_eq!(names().len(), 4, "all are young");
        std::thread::sleep(YOUNG + Duration::from_millis(100));
        sweep_in(directory.path()).unwrap();
        assert_eq!(
            names(),
            ["dpdk_telemetry.v2", "dpdk_telemetry.v2.txt", "mp_socket"]
        );
        drop(living);
    }
}
