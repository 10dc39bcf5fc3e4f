//! A request's body on its way to a backend, and what bodies of both directions share: streamed frame by frame, counted, timed, never collected.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::hop_by_hop::Nominated;
use super::patience::Patience;
use super::trailers::strip_trailers;
use super::upload::Upload;
use crate::observe::reason::Reason;

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client broke off or framed it wrongly.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// A backend did.
    #[error(transparent)]
    Backend(io::Error),
    /// It isn't as long as its head says.
    #[error("the body isn't as long as its head says")]
    Length,
    /// Nothing came for too long.
    #[error("the body stopped arriving")]
    TimedOut,
}

/// A request body on its way to a backend.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Option<Incoming>,
    /// What its head called its connection's own.
    nominated: Nominated,
    upload: Rc<Upload>,
    pause: Pause,
}

impl RequestBody {
    /// The client's body; `pause` is the longest it may stop arriving, `nominated` what its head called its connection's own.
    pub(crate) fn new(
        source: Incoming,
        nominated: Nominated,
        pause: Duration,
        upload: Rc<Upload>,
    ) -> RequestBody {
        let source = if source.is_end_stream() {
            None
        } else {
            Some(source)
        };
        RequestBody {
            source,
            nominated,
            upload,
            pause: Pause::new(pause),
        }
    }

    /// No body.
    pub(crate) fn empty(upload: Rc<Upload>) -> RequestBody {
        RequestBody {
            source: None,
            nominated: Nominated::default(),
            upload,
            pause: Pause::new(Duration::MAX),
        }
    }

    /// True when there is no body at all, so that the request can be sent again.
    pub(crate) fn is_empty(&self) -> bool {
        self.source.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(source) = &mut this.source else {
            return Poll::Ready(None);
        };
        match Pin::new(source).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                this.pause.moved();
                this.upload.moved.set(Instant::now());
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers, &this.nominated);
                    if trailers.is_empty() {
                        return self.poll_frame(cx);
                    }
                }
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.upload.bytes.set(this.upload.bytes.get() + bytes);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.upload.failed.set(Some(fault(&error)));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(this.pause.poll(cx));
                this.upload.failed.set(Some(Reason::BodyTimeout));
                Poll::Ready(Some(Err(BodyError::TimedOut)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Whose fault it is that a request body broke off.
fn fault(error: &hyper::Error) -> Reason {
    let cause =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Reason::LengthConflict,
        // It closed its sending side too early, and may be there to hear so.
        Some(io::ErrorKind::UnexpectedEof) => Reason::RequestCut,
        _ => Reason::ClientGone,
    }
}

/// Times how long nothing has come although something was asked for.
#[derive(Debug)]
pub(crate) struct Pause {
    longest: Duration,
    /// Since when it is waited.
    since: Option<Instant>,
    patience: Patience,
}

impl Pause {
    /// Nothing has been waited for yet; `longest` is the longest wait.
    pub(crate) fn new(longest: Duration) -> Pause {
        Pause {
            longest,
            since: None,
            patience: Patience::default(),
        }
    }

    /// The longest wait.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// Something came.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// Ready when the wait has taken too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.patience.poll(since.checked_add(self.longest), cx)
    }
}
