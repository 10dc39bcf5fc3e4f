//! What the client sees, and what the router is told, when parts of the chain die, drain or come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use demo::chain::Chain;
use demo::k6::Load;
use demo::topology::{APPS, L4, L7, VIP};
use demo::{admin, proof, ready, router};
use e2e::{Curl, run_binary};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    ("every_node_answers_its_admin_listener", admin_listeners),
    (
        "a_vip_without_healthy_targets_is_withdrawn_and_comes_back",
        withdrawn_without_targets,
    ),
    (
        "a_drained_l4_node_withdraws_its_vip_and_takes_it_back",
        drained_l4,
    ),
    ("a_drained_l7_node_gets_no_new_connections", drained_l7),
    (
        "a_lost_bus_changes_nothing_and_its_return_neither",
        lost_bus,
    ),
    ("no_application_is_a_503_and_not_a_hang", no_application),
    (
        "a_slow_application_does_not_hold_up_others",
        slow_application,
    ),
    ("the_proof_keeps_every_promise", the_proof),
];

fn admin_listeners(chain: &mut Chain) -> Result<()> {
    for node in L4.into_iter().chain(L7) {
        for path in ["/healthz", "/readyz", "/metrics", "/status"] {
            let answer = admin::get(chain.lab(), node, path)?;
            ensure!(answer.status == 200, "{node} {path}: {answer:?}");
        }
        let metrics = admin::get(chain.lab(), node, "/metrics")?.body;
        let prefix = if node.starts_with("l4") {
            "weir_l4_"
        } else {
            "weir_l7_"
        };
        ensure!(
            metrics.lines().any(|line| line.starts_with(prefix)),
            "{node} has no metric {prefix}*"
        );
        let nothing = admin::get(chain.lab(), node, "/nothing")?;
        ensure!(nothing.status == 404, "{node}: {nothing:?}");
    }
    Ok(())
}

fn hops(chain: &Chain, wanted: usize, within: Duration) -> Result<Duration> {
    let what = format!("the VIP to have {wanted} next hops");
    let ((), took) = ready::until(&what, within, || {
        let hops = router::next_hops(chain.lab(), VIP)?;
        if hops.len() != wanted {
            bail!("they are {hops:?}");
        }
        Ok(())
    })?;
    Ok(took)
}

