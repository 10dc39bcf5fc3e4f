//! A body of any length that the reader can check byte by byte.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Period of the pattern: prime, so that no shift by a power of two looks right.
pub(super) const PERIOD: usize = 251;
/// Bytes per frame.
const CHUNK: usize = 64 * PERIOD;

/// Byte i of the body is `i % 251`.
pub(super) struct Pattern {
    left: u64,
    chunk: Bytes,
}

impl Pattern {
    /// A body of `length` bytes.
    pub(super) fn new(length: u64) -> Pattern {
        let chunk: Vec<u8> = (0..CHUNK).map(|i| (i % PERIOD) as u8).collect();
        Pattern {
            left: length,
            chunk: chunk.into(),
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // Each frame but the last is a whole number of periods long, so every frame begins with byte 0.
        let length = self.left.min(CHUNK as u64);
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.slice(..length as usize)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn the_pattern_runs_on_over_frame_borders() {
        let length = 3 * CHUNK + 17;
        let body = Pattern::new(length as u64)
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body.len(), length);
        assert!(
            body.iter()
                .enumerate()
                .all(|(i, byte)| usize::from(*byte) == i % PERIOD)
        );
    }
}
