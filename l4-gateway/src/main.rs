//! The `l4-gateway` binary.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use l4_gateway::cli::Cli;
use l4_gateway::config::Config;
use shared::cli::Next;

#[global_allocator]
static HEAP: l4_gateway::heap::Heap = l4_gateway::heap::Heap;

fn main() -> ExitCode {
    let (file, config) = match Cli::parse().next() {
        Next::Run(parsed) => parsed,
        Next::Exit(code) => return code,
    };
    shared::telemetry::init_logs(&config.log);
    match start(file, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(file: PathBuf, config: Config) -> anyhow::Result<()> {
    let metrics = shared::telemetry::init_metrics().context("metrics")?;
    actix_rt::System::new().block_on(l4_gateway::run::run(file, config, metrics))?;
    Ok(())
}
