//! The `l7-proxy` binary.

use std::process::ExitCode;

use clap::Parser;
use l7_proxy::cli::{Cli, Run};
use l7_proxy::node::run;
use shared::cli::Next;
use tikv_jemallocator::Jemalloc;

/// Gives back what connections leave, also where others lie in between; glibc's heap keeps it.
#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().act() {
        Next::Exit(code) => code,
        Next::Run(Run { loaded, takes_over }) => {
            shared::lifecycle::run(run::run(loaded, takes_over))
        }
    }
}
