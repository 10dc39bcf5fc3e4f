//! Where messages begin and end on an HTTP/1 connection, and whether their framing is beyond doubt.
//!
//! hyper parses generously: it takes a bare LF as a line end, and when both Content-Length and Transfer-Encoding are given it drops
//! the first silently (RFC 9112 section 6.1 lets it). Two servers that differ in such choices are what request smuggling is made
//! of, so this scanner reads the same bytes first and refuses what is ambiguous. It is pure: bytes in, a verdict out; it copies
//! nothing except a header line that is split between two reads.

use crate::observe::reason::Reason;

/// Longest chunk extension tolerated on one chunk-size line, in bytes (RFC 9112 section 7.1.1 asks for a limit).
const MAX_CHUNK_EXTENSION: usize = 256;

/// Empty lines ignored before a request line (RFC 9112 section 2.2).
const MAX_LEADING_LINES: u8 = 4;

/// What about the framing of a request could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// A line ended by LF alone.
    BareLineFeed = 1,
    /// A CR not followed by LF.
    BareCarriageReturn,
    /// A header line that continues the one before (obs-fold).
    FoldedLine,
    /// A NUL byte in the head.
    NulByte,
    /// Both Content-Length and Transfer-Encoding.
    BothLengths,
    /// More than one Content-Length.
    RepeatedLength,
    /// A Content-Length that is not a plain decimal number.
    BadLength,
    /// A Transfer-Encoding other than `chunked`, or more than one.
    TransferCoding,
    /// A chunk-size line that is not hexadecimal digits, an optional bounded extension, CRLF.
    ChunkSize,
    /// Chunk data not followed by CRLF.
    ChunkEnd,
    /// Too many empty lines before a request.
    LeadingLines,
}

impl Violation {
    /// All of them.
    pub const ALL: [Violation; 11] = [
        Violation::BareLineFeed,
        Violation::BareCarriageReturn,
        Violation::FoldedLine,
        Violation::NulByte,
        Violation::BothLengths,
        Violation::RepeatedLength,
        Violation::BadLength,
        Violation::TransferCoding,
        Violation::ChunkSize,
        Violation::ChunkEnd,
        Violation::LeadingLines,
    ];

