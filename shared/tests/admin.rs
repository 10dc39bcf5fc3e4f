//! The admin listener through real sockets: pages, commands, and clients that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use shared::admin::client::{self, ClientError};
use shared::admin::{Admin, CommandError, serve};
use shared::telemetry::{MetricsHandle, init_metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

#[derive(Default)]
struct Tier {
    draining: AtomicBool,
    refreshed: AtomicBool,
}

impl Admin for Tier {
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            Err("draining".into())
        } else {
            Ok(())
        }
    }

    fn status(&self) -> Value {
        json!({ "draining": self.draining.load(Ordering::Relaxed) })
    }

    fn command(&self, name: &str, args: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        let answer = match name {
            "drain" | "undrain" => {
                self.draining.store(name == "drain", Ordering::Relaxed);
                Ok(json!({ "args": args }))
            }
            "slow" => {
                return sleep(Duration::from_millis(300))
                    .map(|()| Ok(json!("done")))
                    .boxed();
            }
            "refuse" => Err(CommandError::Refused("not now".into())),
            "fail" => Err(CommandError::Failed("broken".into())),
            "invalid" => Err(CommandError::Invalid("what?".into())),
            _ => Err(CommandError::Unknown),
        };
        std::future::ready(answer).boxed()
    }

    fn refresh_metrics(&self) {
        self.refreshed.store(true, Ordering::Relaxed);
        metrics::gauge!("weir_test_refreshed").set(1.0);
    }
}

fn recorder() -> MetricsHandle {
    static HANDLE: OnceLock<MetricsHandle> = OnceLock::new();
    HANDLE.get_or_init(|| init_metrics().unwrap()).clone()
}

struct Running {
    addr: SocketAddr,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(
        listener,
        recorder(),
        Arc::new(Tier::default()),
        async {
            let _dropped = stopped.await;
        },
    ));
    Running {
        addr,
        shutdown,
        server,
    }
}

/// Sends bytes as they are and reads to the end.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before it has read everything.
    let _sent = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _reset = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("an answer or the end");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn raw_status(addr: SocketAddr, request: &str) -> String {
    raw(addr, request.as_bytes())
        .await
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn the_pages_tell_of_health_readiness_status_and_metrics() {
    let running = start().await;
    assert_eq!(client::get(running.addr, "/healthz").await.unwrap(), "ok\n");
    assert_eq!(
        client::get(running.addr, "/readyz").await.unwrap(),
        "ready\n"
    );
    let status: Value =
        serde_json::from_str(&client::get(running.addr, "/status").await.unwrap()).unwrap();
    assert_eq!(status, json!({ "draining": false }));
    assert!(
        client::get(running.addr, "/metrics")
            .await
            .unwrap()
            .contains("weir_test_refreshed 1")
    );
}

#[tokio::test]
async fn draining_shows_in_readiness_until_undrained() {
    let running = start().await;
    let answer = client::command(running.addr, "drain", &json!({ "by": "test" }))
        .await
        .unwrap();
    assert_eq!(answer, json!({ "args": { "by": "test" } }));
    let refused = client::get(running.addr, "/readyz").await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(503, why) if why == "draining"),
        "{refused}"
    );
    client::command(running.addr, "undrain", &Value::Null)
        .await
        .unwrap();
    client::get(running.addr, "/readyz").await.unwrap();
}

