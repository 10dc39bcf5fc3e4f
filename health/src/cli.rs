//! The command line of `health`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use shared::admin::no_such;
use shared::cli::{Action, Next, Process, address_and_port, document};
use shared::config::{Document, Loaded};

use crate::config::Config;
use crate::probe::{Finding, probe};
use crate::settings::CheckSettings;
use crate::threshold::Outcome;

/// Observes targets from outside: probes them, tells the other tiers over the bus.
#[derive(Debug, Parser)]
#[command(name = "health", version = shared::build::VERSION)]
pub struct Cli {
    #[command(flatten)]
    process: Process,
    /// What to do; `run` if left out
    #[command(subcommand)]
    action: Option<HealthAction>,
}

#[derive(Debug, Subcommand)]
enum HealthAction {
    #[command(flatten)]
    Shared(Action),
    /// Probe one address once and say what was found: exits with 0 (healthy), 1 (not) or 2 (can't tell)
    Probe(ProbeArguments),
}

#[derive(Debug, Args)]
struct ProbeArguments {
    /// Address and port of the target
    #[arg(value_name = "ADDR:PORT", value_parser = address_and_port)]
    address: SocketAddr,
    /// How to probe, with the keys of a health table: type=http path=/healthz expect=200 (default: type=tcp)
    #[arg(value_name = "KEY=VALUE", conflicts_with = "service")]
    settings: Vec<String>,
    /// Probe as the configuration does for this service
    #[arg(long, value_name = "NAME", requires = "config")]
    service: Option<String>,
    /// Show what was found as JSON, on standard output whatever it is
    #[arg(long)]
    json: bool,
}

impl Cli {
    /// Carries out all subcommands but `run`, for which the configuration is handed back.
    pub fn act(self) -> Next<Loaded<Config>> {
        match self.action {
            None => self.process.carry_out(Action::Run),
            Some(HealthAction::Shared(action)) => self.process.carry_out(action),
            Some(HealthAction::Probe(arguments)) => {
                Next::Exit(probe_once(self.process.config, arguments))
            }
        }
    }
}

fn probe_once(config: Option<PathBuf>, arguments: ProbeArguments) -> ExitCode {
    let settings = match (&arguments.service, config) {
        (Some(service), Some(config)) => of_service(&config, service),
        _ => of_arguments(&arguments.settings),
    };
    let check = match settings {
        Ok(settings) => settings.check("probe", arguments.address),
        Err(mistakes) => return told(&mistakes, 2),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return told(&format!("can't probe: {error}"), 2),
    };
    let started = Instant::now();
    let Finding { outcome, reason } = runtime.block_on(probe(&check));
    let took = started.elapsed();
    let (verdict, code) = match outcome {
        Outcome::Success => ("healthy", 0),
        Outcome::Failure => ("not healthy", 1),
        Outcome::Silence | Outcome::Unknown => ("can't tell", 2),
    };
    let (kind, address) = (check.settings.probe.kind(), check.address);
    if arguments.json {
        let found = json!({
            "type": kind, "address": address, "verdict": verdict, "reason": reason, "took_seconds": took.as_secs_f64(),
        });
        let _closed = told(document(&found).trim_end(), 0);
        return code.into();
    }
    told(
        &format!("{kind} {address}: {verdict}: {reason} (took {took:.1?})"),
        code,
    )
}

fn of_service(config: &Path, name: &str) -> Result<CheckSettings, String> {
    let document = Document::load(config).map_err(|mistakes| mistakes.to_string())?;
    let config = document
        .parse(Config::parse)
        .map_err(|mistakes| mistakes.to_string())?;
    let known = config.services.iter().map(|service| service.name.as_str());
    let unknown = no_such("service", name, known);
    config
        .services
        .into_iter()
        .find(|service| service.name == name)
        .map(|service| service.settings)
        .ok_or(unknown)
}

/// Settings from `key=value` words, read as the configuration file would be.
fn of_arguments(words: &[String]) -> Result<CheckSettings, String> {
    let mut text = String::new();
    if !words.iter().any(|word| word.starts_with("type=")) {
        text.push_str("type = \"tcp\"\n");
    }
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word:?} is not KEY=VALUE"))?;
        if key.is_empty()
            || !key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            return Err(format!("{key:?} is not a key"));
        }
        let bare = value.parse::<bool>().is_ok()
            || value.parse::<i64>().is_ok()
            || value.parse::<f64>().is_ok_and(f64::is_finite);
        // A JSON string is a TOML string.
        let value = if bare {
            value.to_owned()
        } else {
            serde_json::Value::from(value).to_string()
        };
        let _ = writeln!(text, "{key} = {value}");
    }
    let document =
        Document::from_toml("command line", &text).map_err(|mistakes| mistakes.to_string())?;
    document
        .parse(CheckSettings::parse)
        .map_err(|mistakes| mistakes.to_string())
}

fn told(text: &str, code: u8) -> ExitCode {
    use std::io::Write as _;
    let _closed = match code {
        0 => writeln!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
    code.into()
}
