//! One connection to a backend, used by one request after the other.
//!
//! A request drives its connection itself: it is woken once, by the socket, and wakes nobody. Nothing moves on an idle connection; what the backend
//! did meanwhile is seen when it is to be used again, or by the look that the pool takes once a second. Only where a request body is still being sent
//! when the response has begun, a task goes on sending it, so that it doesn't wait until the client takes the response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use super::{ConnectError, ExchangeError};
use crate::http::h1::{Decoder, MAX_HEAD, Outgoing, Piece, Received, has_empty_line, read_head};
use crate::http::{BodyError, InvalidResponse, Patience, Pause, RequestBody};

/// Bytes that may arrive from the sending of a request to the end of its response head: interim responses and what is read ahead of the body included.
/// A backend that sends nothing but 1xx would keep a worker busy until the response timeout.
const MAX_BEFORE_BODY: usize = 256 * 1024;

/// Room made for a read at first, and at least, in bytes.
const READ: usize = 8 * 1024;
/// Room made for a read at most, for backends that fill what they are given.
const MOST_READ: usize = 128 * 1024;
/// With less room left, more is made.
const LEAST_READ: usize = 1024;

/// A connection to a backend. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Shared with the task that goes on sending, if there is one.
    wire: Rc<RefCell<Wire>>,
    task: Option<Task>,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
    /// When it was opened.
    pub(crate) born: Instant,
}

impl Link {
    /// Opens a connection, `within` at most.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn open(address: SocketAddr, within: Duration) -> Result<Link, ConnectError> {
        let stream = timeout(within, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectError::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Link {
            wire: Rc::new(RefCell::new(Wire {
                stream,
                input: BytesMut::new(),
                room: READ,
                scanned: 0,
                outgoing: Outgoing::default(),
                is_broken: false,
                is_cut: false,
                keep_alive: true,
                patience: Patience::default(),
            })),
            task: None,
            reused: false,
            born: Instant::now(),
        })
    }

    /// Sends a request, whose head `head` writes, and waits for the response head, as long as `until` has not passed. `length` is what the head says of
    /// the body, none where it is chunked.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn send(
        &mut self,
        method: &Method,
        length: Option<u64>,
        body: RequestBody,
        head: impl FnOnce(&mut Vec<u8>),
        until: impl Fn() -> Option<tokio::time::Instant>,
    ) -> Result<Received, ExchangeError> {
        self.wire.borrow_mut().outgoing.begin(length, body, head);
        let before = self.wire.borrow().outgoing.total();
        let mut arrived = 0;
        poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            // A backend may answer before it has taken everything, even what it refuses to take.
            if let Poll::Ready(Err(error)) = wire.poll_send(cx) {
                return Poll::Ready(Err(ExchangeError::Cut(error)));
            }
            // What an idle connection says as it breaks answers nothing that was asked.
            if self.reused && wire.is_broken && wire.outgoing.total() == before {
                let error = io::ErrorKind::ConnectionReset.into();
                return Poll::Ready(Err(if wire.outgoing.is_untouched() {
                    ExchangeError::NotSent
                } else {
                    ExchangeError::Closed(error)
                }));
            }
            let received = wire.poll_head(method, &mut arrived, cx);
            if received.is_pending() {
                ready!(wire.patience.poll(until(), cx));
                return Poll::Ready(Err(ExchangeError::TimedOut));
            }
            received
        })
        .await
    }

    /// The body of a request of which nothing was sent.
    pub(crate) fn unsent(&mut self) -> Option<RequestBody> {
        self.wire.borrow_mut().outgoing.take_body()
    }

    /// Has a task send what is left of the request.
    pub(crate) fn go_on_sending(&mut self) {
        let wire = self.wire.clone();
        if !wire.borrow().is_done_sending() {
            let sending = poll_fn(move |cx| wire.borrow_mut().poll_send(cx));
            self.task = Some(Task(actix_rt::spawn(async {
                // A request that was cut is seen at its response, which is cut as well.
                let _ = sending.await;
            })));
        }
    }

    /// The next piece of the response's body; none when it has ended.
    ///
    /// # Errors
    /// It was cut or is framed wrongly.
    pub(crate) fn poll_body(
        &self,
        body: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, BodyError>> {
        self.wire.borrow_mut().poll_body(body, cx)
    }

    /// Whether nothing came or went while the connection lay idle, so that it may carry another request.
    pub(crate) fn is_usable(&self) -> bool {
        // Polled, it would be pending as well where this task has used up its turn.
        let read = self.wire.borrow().stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Lets go of what the last exchange needed much room for. To be called before it lies idle.
    pub(crate) fn rest(&mut self) {
        self.wire.borrow_mut().rest();
    }

    /// Whether it may carry another request, now that the response is complete.
    pub(crate) fn standing(&self) -> Standing {
        self.wire.borrow().standing()
    }

    /// Waits until the request is sent as well; whether the connection may carry another one then. `pause` is the longest that the backend may take
    /// nothing: it has nothing more to say, and a client that has left is not noticed while what it sent is stuck here.
    pub(crate) async fn is_free(&mut self, pause: Duration) -> bool {
        self.task = None;
        let mut pause = Pause::new(pause);
        let sent = poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            let before = wire.outgoing.total();
            if let Poll::Ready(sent) = wire.poll_send(cx) {
                return Poll::Ready(sent.is_ok());
            }
            if wire.outgoing.total() > before {
                pause.moved();
            }
            if wire.outgoing.is_flushed() {
                // It is the client's turn, which has a time of its own.
                pause.moved();
                return Poll::Pending;
            }
            pause.poll(cx).map(|()| false)
        });
        sent.await && self.standing() == Standing::Free
    }

    /// The connection without HTTP, after a 101; none where that came before the backend had the request.
    pub(crate) fn leave_http(self) -> Option<Left> {
        let wire = Rc::into_inner(self.wire)?.into_inner();
        Some(Left {
            stream: wire.stream,
            ahead: wire.input.freeze(),
        })
    }
}

