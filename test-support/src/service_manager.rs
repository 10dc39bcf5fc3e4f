//! The other end of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// How long a process may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// What systemd is to a unit of `Type=notify`.
pub struct ServiceManager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl ServiceManager {
    /// One that nobody has told anything yet.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { directory, socket }
    }

    /// Has the process that `command` starts tell this one.
    pub fn starts(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
    }

    /// The next that it is told, such as `READY=1`.
    pub fn hears(&self) -> String {
        let mut text = [0; 512];
        let length = self.socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    }
}
