//! Bodies on their way through: streamed frame by frame, counted, timed, never collected.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::account::Account;
use super::stall::{PIECE, Stall};
use super::strict::Running;
use super::upload::Upload;
use crate::balance::InFlight;
use crate::reason::Reason;
use crate::upstream::Lease;

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side broke off or framed it wrongly.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the body stopped arriving")]
    TimedOut,
}

/// A request body on its way to a backend.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Option<Incoming>,
    upload: Rc<Upload>,
    pause: Pause,
}

impl RequestBody {
    /// The client's body; `pause` is the longest it may stop arriving.
    pub(crate) fn new(source: Incoming, pause: Duration, upload: Rc<Upload>) -> RequestBody {
        let source = if source.is_end_stream() {
            None
        } else {
            Some(source)
        };
        RequestBody {
            source,
            upload,
            pause: Pause::new(pause),
        }
    }

    /// No body.
    pub(crate) fn empty(upload: Rc<Upload>) -> RequestBody {
        RequestBody {
            source: None,
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
        this.upload.polled.set(true);
        let polled = Pin::new(source).poll_frame(cx);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.pause.moved();
                this.upload.moved.set(Instant::now());
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

/// A response body on its way to the client. It carries what lasts as long as the response does: the request's entry in the log, the
/// backend's count of requests under way, the connection to the backend. Dropping it early closes that connection.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    /// `None` when a tunnel has it.
    account: Option<Account>,
    _running: Running,
    /// On HTTP/2, tells whether the client takes it.
    stall: Option<Rc<Stall>>,
    /// What hyper gave of the backend's body and the client's stream was not given yet.
    rest: Bytes,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    Backend(Backend),
}

#[derive(Debug)]
struct Backend {
    body: Incoming,
    lease: Option<Lease>,
    _under_way: InFlight,
    pause: Pause,
}

impl ResponseBody {
    /// An answer of our own.
    pub(crate) fn own(text: Bytes, account: Account, running: Running) -> ResponseBody {
        let text = if text.is_empty() { None } else { Some(text) };
        ResponseBody {
            source: Source::Own(text),
            account: Some(account),
            _running: running,
            stall: Stall::current(),
            rest: Bytes::new(),
        }
        .begun()
    }

    /// A backend's response; `pause` is the longest it may stop arriving while the client would take more.
    pub(crate) fn backend(
        body: Incoming,
        lease: Lease,
        under_way: InFlight,
        pause: Duration,
        account: Account,
        running: Running,
    ) -> ResponseBody {
        let mut backend = Backend {
            body,
            lease: Some(lease),
            _under_way: under_way,
            pause: Pause::new(pause),
        };
        backend.finish_if_ended();
        ResponseBody {
            source: Source::Backend(backend),
            account: Some(account),
            _running: running,
            stall: Stall::current(),
            rest: Bytes::new(),
        }
        .begun()
    }

    /// The empty body of a 101: the tunnel accounts for the request.
    pub(crate) fn switched(running: Running) -> ResponseBody {
        ResponseBody {
            source: Source::Own(None),
            account: None,
            _running: running,
            stall: Stall::current(),
            rest: Bytes::new(),
        }
    }

    /// A response without a body is complete once it is handed over: its body may never be polled.
    fn begun(mut self) -> ResponseBody {
        let ended = self.is_end_stream();
        if let Some(account) = self
            .account
            .as_mut()
            .filter(|account| ended || account.is_head())
        {
            account.complete();
        }
        self
    }
}

impl Backend {
    fn finish_if_ended(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause.moved();
                self.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.finish();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.pause.poll(cx));
                self.lease = None;
                Poll::Ready(Some(Err(BodyError::TimedOut)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(stall) = &this.stall {
            stall.taken();
        }
        let frame = if this.rest.is_empty() {
            match &mut this.source {
                Source::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
                Source::Backend(backend) => ready!(backend.poll(cx)),
            }
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut this.rest))))
        };
        let frame = match (frame, &this.stall) {
            (Some(Ok(frame)), Some(stall)) => {
                stall.given();
                Some(Ok(frame.map_data(|mut data| {
                    this.rest = data.split_off(data.len().min(PIECE));
                    data
                })))
            }
            (frame, _) => frame,
        };
        let ended = this.is_end_stream();
        if let Some(account) = &mut this.account {
            match &frame {
                Some(Ok(frame)) => account.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => account.cut(Reason::ResponseCut),
                None => account.complete(),
            }
            if ended {
                account.complete();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.source {
                Source::Own(text) => text.is_none(),
                Source::Backend(backend) => backend.body.is_end_stream(),
            }
    }

    /// hyper asks before the first frame, when nothing is left over.
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Source::Backend(backend) => backend.body.size_hint(),
        }
    }
}

/// Whose fault it is that a request body broke off.
fn fault(error: &hyper::Error) -> Reason {
    let io =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData) => {
            Reason::LengthConflict
        }
        _ => Reason::ClientGone,
    }
}

/// Times how long nothing has come although something was asked for. The timer is made only when there is a wait.
#[derive(Debug)]
struct Pause {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Pause {
    fn new(longest: Duration) -> Pause {
        Pause {
            longest,
            timer: None,
            waiting: false,
        }
    }

    fn moved(&mut self) {
        self.waiting = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = Instant::now().checked_add(self.longest) else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}