/// What may become of a connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may carry another request.
    Free,
    /// Its request is still being sent.
    Busy,
    /// It will carry none.
    Over,
}

/// The bytes of a connection, both ways.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    /// What was read and belongs to nothing yet.
    input: BytesMut,
    /// How much room is made for the next read.
    room: usize,
    /// How much of a head that isn't whole yet was looked through.
    scanned: usize,
    outgoing: Outgoing<RequestBody>,
    /// Nothing more can be sent.
    is_broken: bool,
    /// It was broken off: its end says nothing of whether the response is whole.
    is_cut: bool,
    /// The last response lets another one follow.
    keep_alive: bool,
    /// Times the wait for response heads.
    patience: Patience,
}

impl Wire {
    /// Sends what can be sent now. Ready when there is nothing more to send, or the backend takes no more: what it has said all the same is still read.
    ///
    /// # Errors
    /// The request's body was cut; the connection is closed, as the backend can't be told otherwise.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(self.outgoing.poll(&mut self.stream, cx));
        self.is_broken = result.is_err();
        match result {
            Err(BodyError::Backend(error)) => {
                // Who reads next isn't told again, but finds the end. Behind the backend's own end, writes are told of a broken pipe.
                self.is_cut = error.kind() != io::ErrorKind::BrokenPipe;
                tracing::debug!(%error, "a backend doesn't take all of a request");
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                self.is_cut = true;
                // Fails only where the connection is closed.
                let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
                Poll::Ready(Err(error))
            }
            Ok(()) => Poll::Ready(Ok(())),
        }
    }

    fn is_done_sending(&self) -> bool {
        self.is_broken || self.outgoing.is_sent()
    }

    fn poll_head(
        &mut self,
        method: &Method,
        arrived: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Received, ExchangeError>> {
        loop {
            while !self.input.is_empty() && self.may_end_head() {
                let Some(received) = read_head(&mut self.input, method)? else {
                    break;
                };
                self.scanned = 0;
                let status = received.parts.status;
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    self.keep_alive = received.keep_alive;
                    return Poll::Ready(Ok(received));
                }
            }
            if *arrived >= MAX_BEFORE_BODY {
                return Poll::Ready(Err(InvalidResponse::TooMuchBefore.into()));
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) if self.outgoing.is_untouched() => {
                    return Poll::Ready(Err(ExchangeError::NotSent));
                }
                Ok(0) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(ExchangeError::Closed(error)));
                }
                Ok(read) => *arrived += read,
                Err(error) => return Poll::Ready(Err(ExchangeError::Closed(error))),
            }
        }
    }

    /// Whether to parse a head, again if it wasn't whole before: one that comes byte by byte would be parsed as often.
    fn may_end_head(&mut self) -> bool {
        let from = self.scanned.saturating_sub(2);
        let is_new = self.scanned == 0 || self.input.len() > MAX_HEAD;
        let ends = is_new || self.input.get(from..).is_some_and(has_empty_line);
        self.scanned = self.input.len();
        ends
    }

    fn poll_body(
        &mut self,
        body: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, BodyError>> {
        loop {
            let piece = body.next(&mut self.input).map_err(|error| {
                BodyError::Backend(io::Error::new(io::ErrorKind::InvalidData, error))
            })?;
            if piece.is_some() || body.is_ended() {
                return Poll::Ready(Ok(piece));
            }
            if ready!(self.poll_read(cx)).map_err(BodyError::Backend)? == 0 {
                return Poll::Ready(if !self.is_cut && body.close() {
                    Ok(None)
                } else {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    Err(BodyError::Backend(error))
                });
            }
        }
    }

    /// Reads into what is left of the last room made, and makes more only when that is used up: a piece of a body keeps all of the room it lies in, and a
    /// backend that sends little at a time must not have us keep much for each.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let spare = |input: &BytesMut| input.capacity() - input.len();
        if spare(&self.input) < LEAST_READ {
            self.input.reserve(self.room);
        }
        let asked = spare(&self.input);
        let read = ready!(poll_read_buf(
            Pin::new(&mut self.stream),
            cx,
            &mut self.input
        ))?;
        if read == asked && asked >= self.room {
            self.room = (self.room * 4).min(MOST_READ);
        } else if read < self.room / 4 {
            self.room = (self.room / 4).max(READ);
        }
        Poll::Ready(Ok(read))
    }

    fn rest(&mut self) {
        if self.room > READ {
            self.input = BytesMut::new();
        }
        self.outgoing.rest();
    }

    fn standing(&self) -> Standing {
        // What follows a response unasked is no answer to anything.
        if !self.keep_alive || self.is_broken || !self.input.is_empty() {
            Standing::Over
        } else if self.outgoing.is_sent() {
            Standing::Free
        } else {
            Standing::Busy
        }
    }
}

