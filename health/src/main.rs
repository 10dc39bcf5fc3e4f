//! The `health` binary.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use health::cli::{Cli, Todo};

fn main() -> Result<ExitCode> {
    match Cli::parse().act() {
        Todo::Exit(code) => Ok(code),
        Todo::Run(config) => {
            actix_rt::System::new().block_on(health::run::run(*config))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
