//! Services whose clients stay with one host, whichever of them they use: `persistence.group`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use shared::config::Table;

use super::services::ServiceSettings;

type Placed = (usize, ServiceSettings);

/// Records a mistake where services of one group don't fit together. Whether there is none.
pub(super) fn fit_together(tables: &mut [Table<'_>], services: &[Placed]) -> bool {
    let mut groups: BTreeMap<&str, Vec<&Placed>> = BTreeMap::new();
    for placed in services {
        if let Some(group) = &placed.1.persistence_group {
            groups.entry(group).or_default().push(placed);
        }
    }
    let mut sound = true;
    for (name, members) in groups {
        let Some((first, others)) = members.split_first() else {
            continue;
        };
        if let Some(table) = tables.get_mut(first.0).filter(|_| others.is_empty())
            && let Some(mut persistence) = table.table("persistence")
        {
            persistence.warning(
                "group",
                format!("{name} is the group of this service alone"),
                "name it in the persistence of the others, or leave it out",
            );
        }
        for other in others {
            if let Some(table) = tables.get_mut(other.0)
                && let Some((key, message, hint)) = misfit(name, first, &other.1)
            {
                sound = false;
                match key {
                    "targets" => table.mistake(key, message, hint),
                    _ => {
                        if let Some(mut persistence) = table.table("persistence") {
                            persistence.mistake(key, message, hint);
                        }
                    }
                }
            }
        }
    }
    sound
}

/// What keeps a service from being in the group of another.
fn misfit(
    name: &str,
    (place, first): &Placed,
    other: &ServiceSettings,
) -> Option<(&'static str, String, &'static str)> {
    if first.vip != other.vip {
        let message = format!("{name} is a group of {}, by services[{place}]", first.vip);
        let hint = "a group is of one VIP: give that of another VIP a name of its own";
        return Some(("group", message, hint));
    }
    if first.policy.persistence != other.policy.persistence {
        let message = format!("timeout or prefix differ from those of services[{place}]");
        let hint = "the services of a group have the same";
        return Some(("group", message, hint));
    }
    let hosts = |service: &ServiceSettings| -> BTreeSet<IpAddr> {
        let targets = service.targets.iter();
        targets.map(|target| target.address.ip()).collect()
    };
    let (hosts, others) = (hosts(first), hosts(other));
    let differing = hosts.symmetric_difference(&others).next();
    let registers = first.from_registrations || other.from_registrations;
    let host = differing.filter(|_| !registers)?;
    let message = match hosts.contains(host) {
        true => format!("{host} is a target of services[{place}], and not of this service"),
        false => format!("{host} is no target of services[{place}]"),
    };
    let hint =
        "the services of a persistence group have targets on the same hosts, whatever their ports";
    Some(("targets", message, hint))
}
