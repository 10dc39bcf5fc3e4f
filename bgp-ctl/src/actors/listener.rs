//! Takes connections from neighbours and hands each to its actor; anybody else is turned away.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use actix::Addr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::neighbour::{Incoming, Neighbour};
use crate::config::NeighbourSettings;
use crate::network;

/// Between two attempts to listen: an address may appear later than this process.
const RETRY: Duration = Duration::from_secs(2);

/// A running listener; dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct Listener(JoinHandle<()>);

impl Listener {
    pub(crate) fn start(
        address: SocketAddrV4,
        settings: Vec<NeighbourSettings>,
        actors: Vec<(Ipv4Addr, Addr<Neighbour>)>,
    ) -> Self {
        Self(actix_rt::spawn(async move {
            loop {
                match network::listen(address, &settings).await {
                    Ok(listener) => accept(&listener, &actors).await,
                    Err(error) => {
                        tracing::error!(%error, "can't listen for BGP neighbours, trying again")
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: &TcpListener, actors: &[(Ipv4Addr, Addr<Neighbour>)]) {
    loop {
        let (stream, peer) = match listener.accept().await {
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
        match actors
            .iter()
            .find(|(address, _)| IpAddr::V4(*address) == peer.ip())
        {
            Some((_, actor)) => actor.do_send(Incoming(stream)),
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
