//! The HTTP probe: one HTTP/1.1 request on a connection of its own.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::connect::{Purpose, connect};
use super::status_set::StatusSet;
use super::{Attempt, Finding};

/// Longest head of a response, in bytes. A longer one is a failure.
const HEAD_LIMIT: usize = 16 * 1024;

/// How much of a body is read, in bytes. The rest of a longer one is not waited for.
const BODY_LIMIT: usize = 64 * 1024;

/// A PROXY header, version 2, command LOCAL: signature, version and command, no address family, no length (haproxy's
/// `doc/proxy-protocol.txt`, section 2.2).
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What is asked and which statuses are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// The request's method.
    pub method: Method,
    /// The request's target in origin form.
    pub path: PathAndQuery,
    /// The Host header; the probed address when absent.
    pub host: Option<HeaderValue>,
    /// Statuses that count as healthy.
    pub expect: StatusSet,
    /// Whether the connection begins with a PROXY header, of the kind that says it is the prober's own.
    pub proxy_protocol: bool,
}

impl Default for HttpProbe {
    /// `GET /`, expecting 200-399.
    fn default() -> HttpProbe {
        HttpProbe {
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            host: None,
            expect: StatusSet::default(),
            proxy_protocol: false,
        }
    }
}

pub(super) async fn probe(attempt: &Attempt, http: &HttpProbe) -> Result<Finding, Finding> {
    let request = request(attempt, http)?;
    let mut stream = connect(attempt, Purpose::Talk).await?;
    if http.proxy_protocol {
        attempt
            .step("sending the PROXY header", stream.write_all(&LOCAL))
            .await?
            .map_err(|error| Finding::from_io("PROXY header", &error))?;
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(NoFin(stream)))
        .await
        .map_err(|error| broken("opening", &error))?;
    // The connection does the reading and writing while the exchange waits for it; it ends first where the target closes,
    // and what it has read by then is still to be looked at.
    let mut exchange = pin!(exchange(attempt, http, sender, request));
    tokio::select! {
        biased;
        finding = &mut exchange => finding,
        _ = connection => exchange.await,
    }
}

fn request(attempt: &Attempt, http: &HttpProbe) -> Result<Request<Empty<Bytes>>, Finding> {
    let host = match &http.host {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(&attempt.address.to_string())
            .map_err(|error| Finding::failure(format!("Host header: {error}")))?,
    };
    Request::builder()
        .method(&http.method)
        .uri(http.path.as_str())
        .header(header::HOST, host)
        .header(
            header::USER_AGENT,
            concat!("weir-health/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Finding::failure(format!("request: {error}")))
}

async fn exchange(
    attempt: &Attempt,
    http: &HttpProbe,
    mut sender: http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Finding, Finding> {
    let response = attempt
        .step("waiting for the response", sender.send_request(request))
        .await?
        .map_err(|error| broken("response", &error))?;
    let status = response.status().as_u16();
    if !http.expect.contains(status) {
        return Ok(Finding::failure(format!(
            "status {status}, expected {}",
            http.expect
        )));
    }
    attempt
        .step("reading the body", read_body(response.into_body()))
        .await??;
    Ok(Finding::success(format!("status {status}")))
}

/// Reads the body to its end or limit: a response that breaks off is not healthy, one without end may be.
async fn read_body(mut body: hyper::body::Incoming) -> Result<(), Finding> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken("body", &error))?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= BODY_LIMIT {
            break;
        }
    }
    Ok(())
}

/// Says what went wrong with a connection that did open.
fn broken(what: &str, error: &hyper::Error) -> Finding {
    if error.is_parse_too_large() {
        return Finding::failure(format!(
            "{what}: the head is longer than {HEAD_LIMIT} bytes or has too many headers"
        ));
    }
    if error.is_parse() {
        return Finding::failure(format!("{what}: not HTTP/1.1 ({error})"));
    }
    if error.is_incomplete_message() {
        return Finding::failure(format!(
            "{what}: the target closed the connection before its end"
        ));
    }
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => Finding::failure(format!(
            "{what}: the target closed the connection before its end"
        )),
        Some(io) => Finding::from_io(what, io),
        None => Finding::failure(source.map_or(format!("{what}: {error}"), |source| {
            format!("{what}: {error}: {source}")
        })),
    }
}

/// A stream that is closed by dropping it only, with the reset [`connect`] prepared: hyper would send a FIN after the response.
struct NoFin(TcpStream);

impl AsyncRead for NoFin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for NoFin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
