//! The subcommands every binary has, and how a command line asks the running process.
//!
//! A tier flattens [`Command`] into its own clap parser and calls [`Command::run`]; what comes back is the configuration to run with, or
//! nothing left to do. One with subcommands of its own flattens [`Process`] and [`Action`], and calls [`Process::carry_out`] or
//! [`Process::ask`].
//!
//! ```no_run
//! use clap::Parser;
//! use shared::cli::{Command, Next};
//! use shared::config::sections::NodeSection;
//! use shared::config::{Configuration, Table};
//!
//! struct Config {
//!     node: NodeSection,
//! }
//!
//! impl Configuration for Config {
//!     const TIER: &'static str = "l7";
//!     const ADMIN_PORT: u16 = 9107;
//!
//!     fn parse(root: &mut Table<'_>) -> Option<Self> {
//!         Some(Self { node: NodeSection::parse(root)? })
//!     }
//!
//!     fn is_fixed_as(&self, other: &Self) -> bool {
//!         let Self { node } = self;
//!         *node == other.node
//!     }
//! }
//!
//! #[derive(Parser)]
//! #[command(name = "weir-l7", version)]
//! struct Cli {
//!     #[command(flatten)]
//!     shared: Command,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     match Cli::parse().shared.run::<Config>() {
//!         Next::Run(_loaded) => std::process::ExitCode::SUCCESS, // start the process
//!         Next::Exit(code) => code,
//!     }
//! }
//! ```

mod ask;
mod asked;
mod shown;
mod table;
mod watch;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::config::sections::AdminSection;
use crate::config::{Configuration, Document, Loaded, Unusable};

pub use ask::state;
pub use asked::{By, Reason};
pub use shown::{Shown, document};
pub use table::{cell, table};
pub use watch::Watch;

/// Which process is meant: the one to become, or the one to ask.
#[derive(Debug, Clone, Args)]
pub struct Process {
    /// Configuration file
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port of the admin listener of the process to ask (default: admin.listen of the configuration)
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = address_and_port)]
    pub admin: Option<SocketAddr>,
}

