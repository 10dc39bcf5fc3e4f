//! Bodies of responses, taken off what was read from the connection.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::SizeHint;

use super::has_empty_line;

/// Longest line with a chunk's size, its extensions included, in bytes (RFC 9112 section 7.1.1 asks for a limit).
const MAX_SIZE_LINE: usize = 1024;
/// Longest trailer section in bytes, and its most fields.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 100;

/// A body's chunks aren't what RFC 9112 section 7.1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid chunked framing")]
pub(crate) struct BadChunks;

/// Something of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Data, at least a byte.
    Data(Bytes),
    /// The fields behind the last chunk.
    Trailers(HeaderMap),
}

/// Where in a body the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoder(Stage);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ended,
    /// So many bytes are left.
    Length(u64),
    /// At a chunk's size.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// At the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    UntilClose,
}

impl Decoder {
    /// No body.
    pub(crate) fn none() -> Decoder {
        Decoder(Stage::Ended)
    }

    /// A body of so many bytes.
    pub(crate) fn length(bytes: u64) -> Decoder {
        Decoder(if bytes == 0 {
            Stage::Ended
        } else {
            Stage::Length(bytes)
        })
    }

    /// A body in chunks.
    pub(crate) fn chunked() -> Decoder {
        Decoder(Stage::Size)
    }

    /// A body that ends with the connection.
    pub(crate) fn until_close() -> Decoder {
        Decoder(Stage::UntilClose)
    }

    /// Whether the body is over.
    pub(crate) fn is_ended(&self) -> bool {
        self.0 == Stage::Ended
    }

    /// Whether its end doesn't depend on the connection's.
    pub(crate) fn is_delimited(&self) -> bool {
        self.0 != Stage::UntilClose
    }

    /// The connection has ended: whether that ends the body, too, or cuts it.
    pub(crate) fn close(&mut self) -> bool {
        if self.0 == Stage::UntilClose {
            self.0 = Stage::Ended;
        }
        self.is_ended()
    }

    /// How long the rest is, as far as that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.0 {
            Stage::Ended => SizeHint::with_exact(0),
            Stage::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }

    /// Takes the next piece off `input`: none while it isn't there, or when the body is over.
    ///
    /// # Errors
    /// The body can't be read any further.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, BadChunks> {
        loop {
            match self.0 {
                Stage::Ended => return Ok(None),
                Stage::UntilClose => {
                    let data = input.split().freeze();
                    return Ok((!data.is_empty()).then_some(Piece::Data(data)));
                }
                Stage::Length(left) => {
                    let (data, left) = take(input, left);
                    if left == 0 {
                        self.0 = Stage::Ended;
                    } else {
                        self.0 = Stage::Length(left);
                    }
                    return Ok(data);
                }
                Stage::Chunk(left) => {
                    let (data, left) = take(input, left);
                    if left > 0 {
                        self.0 = Stage::Chunk(left);
                        return Ok(data);
                    }
                    self.0 = Stage::ChunkEnd;
                    // What ends the body may be there as well: whoever takes the last data is told that it is the last. A wrong end is
                    // found again behind the data.
                    let _ = self.pass_end(input);
                    return Ok(data);
                }
                Stage::ChunkEnd => {
                    if !self.pass_end(input)? {
                        return Ok(None);
                    }
                }
                Stage::Size => match size_line(input)? {
                    None => return Ok(None),
                    Some(0) => self.0 = Stage::Trailers,
                    Some(size) => self.0 = Stage::Chunk(size),
                },
                Stage::Trailers => {
                    let Some(trailers) = trailers(input)? else {
                        return Ok(None);
                    };
                    self.0 = Stage::Ended;
                    return Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)));
                }
            }
        }
    }

    /// Behind a chunk's data: passes its line end and, where that is all there is, the end of the body. False while the line end isn't there.
    fn pass_end(&mut self, input: &mut BytesMut) -> Result<bool, BadChunks> {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if input.starts_with(LAST) {
            let _ = input.split_to(LAST.len());
            self.0 = Stage::Ended;
            return Ok(true);
        }
        match input.get(..2) {
            Some(b"\r\n") => {
                let _ = input.split_to(2);
                self.0 = Stage::Size;
                Ok(true)
            }
            None if input.is_empty() || input[0] == b'\r' => Ok(false),
            _ => Err(BadChunks),
        }
    }
}

/// Up to `left` bytes, and how many are left then.
fn take(input: &mut BytesMut, left: u64) -> (Option<Piece>, u64) {
    let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    if here == 0 {
        return (None, left);
    }
    let data = input.split_to(here).freeze();
    (Some(Piece::Data(data)), left - here as u64)
}

