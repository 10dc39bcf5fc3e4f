//! Opening TCP connections for probes.

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::{Attempt, Finding};

/// How the connection will be used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Only to see that it can be opened.
    Reach,
    /// To exchange data.
    Talk,
}

/// Connects from the configured source address.
///
/// The connection is set to close with a reset. A FIN from the prober's side would leave a TIME_WAIT socket for a minute after
/// every probe, 300,000 of them with 10,000 targets every two seconds; by then all that was asked has been answered, so that the
/// reset can destroy nothing. For [`Purpose::Reach`] the ACK that ends the handshake is delayed besides, so that usually the reset
/// comes in its place: the target's kernel has answered, its application is neither woken nor made to log a broken connection.
pub(super) async fn connect(attempt: &Attempt, purpose: Purpose) -> Result<TcpStream, Finding> {
    let local = |error| Finding::from_io("opening a socket", &error);
    let socket = if attempt.address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(local)?;
    socket.set_zero_linger().map_err(local)?;
    if purpose == Purpose::Reach {
        SockRef::from(&socket)
            .set_tcp_quickack(false)
            .map_err(local)?;
    }
    if let Some(source) = attempt.source {
        socket
            .bind((source, 0).into())
            .map_err(|error| Finding::from_io(&format!("binding to {source}"), &error))?;
    }
    attempt
        .step("connecting", socket.connect(attempt.address))
        .await?
        .map_err(|error| Finding::from_io("connect", &error))
}
