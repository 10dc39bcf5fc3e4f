//! The UDP probe: a datagram is answered, or at least not refused by an ICMP port unreachable.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{Attempt, Finding};
use crate::threshold::Outcome;

/// More of a reply is not looked at, in bytes.
const REPLY_LIMIT: usize = 2048;

/// What is sent and what reply is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpProbe {
    /// The datagram's payload; may be empty.
    pub payload: Vec<u8>,
    /// What a reply begins with; empty takes any reply.
    pub expect: Vec<u8>,
    /// Whether silence is a failure. Where it is not, silence says nothing, see [`crate::threshold`].
    pub require_reply: bool,
}

pub(super) async fn probe(attempt: &Attempt, udp: &UdpProbe) -> Result<Finding, Finding> {
    let any: SocketAddr = match attempt.address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let from = attempt.source.map_or(any, |source| (source, 0).into());
    let failed = |doing: &'static str| move |error| from_io(doing, &error);
    let socket = UdpSocket::bind(from)
        .await
        .map_err(failed("opening a socket"))?;
    // A connected socket takes datagrams from the target only, and is told of an unreachable port.
    socket
        .connect(attempt.address)
        .await
        .map_err(failed("connect"))?;
    attempt
        .step("sending", socket.send(&udp.payload))
        .await?
        .map_err(failed("send"))?;

    let mut reply = [0; REPLY_LIMIT];
    let Ok(received) = attempt.step("", socket.recv(&mut reply)).await else {
        return Ok(match udp.require_reply {
            true => Finding::failure(format!("no reply within {:?}", attempt.timeout)),
            false => Finding {
                outcome: Outcome::Silence,
                reason: format!(
                    "no reply within {:?}, and none is required",
                    attempt.timeout
                ),
            },
        });
    };
    let length = received.map_err(failed("receive"))?;
    if reply[..length].starts_with(&udp.expect) {
        return Ok(Finding::success(format!("reply of {length} bytes")));
    }
    Ok(Finding::failure(format!(
        "the reply begins with \"{}\", expected \"{}\"",
        reply[..length.min(udp.expect.len())].escape_ascii(),
        udp.expect.escape_ascii()
    )))
}

/// On a UDP socket "connection refused" is the ICMP port unreachable that came back.
fn from_io(doing: &str, error: &std::io::Error) -> Finding {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        return Finding::failure("port unreachable (ICMP)");
    }
    Finding::from_io(doing, error)
}
