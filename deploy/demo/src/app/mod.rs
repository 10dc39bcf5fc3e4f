//! The application behind the chain: HTTP that tells what it saw, a WebSocket echo and a UDP echo.
//!
//! | path | answer |
//! |---|---|
//! | `/health` | 200 `ok` |
//! | `/slow?ms=N` | the usual answer, after N ms (at most a minute) |
//! | `/bytes?n=N` | N bytes (at most 1 GiB), byte i is `i % 251` |
//! | `/status?code=N` | the usual answer with that status |
//! | `/ws` | WebSocket: every text and binary message comes back |
//! | anything else | JSON: who answered, and the request as it arrived ([`Seen`]) |

mod bytes;
mod echo;
mod websocket;

pub use echo::Seen;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::bytes::Bytes;
use anyhow::{Context, Result, bail};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UdpSocket};

/// Longest `/slow`.
const SLOWEST: Duration = Duration::from_secs(60);
/// Most bytes `/bytes` sends.
const MOST_BYTES: u64 = 1 << 30;

/// What every response body is.
type Body = BoxBody<Bytes, Infallible>;

/// What the application listens on.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who answers: `app-1`.
    pub name: String,
    /// HTTP listeners, each with the name of the service it plays: `shop`, `10.4.0.31:8080`.
    pub http: Vec<(String, SocketAddr)>,
    /// UDP echo listeners.
    pub udp: Vec<SocketAddr>,
}

/// Parses `shop=10.4.0.31:8080`.
pub fn parse_listener(text: &str) -> Result<(String, SocketAddr), String> {
    let (service, address) = text
        .split_once('=')
        .ok_or("expected SERVICE=ADDRESS:PORT")?;
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is not an address and port"))?;
    Ok((service.to_owned(), address))
}

/// Serves until the process is ended.
pub async fn serve(settings: Settings) -> Result<()> {
    if settings.http.is_empty() && settings.udp.is_empty() {
        bail!("nothing to listen on: give --http or --udp");
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (service, address) in settings.http {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}/tcp"))?;
        let identity = Arc::new(echo::Identity {
            app: settings.name.clone(),
            service,
        });
        tasks.spawn(accept(listener, identity));
    }
    for address in settings.udp {
        let socket = UdpSocket::bind(address)
            .await
            .with_context(|| format!("listening on {address}/udp"))?;
        tasks.spawn(echo_datagrams(socket, settings.name.clone()));
    }
    println!("{} is listening", settings.name);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, identity: Arc<echo::Identity>) -> Result<()> {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer left the queue: neither is a reason to stop serving.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let identity = identity.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let identity = identity.clone();
                async move { Ok::<_, Infallible>(answer(&identity, peer, request).await) }
            });
            // A connection that ends badly is the client's affair; what it was told is in the client's log.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(
    identity: &echo::Identity,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let number = |name: &str| {
        parameter(request.uri().query(), name).and_then(|value| value.parse::<u64>().ok())
    };
    match request.uri().path() {
        "/health" => text(StatusCode::OK, "ok\n"),
        "/ws" if websocket::is_handshake(&request) => websocket::accept(request),
        "/ws" => text(
            StatusCode::UPGRADE_REQUIRED,
            "a WebSocket handshake is expected here\n",
        ),
        "/bytes" => {
            Response::new(bytes::Pattern::new(number("n").unwrap_or(0).min(MOST_BYTES)).boxed())
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number("ms").unwrap_or(0)).min(SLOWEST)).await;
            echo::seen(identity, peer, StatusCode::OK, request).await
        }
        "/status" => {
            let code = number("code")
                .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
            echo::seen(identity, peer, code.unwrap_or(StatusCode::OK), request).await
        }
        _ => echo::seen(identity, peer, StatusCode::OK, request).await,
    }
}

/// The value of `name` in a query string; nothing is decoded, the application's parameters are numbers.
fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}

/// Sends every datagram back with the application's name in front: `app-1 <payload>`.
async fn echo_datagrams(socket: UdpSocket, name: String) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        // ICMP errors of earlier replies surface here; they concern a client that went away.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let reply = [name.as_bytes(), b" ", &buffer[..length]].concat();
        let _ = socket.send_to(&reply, from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        assert_eq!(parameter(Some("a=1&ms=20"), "ms"), Some("20"));
        assert_eq!(parameter(Some("xms=20"), "ms"), None);
        assert_eq!(parameter(None, "ms"), None);
    }

    #[test]
    fn a_listener_needs_a_service_and_an_address() {
        assert_eq!(
            parse_listener("shop=127.0.0.1:80"),
            Ok(("shop".into(), ([127, 0, 0, 1], 80).into()))
        );
        assert!(parse_listener("127.0.0.1:80").is_err());
        assert!(parse_listener("shop=localhost").is_err());
    }
}
