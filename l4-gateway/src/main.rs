//! The `l4-gateway` binary.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use l4_gateway::cli::Cli;
use l4_gateway::config::Config;
use shared::cli::Next;

fn main() -> ExitCode {
    let config = match Cli::parse().next() {
        Next::Run(config) => config,
        Next::Exit(code) => return code,
    };
    shared::telemetry::init_logs(&config.log);
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let metrics = shared::telemetry::init_metrics().context("metrics")?;
    actix_rt::System::new().block_on(l4_gateway::run::run(config, metrics))?;
    Ok(())
}
