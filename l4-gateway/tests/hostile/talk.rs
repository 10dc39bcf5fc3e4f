//! Connections that exchange data for as long as something else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::lab::dual::{Client, Family};
use crate::lab::{Lab, pattern};

/// Longer than any wait for a repetition in a network that loses much.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pause between exchanges, as the machine is to have time for others.
const PAUSE: Duration = Duration::from_millis(5);

/// Two connections of each family, open already.
pub(crate) struct Talk {
    over: Arc<AtomicBool>,
    connections: Vec<JoinHandle<u64>>,
}

impl Talk {
    /// One connection of each family to each of these ports.
    pub(crate) fn begin(lab: &Lab, ports: [u16; 2]) -> Talk {
        let over = Arc::new(AtomicBool::new(false));
        let [first, second] = ports;
        let connections = [
            (Family::V4, first),
            (Family::V6, first),
            (Family::V4, second),
            (Family::V6, second),
        ];
        let connections = connections.map(|(family, port)| {
            let over = over.clone();
            let (open, opened) = mpsc::channel();
            let connection = lab.client().spawn(move || {
                let mut echo = family.connect(Client::Near, port).expect("a connection");
                echo.stream.set_read_timeout(Some(PATIENCE)).unwrap();
                echo.exchange(&pattern(2_000, 0));
                open.send(()).unwrap();
                let mut exchanges = 0;
                while !over.load(Ordering::Relaxed) {
                    exchanges += 1;
                    echo.exchange(&pattern(2_000, exchanges));
                    sleep(PAUSE);
                }
                exchanges
            });
            opened.recv().expect("a connection");
            connection
        });
        Talk {
            over,
            connections: connections.into(),
        }
    }

    /// Ends it; how often each connection exchanged data, all of it unharmed.
    pub(crate) fn end(self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        let joined = self.connections.into_iter().map(JoinHandle::join);
        joined
            .map(|talk| talk.expect("data came back unharmed"))
            .collect()
    }
}
