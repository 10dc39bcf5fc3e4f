//! Sockets: connections to neighbours, the listener, and the task that carries bytes between a connection and its actor.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::{NeighbourSettings, Ttl};
use crate::error::Error;
use crate::tcp_options;

/// Bytes taken from a connection at once.
const READ: usize = 16 * 1024;
/// How long a closed connection may take to be closed by the neighbour too, so that our last words are not lost to a reset.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// What it may send meanwhile, in bytes, without being cut off.
const LEFTOVER: usize = 256 * 1024;
/// DSCP CS6, the class of routing protocols (RFC 4594 3.2).
const TOS_NETWORK_CONTROL: u32 = 0xC0;

/// Opens a connection to a neighbour.
///
/// # Errors
/// What could not be done.
pub(crate) async fn connect(neighbour: &NeighbourSettings) -> Result<TcpStream, Error> {
    let remote = SocketAddrV4::new(neighbour.address, neighbour.port);
    let socket = tcp_socket()?;
    set_password(&socket, neighbour).await?;
    set_ttl(&socket, neighbour.ttl)?;
    if let Some(address) = neighbour.local_address {
        socket
            .bind(&SocketAddrV4::new(address, 0).into())
            .map_err(|source| Error::LocalAddress { address, source })?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(SocketAddr::V4(remote))
        .await
        .map_err(|source| Error::Connect { remote, source })
}

/// Listens for neighbours, with a TCP MD5 key for each that has one.
///
/// # Errors
/// What could not be done.
pub(crate) async fn listen(
    address: SocketAddrV4,
    neighbours: &[NeighbourSettings],
) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
        address: SocketAddr::V4(address),
        source,
    };
    let socket = tcp_socket()?;
    socket.set_reuse_address(true).map_err(failed)?;
    for neighbour in neighbours {
        set_password(&socket, neighbour).await?;
    }
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(64).map_err(failed)?;
    TcpListener::from_std(socket.into()).map_err(failed)
}

/// Has a listener know the passwords of `after`, where it knows those of `before`. Connections that are there keep theirs.
///
/// # Errors
/// What could not be done.
pub(crate) async fn change_passwords(
    listener: &TcpListener,
    before: &[NeighbourSettings],
    after: &[NeighbourSettings],
) -> Result<(), Error> {
    let of = |neighbours: &[NeighbourSettings], address| {
        let mut neighbours = neighbours.iter();
        neighbours
            .find(|neighbour| neighbour.address == address)
            .and_then(|neighbour| neighbour.password.clone())
    };
    let socket = socket2::SockRef::from(listener);
    for neighbour in before {
        if of(before, neighbour.address).is_some() && of(after, neighbour.address).is_none() {
            // A key of no length takes the one that is there away.
            tcp_options::set_md5(&*socket, neighbour.address, &[])
                .map_err(Error::option("TCP MD5"))?;
        }
    }
    for neighbour in after {
        if of(before, neighbour.address) != neighbour.password {
            set_password(&socket, neighbour).await?;
        }
    }
    Ok(())
}

/// Gives a connection accepted from a neighbour what [`connect`] gives its own.
///
/// # Errors
/// Which socket option could not be set.
pub(crate) fn adopt(stream: &TcpStream, neighbour: &NeighbourSettings) -> Result<(), Error> {
    let socket = socket2::SockRef::from(stream);
    socket
        .set_tcp_nodelay(true)
        .map_err(Error::option("TCP_NODELAY"))?;
    socket
        .set_tos_v4(TOS_NETWORK_CONTROL)
        .map_err(Error::option("IP_TOS"))?;
    set_ttl(&socket, neighbour.ttl)
}

/// Our address of a connection.
///
/// # Errors
/// If it has none, or not of IPv4.
pub(crate) fn local_address(stream: &TcpStream) -> Result<Ipv4Addr, Error> {
    match stream.local_addr() {
        Ok(SocketAddr::V4(local)) => Ok(*local.ip()),
        _ => Err(Error::NoLocalAddress),
    }
}

/// Carries a connection until either side closes it: each message of `queue` is written, each chunk read is given to `received`,
/// which is awaited before more is read. The end of `queue` closes the connection after all of it is written.
///
/// Returns why the connection ended; `Ok` if because `queue` did.
pub(crate) async fn carry<R>(
    stream: TcpStream,
    mut queue: mpsc::Receiver<Bytes>,
    send_hold: Duration,
    mut received: impl FnMut(Bytes) -> R,
) -> Result<(), Error>
where
    R: Future<Output = ()>,
{
    let (mut reader, mut writer) = stream.into_split();
    // What may still be read, once the connection is closed by us and nobody wants it.
    let leftover: Cell<Option<usize>> = Cell::new(None);
    let reading = async {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Error::Closed,
                Ok(length) => match leftover.get().map(|left| left.checked_sub(length)) {
                    None => received(buffer.split().freeze()).await,
                    Some(None) => return Error::Closed,
                    Some(left) => {
                        leftover.set(left);
                        buffer.clear();
                    }
                },
                Err(error) => return Error::Lost(error),
            }
            buffer.reserve(READ);
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            // RFC 9687: a neighbour that takes nothing for this long is gone, however well it talks.
            match timeout(send_hold, writer.write_all(&message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Error::Lost(error)),
                Err(_) => return Err(Error::SendHold(send_hold)),
            }
        }
        // Errors here mean that the connection is gone already.
        let _ = writer.shutdown().await;
        Ok(())
    };
    tokio::pin!(reading, writing);
    tokio::select! {
        biased;
        written = &mut writing => {
            if written.is_ok() {
                leftover.set(Some(LEFTOVER));
                let _ = timeout(CLOSE_WAIT, reading).await;
            }
            written
        }
        why = &mut reading => Err(why),
    }
}