/// A connection that has left HTTP.
#[derive(Debug)]
pub(crate) struct Left {
    stream: TcpStream,
    /// What came right behind the head.
    ahead: Bytes,
}

impl AsyncRead for Left {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let some = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(some));
        if self.ahead.is_empty() {
            // A tunnel is idle for most of its life, and the room it lay in is large.
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Left {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A task that ends with this.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Upload;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as Peer};
    use test_support::block_on;

    async fn open(listener: &TcpListener) -> (Link, Peer) {
        let address = listener.local_addr().expect("address");
        let link = Link::open(address, Duration::from_secs(5)).await;
        let (peer, _) = listener.accept().expect("a connection");
        (link.expect("a connection"), peer)
    }

    #[test]
    fn every_idle_connection_that_has_ended_is_seen_at_one_look() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
            let mut links = Vec::new();
            // More than tokio lets a task poll in one turn.
            for _ in 0..300 {
                let (link, peer) = open(&listener).await;
                assert!(link.is_usable());
                drop(peer);
                links.push(link);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(links.iter().filter(|link| link.is_usable()).count(), 0);
        });
    }

    #[test]
    fn what_a_reset_connection_said_before_answers_no_request_that_was_not_sent() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
            let (mut link, mut peer) = open(&listener).await;
            link.reused = true;
            peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                .expect("write");
            let linger = SockRef::from(&peer).set_linger(Some(Duration::ZERO));
            linger.expect("linger");
            drop(peer);
            // Not tokio's: it is to learn of this no sooner than we do.
            std::thread::sleep(Duration::from_millis(50));
            let body = RequestBody::empty(Upload::new(tokio::time::Instant::now()));
            let head = |out: &mut Vec<u8>| out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            let received = link.send(&Method::GET, None, body, head, || None).await;
            assert!(
                matches!(received, Err(ExchangeError::NotSent)),
                "{received:?}"
            );
        });
    }

    #[test]
    fn a_head_in_two_parts_is_read_wherever_it_is_cut() {
        let text = "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\n\r\n";
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
            let (mut link, peer) = open(&listener).await;
            peer.set_nodelay(true).expect("nodelay");
            for cut in 1..text.len() {
                let (first, second) = text.split_at(cut);
                let mut writer = peer.try_clone().expect("clone");
                writer.write_all(first.as_bytes()).expect("write");
                let writing = tokio::task::spawn_blocking(move || {
                    std::thread::sleep(Duration::from_millis(3));
                    writer.write_all(second.as_bytes()).expect("write");
                });
                let body = RequestBody::empty(Upload::new(tokio::time::Instant::now()));
                let head = |out: &mut Vec<u8>| out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
                let received = link.send(&Method::GET, None, body, head, || None).await;
                assert_eq!(received.expect("a head").parts.headers["a"], "b", "{cut}");
                assert_eq!(link.standing(), Standing::Free);
                writing.await.expect("written");
            }
        });
    }

    #[test]
    fn pieces_of_a_body_that_comes_slowly_share_their_room() {
        const PIECES: usize = 200;
        const BYTES: usize = 100;
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
            let (link, mut peer) = open(&listener).await;
            peer.set_nodelay(true).expect("nodelay");
            let mut body = Decoder::length((PIECES * BYTES) as u64);
            let (mut kept, mut rooms) = (Vec::new(), 0);
            for _ in 0..PIECES {
                peer.write_all(&[b'x'; BYTES]).expect("write");
                let piece = poll_fn(|cx| link.poll_body(&mut body, cx)).await;
                let Ok(Some(Piece::Data(data))) = piece else {
                    panic!("{piece:?}");
                };
                let end = data.as_ptr() as usize + data.len();
                let before: Option<(usize, _)> = kept.last().cloned();
                rooms += usize::from(before.is_none_or(|(end, _)| end != data.as_ptr() as usize));
                kept.push((end, data));
            }
            // 20,000 bytes in rooms of 8 KiB.
            assert!(rooms <= 4, "{rooms}");
        });
    }
}
