//! The demo's router without the product: two BIRDs stand in for the L4 nodes. If the router did not spread over
//! both, or kept the routes of a dead one, the proof would blame the wrong side.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use demo::k6::repository;
use demo::lab::Lab;
use demo::process::{Processes, Program};
use demo::topology::{L4_AS, ROUTER_AS, VIP};
use demo::{namespace, ready, render, router};

struct Down(Lab);

impl Drop for Down {
    fn drop(&mut self) {
        let ended = Processes::load(&self.0).and_then(|mut processes| processes.end_all());
        if let Err(error) = ended.and_then(|()| namespace::remove(&self.0)) {
            eprintln!("taking the lab down: {error:#}");
        }
    }
}

fn bird(lab: &Lab, name: &str, node: &str, config: &str) -> Result<Program> {
    let path = lab.config(&format!("{name}.conf"));
    std::fs::write(&path, config)?;
    let socket = match name {
        "router" => router::socket(lab),
        _ => PathBuf::from(format!("/run/{}{name}.ctl", lab.namespace_prefix())),
    };
    let arguments = [
        "-f",
        "-c",
        &path.display().to_string(),
        "-s",
        &socket.display().to_string(),
    ];
    Ok(Program {
        name: name.into(),
        node: node.into(),
        executable: PathBuf::from("bird"),
        arguments: arguments.map(String::from).to_vec(),
        environment: Vec::new(),
    })
}

fn speaker(lab: &Lab, node: &str, address: &str) -> Result<Program> {
    let config = format!(
        "log stderr all;\nrouter id {address};\nprotocol device {{ }}\n\
         protocol static {{ ipv4; route {VIP}/32 blackhole; route 192.0.2.0/24 blackhole; }}\n\
         protocol bgp {{ local {address} as {L4_AS}; neighbor 10.2.0.1 as {ROUTER_AS}; hold time 3;\n\
         connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
         ipv4 {{ import none; export all; next hop self; }}; }}\n"
    );
    bird(lab, node, node, &config)
}

fn hops(lab: &Lab, wanted: &[&str], within: Duration) -> Result<Duration> {
    let ((), took) = ready::until(&format!("next hops {wanted:?}"), within, || {
        let found: Vec<String> = router::next_hops(lab, VIP)?
            .iter()
            .map(ToString::to_string)
            .collect();
        if found != wanted {
            bail!("they are {found:?}");
        }
        Ok(())
    })?;
    Ok(took)
}

#[test]
fn the_router_spreads_over_both_announcers_and_drops_a_dead_one_at_once() -> Result<()> {
    let lab = Lab::new("weirrouter", &repository().join("target/router"))?;
    let _lock = lab.lock()?;
    let _down = Down(lab.clone());
    Processes::load(&lab)?.end_all()?;
    namespace::build(&lab)?;
    let mut processes = Processes::load(&lab)?;
    let systems = [
        ("router_as", ROUTER_AS.to_string()),
        ("l4_as", L4_AS.to_string()),
    ];
    let config = render::render(include_str!("../config/bird.conf"), &systems)?;
    processes.start(&bird(&lab, "router", "router", &config)?)?;
    let first = speaker(&lab, "l4-1", "10.2.0.11")?;
    processes.start(&first)?;
    processes.start(&speaker(&lab, "l4-2", "10.2.0.12")?)?;
    hops(&lab, &["10.2.0.11", "10.2.0.12"], Duration::from_secs(15))?;

    processes.kill("l4-1")?;
    let took = hops(&lab, &["10.2.0.12"], Duration::from_secs(1))?;
    println!("a dead announcer is gone from the kernel's table after {took:?}");

    processes.start(&first)?;
    hops(&lab, &["10.2.0.11", "10.2.0.12"], Duration::from_secs(15))?;

    // Anything but host routes of the VIP network is refused.
    assert!(router::next_hops(&lab, std::net::Ipv4Addr::new(192, 0, 2, 0))?.is_empty());
    assert!(!router::birdc(&lab, "show route")?.contains("192.0.2.0"));
    Ok(())
}
