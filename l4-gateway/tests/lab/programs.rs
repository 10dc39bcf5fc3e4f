//! Real servers and clients, in namespaces: python3's HTTP server and curl, dnsmasq and dig, iperf3.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Lab, Place, pattern};

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

/// Runs a program to its end, 30 seconds at most; what it printed.
fn run(place: &Place, program: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = place.command("timeout");
    let output = command
        .args(["-k", "1", "30", program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("iproute2's ip");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} (deploy/install-deps.sh installs what is missing): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output.stdout
}

/// Serves a directory by GET and PUT over both families; on the last port to connections that begin with a PROXY v2 header.
const FILES: &str = r#"
import http.server, os, socket, socketserver, struct, sys, threading
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    server_bind = socketserver.TCPServer.server_bind # HTTPServer's looks its own name up
class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    peer = "none"
    def do_PUT(self):
        with open(self.translate_path(self.path), "wb") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def end_headers(self):
        self.send_header("X-Client", self.peer)
        super().end_headers()
class Proxied(Files):
    def handle(self):
        signature, command, family, length = struct.unpack("!12sBBH", self.rfile.read(16))
        addresses = self.rfile.read(length)
        if signature != b"\r\n\r\n\0\r\nQUIT\n" or command != 0x21:
            raise ValueError("no PROXY header")
        kind, size = (socket.AF_INET, 4) if family == 0x11 else (socket.AF_INET6, 16)
        self.peer = socket.inet_ntop(kind, addresses[:size])
        super().handle()
os.chdir(sys.argv[1])
servers = [Server(("::", int(port)), Files) for port in sys.argv[2:-1]] + [Server(("::", int(sys.argv[-1])), Proxied)]
threads = [threading.Thread(target=server.serve_forever) for server in servers]
for thread in threads:
    thread.start()
print("ready", flush=True)
"#;

/// An HTTP server and the directory of what it serves and took.
pub(crate) struct Files {
    _server: Program,
    directory: PathBuf,
}

impl Files {
    pub(crate) const PLAIN: u16 = 80;
    pub(crate) const TOO_PLAIN: u16 = 81;
    /// Connections begin with a PROXY v2 header there.
    pub(crate) const PROXIED: u16 = 82;

    pub(crate) fn serve(lab: &Lab, place: &Place) -> Files {
        let ports = [Files::PLAIN, Files::TOO_PLAIN, Files::PROXIED];
        Files::serve_at(lab, place, &ports)
    }

    /// The same on other ports, of which the last is for connections with a PROXY header.
    pub(crate) fn serve_at(lab: &Lab, place: &Place, ports: &[u16]) -> Files {
        let directory = lab.directory.path().join("files");
        std::fs::create_dir(&directory).unwrap();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut arguments = vec!["-c", FILES, directory.to_str().unwrap()];
        arguments.extend(ports.iter().map(String::as_str));
        let server = Program::start(lab, place, "python3", &arguments, "ready");
        Files {
            _server: server,
            directory,
        }
    }

    /// Has curl fetch `length` bytes from `at` and asserts that they are the right ones.
    pub(crate) fn fetch(&self, client: &Place, at: impl ToString, length: usize) {
        let body = pattern(length, 11);
        let name = format!("down-{length}");
        std::fs::write(self.directory.join(&name), &body).unwrap();
        let url = format!("http://{}/{name}", at.to_string());
        let fetched = curl(client, &["-o", "-", &url]);
        assert!(
            fetched == body,
            "{url}: {} of {length} bytes, or others",
            fetched.len()
        );
    }

    /// Has curl send `length` bytes to `at`, with the head of the request in several segments, and asserts that the server got
    /// the right ones; the client's address as the server knows it from a PROXY header.
    pub(crate) fn send(&self, client: &Place, at: impl ToString, length: usize) -> String {
        let body = pattern(length, 13);
        let (from, to) = (
            self.directory.join("outgoing"),
            self.directory.join("incoming"),
        );
        let head = self.directory.join("head");
        std::fs::write(&from, &body).unwrap();
        std::fs::write(&head, format!("X-Padding: {}\nExpect:\n", "x".repeat(4000))).unwrap();
        let _ = std::fs::remove_file(&to);
        let url = format!("http://{}/incoming", at.to_string());
        let head = format!("@{}", head.display());
        let what = ["-T", from.to_str().unwrap(), "-H", &head];
        let told = ["-w", "%header{x-client}", &url];
        let told = curl(client, &[&what[..], &told].concat());
        let received = std::fs::read(&to).unwrap();
        assert!(
            received == body,
            "{url}: {} of {length} bytes, or others",
            received.len()
        );
        String::from_utf8(told).unwrap()
    }
}

fn curl(client: &Place, arguments: &[&str]) -> Vec<u8> {
    let always = ["-sS", "-g", "--fail", "--noproxy", "*", "--max-time", "20"];
    run(client, "curl", &[&always, arguments].concat())
}

/// A DNS server for what `records` say, as dnsmasq's options.
pub(crate) fn serve_names(lab: &Lab, place: &Place, records: &[&str]) -> Program {
    let usual = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--user=root",
        "--log-facility=-",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--edns-packet-max=4096",
    ];
    let arguments = [&usual, records].concat();
    Program::start(lab, place, "dnsmasq", &arguments, "started, version")
}

/// A TXT record of so many characters: dnsmasq's option for it, and what dig prints of it.
pub(crate) fn text_record(name: &str, length: usize) -> (String, String) {
    let letters = (b'a'..=b'w').cycle().take(length);
    let text: String = letters.map(char::from).collect();
    let strings: Vec<&str> = (0..length)
        .step_by(250)
        .map(|from| &text[from..length.min(from + 250)])
        .collect();
    let option = format!("--txt-record={name},{}", strings.join(","));
    (option, format!("\"{}\"", strings.join("\" \"")))
}

/// What dig gets for a name over UDP, a line for each record. It asks again each second.
pub(crate) fn dig(client: &Place, server: impl ToString, name: &str, kind: &str) -> Vec<String> {
    let server = format!("@{}", server.to_string());
    let how = [
        "+short",
        "+ignore",
        "+notcp",
        "+bufsize=4096",
        "+tries=10",
        "+time=1",
    ];
    let arguments = [&how[..], &[server.as_str(), name, kind]].concat();
    let answer = String::from_utf8(run(client, "dig", &arguments)).unwrap();
    let said = answer.lines().filter(|line| !line.starts_with(";;"));
    said.map(str::to_owned).collect()
}

/// One run of iperf3 with a server of its own at `server`, as clients reach it at `at`; what the client tells.
pub(crate) fn iperf(lab: &Lab, server: SocketAddr, at: SocketAddr, arguments: &[&str]) -> Value {
    let port = server.port().to_string();
    let bind = server.ip().to_string();
    let serve = ["-s", "-1", "--forceflush", "-B", &bind, "-p", &port];
    let _server = Program::start(lab, &lab.target(), "iperf3", &serve, "Server listening");
    let (vip, port) = (at.ip().to_string(), at.port().to_string());
    let connect = ["-J", "-c", &vip, "-p", &port];
    let told = run(&lab.client(), "iperf3", &[&connect, arguments].concat());
    serde_json::from_slice(&told).unwrap()
}
