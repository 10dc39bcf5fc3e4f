//! The command line of `l7-proxy`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use shared::cli::{Action, Command, Next};

use crate::config::{ADMIN_PORT, Config};
use crate::run;

/// Weir's L7 tier: an HTTP reverse proxy
#[derive(Debug, Parser)]
#[command(name = "l7-proxy", version)]
pub struct Cli {
    #[command(flatten)]
    shared: Command,
}

impl Cli {
    /// Carries out all subcommands but `run`, for which the configuration is handed back.
    pub fn act(self) -> Next<Box<Config>> {
        if self.shared.action == Some(Action::Check) {
            return Next::Exit(check(self.shared));
        }
        match self.shared.run(ADMIN_PORT, Config::parse) {
            Next::Run(config) => Next::Run(Box::new(config)),
            Next::Exit(code) => Next::Exit(code),
        }
    }
}

/// Checks what is in the file, and then the certificates and keys it names.
fn check(command: Command) -> ExitCode {
    let load = Command {
        action: Some(Action::Run),
        ..command
    };
    match load.run(ADMIN_PORT, Config::parse) {
        Next::Exit(code) => code,
        Next::Run(config) => match run::identity(&config) {
            Ok(_) => {
                let _closed = writeln!(std::io::stdout(), "ok");
                ExitCode::SUCCESS
            }
            Err(error) => {
                let _closed = writeln!(std::io::stderr(), "{error}");
                ExitCode::FAILURE
            }
        },
    }
}
