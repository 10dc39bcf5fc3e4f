//! What a service grants to whom: access lists, limits, persistence, and how its targets come and go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Access, AccessError, AccessRule, FlowLimits, Persistence, PersistenceGroup, Policy, Protocol,
    Quota, Refusal, Scheduler, SourcePrefix,
};
use shared::config::{Cidr, FromValue, Table, Value};

use super::services::of_no_effect;

/// Prefixes in the access lists of one service.
const MOST_PREFIXES: usize = 100_000;

const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000_000;
const PER_SECOND: RangeInclusive<u32> = 1..=10_000_000;
const PERSISTENCE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const CUT_AFTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);

/// [`cut_down_after`] of TCP services by default.
const CUT_TCP_AFTER: Duration = Duration::from_secs(5 * 60);

const REFUSALS: [(&str, Refusal); 2] = [("rst", Refusal::Reset), ("drop", Refusal::Drop)];

/// What a service grants.
pub(super) fn parse(
    table: &mut Table<'_>,
    vip: Option<IpAddr>,
    protocol: Option<Protocol>,
    scheduler: Scheduler,
    group: Option<&str>,
) -> Policy {
    let defaults = Policy::default();
    let access = access(table);
    let persistence = table
        .table("persistence")
        .and_then(|mut table| persistence(&mut table, vip, group));
    // With TCP it is a mistake already, whatever it says.
    let one_packet = table.or("one_packet", false) && protocol != Some(Protocol::Tcp);
    if one_packet && persistence.is_some() {
        table.mistake(
            "one_packet",
            "persistence keeps a client's datagrams together, one_packet takes them apart",
            "choose one",
        );
    }
    let goes_by_flows = matches!(
        scheduler,
        Scheduler::LeastConnections | Scheduler::WeightedLeastConnections
    );
    if one_packet && goes_by_flows {
        table.mistake(
            "one_packet",
            "this scheduler goes by connections, and single datagrams are none",
            "take rr for lc, wrr for wlc",
        );
    }
    Policy {
        access,
        on_denied: table.one_of_or("on_denied", &REFUSALS, defaults.on_denied),
        limits: table
            .table("limits")
            .map(|mut table| limits(&mut table, vip))
            .unwrap_or_default(),
        on_limit: table.one_of_or("on_limit", &REFUSALS, defaults.on_limit),
        persistence,
        one_packet,
    }
}

/// How long the weight of a target that comes up takes to grow; zero for not at all.
pub(super) fn slow_start(table: &mut Table<'_>, scheduler: Scheduler) -> Duration {
    let time = table.within("slow_start", SLOW_START, Duration::ZERO);
    let weightless = matches!(
        scheduler,
        Scheduler::RoundRobin | Scheduler::LeastConnections
    );
    if !time.is_zero() && weightless {
        table.mistake(
            "slow_start",
            "the weight grows, and this scheduler doesn't ask for it",
            "take wrr for rr, wlc for lc",
        );
    }
    time
}

/// When flows of targets that take no new ones are cut, if ever.
pub(super) fn cut_drained_after(table: &mut Table<'_>) -> Option<Duration> {
    table.optional_within("cut_drained_after", CUT_AFTER)
}

/// When flows of targets that are down are cut, if ever. What a datagram asks for is lost with its target, so that its client is best off
/// with another at once. A TCP connection may outlive a target's absence, and probes may fail where connections work; it is given up after a
/// time in which most of what comes back has come back.
pub(super) fn cut_down_after(
    table: &mut Table<'_>,
    protocol: Option<Protocol>,
) -> Option<Duration> {
    let default = match protocol {
        Some(Protocol::Udp) => Duration::ZERO,
        Some(Protocol::Tcp) | None => CUT_TCP_AFTER,
    };
    let CutAfter(after) = table.or("cut_down_after", CutAfter(Some(default)));
    if let Some(after) = after.filter(|after| !CUT_AFTER.contains(after)) {
        let (least, most) = (CUT_AFTER.start().written(), CUT_AFTER.end().written());
        let message = format!(
            "expected a duration from {least} to {most}, got {:?}",
            after.written()
        );
        table.mistake(
            "cut_down_after",
            message,
            "write \"never\" to leave such flows alone",
        );
    }
    after
}

/// A duration, or `\"never\"`.
struct CutAfter(Option<Duration>);

impl FromValue for CutAfter {
    const EXPECTED: &'static str = "a duration such as \"5m\", or \"never\"";
    const WORD: &'static str = Duration::WORD;

