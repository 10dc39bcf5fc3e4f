//! One worker's connections to backends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{Allowance, BackendStream};
use super::{ConnectError, Idle};
use crate::balance::{Backend, Upstream};
use crate::config::KeepAlive;
use crate::serve::RequestBody;

/// Most a connection buffers of a response head, and of what is waiting to be written, in bytes.
const BUFFER: usize = 64 * 1024;

/// Most header fields of a response.
const MAX_HEADERS: usize = 100;

type Sender = SendRequest<RequestBody>;

/// Idle connections by backend.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    backends: RefCell<HashMap<Key, Kept>>,
}

/// A backend of one upstream; the same address in two upstreams has settings of its own. The pointer is that of an `Arc` in the
/// entry, so it can't be reused while the entry lives.
type Key = usize;

#[derive(Debug)]
struct Kept {
    /// Keeps the key from being another backend's.
    _backend: Arc<Backend>,
    keep: KeepAlive,
    idle: Idle<Idling>,
}

/// What is kept of a connection between requests.
#[derive(Debug)]
struct Idling {
    sender: Sender,
    allowance: Allowance,
}

/// A connection that is ready for a request.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: Sender,
    /// What the backend may send before its response head is complete.
    pub(crate) allowance: Allowance,
    /// Whether it carried a request before.
    pub(crate) reused: bool,
    born: Instant,
}

impl Pool {
    /// The idle connection to `backend` used last, if there is one.
    pub(crate) fn take(&self, backend: &Arc<Backend>) -> Option<Link> {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.get_mut(&key(backend))?;
        let keep = kept.keep;
        let (Idling { sender, allowance }, born) =
            kept.idle
                .take(Instant::now(), keep, |idling| idling.sender.is_ready())?;
        Some(Link {
            sender,
            allowance,
            born,
            reused: true,
        })
    }

    /// Opens a connection. Its driver runs as a task of this worker until either side closes.
    pub(crate) async fn connect(
        upstream: &Upstream,
        backend: &Backend,
    ) -> Result<Link, ConnectError> {
        let stream = timeout(
            upstream.settings.connect_timeout,
            TcpStream::connect(backend.address()),
        )
        .await
        .map_err(|_| ConnectError::TimedOut)??;
        stream.set_nodelay(true)?;
        let (stream, allowance) = BackendStream::new(stream);
        let (sender, connection) = Builder::new()
            .max_buf_size(BUFFER)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Failed(std::io::Error::other(error)))?;
        actix_rt::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "backend connection ended");
            }
        });
        Ok(Link {
            sender,
            allowance,
            born: Instant::now(),
            reused: false,
        })
    }

    /// Closes connections that lay idle for too long, and forgets backends without any. Call it about once a second.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.backends.borrow_mut().retain(|_, kept| {
            kept.idle
                .expire(now, kept.keep, |idling| !idling.sender.is_closed());
            !kept.idle.is_empty()
        });
    }

    fn put(&self, backend: Arc<Backend>, keep: KeepAlive, idling: Idling, born: Instant) {
        let mut backends = self.backends.borrow_mut();
        let kept = backends.entry(key(&backend)).or_insert_with(|| Kept {
            _backend: backend,
            keep,
            idle: Idle::default(),
        });
        debug_assert_eq!(
            kept.keep, keep,
            "one backend object has one set of settings"
        );
        kept.idle.put(idling, born, Instant::now(), keep);
    }
}

fn key(backend: &Arc<Backend>) -> Key {
    Arc::as_ptr(backend) as usize
}

/// A connection carrying a request. [`Lease::finish`] returns it to the pool; dropping it closes the connection, because what is left
/// of the response can't be told from the next one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) pool: Rc<Pool>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) keep: KeepAlive,
    pub(crate) link: Link,
}

impl Lease {
    /// The response is complete: the connection may carry another request as soon as the request body is through, too.
    pub(crate) fn finish(self) {
        let Lease {
            pool,
            backend,
            keep,
            link:
                Link {
                    mut sender,
                    allowance,
                    born,
                    ..
                },
        } = self;
        if sender.is_ready() {
            pool.put(backend, keep, Idling { sender, allowance }, born);
        } else if !sender.is_closed() {
            actix_rt::spawn(async move {
                if sender.ready().await.is_ok() {
                    pool.put(backend, keep, Idling { sender, allowance }, born);
                }
            });
        }
    }
}
