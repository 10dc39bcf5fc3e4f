//! The server side: bounded in connections, headers, bodies and time.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::seats::{Seat, Seated, Seats, Work};
use super::{Admin, CommandError, Stream};
use crate::reload::LONGEST_PLAN;
use crate::telemetry::MetricsHandle;

/// Connections at a time; one more takes the place of the longest idle.
const MAX_CONNECTIONS: usize = 64;
/// Request line and headers, in bytes.
const MAX_HEADER: usize = 16 << 10;
/// Largest request body, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Time for a request's headers to arrive, which is also how long a connection may idle.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time for a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Time from one connection's start to its end, whatever it does.
const CONNECTION_TIME: Duration = Duration::from_secs(600);
/// Time for running requests to finish after the shutdown.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

const JSON: &str = "application/json";

type Pieces = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;
type Answer = Response<Either<Full<Bytes>, Pieces>>;

/// Serves the admin listener until `shutdown` completes, then gives running requests 2 s to finish.
pub async fn serve(
    listener: TcpListener,
    metrics: MetricsHandle,
    admin: Arc<dyn Admin>,
    shutdown: impl Future<Output = ()>,
) {
    let seats = Seats::new(MAX_CONNECTIONS);
    let pages = Pages {
        admin,
        metrics,
        turn: Arc::default(),
        body: Arc::default(),
    };
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener) => accepted,
        };
        let stream = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors most likely: wait for some to close rather than turn in circles.
                crate::log_at_most_every!(
                    Duration::from_secs(10),
                    tracing::Level::WARN,
                    "admin listener can't accept: {error}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let seat = tokio::select! {
            () = &mut shutdown => break,
            seat = seats.take() => Arc::new(seat),
        };
        let (pages, sitting, all) = (pages.clone(), seat.clone(), seats.clone());
        let service = service_fn(move |request| {
            let (pages, seat, seats) = (pages.clone(), sitting.clone(), all.clone());
            async move {
                let answer = answer(request, &pages, &seat).await;
                Ok::<_, Infallible>(match seats.are_wanted() {
                    true => closing(answer),
                    false => answer,
                })
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(MAX_HEADER)
            .half_close(false)
            .serve_connection(
                TokioIo::new(Seated {
                    stream,
                    seat: seat.clone(),
                }),
                service,
            );
        let connection = graceful.watch(connection);
        let connection = tokio::spawn(async move {
            // What a client did wrong was answered already; there is nothing to do about a connection that broke.
            let _finished = timeout(CONNECTION_TIME, connection).await;
        });
        seat.gives_way_by(connection.abort_handle());
    }
    let _in_time = timeout(SHUTDOWN_TIME, graceful.shutdown()).await;
}

async fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What there is to read.
#[derive(Clone)]
struct Pages {
    admin: Arc<dyn Admin>,
    metrics: MetricsHandle,
    /// Long pages are made one at a time.
    turn: Arc<Mutex<()>>,
    /// Long bodies are taken in one at a time.
    body: Arc<Mutex<()>>,
}

impl Pages {
    /// A page that may take long to make, megabytes of it at a large node: off this thread, where BGP sessions are kept alive.
    async fn long(
        &self,
        content_type: &'static str,
        make: impl FnOnce(&Pages) -> String + Send + 'static,
    ) -> Answer {
        let _turn = self.turn.lock().await;
        let pages = self.clone();
        match tokio::task::spawn_blocking(move || make(&pages)).await {
            Ok(page) => with_type(StatusCode::OK, content_type, page),
            // It panicked, which the panic hook has told.
            Err(_) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the page could not be made\n",
            ),
        }
    }
}

