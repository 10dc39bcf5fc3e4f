//! The whole chain in network namespaces, from the client's side. Needs root, what deploy/install-deps.sh installs,
//! and the binaries (`make build` or `cargo build --workspace --bins`).
//!
//! `cargo test -p e2e -- <name>` runs some; the chain is brought up for any.

mod configuration;
mod faults;
mod forwarding;
mod hostile;
mod http;
mod websocket;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use demo::chain::Chain;
use e2e::Stage;
use libtest_mimic::{Arguments, Failed, Trial};

/// One test: what it holds, and how.
type Case = (&'static str, fn(&mut Chain) -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One chain: one test at a time.
    arguments.test_threads = Some(1);
    let cases: Vec<Case> = [
        configuration::CASES,
        http::CASES,
        websocket::CASES,
        forwarding::CASES,
        hostile::CASES,
        faults::CASES,
    ]
    .concat();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(cases, None)).exit_code();
    }
    let stage = match Stage::up() {
        Ok(stage) => Arc::new(stage),
        Err(error) => {
            eprintln!("the chain did not come up: {error:#}");
            // Counted as what it is: every test failed.
            println!(
                "test result: FAILED. 0 passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
                cases.len()
            );
            return ExitCode::FAILURE;
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials(cases, Some(&stage)));
    if let Err(error) = stage.down() {
        eprintln!("taking the chain down: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trials(cases: Vec<Case>, stage: Option<&Arc<Stage>>) -> Vec<Trial> {
    let trial = |(name, run): Case| {
        let stage = stage.cloned();
        Trial::test(name, move || {
            let Some(stage) = stage else {
                return Err(Failed::without_message());
            };
            let outcome = stage.take().and_then(|mut chain| run(&mut chain));
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    cases.into_iter().map(trial).collect()
}
