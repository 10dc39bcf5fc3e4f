//! The client side, for subcommands and tests.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Time for a connection to be made.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Time for an answer to be complete; a drain may take its time.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not for us.
    #[error(
        "can't connect to the admin listener at {0}: {1} (is the process running? is --admin or admin.listen right?)"
    )]
    Connect(SocketAddr, String),
    /// The connection broke, or what came was not HTTP.
    #[error("no answer from the admin listener at {0}: {1}")]
    Broken(SocketAddr, String),
    /// The process answered that it did not do it.
    #[error("{1} (HTTP {0})")]
    Refused(u16, String),
}

/// Reads a page such as `/status`.
///
/// # Errors
/// If there is no answer, or one other than 200.
pub async fn get(addr: SocketAddr, path: &str) -> Result<String, ClientError> {
    request(addr, Method::GET, path, Bytes::new()).await
}

/// Carries out a command such as `drain`.
///
/// # Errors
/// If there is no answer, or one other than 200.
pub async fn command(addr: SocketAddr, name: &str, args: &Value) -> Result<Value, ClientError> {
    let body = Bytes::from(args.to_string());
    let answer = request(addr, Method::POST, &format!("/command/{name}"), body).await?;
    serde_json::from_str(&answer).map_err(|error| ClientError::Broken(addr, error.to_string()))
}

/// Begins a command that answers over time; `piece` takes the bytes as they come and says whether there should be more. Returns when the answer
/// ends, `piece` wants no more, or `stop` completes.
///
/// # Errors
/// If there is no answer, one other than 200, or the connection breaks.
pub async fn stream(
    addr: SocketAddr,
    name: &str,
    args: &Value,
    stop: impl Future<Output = ()>,
    mut piece: impl FnMut(Bytes) -> bool,
) -> Result<(), ClientError> {
    let broken = |why: String| ClientError::Broken(addr, why);
    let stream = connect(addr).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    // It ends with the answer, or when both ends of it are dropped below.
    let connection = AbortOnDrop(tokio::spawn(async move {
        let _broken_connections_are_seen_by_the_reader = connection.await;
    }));
    let request = build(
        addr,
        Method::POST,
        &format!("/command/{name}"),
        args.to_string().into(),
    );
    let request = request.map_err(broken)?;
    let answer = timeout(CONNECT_TIME, sender.send_request(request)).await;
    let answer = answer
        .map_err(|_| broken(format!("no answer within {CONNECT_TIME:?}")))?
        .map_err(|error| broken(error.to_string()))?;
    let status = answer.status();
    let mut body = answer.into_body();
    if status != StatusCode::OK {
        let text = Limited::new(body, MAX_ANSWER).collect().await;
        let text = text.map_err(|error| broken(error.to_string()))?.to_bytes();
        return Err(ClientError::Refused(
            status.as_u16(),
            reason(&String::from_utf8_lossy(&text)),
        ));
    }
    tokio::pin!(stop);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut stop => break,
        };
        match frame {
            None => break,
            Some(Err(error)) => return Err(broken(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && !piece(bytes)
                {
                    break;
                }
            }
        }
    }
    drop(connection);
    Ok(())
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, ClientError> {
    match timeout(CONNECT_TIME, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(ClientError::Connect(addr, error.to_string())),
        Err(_) => Err(ClientError::Connect(
            addr,
            format!("no answer within {CONNECT_TIME:?}"),
        )),
    }
}

fn build(
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, addr.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|error| error.to_string())
}

async fn request(
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<String, ClientError> {
    let stream = connect(addr).await?;
    match timeout(ANSWER_TIME, exchange(stream, addr, method, path, body)).await {
        Ok(Ok((StatusCode::OK, answer))) => Ok(answer),
        Ok(Ok((status, answer))) => Err(ClientError::Refused(status.as_u16(), reason(&answer))),
        Ok(Err(why)) => Err(ClientError::Broken(addr, why)),
        Err(_) => Err(ClientError::Broken(
            addr,
            format!("not complete within {ANSWER_TIME:?}"),
        )),
    }
}

async fn exchange(
    stream: TcpStream,
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, String), String> {
    let request = build(addr, method, path, body)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        ))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        done = &mut exchange => return done,
        _closed = &mut connection => {}
    }
    // The connection is done once all of the answer is buffered; what is left is to read it.
    exchange.await
}

/// The `error` of a JSON answer, or the answer as it is.
fn reason(answer: &str) -> String {
    let error = serde_json::from_str::<Value>(answer)
        .ok()
        .and_then(|value| Some(value.get("error")?.as_str()?.to_owned()));
    error.unwrap_or_else(|| answer.trim().to_owned())
}
