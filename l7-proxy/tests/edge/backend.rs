//! Tiny backends in the test's own process. What one does depends on the path:
//!
//! | path | answer |
//! |---|---|
//! | `/echo...` (and all else) | its name, then the request head and body as received |
//! | `/status/204` | that status, no body |
//! | `/slow/500` | after that many milliseconds |
//! | `/drip/10` | that many bytes, one each 200 ms |
//! | `/big/1000000` | that many bytes |
//! | `/chunked`, `/trailers` | a chunked body, with trailers |
//! | `/misplaced` | trailers that say what only a head may |
//! | `/announced` | 204 with a length, and what looks like the next response as its body |
//! | `/cut` | a body shorter than announced |
//! | `/ambiguous/0` to `/ambiguous/3` | a length said in two ways, or a coding nobody asked for |
//! | `/interim` | 102 without end |
//! | `/garbage`, `/close`, `/hang` | no HTTP; none at all; nothing ever |
//! | `/early` | before the request body has been read |
//! | `/endless` | likewise, a byte each 20 ms until the connection is closed |
//! | `/torn` | likewise, up to the end of the connection, which is reset |
//! | `/sated` | likewise, and takes nothing of the body |
//! | `/duplex/1000000` | that many bytes, while the request body is read |
//! | `/unasked` | and another response that nobody asked for |
//! | `/private` | with fields of the connection |
//! | `/ws` | 101, then every byte back |
//! | `/switch/chat` | 101 to that protocol, then every byte back |
//! | `/required` | 426 |

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::proxy;

/// A backend; it stops listening when dropped.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    connections: AtomicUsize,
    requests: AtomicUsize,
    received: AtomicUsize,
    /// Requests on one connection before it is closed without a word.
    per_connection: usize,
    stopped: AtomicBool,
}

impl Backend {
    pub fn start(name: &str) -> Backend {
        Backend::listen(name, usize::MAX)
    }

    /// Closes each connection after `requests` requests without announcing it, as a server whose keep-alive time is over.
    pub fn forgetful(name: &str, requests: usize) -> Backend {
        Backend::listen(name, requests)
    }

    fn listen(name: &str, per_connection: usize) -> Backend {
        let listener = TcpListener::bind((proxy::address(), 8000)).expect("backend");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            per_connection,
            stopped: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if theirs.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                let shared = theirs.clone();
                std::thread::spawn(move || {
                    // A proxy that closes early is what some tests are about.
                    let _ = serve(&shared, stream);
                });
            }
        });
        Backend { address, shared }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Whole requests read so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Body bytes read so far.
    pub fn received(&self) -> usize {
        self.shared.received.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// An address on loopback that refuses connections.
pub fn refusing() -> SocketAddr {
    SocketAddr::new(proxy::address(), 8000)
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    for _ in 0..shared.per_connection {
        let Some(head) = head(&mut reader)? else {
            return Ok(());
        };
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        if path == "/early" {
            out.write_all(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly",
            )?;
            // Read on for a moment, so that closing does not reset what was sent.
            out.shutdown(std::net::Shutdown::Write)?;
            out.set_read_timeout(Some(Duration::from_millis(500)))?;
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
            return Ok(());
        }
        if path == "/endless" {
            out.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                out.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if path == "/torn" {
            // Closing resets the connection once something is there that isn't read.
            std::thread::sleep(Duration::from_millis(50));
            return out.write_all(b"HTTP/1.1 413 Too Large\r\n\r\nearly");
        }
        if path == "/sated" {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsated")?;
            std::thread::sleep(Duration::from_secs(30));
            return Ok(());
        }
        if let Some(number) = path.strip_prefix("/duplex/") {
            let number = number.parse().unwrap_or(0);
            let mut out = out.try_clone()?;
            let answering = std::thread::spawn(move || big(&mut out, number));
            body(shared, &mut reader, &head)?;
            answering.join().map_err(|_| std::io::ErrorKind::Other)??;
            shared.requests.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let body = body(shared, &mut reader, &head)?;
        shared.requests.fetch_add(1, Ordering::SeqCst);
        if !answer(shared, &mut out, &mut reader, &path, &head, &body)? {
            return Ok(());
        }
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            return Ok(Some(head));
        }
        head.push_str(&line);
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .into_iter()
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn body(shared: &Shared, reader: &mut impl BufRead, head: &str) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if field(head, "transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if size == 0 {
                loop {
                    let mut trailer = String::new();
                    reader.read_line(&mut trailer)?;
                    if trailer == "\r\n" {
                        return Ok(body);
                    }
                    body.extend_from_slice(trailer.as_bytes());
                }
            }
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            shared.received.fetch_add(size, Ordering::SeqCst);
            body.extend_from_slice(&chunk[..size]);
        }
    }
    if let Some(length) =
        field(head, "content-length").and_then(|length| length.parse::<usize>().ok())
    {
        body = vec![0; length];
        let mut at = 0;
        while at < length {
            let read = reader.read(&mut body[at..])?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            shared.received.fetch_add(read, Ordering::SeqCst);
            at += read;
        }
    }
    Ok(body)
}

fn big(out: &mut TcpStream, number: usize) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n")?;
    let part = vec![b'x'; 64 * 1024];
    let mut left = number;
    while left > 0 {
        let size = left.min(part.len());
        out.write_all(&part[..size])?;
        left -= size;
    }
    Ok(())
}