async fn answer(request: Request<Incoming>, pages: &Pages, seat: &Arc<Seat>) -> Answer {
    let admin = &*pages.admin;
    let path = request.uri().path();
    let command = path.strip_prefix("/command/").map(str::to_owned);
    let allowed = match path {
        _ if command.is_some() => Method::POST,
        "/metrics" | "/healthz" | "/readyz" | "/status" => Method::GET,
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "no such page; there are /metrics /healthz /readyz /status and POST /command/<name>\n",
            );
        }
    };
    // hyper leaves out the body of an answer to HEAD.
    let asks = if request.method() == Method::HEAD {
        Method::GET
    } else {
        request.method().clone()
    };
    if asks != allowed {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
        let allow = if allowed == Method::GET {
            "GET, HEAD"
        } else {
            "POST"
        };
        answer
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static(allow));
        return answer;
    }
    if let Some(name) = command {
        return run_command(&name, request, pages, seat).await;
    }
    let _work = seat.work();
    match path {
        "/metrics" => {
            let content_type = "text/plain; version=0.0.4; charset=utf-8";
            let make = |pages: &Pages| {
                pages.admin.refresh_metrics();
                pages.metrics.render()
            };
            pages.long(content_type, make).await
        }
        "/readyz" => match admin.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/status" => {
            let make = |pages: &Pages| json_text(&pages.admin.status());
            pages.long(JSON, make).await
        }
        _ => text(StatusCode::OK, "ok\n"),
    }
}

async fn run_command(
    name: &str,
    request: Request<Incoming>,
    pages: &Pages,
    seat: &Arc<Seat>,
) -> Answer {
    let admin = &*pages.admin;
    let failed = |status, why: &str| json_answer(status, &json!({ "error": why }));
    // A plan comes with a configuration file.
    let is_long = name == "plan";
    let limit = if is_long { LONGEST_PLAN } else { MAX_BODY };
    let _turn = match is_long {
        true => Some(pages.body.lock().await),
        false => None,
    };
    let body = match timeout(
        BODY_TIME,
        Limited::new(request.into_body(), limit).collect(),
    )
    .await
    {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return closing(failed(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the body is larger than {} KiB", limit >> 10),
            ));
        }
        Ok(Err(_)) => return closing(failed(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => {
            return closing(failed(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive within 10 s",
            ));
        }
    };
    let work = seat.work();
    let parsed = if body.len() > MAX_BODY {
        // Off this thread, as with long pages.
        let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
        parsed.unwrap_or_else(|error| Err(error.to_string()))
    } else {
        parse(&body)
    };
    let args = match parsed {
        Ok(args) => args,
        Err(why) => {
            let why = format!("the body is not JSON: {why}");
            return failed(StatusCode::BAD_REQUEST, &why);
        }
    };
    let answer = match admin.stream(name, &args) {
        Some(Ok(stream)) => Ok(streamed(stream, work)),
        Some(Err(error)) => Err(error),
        None => {
            let done = admin.command(name, args).await;
            done.map(|done| json_answer(StatusCode::OK, &done))
        }
    };
    match answer {
        Ok(answer) => answer,
        Err(error) => {
            let status = match error {
                CommandError::Unknown => StatusCode::NOT_FOUND,
                CommandError::Invalid(_) => StatusCode::BAD_REQUEST,
                CommandError::Refused(_) => StatusCode::CONFLICT,
                CommandError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            failed(status, &error.to_string())
        }
    }
}

/// No body at all is `null`.
fn parse(body: &[u8]) -> Result<Value, String> {
    match body.trim_ascii() {
        b"" => Ok(Value::Null),
        body => serde_json::from_slice(body).map_err(|error| error.to_string()),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    with_type(status, JSON, json_text(value))
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Pieces are taken only as fast as they are read. The client is worked for until the last.
fn streamed(
    Stream {
        content_type,
        pieces,
    }: Stream,
    work: Work,
) -> Answer {
    let pieces = stream::unfold((pieces, work), |(mut pieces, work)| async move {
        let piece = pieces.recv().await?;
        Some((Ok(Frame::data(piece)), (pieces, work)))
    });
    let body = Either::Right(StreamBody::new(pieces.boxed()));
    of_type(StatusCode::OK, content_type, body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    of_type(status, content_type, Either::Left(Full::new(body.into())))
}

fn of_type(
    status: StatusCode,
    content_type: &'static str,
    body: Either<Full<Bytes>, Pieces>,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    answer
}

/// The connection is not used again: the rest of the request was not read, or somebody may want its place.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(
        header::CONNECTION,
        header::HeaderValue::from_static("close"),
    );
    answer
}
