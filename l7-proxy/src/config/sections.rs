//! The small sections: `[[registrations]]`, `[access_log]`, `[drain]`.

use crate::access_log::{self, Destination, Format};
use shared::config::{Bounded, Table};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A service this node offers itself for as a target of the L4 tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The L4 service's name.
    pub service: String,
    /// The address the L4 tier sends to: one of this node's listeners as others reach it.
    pub address: SocketAddr,
    /// Share of the service relative to other nodes.
    pub weight: u32,
    /// How long the offer holds without being repeated.
    pub ttl: Duration,
}

pub(super) fn parse_registrations(root: &mut Table<'_>) -> Vec<Registration> {
    let mut registrations = Vec::new();
    let mut places = Vec::new();
    for mut table in root.tables("registrations") {
        let service = table.required::<String>("service");
        if let Some(service) = &service {
            table.allows_name("service", service, "a service");
        }
        let address = table.required::<SocketAddr>("address");
        if let Some(address) =
            address.filter(|address| address.ip().is_unspecified() || address.port() == 0)
        {
            let hint = "the address and port other machines reach this node at";
            table.mistake("address", format!("nothing can be sent to {address}"), hint);
        }
        let weight = table.within("weight", 1..=1000, 1);
        let ttl = table.within(
            "ttl",
            Duration::from_secs(1)..=Duration::from_secs(3600),
            Duration::from_secs(10),
        );
        if let (Some(service), Some(address)) = (service, address) {
            places.push((
                format!("{}.address", table.path()),
                format!("{service} at {address}"),
            ));
            registrations.push(Registration {
                service,
                address,
                weight,
                ttl,
            });
        }
    }
    root.unique(
        "registration",
        places
            .iter()
            .map(|(path, what)| (path.clone(), what.as_str())),
    );
    registrations
}

/// `[access_log]`: without it, JSON lines on standard error; `path = "off"` switches it off.
pub(super) fn parse_access_log(root: &mut Table<'_>) -> Option<access_log::Settings> {
    let mut format = Format::default();
    let mut path = None;
    if let Some(mut table) = root.table("access_log") {
        format = table.one_of_or("format", Format::NAMES, format);
        path = table.optional::<PathBuf>("path");
    }
    let destination = match path {
        None => Destination::Stderr,
        Some(path) if path.as_os_str() == "stderr" => Destination::Stderr,
        Some(path) if path.as_os_str() == "off" => return None,
        Some(path) => Destination::File(path),
    };
    Some(access_log::Settings {
        destination,
        format,
    })
}

/// How a drain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From the start of the drain until listeners close: time for the L4 tier to stop sending new connections.
    pub grace: Duration,
    /// From the start of the drain until connections that are still open are cut.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            grace: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
        }
    }
}

impl Drain {
    pub(super) fn parse(root: &mut Table<'_>) -> Drain {
        let defaults = Drain::default();
        let Some(mut table) = root.table("drain") else {
            return defaults;
        };
        let times = Duration::ZERO..=Duration::from_secs(24 * 3600);
        let grace = table.within("grace", times.clone(), defaults.grace);
        let deadline = table.within("deadline", times, defaults.deadline.max(grace));
        if deadline < grace {
            let message = format!(
                "{} is over before the grace of {}",
                deadline.written(),
                grace.written()
            );
            table.mistake(
                "deadline",
                message,
                "both count from the start of the drain: lengthen `deadline`",
            );
        }
        Drain { grace, deadline }
    }
}
