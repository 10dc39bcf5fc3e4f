//! What a run consists of. Each part starts what it needs and can fail without the others.

use anyhow::Result;
use dataplane::Protocol;

use crate::address::Addressing;
use crate::bench::Bench;
use crate::config::Variant;
use crate::flows::Flows;

/// Flow counts and what DESIGN wants of macswap's rate at each.
const STEPS: [(u32, f64); 3] = [(1_000, 0.70), (100_000, 0.60), (1_000_000, 0.55)];
/// Of these, at which latency is measured.
const LATENCY_AT: u32 = 100_000;
/// Of many services and targets, whose counters don't stay in the cache: by the same flow counts.
const STEPS_OF_MANY: [f64; 3] = [0.55, 0.50, 0.50];
/// Of PROXY v2, client to target: every segment is edited until its target acknowledges, which one way nobody does.
const PROXY_IN: f64 = 0.60;
/// Connections a second that a worker shall reach.
const CONNECTIONS: f64 = 1e6;
/// The gateway's default, which holds the largest step.
const FLOWS: u32 = 1 << 20;

/// Its name, and what it does.
pub(crate) type Part = (&'static str, fn(&mut Bench) -> Result<()>);

/// All that need a gateway.
pub(crate) const PARTS: [Part; 7] = [
    ("streams udp", streams_udp),
    ("streams tcp", streams_tcp),
    ("connections", connections),
    ("PROXY v2", |bench| {
        both(bench, PROXY, [[Some(PROXY_IN), None]; 3])
    }),
    ("maglev", |bench| both(bench, MAGLEV, [[None; 2]; 3])),
    ("1,000 services x 100 targets", |bench| {
        both(bench, MANY, STEPS_OF_MANY.map(|reach| [Some(reach); 2]))
    }),
    ("memory", |bench| {
        bench.memory(plain(Protocol::Udp), [1 << 18, 1 << 20])
    }),
];

const PROXY: Variant = Variant {
    name: "PROXY v2",
    proxy: true,
    ..plain(Protocol::Tcp)
};
const MAGLEV: Variant = Variant {
    name: "maglev",
    scheduler: "maglev",
    ..plain(Protocol::Tcp)
};
const MANY: Variant = Variant {
    name: "1,000 services x 100 targets",
    addressing: Addressing {
        protocol: Protocol::Tcp,
        services: 1000,
        targets: 100,
    },
    ..plain(Protocol::Tcp)
};

const fn plain(protocol: Protocol) -> Variant {
    Variant {
        name: "FULLNAT",
        addressing: Addressing {
            protocol,
            services: 1,
            targets: 16,
        },
        scheduler: "wrr",
        proxy: false,
        flows: FLOWS,
    }
}

fn streams_udp(bench: &mut Bench) -> Result<()> {
    let variant = plain(Protocol::Udp);
    let mut running = bench.gateway(variant)?;
    let mut flows = Flows::new(variant.addressing, variant.proxy);
    for (count, reach) in STEPS {
        let rate = bench.streams(&mut running, &mut flows, count, [Some(reach); 2])?;
        if count == LATENCY_AT {
            bench.latency(&mut running, &flows, count, rate)?;
        }
    }
    Ok(())
}

fn streams_tcp(bench: &mut Bench) -> Result<()> {
    let variant = plain(Protocol::Tcp);
    let mut running = bench.gateway(variant)?;
    let mut flows = Flows::new(variant.addressing, variant.proxy);
    for (count, reach) in STEPS {
        bench.streams(&mut running, &mut flows, count, [Some(reach); 2])?;
    }
    Ok(())
}

fn connections(bench: &mut Bench) -> Result<()> {
    let variant = plain(Protocol::Tcp);
    let mut running = bench.gateway(variant)?;
    let mut flows = Flows::new(variant.addressing, variant.proxy);
    bench.connections(&mut running, &mut flows, Some(CONNECTIONS))
}

/// Connections and streams of a variant, and what the streams shall reach, by flow count and way; by a gateway each, as closed connections
/// keep their place for a while and the largest step leaves no room for them.
fn both(bench: &mut Bench, variant: Variant, reaches: [[Option<f64>; 2]; 3]) -> Result<()> {
    let mut running = bench.gateway(variant)?;
    let mut flows = Flows::new(variant.addressing, variant.proxy);
    bench.connections(&mut running, &mut flows, None)?;
    drop(running);
    let mut running = bench.gateway(variant)?;
    let mut flows = Flows::new(variant.addressing, variant.proxy);
    for ((count, _), reach) in STEPS.into_iter().zip(reaches) {
        bench.streams(&mut running, &mut flows, count, reach)?;
    }
    Ok(())
}
