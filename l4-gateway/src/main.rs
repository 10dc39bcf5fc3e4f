//! The `l4-gateway` binary.

use std::process::ExitCode;

use clap::Parser;
use l4_gateway::cli::Cli;
use shared::cli::Next;

#[global_allocator]
static HEAP: l4_gateway::heap::Heap = l4_gateway::heap::Heap;

fn main() -> ExitCode {
    match Cli::parse().next() {
        Next::Exit(code) => code,
        Next::Run(loaded) => shared::lifecycle::run(l4_gateway::run::run(loaded)),
    }
}
