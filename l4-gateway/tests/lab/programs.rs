//! Programs that run in namespaces for as long as a test needs them.

use std::fs::File;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Lab, Place};

/// A program that runs for as long as this value lives.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts it and waits until it says `ready`.
    pub(crate) fn start(
        lab: &Lab,
        place: &Place,
        program: &str,
        arguments: &[&str],
        ready: &str,
    ) -> Program {
        let log = tempfile::NamedTempFile::new_in(lab.directory.path()).unwrap();
        let output = || File::options().append(true).open(log.path()).unwrap();
        let child = place
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .expect("iproute2's ip");
        // `ip netns exec` replaces itself by the program, so the pid is the program's.
        let mut started = Program { child };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = std::fs::read_to_string(log.path()).unwrap();
            if said.contains(ready) {
                return started;
            }
            let ended = started.child.try_wait().unwrap().is_some();
            assert!(
                !ended && Instant::now() < deadline,
                "{program} is not ready (deploy/install-deps.sh installs what is missing): {said}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
