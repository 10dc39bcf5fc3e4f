//! A real FRR bgpd in the router's namespace, without zebra: it learns routes and installs none.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::SPEAKER;

pub(crate) struct Frr {
    process: Child,
    directory: tempfile::TempDir,
}

impl Frr {
    /// bgpd with one neighbour, us: its AS, ours, and what else is said of us, each line after `neighbor <us>`.
    pub(crate) fn start(namespace: &str, its_as: u32, our_as: u32, extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut configuration = format!(
            "log file {}\nrouter bgp {its_as}\n bgp router-id 10.2.0.1\n no bgp ebgp-requires-policy\n \
             neighbor {SPEAKER} remote-as {our_as}\n neighbor {SPEAKER} timers connect 1\n",
            path("log")
        );
        for line in extra {
            configuration += &format!(" neighbor {SPEAKER} {line}\n");
        }
        std::fs::write(path("bgpd.conf"), configuration).unwrap();
        let process = Command::new("ip")
            .args([
                "netns",
                "exec",
                namespace,
                "/usr/lib/frr/bgpd",
                "--no_zebra",
                "--no_kernel",
                "--skip_runas",
            ])
            .args(["-f", &path("bgpd.conf"), "-i", &path("pid"), "-P", "0"])
            .args(["--vty_socket", &directory.path().display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("iproute2 is installed");
        let frr = Self { process, directory };
        let start = Instant::now();
        while !frr.ask("show bgp summary json").contains(SPEAKER) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "bgpd (Debian package frr) starts"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        frr
    }

    /// The answer to a `vtysh` command.
    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.directory.path())
            .args(["-d", "bgpd", "-c", command])
            .output()
            .expect("vtysh (Debian package frr) is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