fn withdrawn_without_targets(chain: &mut Chain) -> Result<()> {
    chain.processes.kill("l7-1")?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(
        router::next_hops(chain.lab(), VIP)?.len() == 2,
        "one dead L7 node of two took the VIP away"
    );
    chain.processes.kill("l7-2")?;
    let took = hops(chain, 0, Duration::from_secs(2))?;
    println!("withdrawn by both nodes {took:?} after the last target died");
    let other = std::net::Ipv4Addr::new(10, 0, 0, 101);
    ensure!(
        router::next_hops(chain.lab(), other)?.len() == 2,
        "the other VIP went with it"
    );
    for node in L7 {
        chain.start(node)?;
    }
    chain.wait_whole()?;
    let answer = Curl::new(chain.lab()).get("http://shop.weir.test/")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// Fetches over new connections until `time` has passed; the number that failed, and who served the others.
fn fetch_for(chain: &Chain, time: Duration) -> Result<(usize, Vec<demo::app::Seen>)> {
    let begin = Instant::now();
    let (mut failed, mut seen) = (0, Vec::new());
    while begin.elapsed() < time {
        match Curl::new(chain.lab())
            .get("http://shop.weir.test/")
            .and_then(|answer| answer.seen())
        {
            Ok(answer) => seen.push(answer),
            Err(error) => {
                println!("failed: {error:#}");
                failed += 1;
            }
        }
    }
    Ok((failed, seen))
}

fn command(chain: &Chain, node: &str, name: &str) -> Result<()> {
    let answer = admin::command(chain.lab(), node, name, &serde_json::json!({}))?;
    ensure!(
        (200..300).contains(&answer.status),
        "{name} of {node}: {answer:?}"
    );
    Ok(())
}

fn drained_l4(chain: &mut Chain) -> Result<()> {
    command(chain, "l4-1", "drain")?;
    let took = hops(chain, 1, Duration::from_secs(2))?;
    println!("withdrawn {took:?} after the drain was asked for");
    let before = chain.flows_created("l4-1")?;
    let (failed, seen) = fetch_for(chain, Duration::from_secs(1))?;
    ensure!(
        failed == 0 && seen.len() > 5,
        "{failed} of {} requests failed",
        seen.len() + failed
    );
    let new = chain.flows_created("l4-1")? - before;
    ensure!(new == 0, "{new} connections came to a drained node");
    command(chain, "l4-1", "undrain")?;
    hops(chain, 2, Duration::from_secs(5))?;
    Ok(())
}

fn drained_l7(chain: &mut Chain) -> Result<()> {
    command(chain, "l7-1", "drain")?;
    let drained = admin::ready(chain.lab(), "l7-1");
    ensure!(drained.is_err(), "a draining node calls itself ready");
    std::thread::sleep(Duration::from_millis(500));
    let (failed, seen) = fetch_for(chain, Duration::from_secs(1))?;
    ensure!(
        failed == 0 && seen.len() > 5,
        "{failed} of {} requests failed",
        seen.len() + failed
    );
    for answer in &seen {
        ensure!(
            answer.peer.ip().to_string() == "10.4.0.22",
            "served through {}",
            answer.peer
        );
    }
    command(chain, "l7-1", "undrain")?;
    let both = ready::until("l7-1 to serve again", Duration::from_secs(5), || {
        let (failed, seen) = fetch_for(chain, Duration::from_millis(300))?;
        ensure!(failed == 0, "{failed} requests failed");
        ensure!(
            seen.iter()
                .any(|answer| answer.peer.ip().to_string() == "10.4.0.21"),
            "not yet"
        );
        Ok(())
    });
    both.map(drop)
}

fn lost_bus(chain: &mut Chain) -> Result<()> {
    let mut environment = proof::environment(16);
    environment.retain(|(key, _)| *key != "RATE");
    environment.push(("RATE", "30".into()));
    let load = Load::start(chain.lab(), "lost-bus", "steady.js", &environment)?;
    std::thread::sleep(Duration::from_secs(2));
    chain.processes.kill("nats")?;
    // Longer than a registration holds (10 s): time without the bus must not count.
    std::thread::sleep(Duration::from_secs(11));
    ensure!(
        router::next_hops(chain.lab(), VIP)?.len() == 2,
        "a lost bus took the VIP away"
    );
    chain.start("nats")?;
    let samples = load.finish(Duration::from_secs(40))?.samples;
    let failed = samples.iter().filter(|sample| !sample.ok).count();
    ensure!(
        failed == 0 && samples.len() > 400,
        "{failed} of {} requests failed",
        samples.len()
    );
    chain.wait_whole()
}

fn no_application(chain: &mut Chain) -> Result<()> {
    for app in APPS {
        chain.processes.kill(app)?;
    }
    std::thread::sleep(Duration::from_millis(800));
    let begin = Instant::now();
    let answer = Curl::new(chain.lab()).get("http://shop.weir.test/")?;
    ensure!([502, 503].contains(&answer.status), "{answer:?}");
    ensure!(
        begin.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        begin.elapsed()
    );
    for app in APPS {
        chain.start(app)?;
    }
    chain.wait_whole()?;
    let answer = Curl::new(chain.lab()).get("http://shop.weir.test/")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

fn slow_application(chain: &mut Chain) -> Result<()> {
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut command = Curl::new(chain.lab()).command("http://shop.weir.test/slow?ms=2500");
        slow.push(
            command
                .stdout(std::process::Stdio::piped())
                .spawn()
                .context("running curl")?,
        );
    }
    let (failed, seen) = fetch_for(chain, Duration::from_secs(1))?;
    ensure!(
        failed == 0 && seen.len() > 10,
        "{failed} failed, {} succeeded beside slow ones",
        seen.len()
    );
    for child in slow {
        let output = child.wait_with_output()?;
        ensure!(
            output.stdout.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

/// What `make demo` shows, held as a test: k6 through the chain in peace and under each fault.
fn the_proof(chain: &mut Chain) -> Result<()> {
    let rows = proof::prove(chain, "", &|line| println!("proof: {line}"))?;
    println!("{}", proof::table(&rows));
    let broken: Vec<_> = rows.iter().filter(|row| !row.kept).collect();
    ensure!(broken.is_empty(), "{broken:#?}");
    // The program that prints the same for a user agrees about what the steps are.
    let help = run_binary("demo", &["prove", "--help"])?;
    ensure!(help.status.success(), "demo prove --help fails");
    Ok(())
}
