//! Asks a node's admin listener, from the client's namespace over the management network.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::topology::{self, Network};

/// Port of the admin listener on every node of the demo.
pub const PORT: u16 = 9180;
/// For connecting, and for a page.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a command: an upgrade takes as long as a start.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// `GET path` on the admin listener of `node`.
pub fn get(lab: &Lab, node: &str, path: &str) -> Result<Answer> {
    let address = management(node)?;
    lab.namespace("client").enter(|| {
        ask(
            (address, PORT).into(),
            &format!("GET {path} HTTP/1.0\r\nHost: {node}\r\n\r\n"),
            PATIENCE,
        )
    })
}

/// `POST /command/<name>` on the admin listener of `node`.
pub fn command(lab: &Lab, node: &str, name: &str, arguments: &serde_json::Value) -> Result<Answer> {
    let address = management(node)?;
    let body = arguments.to_string();
    let request = format!(
        "POST /command/{name} HTTP/1.0\r\nHost: {node}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    lab.namespace("client")
        .enter(|| ask((address, PORT).into(), &request, COMMAND_PATIENCE))
}

/// `/status` of `node`.
pub fn status(lab: &Lab, node: &str) -> Result<serde_json::Value> {
    let answer = get(lab, node, "/status")?;
    if answer.status != 200 {
        bail!(
            "{node} answers /status with {}: {}",
            answer.status,
            answer.body.trim()
        );
    }
    serde_json::from_str(&answer.body)
        .with_context(|| format!("{node} answers /status with: {}", answer.body.trim()))
}

/// An error with the reason while `node` does not call itself ready.
pub fn ready(lab: &Lab, node: &str) -> Result<()> {
    let answer = get(lab, node, "/readyz")?;
    if answer.status != 200 {
        bail!(
            "{node} is not ready ({}): {}",
            answer.status,
            answer.body.trim()
        );
    }
    Ok(())
}

fn management(node: &str) -> Result<Ipv4Addr> {
    Ok(topology::node(node)
        .with_context(|| format!("no node is called {node}"))?
        .address(Network::Management))
}

/// Sends one request (HTTP/1.0: the answer ends with the connection) and reads the answer.
fn ask(address: SocketAddr, request: &str, patience: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading from {address}"))?;
    parse(&bytes).with_context(|| format!("what {address} answered"))
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("no status code")?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_body() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\nno worker\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "no worker\n"));
        assert!(parse(b"garbage").is_err());
    }
}
