//! A real BIRD in the router's namespace.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{ROUTER, SPEAKER};

pub(crate) struct Bird {
    process: Child,
    directory: tempfile::TempDir,
}

impl Bird {
    /// BIRD with one neighbour, us: its AS, ours, and further lines of the protocol.
    pub(crate) fn start(namespace: &str, its_as: u32, our_as: u32, extra: &str) -> Self {
        Self::start_at(ROUTER, namespace, its_as, our_as, extra)
    }

    /// As [`Self::start`], with another address of the namespace; several of them live in one.
    pub(crate) fn start_at(
        address: &str,
        namespace: &str,
        its_as: u32,
        our_as: u32,
        extra: &str,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let configuration = format!(
            "log \"{log}\" all;\n\
             debug protocols {{ states, events }};\n\
             router id {address};\n\
             protocol device {{}}\n\
             protocol bgp weir {{\n\
               local {address} as {its_as};\n\
               strict bind yes;\n\
               neighbor {SPEAKER} as {our_as};\n\
               connect delay time 1;\n\
               error wait time 1, 2;\n\
               {extra}\n\
               ipv4 {{ import all; export none; }};\n\
             }}\n",
            log = path("bird.log"),
        );
        std::fs::write(path("bird.conf"), configuration).unwrap();
        let process = Command::new("ip")
            .args([
                "netns",
                "exec",
                namespace,
                "bird",
                "-f",
                "-c",
                &path("bird.conf"),
                "-s",
                &path("bird.ctl"),
            ])
            .args(["-P", &path("bird.pid")])
            .stdout(Stdio::null())
            .spawn()
            .expect("iproute2 is installed");
        let bird = Self { process, directory };
        let start = Instant::now();
        while UnixStream::connect(bird.control()).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "BIRD (Debian package bird2) starts: {}",
                bird.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        bird
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("bird.ctl")
    }

    /// The answer to a `birdc` command, read from BIRD's socket: fast enough to time things with.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut socket = UnixStream::connect(self.control()).expect("BIRD runs");
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        read_answer(&mut socket);
        writeln!(socket, "{command}").unwrap();
        read_answer(&mut socket)
    }

    /// Whether BIRD has a route to this prefix.
    pub(crate) fn knows(&self, prefix: &str) -> bool {
        self.ask(&format!("show route {prefix}")).contains(prefix)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("bird.log")).unwrap_or_default()
    }

    /// SIGKILL: the router loses power, as far as its neighbours can tell.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads until the line that ends an answer: four digits and a space, of which the first is 0, 8 or 9.
fn read_answer(socket: &mut UnixStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let length = socket.read(&mut buffer).expect("BIRD answers");
        assert!(length > 0, "BIRD closed its control socket");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        let last = text
            .trim_end_matches('\n')
            .rsplit('\n')
            .next()
            .unwrap_or_default();
        let ends = text.ends_with('\n')
            && last.len() >= 4
            && last.bytes().take(4).all(|byte| byte.is_ascii_digit())
            && last.as_bytes().get(4).is_none_or(|byte| *byte == b' ')
            && matches!(last.as_bytes()[0], b'0' | b'8' | b'9');
        if ends {
            return text;
        }
    }
}