#[tokio::test]
async fn commands_that_fail_say_why() {
    let running = start().await;
    for (name, status, why) in [
        ("refuse", 409, "not now"),
        ("fail", 500, "broken"),
        ("invalid", 400, "what?"),
        ("none", 404, "no such command"),
    ] {
        let error = client::command(running.addr, name, &Value::Null)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(code, text) if *code == status && text == why),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn wrong_paths_methods_and_bodies_are_refused() {
    let running = start().await;
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (line, status) in [
        ("GET /nothing", "HTTP/1.1 404 Not Found"),
        ("GET /", "HTTP/1.1 404 Not Found"),
        ("GET /metrics/../status", "HTTP/1.1 404 Not Found"),
        ("POST /metrics", "HTTP/1.1 405 Method Not Allowed"),
        ("DELETE /status", "HTTP/1.1 405 Method Not Allowed"),
        ("GET /command/drain", "HTTP/1.1 405 Method Not Allowed"),
        ("HEAD /healthz", "HTTP/1.1 200 OK"),
        ("POST /command/drain", "HTTP/1.1 200 OK"),
    ] {
        assert_eq!(
            raw_status(running.addr, &request(line)).await,
            status,
            "{line}"
        );
    }
    assert!(
        raw(running.addr, request("POST /metrics").as_bytes())
            .await
            .contains("allow: GET, HEAD")
    );
    let posted = |body: &str| {
        format!(
            "POST /command/drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(
        raw_status(running.addr, &posted("{\"by\":")).await,
        "HTTP/1.1 400 Bad Request"
    );
    assert_eq!(
        raw_status(running.addr, &posted(&"[".repeat(60_000))).await,
        "HTTP/1.1 400 Bad Request"
    );
    assert_eq!(
        raw_status(running.addr, &posted(&" ".repeat(70_000))).await,
        "HTTP/1.1 413 Payload Too Large"
    );
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_no_other() {
    let running = start().await;
    let huge_header = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many_headers = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X: y\r\n".repeat(5_000)
    );
    let hostile: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /command/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        huge_header.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in hostile {
        let answer = raw(running.addr, bytes).await;
        let refused = answer.is_empty()
            || answer.starts_with("HTTP/1.1 4")
            || answer.starts_with("HTTP/1.0 4");
        assert!(
            refused,
            "{:?} was answered {answer}",
            String::from_utf8_lossy(&bytes[..20.min(bytes.len())])
        );
        assert_eq!(client::get(running.addr, "/healthz").await.unwrap(), "ok\n");
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_cut_off() {
    let running = start().await;
    let mut silent = TcpStream::connect(running.addr).await.unwrap();
    silent
        .write_all(b"GET /healthz HTTP/1.1\r\nHo")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(15), silent.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "still open after 15 s");
}

/// Whether the server has closed this connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_millis(5), stream.read_to_end(&mut rest)).await;
    end.is_ok()
}

#[tokio::test]
async fn connections_are_bounded_and_the_longest_idle_gives_way_to_the_next() {
    let running = start().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        open.push(stream);
    }
    assert_eq!(client::get(running.addr, "/healthz").await.unwrap(), "ok\n");
    sleep(Duration::from_millis(100)).await;
    assert!(is_closed(&mut open[0]).await);
    assert!(!is_closed(&mut open[1]).await);
    assert!(!is_closed(&mut open[63]).await);
}

/// Three hundred of each, more than there are seats by far, and opened again and again; none of them is an operator.
#[tokio::test]
async fn an_operator_gets_in_whoever_else_is_there() {
    let running = start().await;
    let unread = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    let body = "POST /command/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{";
    for sent in ["", "GET /status HTTP/1.1\r\nHo", body, &unread] {
        let mut crowd = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(running.addr).await.unwrap();
            // It may have had to give way.
            let _sent = stream.write_all(sent.as_bytes()).await;
            crowd.push(stream);
        }
        for _ in 0..10 {
            let asked = client::get(running.addr, "/readyz");
            let answer = timeout(Duration::from_secs(2), asked).await;
            assert_eq!(answer.expect("in time").unwrap(), "ready\n", "{sent}");
        }
        // What was closed has been heard of by now.
        sleep(Duration::from_millis(100)).await;
        let mut open = 0;
        for stream in &mut crowd {
            open += usize::from(!is_closed(stream).await);
        }
        assert!(open <= 64, "{open} are open");
    }
}

#[tokio::test]
async fn a_command_that_is_being_carried_out_gives_way_to_nobody() {
    let running = start().await;
    let addr = running.addr;
    let command = tokio::spawn(async move { client::command(addr, "slow", &Value::Null).await });
    sleep(Duration::from_millis(100)).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(addr).await.unwrap());
    }
    assert_eq!(command.await.unwrap().unwrap(), json!("done"));
}

#[tokio::test]
async fn the_shutdown_lets_a_running_request_finish() {
    let running = start().await;
    let request =
        tokio::spawn(async move { client::command(running.addr, "slow", &Value::Null).await });
    sleep(Duration::from_millis(100)).await;
    running.shutdown.send(()).unwrap();
    assert_eq!(request.await.unwrap().unwrap(), json!("done"));
    timeout(Duration::from_secs(3), running.server)
        .await
        .unwrap()
        .unwrap();
    let error = client::get(running.addr, "/healthz").await.unwrap_err();
    assert!(
        error.to_string().contains("is the process running?"),
        "{error}"
    );
}
