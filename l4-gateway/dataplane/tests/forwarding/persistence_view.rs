//! Which sources stay with which target, as operators see it.

use std::time::Duration;

use dataplane::{Persistence, PersistenceView, Protocol, ServiceConfig, SourcePrefix};

use super::net::{BOTH, Net};
use super::rig::{self, Rig, SECOND, up};

fn services(net: Net, timeout: u64) -> Vec<ServiceConfig> {
    let mut http = ServiceConfig::new(net.vip_ip(), Protocol::Tcp, 80);
    http.targets = vec![up(net.target(21, 8080)), up(net.target(22, 8080))];
    http.policy.persistence = Some(Persistence {
        timeout: Duration::from_secs(timeout),
        prefix: SourcePrefix { v4: 24, v6: 64 },
        group: None,
    });
    vec![http]
}

fn listed(rig: &Rig) -> Vec<PersistenceView> {
    rig.counters.persistence(&rig.tables, rig.now).collect()
}

#[test]
fn a_source_is_listed_with_its_target_for_as_long_as_it_stays_there() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &services(net, 60)).resolved();
        assert_eq!(listed(&rig), []);
        let client = net.client(10, 4000);
        let opened = rig.open(client, 100);
        let service = rig.service(80, Protocol::Tcp).id;
        let prefix = SourcePrefix { v4: 24, v6: 64 };
        let view = |expires_in| PersistenceView {
            service,
            group: None,
            source: prefix.of(client.ip()),
            prefix: if client.is_ipv4() { 24 } else { 64 },
            target: net.target(opened.target, 8080),
            expires_in: Duration::from_secs(expires_in),
        };
        assert_eq!(listed(&rig), [view(60)]);
        // Another client of the same source.
        rig.open(net.client(11, 4000), 100);
        assert_eq!(listed(&rig), [view(60)]);
        // It is in no service that keeps sources, or keeps them for longer.
        let before = services(net, 60);
        let mut without = before.clone();
        without[0].policy.persistence = None;
        rig.swap(&without);
        assert_eq!(listed(&rig), []);
        rig.swap(&services(net, 90));
        assert_eq!(listed(&rig), [view(90)]);
        rig.swap(&before);
        // Both flows go by their timeout, the last look at them is on the way there.
        rig.pass(15 + 1);
        let left = listed(&rig)[0].expires_in.as_secs();
        assert!((44..60).contains(&left), "{left}");
        rig.now.0 += 61 * SECOND;
        assert_eq!(listed(&rig), []);
    }
}

#[test]
fn flows_that_an_operator_ends_leave_persistence_as_it_is() {
    for net in BOTH {
        let mut rig = Rig::serving(net, &rig::small(), &services(net, 60)).resolved();
        rig.establish(net.client(10, 4000), 100);
        rig.pass(5);
        let before = listed(&rig);
        assert_eq!(before[0].expires_in, Duration::from_secs(55));
        let places = 0..rig.worker.flow_places() as u32;
        let Rig {
            worker,
            tables,
            now,
            out,
            ..
        } = &mut rig;
        let ended = worker.end_flows(tables, *now, out, places, |_| true);
        assert_eq!(ended.flows, 1);
        assert_eq!(listed(&rig), before);
    }
}
