//! A response's body on its way to the client: streamed frame by frame, counted, timed, never collected.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::account::Account;
use super::backend_body::BackendBody;
use crate::http::{BodyError, PIECE, Running, Stall};
use crate::observe::reason::Reason;

/// A response body on its way to the client. It carries what lasts as long as the response does: the request's entry in the log and, with a backend's
/// body, the connection to it.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    /// `None` when a tunnel has it.
    account: Option<Box<Account>>,
    _running: Running,
    /// On HTTP/2, tells whether the client takes it.
    stall: Option<Rc<Stall>>,
    /// What came of the backend's body and the client's stream was not given yet.
    rest: Bytes,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    Backend(Box<BackendBody>),
}

impl ResponseBody {
    /// An answer of our own.
    pub(crate) fn own(text: Bytes, account: Box<Account>, running: Running) -> ResponseBody {
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

    /// A backend's response.
    pub(super) fn backend(
        body: BackendBody,
        account: Box<Account>,
        running: Running,
    ) -> ResponseBody {
        ResponseBody {
            source: Source::Backend(Box::new(body)),
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
                Source::Backend(body) => ready!(Pin::new(body).poll_frame(cx)),
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
                Source::Backend(body) => body.is_end_stream(),
            }
    }

    /// hyper asks before the first frame, when nothing is left over.
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Source::Backend(body) => body.size_hint(),
        }
    }
}
