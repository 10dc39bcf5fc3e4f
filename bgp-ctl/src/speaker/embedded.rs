//! The speaker inside this process: one actor per neighbour, and a listener if the configuration wants one.

use std::net::Ipv4Addr;
use std::time::Duration;

use actix::{Actor, Addr};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::Speaker;
use crate::actors::listener;
use crate::actors::neighbour::{Announce, Neighbour, Stop, Withdraw};
use crate::config::BgpSection;
use crate::route::Attributes;
use crate::status::StatusBoard;

/// A neighbour that doesn't take our leave in this time is left without.
const LEAVE: Duration = Duration::from_secs(3);

/// Speaks BGP from this process.
#[derive(Debug)]
pub struct Embedded {
    neighbours: Vec<Addr<Neighbour>>,
    listener: Option<listener::Listener>,
}

impl Embedded {
    /// Starts a session to every neighbour of `section`, in the current actix system. States go to `status`.
    pub fn start(section: &BgpSection, status: &StatusBoard) -> Self {
        let actors: Vec<(Ipv4Addr, Addr<Neighbour>)> = section
            .neighbours
            .iter()
            .map(|settings| {
                (
                    settings.address,
                    Neighbour::new(section, settings.clone(), status.clone()).start(),
                )
            })
            .collect();
        let listener = section.listen.map(|address| {
            listener::Listener::start(address, section.neighbours.clone(), actors.clone())
        });
        Self {
            neighbours: actors.into_iter().map(|(_, actor)| actor).collect(),
            listener,
        }
    }
}

impl Speaker for Embedded {
    fn announce(&mut self, vip: Ipv4Addr, attributes: &Attributes) {
        for neighbour in &self.neighbours {
            neighbour.do_send(Announce {
                vip,
                attributes: attributes.clone(),
            });
        }
    }

    fn withdraw(&mut self, vip: Ipv4Addr) {
        for neighbour in &self.neighbours {
            neighbour.do_send(Withdraw { vip });
        }
    }

    fn shutdown(&mut self, text: &str) -> BoxFuture<'static, ()> {
        self.listener = None;
        let left: Vec<_> = self
            .neighbours
            .iter()
            .map(|neighbour| {
                neighbour.send(Stop {
                    text: text.to_owned(),
                })
            })
            .collect();
        async move {
            if tokio::time::timeout(LEAVE, join_all(left)).await.is_err() {
                tracing::warn!("a neighbour did not take our leave within {LEAVE:?}");
            }
        }
        .boxed()
    }
}
