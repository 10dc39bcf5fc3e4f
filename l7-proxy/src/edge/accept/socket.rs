//! Listening sockets: one for each worker on every address, and nobody else's among them.
//!
//! SO_REUSEPORT alone would let a second process of the same user take a share of the connections without a word. So the first socket of
//! an address binds and listens without it, which the kernel refuses while anybody listens there, the wildcard address and IPv4 as seen
//! from a dual-stack socket included; connections that linger in TIME_WAIT don't count (SO_REUSEADDR). Of two processes that start at
//! the same moment exactly one gets to listen. Then the socket is opened to the workers' others. A process that takes over another's
//! sockets (an upgrade) inherits them, and binds none but those of additional workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use shared::lifecycle::holder;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections the kernel completes ahead of us; it caps this at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A dead peer is noticed after about three minutes of silence. Accepted sockets inherit this.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(120))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Opens `count` listening sockets that share an address. With port 0 they share the one the first is given.
pub(super) fn open(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = match listen(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match holder::find(address) {
                // Another listener of this process overlaps (`0.0.0.0:80` and `10.0.0.1:80`), or one that is being left is still open.
                holder::Found::Ourselves => listen(address, true)?,
                found => return Err(found.blamed_for(&error)),
            }
        }
        first => first?,
    };
    first.set_reuse_port(true)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(join(address)?);
    }
    Ok(sockets)
}

/// Opens one more socket on an address that this process, or the one it takes over from, listens on already.
pub(super) fn join(address: SocketAddr) -> io::Result<TcpListener> {
    Ok(listen(address, true)?.into())
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // An IPv4 listener on the same port is a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
