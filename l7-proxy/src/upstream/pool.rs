//! One worker's connections to backends.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{Link, Standing};
use super::{Idle, KeepAlive, Upstream};

/// What makes two connections alike: either may carry any request meant for the other. What they are opened with (TLS, the protocol spoken)
/// belongs in here as it comes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Likeness {
    /// Upstreams don't share connections: how many are kept idle, and for how long, is each upstream's own.
    upstream: Arc<str>,
    address: SocketAddr,
}

impl Likeness {
    /// Of the connections of an upstream to the backend at an address.
    pub(crate) fn new(upstream: &Upstream, address: SocketAddr) -> Likeness {
        Likeness {
            upstream: upstream.name.clone(),
            address,
        }
    }
}

/// All of a worker's idle connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    shelves: RefCell<HashMap<Likeness, Rc<Shelf>>>,
}

impl Pool {
    /// Where connections of a likeness are kept from now on, and how. A generation asks once for each of its backends; what is kept already
    /// stays as far as the new settings let it.
    pub(crate) fn shelf(&self, likeness: Likeness, keep: KeepAlive) -> Rc<Shelf> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = shelves.entry(likeness).or_default();
        shelf.keep.set(keep);
        shelf.clone()
    }

    /// Closes idle connections of all backends but those of `current`, and takes none of them back: no later request will ask for them.
    pub(crate) fn retain(&self, current: &[Rc<Shelf>]) {
        let current: HashSet<*const Shelf> = current.iter().map(Rc::as_ptr).collect();
        self.shelves.borrow_mut().retain(|_, shelf| {
            let stays = current.contains(&Rc::as_ptr(shelf));
            if !stays {
                shelf.keep.set(KeepAlive {
                    idle: 0,
                    ..shelf.keep.get()
                });
                shelf.idle.take();
            }
            stays
        });
    }

    /// Closes connections that lay idle for too long. Call it about once a second.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        for shelf in self.shelves.borrow().values() {
            shelf
                .idle
                .borrow_mut()
                .expire(now, shelf.keep.get(), Link::is_usable);
        }
    }
}

/// Idle connections that are alike.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    keep: Cell<KeepAlive>,
    idle: RefCell<Idle<Link>>,
}

impl Shelf {
    /// The connection used last, if there is one.
    pub(crate) fn take(&self, now: Instant) -> Option<Link> {
        let mut link = self
            .idle
            .borrow_mut()
            .take(now, self.keep.get(), Link::is_usable)?;
        link.reused = true;
        Some(link)
    }

    fn put(&self, mut link: Link) {
        link.rest();
        let born = link.born;
        self.idle
            .borrow_mut()
            .put(link, born, Instant::now(), self.keep.get());
    }
}

/// A connection carrying a request. [`Lease::finish`] returns it to its shelf; dropping it closes the connection, because what is left
/// of the response can't be told from the next one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) shelf: Rc<Shelf>,
    pub(crate) link: Link,
}

impl Lease {
    /// The response is complete: the connection may carry another request as soon as the request body is through, too. `pause` is the longest that the
    /// backend may take nothing of it.
    pub(crate) fn finish(self, pause: Duration) {
        let Lease { shelf, mut link } = self;
        match link.standing() {
            Standing::Free => shelf.put(link),
            Standing::Over => {}
            Standing::Busy => {
                actix_rt::spawn(async move {
                    if link.is_free(pause).await {
                        shelf.put(link);
                    }
                });
            }
        }
    }
}
