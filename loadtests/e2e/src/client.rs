//! Clients that are not ours, and plain sockets, inside the client's namespace.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use demo::app::Seen;
use demo::lab::Lab;
use demo::topology::VIP;

/// What curl got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// HTTP version as curl names it: `1.1`, `2`.
    pub version: String,
    /// Header lines as received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as the application's account of the request.
    pub fn seen(&self) -> Result<Seen> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "status {}, body {:?}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }
}

/// A curl call from the client's namespace. Every host resolves to the VIP; certificates are verified.
#[derive(Debug)]
pub struct Curl<'l> {
    lab: &'l Lab,
    arguments: Vec<String>,
}

impl<'l> Curl<'l> {
    /// curl with nothing but the demo's own authority and the VIP.
    pub fn new(lab: &'l Lab) -> Curl<'l> {
        let ca = lab.certs().join("ca.pem").display().to_string();
        let mut arguments: Vec<String> = [
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "10",
            "--cacert",
        ]
        .map(String::from)
        .to_vec();
        arguments.push(ca);
        for port in [80, 443] {
            arguments.extend(["--connect-to".into(), format!("::{VIP}:{port}")]);
        }
        // The first --connect-to that matches wins, so each names the port it is for.
        let arguments = arguments
            .into_iter()
            .map(
                |argument| match argument.strip_prefix(&format!("::{VIP}:")) {
                    Some(port) => format!(":{port}:{VIP}:{port}"),
                    None => argument,
                },
            )
            .collect();
        Curl { lab, arguments }
    }

    /// Adds arguments.
    pub fn with(mut self, arguments: &[&str]) -> Curl<'l> {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// The call, ready to run.
    pub fn command(&self, url: &str) -> Command {
        let mut command = self.lab.namespace("client").command("curl");
        command.args(&self.arguments).arg(url);
        command
    }

    /// Fetches `url`; an error when curl can't (connection, TLS, time).
    pub fn get(&self, url: &str) -> Result<Answer> {
        let output = self.command(url).output().context("running curl")?;
        if !output.status.success() {
            bail!(
                "curl {url}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        parse(&output.stdout).with_context(|| format!("what curl printed for {url}"))
    }
}

/// Splits the output of `curl --include` into head and body; interim (1xx) heads are skipped.
fn parse(mut bytes: &[u8]) -> Result<Answer> {
    loop {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("no end of the head")?;
        let head = std::str::from_utf8(&bytes[..end])?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let version = first
            .next()
            .and_then(|version| version.strip_prefix("HTTP/"))
            .context("no HTTP version")?;
        let status: u16 = first.next().context("no status")?.parse()?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        bytes = &bytes[end + 4..];
        if status >= 200 {
            return Ok(Answer {
                status,
                version: version.to_owned(),
                headers,
                body: bytes.to_vec(),
            });
        }
    }
}

/// Sends a datagram to `to` from the client's namespace, from a port of its own, and returns the answer with its sender.
pub fn echo_datagram(lab: &Lab, to: SocketAddrV4, payload: &[u8]) -> Result<(Vec<u8>, SocketAddr)> {
    lab.namespace("client").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(payload, to)?;
        let mut buffer = vec![0; 65_536];
        let (length, from) = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("no answer from {to}"))?;
        buffer.truncate(length);
        Ok((buffer, from))
    })
}

/// Runs ping with `arguments` from the client's namespace; its output, whether or not it got answers.
pub fn ping(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let output = lab
        .namespace("client")
        .command("ping")
        .args(arguments)
        .output()
        .context("running ping")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_head_is_not_the_answer() {
        let answer =
            parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/2 404 \r\nX-A: b\r\n\r\nnone").unwrap();
        assert_eq!(
            (
                answer.status,
                answer.version.as_str(),
                answer.body.as_slice()
            ),
            (404, "2", b"none".as_slice())
        );
        assert_eq!(answer.header("x-a"), Some("b"));
    }
}
