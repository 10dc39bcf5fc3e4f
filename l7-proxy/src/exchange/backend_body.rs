//! A backend's body as it comes: the connection it is read from, what its trailers may say, how long it may pause.
//!
//! It is a [`Body`] like any other, and [`super::response_body::ResponseBody`] takes whatever body stands between a backend and a client: what copies a
//! body on its way (a cache) or makes another of it (compression) wraps this one in `respond.rs`, and is counted by what the client gets.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http::h1::{Decoder, Piece};
use crate::http::{BodyError, Nominated, Pause, strip_trailers};
use crate::upstream::{InFlight, Lease};

/// The body of a backend's response. It holds the connection, which goes back to its pool with the body's end and is closed if the body is dropped
/// before; and the backend's count of requests under way.
#[derive(Debug)]
pub(super) struct BackendBody {
    body: Decoder,
    /// What its head called its connection's own.
    nominated: Nominated,
    lease: Option<Lease>,
    _under_way: InFlight,
    pause: Pause,
    /// How it was cut, until that is told.
    broken: Option<BodyError>,
}

impl BackendBody {
    /// `pause` is the longest it may stop arriving while the client would take more, and that the rest of the request may not be taken behind it;
    /// `nominated` is what its head called its connection's own. Without a lease there is no body, and the connection is not used again.
    pub(super) fn new(
        body: Decoder,
        nominated: Nominated,
        lease: Option<Lease>,
        under_way: InFlight,
        pause: Duration,
    ) -> BackendBody {
        let mut backend = BackendBody {
            body,
            nominated,
            lease,
            _under_way: under_way,
            pause: Pause::new(pause),
            broken: None,
        };
        backend.finish_if_ended();
        backend
    }

    fn finish_if_ended(&mut self) {
        if self.body.is_ended()
            && let Some(lease) = self.lease.take()
        {
            lease.finish(self.pause.longest());
        }
    }
}

impl Body for BackendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            let Some(lease) = &this.lease else {
                return Poll::Ready(this.broken.take().map(Err));
            };
            let piece = match lease.link.poll_body(&mut this.body, cx) {
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(error)) => {
                    this.lease = None;
                    this.broken = Some(error);
                    // hyper writes nothing more once it is told: first it is to send what came before.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(this.pause.poll(cx));
                    this.lease = None;
                    return Poll::Ready(Some(Err(BodyError::TimedOut)));
                }
            };
            this.pause.moved();
            this.finish_if_ended();
            match piece {
                None => return Poll::Ready(None),
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Trailers(mut trailers)) => {
                    strip_trailers(&mut trailers, &this.nominated);
                    if !trailers.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
