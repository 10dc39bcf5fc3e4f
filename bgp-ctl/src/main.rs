//! `bgp-ctl`: see the library.

use clap::Parser;

fn main() -> std::process::ExitCode {
    bgp_ctl::cli::Cli::parse().run()
}
