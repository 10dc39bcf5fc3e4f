//! The small sections: `[[registrations]]`, `[forwarding]`, `[access_log]`, `[drain]`.

use crate::http::{Forwarding, Via};
use crate::observe::access_log::{self, Access, Destination, Format, Group};
use nix::unistd;
use shared::config::{Cidr, FromValue, Table, Value};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What `Via` calls this gateway where the configuration says nothing.
const PSEUDONYM: &str = "weir";

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
            let what = format!("{service} at {address}");
            table.called(&what);
            places.push((format!("{}.address", table.path()), what));
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

/// `[forwarding]`: without it, nobody is believed and `Via` says `weir`.
pub(super) fn parse_forwarding(root: &mut Table<'_>) -> Forwarding {
    let Some(mut table) = root.table("forwarding") else {
        return Forwarding::default().with_via(Via::named(PSEUDONYM));
    };
    let trusted = table.or::<Vec<Cidr>>("trusted", Vec::new());
    let pseudonym = table.or("via", PSEUDONYM.to_owned());
    let via = Via::named(&pseudonym);
    if via.is_none() {
        table.mistake(
            "via",
            format!("{pseudonym:?} is no pseudonym"),
            "write 1 to 64 letters, digits, dots or dashes, or \"off\"",
        );
    }
    Forwarding::trusting(trusted).with_via(via.filter(|_| pseudonym != "off"))
}

/// `[access_log]`: without it, JSON lines on standard error; `path = "off"` switches it off.
pub(super) fn parse_access_log(root: &mut Table<'_>) -> Option<access_log::Settings> {
    let mut format = Format::default();
    let mut path = None;
    let mut access = Access::default();
    if let Some(mut table) = root.table("access_log") {
        format = table.one_of_or("format", Format::NAMES, format);
        path = table.optional::<PathBuf>("path");
        access.mode = table.optional::<FileMode>("mode").map(|mode| mode.0);
        access.group = table
            .optional::<GroupId>("group")
            .map(|id| Group::new(id.0, table.place("group")));
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
        access,
    })
}

/// Permissions of a file, as chmod(1) takes them.
struct FileMode(u32);

impl FromValue for FileMode {
    const EXPECTED: &'static str = "permissions such as \"0640\"";

    fn from_value(value: &Value) -> Result<FileMode, String> {
        let Value::String(text) = value else {
            return Err("write it as text: \"0640\"".to_owned());
        };
        let mode = match text.len() {
            3 | 4 => u32::from_str_radix(text, 8).map_err(|_| String::new())?,
            _ => return Err(String::new()),
        };
        match mode {
            _ if mode & !0o666 != 0 => Err("a log is read and written, not executed".to_owned()),
            _ if mode & 0o600 != 0o600 => {
                Err("its owner must read and write it: 0600 and more".to_owned())
            }
            _ => Ok(FileMode(mode)),
        }
    }
}

/// A group of this machine, by its id.
struct GroupId(u32);

impl FromValue for GroupId {
    const EXPECTED: &'static str = "a group of this machine, by name or number";

    fn from_value(value: &Value) -> Result<GroupId, String> {
        match value {
            // The highest number means "leave it" to chown(2).
            Value::Integer(id) => match u32::try_from(*id) {
                Ok(u32::MAX) | Err(_) => Err("numbers go from 0 to 4294967294".to_owned()),
                Ok(id) => Ok(GroupId(id)),
            },
            Value::String(name) => match unistd::Group::from_name(name) {
                Ok(Some(group)) => Ok(GroupId(group.gid.as_raw())),
                Ok(None) if name.parse::<u32>().is_ok() => {
                    Err(format!("write {name}, without quotes"))
                }
                Ok(None) => Err("there is no such group: see `getent group`".to_owned()),
                Err(error) => Err(format!("it can't be looked up: {error}")),
            },
            _ => Err(String::new()),
        }
    }
}

/// How a drain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From the start of the drain until listeners close: time for the L4 tier to stop sending new connections.
    pub grace: Duration,
    /// From the start of the drain until connections that are still open are cut.
    pub deadline: Duration,
    /// From an upgrade until connections that still hold on to the old process are cut. At least as long as `deadline`.
    pub upgrade_deadline: Duration,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            grace: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
            upgrade_deadline: Duration::from_secs(3600),
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
        let deadline = table.within("deadline", times.clone(), defaults.deadline.max(grace));
        let upgrade_deadline = table.within(
            "upgrade_deadline",
            times,
            defaults.upgrade_deadline.max(deadline),
        );
        if upgrade_deadline < deadline {
            let message = format!(
                "{} is shorter than the deadline of {}",
                upgrade_deadline.written(),
                deadline.written()
            );
            table.mistake(
                "upgrade_deadline",
                message,
                "after an upgrade nobody waits for the connections that are left: give them at least as long",
            );
        }
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
        Drain {
            grace,
            deadline,
            upgrade_deadline,
        }
    }
}
