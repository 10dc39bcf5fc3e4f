//! HTTP/1 clients that show the bytes, and curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field, or "".
    pub fn field(&self, name: &str) -> &str {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        lines
            .into_iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).expect("connect");
    stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    stream.set_write_timeout(Some(TIMEOUT)).expect("timeout");
    stream
}

/// Sends bytes and returns everything until the other side closes, or 10 s of silence.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("write");
    until_closed(&mut stream)
}

pub fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) => {
                assert!(
                    error.kind() == std::io::ErrorKind::ConnectionReset,
                    "{error} after {:?}",
                    String::from_utf8_lossy(&all)
                );
                break;
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A keep-alive connection.
pub struct Connection(pub TcpStream);

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        Connection(connect(address))
    }

    pub fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).expect("write");
    }

    /// Reads one response; `None` when the connection closed before its first byte.
    pub fn read(&mut self) -> Option<Response> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut byte = [0; 1];
            match self.0.read(&mut byte) {
                Ok(1) => bytes.push(byte[0]),
                Ok(_) | Err(_) if bytes.is_empty() => return None,
                other => panic!(
                    "{other:?} within a head: {:?}",
                    String::from_utf8_lossy(&bytes)
                ),
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        let mut response = Response {
            status,
            head,
            body: Vec::new(),
        };
        if response.field("transfer-encoding") == "chunked" {
            loop {
                let line = self.line();
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                        .expect("a chunk size");
                if size == 0 {
                    while !self.line().is_empty() {}
                    break;
                }
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk).expect("a chunk");
                response.body.extend_from_slice(&chunk[..size]);
            }
        } else if let Ok(length) = response.field("content-length").parse() {
            response.body = vec![0; length];
            self.0.read_exact(&mut response.body).expect("the body");
        }
        Some(response)
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0; 1];
        while !line.ends_with(b"\r\n") {
            self.0.read_exact(&mut byte).expect("a line");
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    pub fn get(&mut self, host: &str, path: &str) -> Option<Response> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.read()
    }

    /// Opens a WebSocket to the backend, which echoes what it is sent.
    pub fn websocket(address: SocketAddr) -> Connection {
        let mut connection = Connection::open(address);
        connection.send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let response = connection.read().expect("a response");
        assert_eq!(
            (
                response.status,
                response.field("upgrade"),
                response.field("connection").to_lowercase().as_str()
            ),
            (101, "websocket", "upgrade")
        );
        assert_eq!(response.field("sec-websocket-accept"), "x");
        connection
    }

    /// Sends bytes through a tunnel and reads them back.
    pub fn echo(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("write");
        let mut back = vec![0; bytes.len()];
        self.0.read_exact(&mut back).expect("read");
        assert_eq!(back, bytes);
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, host: &str, path: &str) -> Response {
    Connection::open(address)
        .get(host, path)
        .expect("a response")
}

pub fn try_get(address: SocketAddr, host: &str, path: &str) -> Option<Response> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    Connection(stream).get(host, path)
}

/// Runs curl quietly; returns its exit code and what it printed.
pub fn curl(arguments: &[&str]) -> (i32, String) {
    let done = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "15"])
        .args(arguments)
        .output()
        .expect("curl is installed");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    (done.status.code().unwrap_or(-1), text)
}
