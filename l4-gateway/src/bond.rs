//! A port made of several devices, of which one is active.
//!
//! DPDK's bonding goes over to another member when its driver reports that a link is lost. Some never do: af_packet's link is always up, and tap says
//! nothing unless asked (22.11). So whoever looks at the links, every 10 ms, has the bond leave a member without one.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::PortConfig;
use crate::devices::{LostInterface, carrier, interface};
use crate::dpdk::{Eal, Interface, Link, Member, Port, StartedPort};
use crate::error::Error;

/// See the module.
pub(crate) struct Bond {
    port: String,
    members: Vec<(Member, Option<Interface>)>,
    /// Whether the last attempt to go over failed; the log has said so then.
    failed: AtomicBool,
}

impl Bond {
    /// The bond of a port that was started.
    ///
    /// # Errors
    /// When a member is not there, or can't be made to take the bond's frames.
    pub(crate) fn of(eal: &Eal, config: &PortConfig) -> Result<Bond, Error> {
        let mut members = Vec::new();
        for device in &config.members {
            let member = Port::open(eal, device)?.into_member(device.name());
            let interface = interface(device)?;
            // The bond gives its MAC address to the first active member only.
            if interface.is_some() {
                member.take_all()?;
            }
            members.push((member, interface));
        }
        Ok(Bond {
            port: config.name.clone(),
            members,
            failed: AtomicBool::new(false),
        })
    }

    /// The members by name, and their links.
    pub(crate) fn links(&self) -> Vec<(String, Link)> {
        let link = |(member, interface): &(Member, Option<Interface>)| {
            let link = carrier(interface.as_ref(), member.link());
            (member.name().to_owned(), link)
        };
        self.members.iter().map(link).collect()
    }

    /// The members' interfaces that were taken from under them.
    pub(crate) fn lost(&self) -> impl Iterator<Item = LostInterface> {
        let interfaces = self.members.iter().filter_map(|(_, of)| of.as_ref());
        interfaces.filter_map(LostInterface::of)
    }

    /// The link of the active member. If it has none, the first one that has becomes the active one.
    pub(crate) fn look(&self, port: &StartedPort) -> Link {
        let link = |(member, interface): &(Member, Option<Interface>)| {
            carrier(interface.as_ref(), member.link())
        };
        let active = self
            .members
            .iter()
            .find(|(member, _)| port.is_active(member));
        let down = Link {
            up: false,
            speed_mbps: None,
        };
        match active.map(link) {
            Some(link) if link.up => return link,
            _ => {}
        }
        let Some(next) = self.members.iter().find(|member| link(member).up) else {
            return down;
        };
        match port.activate(&next.0) {
            Ok(()) if port.is_active(&next.0) => {
                self.failed.store(false, Ordering::Relaxed);
                tracing::warn!(
                    port = self.port,
                    member = next.0.name(),
                    "bond: frames go by this member now"
                );
                link(next)
            }
            // The bond itself thinks that it has no link.
            result => {
                if !self.failed.swap(true, Ordering::Relaxed) {
                    let why = result.map_or_else(|error| error.to_string(), |()| "refused".into());
                    tracing::error!(
                        port = self.port,
                        member = next.0.name(),
                        why,
                        "bond: can't go over"
                    );
                }
                down
            }
        }
    }
}