/// Writes `last_words` to a connection that isn't wanted, and closes it.
pub(crate) async fn refuse(stream: TcpStream, last_words: Bytes) {
    let (queue, receiver) = mpsc::channel(1);
    let _ = queue.try_send(last_words);
    drop(queue);
    let _ = carry(stream, receiver, CLOSE_WAIT, |_| std::future::ready(())).await;
}

fn tcp_socket() -> Result<Socket, Error> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .map_err(Error::option("socket"))?;
    socket
        .set_nonblocking(true)
        .map_err(Error::option("O_NONBLOCK"))?;
    socket
        .set_tcp_nodelay(true)
        .map_err(Error::option("TCP_NODELAY"))?;
    socket
        .set_tos_v4(TOS_NETWORK_CONTROL)
        .map_err(Error::option("IP_TOS"))?;
    Ok(socket)
}

/// Sets the TCP MD5 key, if the neighbour has one. Its file is read on a thread of its own: this one carries the sessions.
async fn set_password(socket: &Socket, neighbour: &NeighbourSettings) -> Result<(), Error> {
    let Some(password) = neighbour.password.clone() else {
        return Ok(());
    };
    let failed = Error::option("TCP MD5");
    let key = tokio::task::spawn_blocking(move || password.read())
        .await
        .map_err(|ended| failed(ended.into()))??;
    tcp_options::set_md5(socket, neighbour.address, key.as_bytes()).map_err(failed)
}

fn set_ttl(socket: &Socket, ttl: Ttl) -> Result<(), Error> {
    let hops = match ttl {
        Ttl::System => return Ok(()),
        Ttl::Hops(hops) => hops,
        Ttl::Security => u8::MAX,
    };
    socket
        .set_ttl_v4(u32::from(hops))
        .map_err(Error::option("IP_TTL"))?;
    if ttl == Ttl::Security {
        tcp_options::set_minimum_ttl(socket, hops).map_err(Error::option("IP_MINTTL"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    fn nothing(_: Bytes) -> std::future::Ready<()> {
        std::future::ready(())
    }

    #[tokio::test]
    async fn the_end_of_the_queue_closes_after_everything_is_written() {
        let (ours, mut theirs) = pair().await;
        let (queue, receiver) = mpsc::channel(4);
        queue.try_send(Bytes::from_static(b"last ")).unwrap();
        queue.try_send(Bytes::from_static(b"words")).unwrap();
        drop(queue);
        // Unread bytes of theirs would turn our close into a reset, and the last words would be lost.
        theirs.write_all(&[1; 1000]).await.unwrap();
        let mut heard = Vec::new();
        let listening = async {
            let read = theirs.read_to_end(&mut heard).await;
            drop(theirs);
            read
        };
        let (carried, read) = tokio::join!(carry(ours, receiver, CLOSE_WAIT, nothing), listening);
        assert!(carried.is_ok() && read.is_ok(), "{carried:?} {read:?}");
        assert_eq!(heard, b"last words");
    }

    #[tokio::test]
    async fn a_neighbour_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = pair().await;
        let (queue, receiver) = mpsc::channel(4);
        queue.try_send(Bytes::from(vec![0; 64 << 20])).unwrap();
        let ended = carry(ours, receiver, Duration::from_millis(200), nothing).await;
        assert!(matches!(ended, Err(Error::SendHold(_))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_closed_connection_is_not_read_for_ever() {
        let (ours, mut theirs) = pair().await;
        let (queue, receiver) = mpsc::channel::<Bytes>(1);
        drop(queue);
        let flood =
            tokio::spawn(async move { while theirs.write_all(&[0; 65536]).await.is_ok() {} });
        let start = Instant::now();
        assert!(carry(ours, receiver, CLOSE_WAIT, nothing).await.is_ok());
        assert!(
            start.elapsed() < CLOSE_WAIT,
            "cut off by amount, not only by time"
        );
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn reading_waits_for_what_was_read_to_be_handled() {
        let (ours, mut theirs) = pair().await;
        let (_queue, receiver) = mpsc::channel::<Bytes>(1);
        let handled = Cell::new(0usize);
        let never = |bytes: Bytes| {
            handled.set(handled.get() + bytes.len());
            std::future::pending()
        };
        theirs.write_all(&[0; 10 * READ]).await.unwrap();
        let _ = timeout(
            Duration::from_millis(200),
            carry(ours, receiver, CLOSE_WAIT, never),
        )
        .await;
        assert!(
            (1..=2 * READ).contains(&handled.get()),
            "{} bytes taken",
            handled.get()
        );
    }
}
