//! What runs on a worker's thread: an accept loop per listener, a task per connection, housekeeping.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, sleep};
use tokio_rustls::TlsAcceptor;

use super::Open;
use crate::access_log::Buffer;
use crate::drain::Course;
use crate::serve::{Entrance, Permit, Worker, connection};
use crate::snapshot::Snapshot;

const TICK: Duration = Duration::from_secs(1);

/// Pause after an accept that failed for want of descriptors or memory: the first, and the longest.
const BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// Most connections taken from the kernel's queue when the listener closes.
const LAST_ACCEPTS: usize = 4096;

/// Starts the worker on the current thread's runtime.
pub(super) fn start(
    index: usize,
    sockets: Vec<std::net::TcpListener>,
    snapshot: Arc<Snapshot>,
    tls: &[Option<Arc<ServerConfig>>],
    log: Option<Buffer>,
    open: &Open,
    course: watch::Receiver<Course>,
) {
    let worker = Rc::new(Worker::new(index, snapshot.clone(), log, course));
    for (number, (socket, tls)) in sockets.into_iter().zip(tls).enumerate() {
        let acceptor = tls.clone().map(TlsAcceptor::from);
        let Some(entrance) = open
            .0
            .get(number)
            .and_then(|open| Entrance::new(snapshot.clone(), number, acceptor, open.clone()))
        else {
            continue;
        };
        match TcpListener::from_std(socket) {
            Ok(socket) => drop(actix_rt::spawn(accept(
                worker.clone(),
                Rc::new(entrance),
                socket,
            ))),
            Err(error) => {
                tracing::error!(worker = index, %error, "a listener could not be started")
            }
        }
    }
    actix_rt::spawn(async move {
        let mut ticks = interval(TICK);
        loop {
            ticks.tick().await;
            worker.tick();
        }
    });
}

/// Accepts until the node stops accepting. Ends by taking what the kernel has already completed: closing the socket would reset it.
async fn accept(worker: Rc<Worker>, entrance: Rc<Entrance>, socket: TcpListener) {
    let mut course = worker.course.clone();
    let mut back_off = BACK_OFF;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            _ = course.wait_for(|course| !course.accepting()) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF;
                admit(&worker, &entrance, stream, peer);
            }
            Err(error) => {
                let (reason, exhausted) = sort(&error);
                entrance.metrics.accept_error(reason);
                if exhausted {
                    tracing::warn!(listener = entrance.listener().name, %error, pause = ?back_off, "cannot accept");
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(LONGEST_BACK_OFF);
                }
            }
        }
    }
    for _ in 0..LAST_ACCEPTS {
        let next = std::future::poll_fn(|cx| match socket.poll_accept(cx) {
            std::task::Poll::Ready(result) => std::task::Poll::Ready(result.ok()),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        });
        let Some((stream, peer)) = next.await else {
            break;
        };
        admit(&worker, &entrance, stream, peer);
    }
}

fn admit(worker: &Rc<Worker>, entrance: &Rc<Entrance>, stream: TcpStream, peer: SocketAddr) {
    // Over the limit the connection is closed: waiting in the kernel's queue would hide the overload from the client and from us.
    if let Some(permit) = Permit::take(entrance) {
        actix_rt::spawn(connection(
            worker.clone(),
            entrance.clone(),
            stream,
            peer,
            permit,
        ));
    }
}

/// A name for an accept error, and whether trying again at once is pointless.
fn sort(error: &io::Error) -> (&'static str, bool) {
    match error.raw_os_error() {
        Some(24) => ("too_many_files", true),
        Some(23) => ("too_many_files_in_system", true),
        Some(12 | 105) => ("no_memory", true),
        Some(103) => ("aborted", false),
        _ => ("other", true),
    }
}
