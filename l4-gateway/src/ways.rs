//! Whether links and routers leave a way to clients and to targets. Pure.

use std::collections::BTreeSet;

use dataplane::{Living, NextHop, PortIndex, Tables};

/// What there is to go by.
pub(crate) struct Ways<'a> {
    /// The snapshot in force.
    pub(crate) tables: &'a Tables,
    /// The ports' names, in order.
    pub(crate) names: &'a [String],
    /// Why each port's link is down, if it is.
    pub(crate) down: &'a [Option<String>],
    /// Which routers of the snapshot answer.
    pub(crate) living: Living,
}

impl Ways<'_> {
    /// Why the links let no packet through, if so: a dead one alone is no reason while others do its work.
    pub(crate) fn none_by_links(&self) -> Option<String> {
        let ports: BTreeSet<PortIndex> =
            self.tables.ports().iter().map(|port| port.index).collect();
        let to_targets: BTreeSet<PortIndex> =
            self.tables.targets().map(|target| target.port).collect();
        let out = self.tables.ways_out();
        let by_routers: Vec<BTreeSet<PortIndex>> = out
            .iter()
            .filter(|ways| !ways.is_empty())
            .map(|ways| ways.iter().map(|(port, _)| *port).collect())
            .collect();
        // Without routers clients are on the segments: on those without targets, if there are any.
        let others: BTreeSet<PortIndex> = ports.difference(&to_targets).copied().collect();
        let to_clients = match by_routers.is_empty() {
            true => vec![others],
            false => by_routers,
        };
        let groups = [ports, to_targets].into_iter().chain(to_clients);
        let is_down = |port: &PortIndex| !self.is_up(*port);
        let dead = groups
            .filter(|group| !group.is_empty())
            .find(|group| group.iter().all(is_down))?;
        let why = dead.iter().filter_map(|port| self.why_down(*port));
        Some(why.collect::<Vec<_>>().join("; "))
    }

    /// Why no router takes packets to clients, if so.
    pub(crate) fn none_by_routers(&self) -> Option<String> {
        let is_open = |(port, router): &(PortIndex, Option<NextHop>)| {
            self.is_up(*port) && router.is_none_or(|router| self.lives(router))
        };
        let out = self.tables.ways_out();
        let dead = out
            .iter()
            .find(|ways| !ways.is_empty() && !ways.iter().any(is_open))?;
        let routers: Vec<String> = dead
            .iter()
            .filter_map(|(_, router)| *router)
            .map(|router| format!("{} on port {}", router.address, self.name(router.port)))
            .collect();
        Some(match routers.as_slice() {
            [one] => format!("the router towards clients does not answer: {one}"),
            _ => format!("no router towards clients answers: {}", routers.join(", ")),
        })
    }

    fn is_up(&self, port: PortIndex) -> bool {
        self.why_down(port).is_none()
    }

    fn why_down(&self, port: PortIndex) -> Option<&str> {
        self.down.get(usize::from(port.0))?.as_deref()
    }

    fn lives(&self, router: NextHop) -> bool {
        let place = self
            .tables
            .routers()
            .iter()
            .position(|known| *known == router);
        place.is_some_and(|place| self.living.state(place).answers())
    }

    fn name(&self, port: PortIndex) -> &str {
        self.names
            .get(usize::from(port.0))
            .map_or("?", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use dataplane::{
        Counters, Emitted, Ids, Limits, MacAddr, NextHops, Now, Port, Protocol, Secret, Segment,
        ServiceConfig, Sharing, TargetConfig, Worker,
    };

    use super::*;

    /// Ports of the networks 10.0.0.0, 10.1.0.0 ... with these gateways, and a target behind the last.
    fn tables(gateways: &[&[u8]]) -> Tables {
        let mut builder = Tables::builder();
        for (number, gateways) in (0u8..).zip(gateways) {
            let routers = gateways
                .iter()
                .map(|last| Ipv4Addr::new(10, number, 0, *last));
            builder.port(Port {
                index: PortIndex(number.into()),
                mac: MacAddr([2, 0, 0, 0, 0, number]),
                ipv4: Some(Segment {
                    address: Ipv4Addr::new(10, number, 0, 11),
                    prefix: 24,
                    gateways: NextHops::new(routers, Sharing::InOrder).unwrap(),
                }),
                ipv6: None,
                mtu: 1500,
                answers: true,
                announce_every: None,
                hears_kernel: false,
            });
        }
        let last = gateways.len() as u8 - 1;
        builder.local_ip(Ipv4Addr::new(10, last, 0, 100));
        let vip: IpAddr = [192, 0, 2, 1].into();
        let mut service = ServiceConfig::new(vip, Protocol::Tcp, 80);
        service.targets = vec![TargetConfig {
            address: ([10, last, 0, 21], 80).into(),
            weight: 1,
            up: true,
            draining: false,
            cut: false,
        }];
        builder.service(service);
        builder
            .build(&mut Ids::new(&Limits::default()), None)
            .unwrap()
    }

    /// Which routers a worker finds to live, if those at `places` answer.
    fn living(tables: &Tables, places: &[usize]) -> Living {
        let limits = Limits {
            flows: 64,
            ..Limits::default()
        };
        let counters = Arc::new(Counters::new(1, &limits));
        let secret = Secret::new([1; 32]);
        let mut worker = Worker::new(0, 1, &limits, secret, Arc::clone(&counters));
        let mut out = Emitted::new();
        worker.tick(tables, Now(0), &mut out);
        for (number, place) in (1u8..).zip(places) {
            let router = tables.routers()[*place];
            let learned = dataplane::Learned {
                port: router.port,
                address: router.address,
                mac: MacAddr([2, 0, 0, 0, 1, number]),
                weight: dataplane::Weight::Claim,
            };
            worker.learn(Now(0), learned, &mut out);
        }
        worker.tick(tables, Now(1_000_000), &mut out);
        counters.living(tables).unwrap_or_default()
    }

    #[test]
    fn a_way_is_left_or_it_is_said_what_is_missing() {
        type Case<'a> = (
            &'a str,
            &'a [&'a [u8]],
            &'a [bool],
            &'a [usize],
            Option<&'a str>,
        );
        let cases: [Case<'_>; 14] = [
            ("one port, no routers", &[&[]], &[true], &[], None),
            ("its link", &[&[]], &[false], &[], Some("p0 is down")),
            (
                "its router",
                &[&[1]],
                &[true],
                &[],
                Some("the router towards clients does not answer: 10.0.0.1 on port p0"),
            ),
            ("its router answers", &[&[1]], &[true], &[0], None),
            ("one of two routers", &[&[1, 2]], &[true], &[1], None),
            (
                "none of two",
                &[&[1, 2]],
                &[true],
                &[],
                Some("no router towards clients answers: 10.0.0.1 on port p0, 10.0.0.2 on port p0"),
            ),
            (
                "two ports, clients on the segment",
                &[&[], &[]],
                &[true, true],
                &[],
                None,
            ),
            (
                "the clients' link",
                &[&[], &[]],
                &[false, true],
                &[],
                Some("p0 is down"),
            ),
            (
                "the targets' link",
                &[&[], &[]],
                &[true, false],
                &[],
                Some("p1 is down"),
            ),
            (
                "one of two links to clients",
                &[&[], &[], &[]],
                &[false, true, true],
                &[],
                None,
            ),
            (
                "one of two links to routers",
                &[&[1], &[1], &[]],
                &[false, true, true],
                &[0, 1],
                None,
            ),
            (
                "the other's router is dead",
                &[&[1], &[1], &[]],
                &[false, true, true],
                &[0],
                Some("no router towards clients answers: 10.0.0.1 on port p0, 10.1.0.1 on port p1"),
            ),
            (
                "both links to routers",
                &[&[1], &[1], &[]],
                &[false, false, true],
                &[0, 1],
                Some("p0 is down; p1 is down"),
            ),
            (
                "a port nobody needs",
                &[&[1], &[], &[]],
                &[true, false, true],
                &[0],
                None,
            ),
        ];
        let names = ["p0", "p1", "p2"].map(str::to_owned);
        for (what, gateways, links, answer, expected) in cases {
            let tables = tables(gateways);
            let links = names.iter().zip(links);
            let down: Vec<Option<String>> = links
                .map(|(name, up)| (!up).then(|| format!("{name} is down")))
                .collect();
            let ways = Ways {
                tables: &tables,
                names: &names,
                down: &down,
                living: living(&tables, answer),
            };
            let why = ways.none_by_links().or_else(|| ways.none_by_routers());
            assert_eq!(why.as_deref(), expected, "{what}");
        }
    }
}
