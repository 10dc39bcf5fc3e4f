//! The harness itself, without the product: if it can't see an outage, the proof proves nothing.
//! Needs root and what deploy/install-deps.sh installs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use demo::k6::{Load, Recorded, repository};
use demo::lab::Lab;
use demo::process::{Processes, Program};
use demo::verdict::{Event, Promise, judge};
use demo::{namespace, ready, router};

/// Takes the lab down however the test ends.
struct Down(Lab);

impl Drop for Down {
    fn drop(&mut self) {
        let ended = Processes::load(&self.0).and_then(|mut processes| processes.end_all());
        if let Err(error) = ended.and_then(|()| namespace::remove(&self.0)) {
            eprintln!("taking the lab down: {error:#}");
        }
    }
}

fn app() -> Program {
    let arguments = ["app", "--name", "app-1", "--http", "shop=10.2.0.11:8080"];
    Program {
        name: "app-1".into(),
        node: "l4-1".into(),
        executable: PathBuf::from(env!("CARGO_BIN_EXE_demo")),
        arguments: arguments.map(String::from).to_vec(),
        environment: Vec::new(),
    }
}

fn start(lab: &Lab, processes: &mut Processes) -> Result<()> {
    processes.start(&app())?;
    ready::until("the application", Duration::from_secs(5), || {
        lab.namespace("client").enter(|| {
            std::net::TcpStream::connect("10.2.0.11:8080")
                .map(drop)
                .context("connecting through the router")
        })
    })?;
    Ok(())
}

fn load(lab: &Lab, seconds: u32) -> Result<Load> {
    let routes = r#"[{"host":"shop.weir.test","path":"/cart","expect":{"service":"shop","host":"shop.weir.test:8080"}}]"#;
    let environment = [
        ("BASE_URL", "http://10.2.0.11:8080".to_owned()),
        ("ROUTES", routes.into()),
        ("NODES", "app-1".into()),
        ("RATE", "100".into()),
        ("VUS", "120".into()),
        ("TIMEOUT", "1s".into()),
        ("DURATION", format!("{seconds}s")),
        ("THRESHOLDS", "off".into()),
    ];
    let load = Load::start(lab, "harness", "steady.js", &environment)?;
    ready::until("k6's first request", Duration::from_secs(30), || {
        if load.has_begun() {
            Ok(())
        } else {
            anyhow::bail!("none yet")
        }
    })?;
    Ok(load)
}

/// Runs two seconds of traffic, kills the application, lets it lie for `dead`, and two seconds more.
fn killed_for(lab: &Lab, processes: &mut Processes, dead: Duration) -> Result<(Recorded, Event)> {
    let load = load(lab, 7)?;
    std::thread::sleep(Duration::from_secs(2));
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
    processes.kill("app-1")?;
    std::thread::sleep(dead);
    start(lab, processes)?;
    let recorded = load.finish(Duration::from_secs(30))?;
    Ok((
        recorded,
        Event {
            what: "kill -9 app-1".into(),
            at,
            fault: true,
        },
    ))
}

#[test]
fn traffic_through_the_namespaces_is_counted_and_an_outage_is_seen() -> Result<()> {
    let lab = Lab::new("weirharness", &repository().join("target/harness"))?;
    let _lock = lab.lock()?;
    let _down = Down(lab.clone());
    Processes::load(&lab)?.end_all()?;
    // Twice: the second build removes what the first left, as after a crash.
    namespace::build(&lab)?;
    namespace::build(&lab)?;
    assert!(router::next_hops(&lab, demo::topology::VIP)?.is_empty());

    let mut processes = Processes::load(&lab)?;
    start(&lab, &mut processes)?;
    let recorded = load(&lab, 3)?.finish(Duration::from_secs(20))?;
    let row = judge("peace", &recorded, &[], Promise::NoFailure);
    assert!(row.kept, "{row:?}");
    assert!(
        (290..=310).contains(&row.requests),
        "{} requests at 100 a second for 3 s",
        row.requests
    );
    assert!(
        recorded
            .samples
            .iter()
            .all(|sample| sample.node == "app-1" && sample.host == "shop.weir.test")
    );

    let (recorded, kill) = killed_for(&lab, &mut processes, Duration::from_millis(300))?;
    let row = judge("short", &recorded, &[kill], Promise::Recovery);
    assert!(row.kept && row.failed > 10, "{row:?}");
    assert!((250..=1000).contains(&row.longest_gap_ms), "{row:?}");

    let (recorded, kill) = killed_for(&lab, &mut processes, Duration::from_millis(1500))?;
    let row = judge("long", &recorded, &[kill], Promise::Recovery);
    assert!(!row.kept, "an outage of 1.5 s was let through: {row:?}");
    assert!((1400..=2000).contains(&row.longest_gap_ms), "{row:?}");

    // A process of a lab whose state file is gone is still found and ended.
    let pid = processes.get("app-1").context("it runs")?.clone();
    drop(processes);
    std::fs::remove_file(lab.directory().join("state.json"))?;
    Processes::load(&lab)?.end_all()?;
    assert!(!pid.is_alive());
    Ok(())
}
