//! A request on its way to a backend: its head, and its body piece by piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{HeaderName, HeaderValue};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::http::BodyError;

/// Appends a field line (RFC 9112 section 5).
pub(crate) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How the body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// By its length, of which so many bytes are still to come.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// Room for a head that an idle connection keeps, in bytes.
const KEPT: usize = 4096;

/// A request that is being sent.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    /// What is to be written: the head or a chunk's size, data, and what ends a chunk.
    before: Vec<u8>,
    data: Bytes,
    after: &'static [u8],
    /// How much of `before` is written.
    written: usize,
    body: Option<(B, Stage)>,
    /// Anything was written, or taken from the body.
    has_begun: bool,
    /// Bytes written of this request and of those before it.
    total: u64,
}

impl<B> Default for Outgoing<B> {
    fn default() -> Outgoing<B> {
        Outgoing {
            before: Vec::new(),
            data: Bytes::new(),
            after: b"",
            written: 0,
            body: None,
            has_begun: false,
            total: 0,
        }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Outgoing<B> {
    /// Begins a request. `head` writes its head; the body, if there is one, has the length the head says, and is chunked otherwise.
    pub(crate) fn begin(&mut self, length: Option<u64>, body: B, head: impl FnOnce(&mut Vec<u8>)) {
        self.before.clear();
        head(&mut self.before);
        self.written = 0;
        self.data = Bytes::new();
        self.after = b"";
        self.has_begun = false;
        self.body =
            (!body.is_end_stream()).then(|| (body, length.map_or(Stage::Chunked, Stage::Length)));
    }

    /// Lets go of the room of a large head.
    pub(crate) fn rest(&mut self) {
        self.before.clear();
        self.written = 0;
        self.before.shrink_to(KEPT);
    }

    /// Whether nothing of it was written, nor of its body taken.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.has_begun
    }

    /// The body that is still to be sent.
    pub(crate) fn take_body(&mut self) -> Option<B> {
        self.body.take().map(|(body, _)| body)
    }

    /// Whether all of it is written.
    pub(crate) fn is_sent(&self) -> bool {
        self.body.is_none() && self.is_flushed()
    }

    /// How many bytes were written of this request and of those before it.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether all that is here of it is written: the rest is still to come from the body.
    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.before.len() && self.data.is_empty() && self.after.is_empty()
    }

