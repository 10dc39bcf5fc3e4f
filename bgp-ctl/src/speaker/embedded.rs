//! The speaker inside this process: one actor per neighbour, and a listener if the configuration wants one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use actix::{Actor, Addr};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::Speaker;
use crate::actors::listener::{self, Peers};
use crate::actors::neighbour::{Announce, Neighbour, Reconfigure, Stop, Withdraw};
use crate::change::Becomes;
use crate::config::{BgpSection, NeighbourSettings};
use crate::route::Attributes;
use crate::status::StatusBoard;

/// A neighbour that doesn't take our leave in this time is left without.
const LEAVE: Duration = Duration::from_secs(3);

/// Speaks BGP from this process.
#[derive(Debug)]
pub struct Embedded {
    section: BgpSection,
    status: StatusBoard,
    neighbours: BTreeMap<Ipv4Addr, Addr<Neighbour>>,
    /// What is announced, for neighbours that come later.
    announced: BTreeMap<Ipv4Addr, Attributes>,
    listener: Option<listener::Listener>,
}

impl Embedded {
    /// Starts a session to every neighbour of `section`, in the current actix system. States go to `status`.
    pub fn start(section: &BgpSection, status: &StatusBoard) -> Self {
        let start = |settings: &NeighbourSettings| {
            let neighbour = Neighbour::new(section, settings.clone(), status.clone());
            (settings.address, neighbour.start())
        };
        let neighbours = section.neighbours.iter().map(start).collect();
        let mut speaker = Self {
            section: section.clone(),
            status: status.clone(),
            neighbours,
            announced: BTreeMap::new(),
            listener: None,
        };
        speaker.listener = section
            .listen
            .map(|address| listener::Listener::start(address, speaker.peers()));
        speaker
    }

    /// Who may connect to the listener.
    fn peers(&self) -> Peers {
        let settings = self.section.neighbours.iter();
        settings
            .filter_map(|settings| {
                let actor = self.neighbours.get(&settings.address)?;
                Some((settings.clone(), actor.clone()))
            })
            .collect()
    }

    fn add(&mut self, settings: &NeighbourSettings) {
        let neighbour =
            Neighbour::new(&self.section, settings.clone(), self.status.clone()).start();
        for (vip, attributes) in &self.announced {
            neighbour.do_send(Announce {
                vip: *vip,
                attributes: attributes.clone(),
            });
        }
        self.neighbours.insert(settings.address, neighbour);
    }

    fn remove(&mut self, address: Ipv4Addr) {
        if let Some(neighbour) = self.neighbours.remove(&address) {
            let leaving = neighbour.send(Stop {
                text: "no longer configured".to_owned(),
                forget: true,
            });
            // It ends when it has said farewell, or can't.
            actix_rt::spawn(async move { tokio::time::timeout(LEAVE, leaving).await.is_ok() });
        }
    }
}

impl Speaker for Embedded {
    fn announce(&mut self, vip: Ipv4Addr, attributes: &Attributes) {
        self.announced.insert(vip, attributes.clone());
        for neighbour in self.neighbours.values() {
            neighbour.do_send(Announce {
                vip,
                attributes: attributes.clone(),
            });
        }
    }

    fn withdraw(&mut self, vip: Ipv4Addr) {
        self.announced.remove(&vip);
        for neighbour in self.neighbours.values() {
            neighbour.do_send(Withdraw { vip });
        }
    }

    fn reconfigure(&mut self, section: &BgpSection) {
        let before = std::mem::replace(&mut self.section, section.clone());
        let of = |section: &BgpSection, address| {
            let mut neighbours = section.neighbours.iter();
            neighbours
                .find(|neighbour| neighbour.address == address)
                .cloned()
        };
        for was in &before.neighbours {
            if of(section, was.address).is_none() {
                self.remove(was.address);
            }
        }
        for settings in &section.neighbours {
            match of(&before, settings.address) {
                None => self.add(settings),
                Some(was) => match (
                    Becomes::of(&was, settings),
                    self.neighbours.get(&settings.address),
                ) {
                    (Becomes::Same, _) | (_, None) => {}
                    (becomes, Some(neighbour)) => neighbour.do_send(Reconfigure {
                        section: section.clone(),
                        settings: settings.clone(),
                        becomes,
                    }),
                },
            }
        }
        if let Some(listener) = &self.listener {
            listener.expect(self.peers());
        }
    }

    fn shutdown(&mut self, text: &str) -> BoxFuture<'static, ()> {
        self.listener = None;
        let left: Vec<_> = self
            .neighbours
            .values()
            .map(|neighbour| {
                neighbour.send(Stop {
                    text: text.to_owned(),
                    forget: false,
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
