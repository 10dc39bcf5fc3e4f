//! One backend as the workers see it: where it is, how much it takes, and what is known about it, in atomics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Whether a backend may get new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes requests.
    Up,
    /// Failed its health checks: takes none.
    Down,
}

impl State {
    /// The word in `/status` and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
        }
    }
}

/// A backend of an upstream, shared by every worker and kept across reloads for as long as its upstream names its address.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    /// The same in text.
    name: Box<str>,
    state: AtomicU8,
    active: Padded<AtomicU32>,
}

impl Backend {
    /// A backend without requests under way.
    pub fn new(address: SocketAddr, state: State) -> Backend {
        Backend {
            address,
            name: address.to_string().into(),
            state: AtomicU8::new(state as u8),
            active: Padded(AtomicU32::new(0)),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same in text, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known about it now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Up,
            _ => State::Down,
        }
    }

    /// Sets the state; true when it differs from the one before.
    pub fn set_state(&self, state: State) -> bool {
        self.state.swap(state as u8, Ordering::Relaxed) != state as u8
    }

    /// Requests under way to it, from all workers.
    pub fn active(&self) -> u32 {
        self.active.0.load(Ordering::Relaxed)
    }

    /// Counts a request as under way until the returned guard is dropped. Hold it until the response body has ended.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.active.0.fetch_add(1, Ordering::Relaxed);
        InFlight {
            backend: Arc::clone(self),
        }
    }
}

/// A request under way to a backend; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
}

impl InFlight {
    /// The backend the request went to.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.backend.active.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more requests ended than began");
    }
}

/// Keeps a counter written by every worker away from the fields they only read: two lines, because x86 prefetches them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);
