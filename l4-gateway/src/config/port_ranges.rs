//! The ports of services as they are written, and what follows where one has several.

use dataplane::{Mode, PortRange, PortRangeError};
use shared::config::{FromValue, Table, Value};

use super::services::{ServiceSettings, StaticTarget};

/// `80`, `"8000-8999"` or `"*"`.
pub(super) struct Written(pub(super) PortRange);

impl FromValue for Written {
    const EXPECTED: &'static str =
        "a port from 1 to 65535, a range such as \"8000-8999\", or \"*\" for all";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(0) => Err("write \"*\" for all ports".to_owned()),
            Value::Integer(port) => {
                let port = u16::try_from(*port).map_err(|_| String::new())?;
                Ok(Self(port.into()))
            }
            Value::String(text) => match text.parse::<PortRange>() {
                Ok(_) if text.parse::<u16>().is_ok() => Err(format!("write {text}, without quotes")),
                Ok(ports) => Ok(Self(ports)),
                Err(PortRangeError::Backwards) => Err("the lower port comes first".to_owned()),
                Err(PortRangeError::NoPorts) if ["any", "all", "0"].contains(&text.as_str()) => {
                    Err("write \"*\" for all ports".to_owned())
                }
                Err(PortRangeError::NoPorts) => Err(String::new()),
            },
            Value::Array(_) => Err(
                "a service has one port, or one range of them — add a [[services]] for each, with the same persistence.group if clients are to \
                 stay with one target"
                    .to_owned(),
            ),
            _ => Err(String::new()),
        }
    }
}

/// Records a mistake at each range that has ports of another one's on the same VIP. Whether there is none.
pub(super) fn dont_overlap(
    tables: &mut [Table<'_>],
    services: &[(usize, ServiceSettings)],
) -> bool {
    let ranges = services
        .iter()
        .filter(|(_, service)| service.ports.single().is_none() && service.ports != PortRange::ALL);
    let mut ranges: Vec<&(usize, ServiceSettings)> = ranges.collect();
    ranges.sort_by_key(|(_, service)| (service.vip, service.protocol, service.ports));
    let mut sound = true;
    // The one that reaches furthest of those before.
    let mut furthest: Option<&(usize, ServiceSettings)> = None;
    for range in ranges {
        let (_, service) = range;
        let same_vip = |(_, before): &&(usize, ServiceSettings)| {
            (before.vip, before.protocol) == (service.vip, service.protocol)
        };
        let Some(before) = furthest.filter(same_vip) else {
            furthest = Some(range);
            continue;
        };
        // Those of the same ports are told as such.
        if before.1.ports.overlaps(service.ports) && before.1.ports != service.ports {
            sound = false;
            let (first, later) = (before.0.min(range.0), before.0.max(range.0));
            let ports = |place| match place == range.0 {
                true => service.ports,
                false => before.1.ports,
            };
            if let Some(table) = tables.get_mut(later) {
                let message = format!(
                    "{} has ports of {}, which services[{first}] has at this VIP",
                    ports(later),
                    ports(first)
                );
                let hint = "make one of them shorter; only a single port, and \"*\", may share ports with a range";
                table.mistake("port", message, hint);
            }
        }
        if service.ports.last() > before.1.ports.last() {
            furthest = Some(range);
        }
    }
    sound
}

/// Records a mistake where registrations make the targets of a service that leaves packets the ports they were sent to: each names one.
pub(super) fn registrations_fit(table: &mut Table<'_>, ports: Option<PortRange>, mode: Mode) {
    if mode != Mode::FullNat && ports.is_some_and(|ports| ports.single().is_none()) {
        table.mistake(
            "from_registrations",
            "a registration names one port, and packets reach these targets at the ports that clients sent them to",
            "list the targets in [[services.targets]]",
        );
    }
}

/// Records a mistake where probes don't know which of a target's ports to ask.
pub(super) fn probes_have_a_port(table: &mut Table<'_>, targets: &[StaticTarget]) {
    let is_open = targets.iter().any(|target| target.address.port() == 0);
    if let Some(mut health) = table.table("health").filter(|_| is_open)
        && !health.has("port")
    {
        health.mistake(
            "port",
            "is missing",
            "name the port of the targets that is probed: the service has several",
        );
    }
}
