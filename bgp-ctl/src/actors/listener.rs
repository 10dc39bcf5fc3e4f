//! Takes connections from neighbours and hands each to its actor; anybody else is turned away.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use actix::Addr;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::neighbour::{Incoming, Neighbour};
use crate::config::NeighbourSettings;
use crate::error::Error;
use crate::network;

/// Between two attempts to listen: an address may appear later than this process.
const RETRY: Duration = Duration::from_secs(2);

/// Who may connect, each with the actor that takes its connections.
pub(crate) type Peers = Vec<(NeighbourSettings, Addr<Neighbour>)>;

/// A running listener; dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct Listener {
    task: JoinHandle<()>,
    peers: watch::Sender<Peers>,
}

impl Listener {
    pub(crate) fn start(address: SocketAddrV4, peers: Peers) -> Self {
        let (peers, mut seen) = watch::channel(peers);
        let task = actix_rt::spawn(async move {
            loop {
                let settings = settings(&seen.borrow_and_update());
                match network::listen(address, &settings).await {
                    Ok(listener) => {
                        if let Err(error) = accept(&listener, settings, &mut seen).await {
                            tracing::error!(%error, "can't listen for other BGP neighbours, beginning anew");
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "can't listen for BGP neighbours, trying again")
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        });
        Self { task, peers }
    }

    /// Others may connect from here on. Connections that are there are not touched.
    pub(crate) fn expect(&self, peers: Peers) {
        self.peers.send_replace(peers);
    }
}

fn settings(peers: &Peers) -> Vec<NeighbourSettings> {
    peers.iter().map(|(settings, _)| settings.clone()).collect()
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes connections for as long as the socket can be had to know the neighbours' passwords; `known` are those it knows.
async fn accept(
    listener: &TcpListener,
    mut known: Vec<NeighbourSettings>,
    peers: &mut watch::Receiver<Peers>,
) -> Result<(), Error> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The sender lives as long as this task.
            Ok(()) = peers.changed() => {
                let wanted = settings(&peers.borrow_and_update());
                network::change_passwords(listener, &known, &wanted).await?;
                known = wanted;
                continue;
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                shared::log_at_most_every!(
                    Duration::from_secs(10),
                    tracing::Level::WARN,
                    "can't accept BGP connections: {error}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let actor = peers
            .borrow()
            .iter()
            .find(|(settings, _)| IpAddr::V4(settings.address) == peer.ip())
            .map(|(_, actor)| actor.clone());
        match actor {
            Some(actor) => actor.do_send(Incoming(stream)),
            None => {
                metrics::counter!("weir_bgp_unknown_neighbours_total").increment(1);
                shared::log_at_most_every!(
                    Duration::from_secs(10),
                    tracing::Level::WARN,
                    "BGP connection from {}, which is no neighbour: closed",
                    peer.ip()
                );
            }
        }
    }
}
