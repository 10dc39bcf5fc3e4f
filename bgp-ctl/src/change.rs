//! What becomes of the sessions when the configuration changes. Pure.

use crate::config::{BgpSection, NeighbourSettings};
use crate::session::State;
use crate::status::Status;

/// What becomes of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// It goes on as it is.
    Same,
    /// It goes on, and tells the router its routes once more if what it sends with them is another.
    Told,
    /// It ends and begins anew, as these keys can't change in a running one.
    Restarted(Vec<&'static str>),
}

impl Becomes {
    /// Of the session to a router whose settings were `before`.
    pub(crate) fn of(before: &NeighbourSettings, after: &NeighbourSettings) -> Becomes {
        let NeighbourSettings {
            address: _,
            port,
            remote_as,
            local_address,
            password,
            hold_time,
            connect_retry,
            connect_retry_max,
            connect_timeout,
            ttl,
            passive,
            next_hop,
            med,
            local_pref,
            communities,
        } = after;
        let restarts = [
            ("port", *port == before.port),
            ("remote_as", *remote_as == before.remote_as),
            ("local_address", *local_address == before.local_address),
            ("password", *password == before.password),
            ("hold_time", *hold_time == before.hold_time),
            ("ttl", *ttl == before.ttl),
            ("passive", *passive == before.passive),
        ];
        let keys: Vec<_> = restarts
            .into_iter()
            .filter_map(|(key, same)| (!same).then_some(key))
            .collect();
        let same = *connect_retry == before.connect_retry
            && *connect_retry_max == before.connect_retry_max
            && *connect_timeout == before.connect_timeout
            && *next_hop == before.next_hop
            && *med == before.med
            && *local_pref == before.local_pref
            && *communities == before.communities;
        match (keys.is_empty(), same) {
            (false, _) => Becomes::Restarted(keys),
            (true, false) => Becomes::Told,
            (true, true) => Becomes::Same,
        }
    }
}

/// Which sessions that are up would end, and which VIPs would be withdrawn as no network of `allowed` has them any more.
pub(crate) fn ends(before: &BgpSection, after: &BgpSection, status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for neighbour in &before.neighbours {
        let address = neighbour.address;
        let is_up = |status: &Status| {
            let neighbour = status.neighbours.get(&address);
            neighbour.is_some_and(|neighbour| neighbour.state == State::Established)
        };
        if !is_up(status) {
            continue;
        }
        let next = after.neighbours.iter().find(|next| next.address == address);
        match next.map(|next| Becomes::of(neighbour, next)) {
            None => lines.push(format!(
                "the BGP session to {address}: it is no longer configured"
            )),
            Some(Becomes::Restarted(keys)) => lines.push(format!(
                "the BGP session to {address}: it begins anew, as {} can't change in a running one",
                keys.join(", ")
            )),
            Some(Becomes::Same | Becomes::Told) => {}
        }
    }
    for vip in status.vips.keys() {
        if before.allows(*vip) && !after.allows(*vip) {
            lines.push(format!(
                "the announcement of {vip}: it is in no network of bgp.allowed"
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;
    use crate::session::Counts;
    use crate::status::{NeighbourStatus, VipStatus};

    const ONE: &str = "[bgp]\nlocal_as = 65010\nrouter_id = \"10.0.0.1\"\n\
         [[bgp.neighbours]]\naddress = \"10.0.0.2\"\nremote_as = 65001\n";

    fn section(text: &str) -> BgpSection {
        let document = Document::from_toml("bgp.toml", text).unwrap();
        document.parse(BgpSection::parse).unwrap()
    }

    #[test]
    fn only_what_a_running_session_cannot_change_ends_it() {
        let with = |key: &str| {
            let (before, after) = (section(ONE), section(&format!("{ONE}{key}\n")));
            Becomes::of(&before.neighbours[0], &after.neighbours[0])
        };
        assert_eq!(with(""), Becomes::Same);
        for key in [
            "med = 5",
            "local_pref = 5",
            "communities = [\"65010:1\"]",
            "next_hop = \"10.0.0.9\"",
            "connect_retry = \"3s\"",
            "connect_retry_max = \"3s\"",
            "connect_timeout = \"3s\"",
        ] {
            assert_eq!(with(key), Becomes::Told, "{key}");
        }
        for key in [
            "hold_time = \"30s\"",
            "password = \"x\"",
            "port = 1179",
            "local_address = \"10.0.0.9\"",
            "ttl = 3",
        ] {
            let name = key.split(' ').next().unwrap();
            assert_eq!(with(key), Becomes::Restarted(vec![name]));
        }
    }

    #[test]
    fn a_plan_names_the_sessions_that_end_and_the_vips_that_go() {
        let before = section(ONE);
        let neighbour = NeighbourStatus {
            remote_as: 65001,
            state: State::Established,
            since_unix_ms: 0,
            router_id: None,
            hold_time: Some(9),
            last_error: None,
            advertised: Vec::new(),
            counts: Counts::default(),
            awaited_until: None,
        };
        let mut status = Status::default();
        status
            .neighbours
            .insert([10, 0, 0, 2].into(), neighbour.clone());
        let vip = VipStatus {
            state: shared::bus::VipState::Announced,
            why: String::new(),
            since_unix_ms: 0,
            force: None,
            operator: None,
        };
        status.vips.insert([10, 0, 0, 100].into(), vip);
        let ends = |after: &str, status: &Status| ends(&before, &section(after), status);
        assert_eq!(ends(ONE, &status), [""; 0]);
        assert_eq!(ends(&format!("{ONE}med = 5"), &status), [""; 0]);
        assert_eq!(
            ends(&format!("{ONE}hold_time = \"30s\"\nttl = 2"), &status),
            [
                "the BGP session to 10.0.0.2: it begins anew, as hold_time, ttl can't change in a running one"
            ]
        );
        assert_eq!(
            ends(
                &ONE.replace("\"10.0.0.2\"", "\"10.0.0.3\"")
                    .replace("router_id", "allowed = [\"10.9.0.0/16\"]\nrouter_id"),
                &status
            ),
            [
                "the BGP session to 10.0.0.2: it is no longer configured",
                "the announcement of 10.0.0.100: it is in no network of bgp.allowed"
            ]
        );
        let idle = NeighbourStatus {
            state: State::Idle,
            ..neighbour
        };
        status.neighbours.insert([10, 0, 0, 2].into(), idle);
        assert_eq!(ends(&ONE.replace(".2\"", ".3\""), &status), [""; 0]);
    }
}
