//! The `health` binary.

use std::process::ExitCode;

use clap::Parser;
use health::cli::Cli;
use shared::cli::Next;

fn main() -> ExitCode {
    match Cli::parse().act() {
        Next::Exit(code) => code,
        Next::Run(loaded) => shared::lifecycle::run(health::run::run(loaded)),
    }
}