    /// Writes as much as there is and `stream` takes. Ready when all of it is written.
    ///
    /// # Errors
    /// The connection's, or the body's; then no more can be sent.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        loop {
            // The head, or a chunk's size, waits for data that is there: one write for both.
            while self.data.is_empty() && self.after.is_empty() && self.body.is_some() {
                match self.poll_body(cx) {
                    Poll::Ready(result) => result?,
                    Poll::Pending if self.is_flushed() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            if self.is_flushed() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write(stream, cx)).map_err(BodyError::Backend)?;
        }
    }

    /// Takes the next piece of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some((body, stage)) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        self.has_begun = true;
        if self.written == self.before.len() {
            self.before.clear();
            self.written = 0;
        }
        let Some(frame) = frame.transpose()? else {
            match stage {
                Stage::Length(0) => {}
                Stage::Length(_) => return Poll::Ready(Err(wrong_length())),
                Stage::Chunked => self.before.extend_from_slice(b"0\r\n\r\n"),
            }
            self.body = None;
            return Poll::Ready(Ok(()));
        };
        let frame = match frame.into_data() {
            Ok(data) if data.is_empty() => return Poll::Ready(Ok(())),
            Ok(data) => {
                let is_last = body.is_end_stream();
                match stage {
                    Stage::Length(left) => {
                        let Some(rest) = left.checked_sub(data.len() as u64) else {
                            return Poll::Ready(Err(wrong_length()));
                        };
                        *left = rest;
                        if is_last && rest > 0 {
                            return Poll::Ready(Err(wrong_length()));
                        }
                    }
                    Stage::Chunked => {
                        use io::Write;
                        // Writing into a vector cannot fail.
                        let _ = write!(self.before, "{:X}\r\n", data.len());
                        self.after = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                    }
                }
                self.data = data;
                if is_last {
                    self.body = None;
                }
                return Poll::Ready(Ok(()));
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            match stage {
                Stage::Length(0) => {}
                Stage::Length(_) => return Poll::Ready(Err(wrong_length())),
                Stage::Chunked => {
                    self.before.extend_from_slice(b"0\r\n");
                    for (name, value) in &trailers {
                        write_field(&mut self.before, name, value);
                    }
                    self.before.extend_from_slice(b"\r\n");
                }
            }
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let before = self.before.get(self.written..).unwrap_or_default();
        let stream = Pin::new(stream);
        let written = if self.data.is_empty() && self.after.is_empty() {
            ready!(stream.poll_write(cx, before))?
        } else {
            let slices = [before, &self.data, self.after].map(IoSlice::new);
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_begun = true;
        self.total += written as u64;
        let of_before = written.min(before.len());
        self.written += of_before;
        let of_data = (written - of_before).min(self.data.len());
        self.data.advance(of_data);
        let of_after = written - of_before - of_data;
        self.after = self.after.get(of_after..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }
}

/// hyper holds bodies of clients to the length they say; this is what remains impossible.
fn wrong_length() -> BodyError {
    BodyError::Length
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http_body::{Frame, SizeHint};
    use std::collections::VecDeque;
    use std::task::Waker;

    /// A body that is there, but for its `None`s, each of which is a wait.
    struct Script {
        frames: VecDeque<Option<Frame<Bytes>>>,
        tells_its_end: bool,
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            match self.frames.pop_front() {
                None => Poll::Ready(None),
                Some(None) => Poll::Pending,
                Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.tells_its_end && self.frames.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    /// Takes so many bytes at a time.
    struct Narrow {
        width: usize,
        taken: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let some = bytes.len().min(self.width);
            self.taken.extend_from_slice(&bytes[..some]);
            self.writes += 1;
            Poll::Ready(Ok(some))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            let some = all.len().min(self.width);
            self.taken.extend_from_slice(&all[..some]);
            self.writes += 1;
            Poll::Ready(Ok(some))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn data(text: &'static str) -> Option<Frame<Bytes>> {
        Some(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn trailers() -> Option<Frame<Bytes>> {
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", HeaderValue::from_static("1"));
        Some(Frame::trailers(fields))
    }

    type Frames = Vec<Option<Frame<Bytes>>>;

    fn begun(length: Option<u64>, frames: Frames, tells_its_end: bool) -> Outgoing<Script> {
        let frames = frames.into();
        let mut outgoing = Outgoing::default();
        let body = Script {
            frames,
            tells_its_end,
        };
        outgoing.begin(length, body, |out| out.extend_from_slice(b"HEAD\r\n\r\n"));
        outgoing
    }

    /// What is written, and in how many writes.
    fn sent(
        outgoing: &mut Outgoing<Script>,
        width: usize,
    ) -> Result<(String, usize), (String, BodyError)> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Narrow {
            width,
            taken: Vec::new(),
            writes: 0,
        };
        let text = |stream: &Narrow| String::from_utf8(stream.taken.clone()).unwrap();
        for _ in 0..1000 {
            match outgoing.poll(&mut stream, &mut cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    assert!(outgoing.is_sent() && outgoing.is_flushed());
                    assert_eq!(outgoing.total(), stream.taken.len() as u64);
                    return Ok((text(&stream), stream.writes));
                }
                Poll::Ready(Err(error)) => return Err((text(&stream), error)),
            }
        }
        panic!("it never ends: {:?}", text(&stream));
    }

    #[test]
    fn a_request_is_written_the_same_whatever_the_connection_takes() {
        let frames = || vec![data("hello"), data(""), data(" world!")];
        type Row = (Option<u64>, fn() -> Frames, &'static str);
        let chunked = "HEAD\r\n\r\n5\r\nhello\r\n7\r\n world!\r\n0\r\n\r\n";
        let rows: [Row; 6] = [
            (None, || vec![], "HEAD\r\n\r\n"),
            (Some(12), frames, "HEAD\r\n\r\nhello world!"),
            (None, frames, chunked),
            (
                None,
                || vec![None, data("hello"), None, data(" world!"), None],
                chunked,
            ),
            (
                None,
                || vec![data("a"), trailers()],
                "HEAD\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n",
            ),
            (Some(1), || vec![data("a"), trailers()], "HEAD\r\n\r\na"),
        ];
        for (length, frames, expected) in rows {
            for tells_its_end in [true, false] {
                if frames().is_empty() && !tells_its_end {
                    continue;
                }
                for width in [1, 2, 3, 5, 7, 11, 1000] {
                    let mut outgoing = begun(length, frames(), tells_its_end);
                    let (text, _) = sent(&mut outgoing, width).unwrap();
                    assert_eq!(text, expected, "{length:?}, {width} at a time");
                }
            }
        }
    }

    #[test]
    fn a_head_and_a_body_that_is_there_are_one_write() {
        for length in [Some(5), None] {
            let (_, writes) = sent(&mut begun(length, vec![data("hello")], true), 1000).unwrap();
            assert_eq!(writes, 1);
        }
        let late = vec![None, data("hello")];
        let (_, writes) = sent(&mut begun(None, late, true), 1000).unwrap();
        assert_eq!(writes, 2, "a head does not wait for a body");
    }

    #[test]
    fn a_body_of_another_length_than_its_head_says_is_cut() {
        for (frames, tells_its_end) in [
            (vec![data("hello"), data("!")], true),
            (vec![data("hell")], true),
            (vec![data("hell")], false),
            (vec![data("hell"), trailers()], true),
        ] {
            let (text, error) = sent(&mut begun(Some(5), frames, tells_its_end), 1000).unwrap_err();
            assert!(matches!(error, BodyError::Length), "{error}");
            assert!(text.len() <= "HEAD\r\n\r\nhello".len(), "{text:?}");
        }
    }

    #[test]
    fn what_was_not_begun_is_given_back() {
        let mut outgoing = begun(None, vec![data("hello")], true);
        assert!(outgoing.is_untouched() && !outgoing.is_sent());
        assert_eq!(outgoing.take_body().unwrap().frames.len(), 1);

        let mut outgoing = begun(None, vec![data("hello")], true);
        sent(&mut outgoing, 1).unwrap();
        assert!(!outgoing.is_untouched());
        assert!(outgoing.take_body().is_none());
    }
}