/// The size of the next chunk, with its line taken off.
fn size_line(input: &mut BytesMut) -> Result<Option<u64>, BadChunks> {
    let Some(end) = memchr::memchr(b'\n', &input[..input.len().min(MAX_SIZE_LINE)]) else {
        return if input.len() < MAX_SIZE_LINE {
            Ok(None)
        } else {
            Err(BadChunks)
        };
    };
    let line = input.split_to(end + 1);
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(BadChunks);
    };
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, rest) = line.split_at(digits.count());
    // Extensions go no further (section 7.1.1), but may not hide another line.
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    let rest = &rest[blanks.count()..];
    let is_extension = rest.is_empty() || rest[0] == b';';
    if digits.is_empty() || !is_extension || memchr::memchr2(b'\r', 0, rest).is_some() {
        return Err(BadChunks);
    }
    // Digits are ASCII; more than fit a u64 are refused.
    let text = std::str::from_utf8(digits).map_err(|_| BadChunks)?;
    u64::from_str_radix(text, 16)
        .map(Some)
        .map_err(|_| BadChunks)
}

/// The trailer section, taken off with the empty line behind it.
fn trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, BadChunks> {
    let is_empty = input.starts_with(b"\r\n") || input.starts_with(b"\n");
    if !is_empty && input.len() < MAX_TRAILERS && !has_empty_line(input) {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let text = &input[..input.len().min(MAX_TRAILERS)];
    let (length, fields) = match httparse::parse_headers(text, &mut fields) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if input.len() < MAX_TRAILERS => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(BadChunks),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadChunks)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| BadChunks)?;
        trailers.append(name, value);
    }
    let _ = input.split_to(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a whole body, its trailers, what follows it.
    type Whole = (Vec<u8>, HeaderMap, Vec<u8>);

    /// A body that comes in `pieces`; none if it isn't complete.
    fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<Option<Whole>, BadChunks> {
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut input = BytesMut::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(piece) = decoder.next(&mut input)? {
                match piece {
                    Piece::Data(some) => {
                        assert!(!some.is_empty());
                        data.extend_from_slice(&some);
                    }
                    Piece::Trailers(fields) => trailers = fields,
                }
            }
        }
        Ok(decoder.is_ended().then(|| (data, trailers, input.to_vec())))
    }

    const CHUNKED: &[u8] =
        b"5\r\nhello\r\n6;name=\"value\"\r\n world\r\n00\r\nX-Sum: 1\r\nx-two: 2\r\n\r\nHTTP";

    #[test]
    fn chunks_come_out_the_same_however_they_arrive() {
        let whole = decode(Decoder::chunked(), &[CHUNKED]).unwrap().unwrap();
        assert_eq!(whole.0, b"hello world");
        assert_eq!(whole.1["x-sum"], "1");
        assert_eq!(whole.1.len(), 2);
        assert_eq!(whole.2, b"HTTP");
        let bytes: Vec<&[u8]> = CHUNKED.chunks(1).collect();
        assert_eq!(decode(Decoder::chunked(), &bytes), Ok(Some(whole.clone())));
        for cut in 0..CHUNKED.len() {
            let (one, two) = CHUNKED.split_at(cut);
            assert_eq!(
                decode(Decoder::chunked(), &[one, two]),
                Ok(Some(whole.clone())),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_last_data_is_known_to_be_the_last_if_the_end_is_there() {
        let mut input = BytesMut::from(&b"2\r\nab\r\n0\r\n\r\n"[..]);
        let mut decoder = Decoder::chunked();
        let piece = decoder.next(&mut input);
        assert_eq!(piece, Ok(Some(Piece::Data(Bytes::from_static(b"ab")))));
        assert!(decoder.is_ended());
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let ended = decode(Decoder::length(3), &[b"ab", b"cd"])
            .unwrap()
            .unwrap();
        assert_eq!((&ended.0[..], &ended.2[..]), (&b"abc"[..], &b"d"[..]));
        assert_eq!(decode(Decoder::length(3), &[b"ab"]), Ok(None));
        assert_eq!(decode(Decoder::until_close(), &[b"ab", b"cd"]), Ok(None));
        let none = decode(Decoder::none(), &[b"a"]).unwrap().unwrap();
        assert_eq!(none.2, b"a");
    }

    #[test]
    fn chunks_framed_wrongly_are_refused() {
        let long = [&[b'1'; 17][..], b"\r\n"].concat();
        let endless = [&b"1;"[..], &[b'a'; MAX_SIZE_LINE]].concat();
        let trailer = [&b"0\r\n"[..], &b"a: b\r\n".repeat(MAX_TRAILERS)].concat();
        for bad in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"1 1\r\n",
            b"1\n",
            b"1\ra\n",
            b"1;a\rb\r\n",
            b"1;a\0b\r\n",
            b"1\r\r\na\r\n",
            b"1 \r;a\r\n",
            b"1\x0c\r\na\r\n",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"0\r\nno field\r\n\r\n",
            b"0\r\na: b\r\n c\r\n\r\n",
            &long,
            &endless,
            &trailer,
        ] {
            assert_eq!(
                decode(Decoder::chunked(), &[bad]),
                Err(BadChunks),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_decoded_alike_in_any_pieces(
            bytes in "(([0-9a-f]|\\r\\n|;|[a-c]|: ){0,12}){0,6}",
            cuts in proptest::collection::vec(0usize..64, 0..4),
        ) {
            let bytes = bytes.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            proptest::prop_assert_eq!(
                decode(Decoder::chunked(), &pieces),
                decode(Decoder::chunked(), &[bytes])
            );
        }
    }
}