    fn from_value(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("never") => Ok(Self(None)),
            _ => Duration::from_value(value).map(|after| Self(Some(after))),
        }
    }

    fn written(&self) -> String {
        self.0
            .map_or_else(|| "never".to_owned(), |after| after.written())
    }
}

/// `None` without lists, or after recording a mistake.
fn access(table: &mut Table<'_>) -> Option<Arc<Access>> {
    if !table.has("allow") && !table.has("deny") {
        return None;
    }
    let mut rules = Vec::new();
    for (key, allow) in [("allow", true), ("deny", false)] {
        for cidr in table.or(key, Vec::<Cidr>::new()) {
            let (address, prefix) = (cidr.address(), cidr.prefix());
            let whole = SourcePrefix {
                v4: prefix,
                v6: prefix,
            };
            let first = whole.of(address);
            if first != address {
                let message = format!("{cidr} has bits set beyond its length");
                table.mistake(key, message, format!("write {first}/{prefix}"));
            }
            rules.push(AccessRule {
                address,
                prefix,
                allow,
            });
        }
    }
    if rules.len() > MOST_PREFIXES {
        let message = format!("{} prefixes are in this list and the other", rules.len());
        table.mistake("deny", message, format!("{MOST_PREFIXES} at most"));
    }
    let allowed = rules.iter().filter(|rule| rule.allow);
    let allowed: BTreeSet<_> = allowed.map(|rule| (rule.address, rule.prefix)).collect();
    let mut contradicts = |rule: &AccessRule| {
        let AccessRule {
            address, prefix, ..
        } = rule;
        table.mistake(
            "deny",
            format!("{address}/{prefix} is allowed too"),
            "leave it in one of both lists",
        );
    };
    let denied = rules.iter().filter(|rule| !rule.allow);
    let both = denied.filter(|rule| allowed.contains(&(rule.address, rule.prefix)));
    both.for_each(&mut contradicts);
    match Access::new(&rules, allowed.is_empty()) {
        Ok(access) => Some(Arc::new(access)),
        Err(AccessError::Contradiction(rule) | AccessError::TooLong(rule)) => {
            // The same again, which is told once.
            contradicts(&rule);
            None
        }
    }
}

/// The name of the services among which sources stay with one host.
pub(super) fn persistence_group(table: &mut Table<'_>) -> Option<String> {
    let mut table = table.table("persistence")?;
    let group = table.optional::<String>("group");
    group.filter(|group| table.allows_name("group", group, "a persistence group"))
}

fn persistence(
    table: &mut Table<'_>,
    vip: Option<IpAddr>,
    group: Option<&str>,
) -> Option<Persistence> {
    // Asked for first: what is not asked for counts as unknown.
    let prefix = prefix(
        table,
        vip,
        ("prefix_v4", "prefix_v6"),
        SourcePrefix { v4: 32, v6: 128 },
    );
    let timeout = table.required_within("timeout", PERSISTENCE)?;
    let group = vip.zip(group);
    Some(Persistence {
        timeout,
        prefix,
        group: group.map(|(vip, name)| PersistenceGroup::new(vip, name)),
    })
}

fn limits(table: &mut Table<'_>, vip: Option<IpAddr>) -> FlowLimits {
    FlowLimits {
        service: quota(table, "connections", "new_per_second"),
        target: quota(table, "target_connections", "target_new_per_second"),
        source: quota(table, "source_connections", "source_new_per_second"),
        source_prefix: prefix(
            table,
            vip,
            ("source_prefix_v4", "source_prefix_v6"),
            SourcePrefix { v4: 32, v6: 64 },
        ),
    }
}

fn quota(table: &mut Table<'_>, connections: &'static str, per_second: &'static str) -> Quota {
    Quota {
        connections: table.within(connections, CONNECTIONS, 0),
        per_second: table.within(per_second, PER_SECOND, 0),
    }
}

fn prefix(
    table: &mut Table<'_>,
    vip: Option<IpAddr>,
    (v4, v6): (&'static str, &'static str),
    defaults: SourcePrefix,
) -> SourcePrefix {
    match vip {
        Some(IpAddr::V4(_)) => of_no_effect(table, v6, "services with an IPv6 VIP"),
        Some(IpAddr::V6(_)) => of_no_effect(table, v4, "services with an IPv4 VIP"),
        None => {}
    }
    SourcePrefix {
        v4: table.within(v4, 0..=32, defaults.v4),
        v6: table.within(v6, 0..=128, defaults.v6),
    }
}
