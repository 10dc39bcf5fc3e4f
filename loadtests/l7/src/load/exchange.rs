//! What is asked and what must come back, prepared once: a client only copies bytes, and compares.

use std::rc::Rc;

/// Whom the requests are for.
pub(crate) const HOST: &str = "bench.example";
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const ENCODINGS: &str = "gzip, deflate, br";
const COOKIE: &str = "session=6f1d0c8a2b7e4f53; theme=dark";

/// Paths the application knows, with what it does.
pub(crate) mod path {
    /// Answers with 128 bytes.
    pub(crate) const SMALL: &str = "/small";
    /// Followed by a number: answers with so many bytes of the pattern.
    pub(crate) const BYTES: &str = "/bytes/";
    /// Followed by a number: takes so many bytes of the pattern.
    pub(crate) const TAKE: &str = "/take/";
    /// Answers with the head of the request.
    pub(crate) const HEAD: &str = "/head";
    /// Becomes a tunnel that sends back what comes.
    pub(crate) const TUNNEL: &str = "/tunnel";
    /// Followed by a number and more: as SMALL.
    pub(crate) const ROUTE: &str = "/route-";
    /// Answers 500.
    pub(crate) const BROKEN: &str = "/broken";
    /// Answers with 128 bytes of which one is wrong.
    pub(crate) const WRONG: &str = "/wrong";
}

/// Bytes of a small answer.
pub(crate) const SMALL: usize = 128;
/// What an application answers that got a body as it must be.
pub(crate) const TAKEN: &[u8] = b"taken\n";
/// Bytes of one message over a tunnel.
pub(crate) const MESSAGE: usize = 16 << 10;

/// RFC 6455, section 1.3.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to that key.
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One request, whole, and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// For HTTP/1.1, body included.
    pub(crate) h1: Rc<[u8]>,
    /// Field blocks of HTTP/2 (RFC 7541): the first on a connection puts what repeats itself into the dynamic table, those after it refer to it.
    pub(crate) h2: [Vec<u8>; 2],
    pub(crate) answer: Answer,
}

/// The body that must come back with status 200.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Exactly(Rc<[u8]>),
    /// Anything, to be looked at.
    Kept,
}

impl Exchange {
    /// A GET with the fields that a browser sends; `close` asks for the connection to be closed.
    pub(crate) fn get(path: &str, answer: Answer, close: bool) -> Rc<Exchange> {
        let mut head = head("GET", path);
        if close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        Rc::new(Exchange {
            h1: head.into_bytes().into(),
            h2: [true, false].map(|first| field_block(path, first)),
            answer,
        })
    }

    /// A small GET on a connection that stays.
    pub(crate) fn small() -> Rc<Exchange> {
        let answer = Answer::Exactly(pattern(SMALL).into());
        Exchange::get(path::SMALL, answer, false)
    }

    /// A GET of so many bytes.
    pub(crate) fn download(bytes: usize) -> Rc<Exchange> {
        let answer = Answer::Exactly(pattern(bytes).into());
        Exchange::get(&format!("{}{bytes}", path::BYTES), answer, false)
    }

    /// A POST of so many bytes, over HTTP/1.1.
    pub(crate) fn upload(bytes: usize) -> Rc<Exchange> {
        let path = format!("{}{bytes}", path::TAKE);
        let mut request = head("POST", &path);
        request.push_str("Content-Type: application/octet-stream\r\n");
        request.push_str(&format!("Content-Length: {bytes}\r\n\r\n"));
        let mut request = request.into_bytes();
        request.extend(pattern(bytes));
        Rc::new(Exchange {
            h1: request.into(),
            h2: [Vec::new(), Vec::new()],
            answer: Answer::Exactly(TAKEN.into()),
        })
    }
}

/// The request that opens a tunnel.
pub(crate) fn upgrade() -> Vec<u8> {
    let head = head("GET", path::TUNNEL);
    format!(
        "{head}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// One binary message of a WebSocket (RFC 6455, section 5.2), masked with zeros, so that it looks the same both ways.
pub(crate) fn message() -> Rc<[u8]> {
    const HEAD: usize = 8;
    let length = (MESSAGE - HEAD) as u16;
    let mut message = vec![0x82, 0x80 | 126];
    message.extend(length.to_be_bytes());
    message.extend([0; 4]);
    message.extend(pattern(MESSAGE - HEAD));
    message.into()
}

/// Bytes that tell where they belong: a piece that is missing, repeated or out of place is seen.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    // A prime, so that it fits no buffer.
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn head(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {USER_AGENT}\r\nAccept: {ACCEPT}\r\nAccept-Encoding: {ENCODINGS}\r\nCookie: {COOKIE}\r\n"
    )
}

/// `:scheme` is `http` in all of them; no proxy minds.
fn field_block(path: &str, first: bool) -> Vec<u8> {
    // Static table (RFC 7541, appendix A): :method GET, :scheme http.
    let mut block = vec![0x82, 0x86];
    // :path, not put into the table: it differs from request to request.
    block.push(0x04);
    string(&mut block, path);
    // :authority, user-agent, accept, accept-encoding, cookie.
    let fields = [
        (1, HOST),
        (58, USER_AGENT),
        (19, ACCEPT),
        (16, ENCODINGS),
        (32, COOKIE),
    ];
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if first {
            block.push(0x40 | name);
            string(&mut block, value);
        } else {
            // The last one that was put in is 62.
            block.push(0x80 | (62 + fields.len() - 1 - index) as u8);
        }
    }
    block
}

/// Without Huffman coding. All of ours are shorter than 127 bytes.
fn string(block: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127);
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}