    /// A short name for logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Violation::BareLineFeed => "bare_lf",
            Violation::BareCarriageReturn => "bare_cr",
            Violation::FoldedLine => "folded_line",
            Violation::NulByte => "nul_byte",
            Violation::BothLengths => "both_lengths",
            Violation::RepeatedLength => "repeated_length",
            Violation::BadLength => "bad_length",
            Violation::TransferCoding => "transfer_coding",
            Violation::ChunkSize => "chunk_size",
            Violation::ChunkEnd => "chunk_end",
            Violation::LeadingLines => "leading_lines",
        }
    }

    /// The word in the access log.
    pub fn reason(self) -> Reason {
        match self {
            Violation::BothLengths
            | Violation::RepeatedLength
            | Violation::BadLength
            | Violation::TransferCoding
            | Violation::ChunkSize
            | Violation::ChunkEnd => Reason::LengthConflict,
            Violation::BareLineFeed
            | Violation::BareCarriageReturn
            | Violation::FoldedLine
            | Violation::NulByte
            | Violation::LeadingLines => Reason::HeaderInvalid,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Violation> {
        const ALL: [Violation; 11] = [
            Violation::BareLineFeed,
            Violation::BareCarriageReturn,
            Violation::FoldedLine,
            Violation::NulByte,
            Violation::BothLengths,
            Violation::RepeatedLength,
            Violation::BadLength,
            Violation::TransferCoding,
            Violation::ChunkSize,
            Violation::ChunkEnd,
            Violation::LeadingLines,
        ];
        ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// The verdict on some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All of them may be given to the HTTP parser.
    Passed,
    /// The first `n` bytes end a head that asks to leave HTTP, or for something that is lost in parsing; nothing behind it may be parsed until [`Framing::decide`].
    Held(usize),
    /// The first `n` bytes were fine, then this.
    Violated(usize, Violation),
}

/// What became of a request that asked to leave HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It was accepted: what follows isn't HTTP.
    Tunnel,
    /// It wasn't: what follows is the body, if any, and the next request.
    Http,
}

/// Follows one connection's request framing.
#[derive(Debug)]
pub struct Framing {
    state: State,
    head: Head,
    /// A line whose end has not arrived yet.
    partial: Vec<u8>,
    /// Request lines seen.
    requests: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Undecided,
    Body(u64),
    Chunk(ChunkLine),
    ChunkData(u64),
    ChunkEnd { cr: bool },
    Trailers,
    Opaque,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkLine {
    size: u64,
    digits: u8,
    extension: usize,
    cr: bool,
}

impl ChunkLine {
    const START: ChunkLine = ChunkLine {
        size: 0,
        digits: 0,
        extension: 0,
        cr: false,
    };
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Bytes of this head seen so far (0: between requests).
    bytes: usize,
    leading_lines: u8,
    request_line: bool,
    length: Option<u64>,
    chunked: bool,
    leaves_http: bool,
    about_server: bool,
}

impl Framing {
    /// A connection that will carry HTTP/1 requests.
    pub fn http1() -> Framing {
        Framing {
            state: State::Head,
            head: Head::default(),
            partial: Vec::new(),
            requests: 0,
        }
    }

    /// A connection whose bytes are not HTTP/1 (HTTP/2): everything passes.
    pub fn opaque() -> Framing {
        Framing {
            state: State::Opaque,
            ..Framing::http1()
        }
    }

    /// True while a head has begun and not ended.
    pub fn mid_head(&self) -> bool {
        self.state == State::Head && self.head.bytes > 0
    }

    /// True when the last request is complete and nothing of the next has come.
    pub fn between_requests(&self) -> bool {
        self.state == State::Head && self.head.bytes == 0
    }

    /// True between a head that asks to leave HTTP and [`Framing::decide`].
    pub fn undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// Which request, counted from 1, is held because it asks about the server as a whole by a URI without a path. Once parsed it can't be told from
    /// one about `/`.
    pub fn about_server(&self) -> Option<usize> {
        (self.undecided() && self.head.about_server).then_some(self.requests)
    }

    /// Settles what follows a head that asked to leave HTTP. Without such a head it does nothing.
    pub fn decide(&mut self, leaving: Leaving) {
        if self.state == State::Undecided {
            self.state = match leaving {
                Leaving::Tunnel => State::Opaque,
                Leaving::Http => self.after_head(),
            };
        }
    }

    /// Takes the next bytes of the connection.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let step = match self.state {
                State::Opaque => return Scan::Passed,
                State::Undecided => return Scan::Held(at),
                State::Head | State::Trailers => self.line(rest),
                State::Body(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.state = match left - taken as u64 {
                        0 => self.next_request(),
                        left => State::Body(left),
                    };
                    Ok(taken)
                }
                State::ChunkData(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.state = match left - taken as u64 {
                        0 => State::ChunkEnd { cr: false },
                        left => State::ChunkData(left),
                    };
                    Ok(taken)
                }
                State::Chunk(line) => self.chunk_line(line, rest[0]).map(|()| 1),
                State::ChunkEnd { cr } => self.chunk_end(cr, rest[0]).map(|()| 1),
            };
            match step {
                Ok(taken) => at += taken,
                Err(violation) => return Scan::Violated(at, violation),
            }
        }
        if self.state == State::Undecided {
            Scan::Held(at)
        } else {
            Scan::Passed
        }
    }

    fn line(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let Some(end) = memchr::memchr(b'\n', rest) else {
            self.head.bytes += rest.len();
            self.partial.extend_from_slice(rest);
            return Ok(rest.len());
        };
        self.head.bytes += end + 1;
        if self.partial.is_empty() {
            self.whole_line(&rest[..end])?;
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&rest[..end]);
            self.whole_line(&line)?;
            line.clear();
            self.partial = line;
        }
        Ok(end + 1)
    }

    /// `line` is without its LF.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err(Violation::BareLineFeed);
        };
        if let Some(bad) = memchr::memchr2(b'\r', 0, line).map(|at| line[at]) {
            return Err(if bad == 0 {
                Violation::NulByte
            } else {
                Violation::BareCarriageReturn
            });
        }
        if self.state == State::Trailers {
            if line.is_empty() {
                self.state = self.next_request();
            } else if matches!(line[0], b' ' | b'\t') {
                return Err(Violation::FoldedLine);
            }
            return Ok(());
        }
        if !self.head.request_line {
            return self.request_line(line);
        }
        if line.is_empty() {
            self.state = if self.head.leaves_http || self.head.about_server {
                State::Undecided
            } else {
                self.after_head()
            };
            return Ok(());
        }
        self.field(line)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        if line.is_empty() {
            self.head.leading_lines += 1;
            self.head.bytes = 0;
            if self.head.leading_lines > MAX_LEADING_LINES {
                return Err(Violation::LeadingLines);
            }
            return Ok(());
        }
        self.head.request_line = true;
        self.requests += 1;
        self.head.leaves_http = line.starts_with(b"CONNECT ");
        self.head.about_server = is_about_server(line);
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Violation::FoldedLine);
        }
        // Any other line, one without a colon among them, is for the HTTP parser to judge.
        if let Some(value) = value_of(b"content-length", line) {
            if self.head.chunked {
                return Err(Violation::BothLengths);
            }
            if self.head.length.is_some() {
                return Err(Violation::RepeatedLength);
            }
            self.head.length = Some(decimal(value).ok_or(Violation::BadLength)?);
        } else if let Some(value) = value_of(b"transfer-encoding", line) {
            if self.head.length.is_some() {
                return Err(Violation::BothLengths);
            }
            if self.head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::TransferCoding);
            }
            self.head.chunked = true;
        } else if value_of(b"upgrade", line).is_some() {
            self.head.leaves_http = true;
        }
        Ok(())
    }

    fn after_head(&mut self) -> State {
        match (self.head.chunked, self.head.length) {
            (true, _) => State::Chunk(ChunkLine::START),
            (false, Some(length)) if length > 0 => State::Body(length),
            (false, _) => self.next_request(),
        }
    }

    fn next_request(&mut self) -> State {
        self.head = Head::default();
        State::Head
    }

    fn chunk_line(&mut self, mut line: ChunkLine, byte: u8) -> Result<(), Violation> {
        if line.cr {
            if byte != b'\n' {
                return Err(Violation::ChunkSize);
            }
            self.state = if line.size == 0 {
                State::Trailers
            } else {
                State::ChunkData(line.size)
            };
            return Ok(());
        }
        match (byte, line.extension) {
            (b'\r', _) if line.digits > 0 => line.cr = true,
            (b';', 0) if line.digits > 0 => line.extension = 1,
            (_, 0) => {
                let digit = char::from(byte).to_digit(16).ok_or(Violation::ChunkSize)?;
                // 15 digits keep the sum of any two sizes far from overflow, as hyper does.
                if line.digits == 15 {
                    return Err(Violation::ChunkSize);
                }
                line.digits += 1;
                line.size = line.size << 4 | u64::from(digit);
            }
            (b'\n' | b'\r' | 0, _) => return Err(Violation::ChunkSize),
            (_, seen) if seen > MAX_CHUNK_EXTENSION => return Err(Violation::ChunkSize),
            (_, _) => line.extension += 1,
        }
        self.state = State::Chunk(line);
        Ok(())
    }

    fn chunk_end(&mut self, cr: bool, byte: u8) -> Result<(), Violation> {
        self.state = match (cr, byte) {
            (false, b'\r') => State::ChunkEnd { cr: true },
            (true, b'\n') => State::Chunk(ChunkLine::START),
            _ => return Err(Violation::ChunkEnd),
        };
        Ok(())
    }
}

/// The value of a field line, if it is of the field with this name. Looks where the colon would be, not for it.
fn value_of<'l>(name: &[u8], line: &'l [u8]) -> Option<&'l [u8]> {
    let (begin, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    begin.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// A number as RFC 9110 section 8.6 writes Content-Length: digits only, no sign, no list.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// Whether a request line is `OPTIONS` with a URI that ends with its authority: it stands for `OPTIONS *` (RFC 9112 section 3.2.4).
fn is_about_server(line: &[u8]) -> bool {
    let Some(target) = line.strip_prefix(b"OPTIONS ") else {
        return false;
    };
    let target = target
        .split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    let authority = memchr::memmem::find(target, b"://").map(|at| &target[at + 3..]);
    let authority = authority.filter(|_| !target.starts_with(b"/"));
    authority.is_some_and(|authority| {
        !authority.is_empty() && !authority.iter().any(|byte| b"/?#".contains(byte))
    })
}

#[cfg(test)]
mod tests;