/// False when the connection is over.
fn answer(
    shared: &Shared,
    out: &mut TcpStream,
    reader: &mut impl BufRead,
    path: &str,
    head: &str,
    body: &[u8],
) -> std::io::Result<bool> {
    let mut words = path.trim_start_matches('/').splitn(2, '/');
    let (what, argument) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let number = argument.parse::<usize>().unwrap_or(0);
    let is_head = head.starts_with("HEAD ");
    match what {
        "status" => write!(out, "HTTP/1.1 {number} Thus\r\n\r\n")?,
        "slow" => {
            std::thread::sleep(Duration::from_millis(number as u64));
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")?;
        }
        "drip" => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n")?;
            for _ in 0..number {
                std::thread::sleep(Duration::from_millis(200));
                out.write_all(b"x")?;
            }
        }
        "big" => big(out, number)?,
        "unasked" => {
            let some = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked";
            out.write_all(some.as_bytes())?;
            std::thread::sleep(Duration::from_millis(100));
            out.write_all(some.as_bytes())?;
        }
        "chunked" => out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")?,
        "trailers" => out.write_all(b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n")?,
        "misplaced" => out.write_all(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nTrailer: x-sum, connection, upgrade, x-hop, x-own, set-cookie, keep-alive, x-forwarded-for\r\n\
              Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nConnection: close, X-Own\r\nUpgrade: h2c\r\nX-Hop: no\r\nX-Own: no\r\nSet-Cookie: a=no\r\n\
              Keep-Alive: no\r\nX-Forwarded-For: no\r\nx-sum: 5\r\n\r\n",
        )?,
        "announced" => {
            out.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(100));
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")?;
        }
        "cut" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")?;
            return Ok(false);
        }
        "ambiguous" => {
            let fields = [
                "Content-Length: 2\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\nContent-Length: 200",
                "Transfer-Encoding: gzip, chunked",
                "Content-Length: 16, 16",
            ];
            write!(out, "HTTP/1.1 200 OK\r\n{}\r\n\r\n5\r\nhello\r\n0\r\n\r\n", fields[number])?;
        }
        "interim" => {
            let some = "HTTP/1.1 102 Processing\r\n\r\n".repeat(500);
            loop {
                out.write_all(some.as_bytes())?;
            }
        }
        "garbage" => {
            out.write_all(b"\x00\x01 this is not HTTP\r\n\r\n")?;
            return Ok(false);
        }
        "close" => return Ok(false),
        "hang" => {
            let _ = std::io::copy(reader, &mut std::io::sink());
            return Ok(false);
        }
        "private" => out.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=5\r\n\
              Proxy-Authenticate: Basic\r\nX-Kept: yes\r\n\r\nok",
        )?,
        "required" => out.write_all(
            b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: chat/2, h2c\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\nContent-Length: 2\r\n\r\nno",
        )?,
        "ws" | "switch" => {
            let protocol = if argument.is_empty() { "websocket" } else { argument };
            write!(out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Accept: x\r\n\r\n")?;
            std::io::copy(reader, out)?;
            let _ = out.shutdown(std::net::Shutdown::Write);
            return Ok(false);
        }
        _ => {
            let text = format!("{}\n{head}\n{}", shared.name, String::from_utf8_lossy(body));
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len())?;
            if !is_head {
                out.write_all(text.as_bytes())?;
            }
        }
    }
    out.flush()?;
    Ok(true)
}
