//! The `l7-proxy` binary.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use l7_proxy::cli::Cli;
use l7_proxy::run;
use shared::cli::Next;

fn main() -> Result<ExitCode> {
    match Cli::parse().act() {
        Next::Exit(code) => Ok(code),
        Next::Run(config) => {
            actix::System::new().block_on(run::run(*config))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
