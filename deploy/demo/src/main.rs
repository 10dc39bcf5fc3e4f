//! Brings the chain up, proves it, takes it down. See `make help`.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use demo::chain::{self, Chain};
use demo::lab::Lab;
use demo::{app, interrupt, proof};

#[derive(Parser)]
#[command(
    name = "demo",
    about = "The whole chain in network namespaces, proven by k6 while nodes are killed"
)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring the chain up, prove it, take it down
    Run,
    /// Bring the chain up and leave it running
    Up,
    /// Prove the chain that is up
    Prove {
        /// Only the steps whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Take the chain down; logs and results stay in target/demo
    Down,
    /// Kill a node with SIGKILL and leave it dead: `demo kill l4-1`
    Kill {
        /// Name of the node
        node: String,
    },
    /// Start a node that was killed
    Start {
        /// Name of the node
        node: String,
    },
    /// The application behind the chain
    App {
        /// Who answers
        #[arg(long)]
        name: String,
        /// An HTTP listener with the service it plays; may be repeated
        #[arg(long, value_name = "SERVICE=ADDRESS:PORT", value_parser = app::parse_listener)]
        http: Vec<(String, SocketAddr)>,
        /// A UDP echo; may be repeated
        #[arg(long, value_name = "ADDRESS:PORT")]
        udp: Vec<SocketAddr>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    if let Action::App { name, http, udp } = action {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        return runtime
            .block_on(app::serve(app::Settings { name, http, udp }))
            .map(|()| ExitCode::SUCCESS);
    }
    require_root()?;
    interrupt::listen()?;
    let lab = chain::demo_lab()?;
    let _lock = lab.lock()?;
    let binaries = chain::sibling_binaries()?;
    let begin = Instant::now();
    let say = |line: &str| println!("[{:6.1} s] {line}", begin.elapsed().as_secs_f64());
    match action {
        Action::Up => {
            up(&lab, &binaries, &say)?;
            say(
                "the chain is up; README.md lists what to type now, `make demo-down` takes it down",
            );
        }
        Action::Run => {
            let outcome =
                up(&lab, &binaries, &say).and_then(|mut chain| proven(&mut chain, "", &say));
            if let Err(reason) = &outcome {
                say(&format!("failed: {reason:#}"));
                say(&format!(
                    "logs are in {}",
                    lab.directory().join("logs").display()
                ));
            }
            interrupt::clear();
            say("taking the chain down");
            Chain::down(&lab)?;
            return outcome.map_err(|_| anyhow::anyhow!("the demo failed; the reason is above"));
        }
        Action::Prove { only } => return proven(&mut Chain::attach(&lab, &binaries)?, &only, &say),
        Action::Down => {
            Chain::down(&lab)?;
            say("the chain is down");
        }
        Action::Kill { node } => {
            Chain::attach_part(&lab, &binaries)?.processes.kill(&node)?;
            say(&format!(
                "{node} is dead; `demo start {node}` brings it back"
            ));
        }
        Action::Start { node } => {
            let mut chain = Chain::attach_part(&lab, &binaries)?;
            chain.start(&node)?;
            let took = chain.wait_ready(&node)?;
            say(&format!(
                "{node} is ready after {:.1} s",
                took.as_secs_f64()
            ));
        }
        Action::App { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the chain up; what was half up when a step failed is taken down again, its logs stay.
fn up(lab: &Lab, binaries: &Path, say: &dyn Fn(&str)) -> Result<Chain> {
    Chain::up(lab, binaries, say).inspect_err(|_| {
        interrupt::clear();
        if let Err(error) = Chain::down(lab) {
            eprintln!("demo: taking down what was up: {error:#}");
        }
    })
}

fn proven(chain: &mut Chain, only: &str, say: &dyn Fn(&str)) -> Result<ExitCode> {
    let rows = proof::prove(chain, only, say)?;
    println!(
        "\n{}\nresult: {}",
        proof::table(&rows),
        proof::result_file(chain).display()
    );
    let broken = rows.iter().filter(|row| !row.kept).count();
    if broken > 0 {
        println!(
            "{broken} of {} promises broken; logs are in {}",
            rows.len(),
            chain.lab().directory().join("logs").display()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("all {} promises kept", rows.len());
    Ok(ExitCode::SUCCESS)
}

fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "network namespaces need root: run it as root, or `sudo env \"PATH=$PATH\" make demo`"
        );
    }
    std::fs::create_dir_all("/run/netns").context("creating /run/netns")
}