/// The shared part of a binary's command line. Without a subcommand, `run`.
#[derive(Debug, Args)]
pub struct Command {
    /// Which process is meant
    #[command(flatten)]
    pub process: Process,
    /// What to do; `run` if left out
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Run in the foreground (the default)
    Run,
    /// Check the configuration: print all mistakes and exit with 1, or its warnings and "ok"
    Check,
    /// Print the running process's state as JSON
    Status(Shown),
    /// Ask the running process to drain: routers and other tiers are to send new traffic elsewhere; what comes all the same is served (`health` carries none, and refuses)
    Drain(By),
    /// Ask the running process to take traffic again, after a drain
    Undrain(By),
    /// Have the running process read its configuration again: all of it takes effect, or nothing changes and the reasons are printed
    Reload(By),
    /// Ask the running process what a reload would do if its file were the one given by --config: each change, what needs a restart, which connections would end; nothing changes
    ///
    /// Exits with 0 if the reload would succeed, with 1 if it would be refused.
    Plan {
        /// Show the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What is left to do after the command line was carried out.
#[derive(Debug)]
pub enum Next<T> {
    /// Run with this configuration.
    Run(T),
    /// Exit with this code; everything was printed.
    Exit(ExitCode),
}

impl Command {
    /// Carries out all actions but `run`, for which the configuration is handed back.
    pub fn run<C: Configuration>(self) -> Next<Loaded<C>> {
        self.process.carry_out(self.action.unwrap_or(Action::Run))
    }
}

impl Process {
    /// Carries out all actions but `run`, for which the configuration is handed back.
    pub fn carry_out<C: Configuration>(&self, action: Action) -> Next<Loaded<C>> {
        if self.admin.is_some() && matches!(action, Action::Run | Action::Check) {
            return failed("--admin has no effect on `run` and `check`; set admin.listen");
        }
        let file = self.config.as_deref();
        match action {
            Action::Run => match self.load(Unusable::Warns) {
                Ok(loaded) => Next::Run(loaded),
                Err(failure) => failed(&failure),
            },
            Action::Check => match self.load::<C>(Unusable::Refuses) {
                Ok(loaded) => {
                    for warning in &loaded.warnings {
                        warn(warning);
                    }
                    Next::Exit(printed("ok\n"))
                }
                Err(failure) => failed(&failure),
            },
            Action::Status(shown) => Next::Exit(self.ask(C::ADMIN_PORT, |admin| {
                shown.show(async move || state(admin).await, document)
            })),
            Action::Drain(by) => {
                Next::Exit(self.ask(C::ADMIN_PORT, |admin| ask::told(admin, "drain", by)))
            }
            Action::Undrain(by) => {
                Next::Exit(self.ask(C::ADMIN_PORT, |admin| ask::told(admin, "undrain", by)))
            }
            Action::Reload(by) => {
                Next::Exit(self.ask(C::ADMIN_PORT, |admin| ask::reload(admin, file, by)))
            }
            Action::Plan { json } => match file {
                Some(file) => {
                    let plan = self.answer(C::ADMIN_PORT, |admin| ask::plan(admin, file));
                    Next::Exit(match plan {
                        // A script gets all of it in one place, whatever it says.
                        Ok(plan) if json => match (printed(&document(&plan)), &plan["refused"]) {
                            (_, Value::String(_)) => ExitCode::FAILURE,
                            (code, _) => code,
                        },
                        plan => match plan.and_then(ask::planned) {
                            Ok(text) => printed(&text),
                            Err(why) => not_done(&why),
                        },
                    })
                }
                None => failed("which file would be reloaded? name it with --config FILE"),
            },
        }
    }

    /// Puts a question to the running process, whose admin listener has `port` unless told otherwise, and prints the answer: to standard
    /// output with success, to standard error with failure.
    pub fn ask<F, E>(&self, port: u16, question: impl FnOnce(SocketAddr) -> F) -> ExitCode
    where
        F: Future<Output = Result<String, E>>,
        E: std::fmt::Display,
    {
        match self.answer(port, question) {
            Ok(text) => printed(&text),
            Err(why) => not_done(&why),
        }
    }

    /// As [`Self::ask`], with the answer handed back instead of printed.
    ///
    /// # Errors
    /// Why there is none, to be printed.
    pub fn answer<F, T, E>(
        &self,
        port: u16,
        question: impl FnOnce(SocketAddr) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let admin = self.admin_listener(port)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let answer = runtime.block_on(question(admin));
        answer.map_err(|why| why.to_string())
    }

    fn load<C: Configuration>(&self, unusable: Unusable) -> Result<Loaded<C>, String> {
        Loaded::read(self.file()?, unusable)
    }

    fn file(&self) -> Result<&Path, String> {
        let file = self.config.as_deref();
        file.ok_or_else(|| "no configuration file: give one with --config FILE".to_owned())
    }

    /// The admin listener to ask: as given, or as configured. Mistakes elsewhere in the file don't stand in the way of a drain.
    ///
    /// # Errors
    /// If neither is given, or the file can't be read.
    pub fn admin_listener(&self, default_port: u16) -> Result<SocketAddr, String> {
        if let Some(addr) = self.admin {
            return Ok(addr);
        }
        if self.config.is_none() {
            return Err(
                "whom to ask? give the process's --config FILE or --admin ADDR:PORT".to_owned(),
            );
        }
        let mut listen = AdminSection::parse(&mut self.document()?.root(), default_port).listen;
        if listen.ip().is_unspecified() {
            let loopback = if listen.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            };
            listen.set_ip(loopback);
        }
        Ok(listen)
    }

    fn document(&self) -> Result<Document, String> {
        Document::load(self.file()?).map_err(|mistakes| mistakes.to_string())
    }
}

/// An address with a port, for `value_parser` of an argument.
///
/// # Errors
/// What is expected, if it isn't one. Names are not looked up.
pub fn address_and_port(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80".to_owned()
    })
}

/// Prints to standard output; a closed pipe (`status | head`) is a failure not worth words. The text ends its own lines.
fn printed(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn not_done(why: &str) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "{}", why.trim_end());
    ExitCode::FAILURE
}

fn failed<T>(why: &str) -> Next<T> {
    Next::Exit(not_done(why))
}

/// Says something beside what is printed, on standard error.
pub fn warn(what: impl std::fmt::Display) {
    let _closed = writeln!(std::io::stderr(), "warning: {what}");
}
