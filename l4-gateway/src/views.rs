//! What `services` and `targets` show, by what `ipvsadm -L` shows with the same options: what each is, its totals (`--stats`), its rates
//! (`--rate`), and of targets the limits (`--thresholds`).

use clap::Args;
use serde_json::{Value, json};
use shared::admin::no_such;
use shared::cli::{Shown, cell, table};

/// A view of services.
#[derive(Debug, Clone, Args)]
pub(crate) struct Services {
    /// Totals since the start
    #[arg(long, group = "columns", conflicts_with = "json")]
    stats: bool,
    /// What comes a second: each two seconds a quarter of the way to what came in them, as LVS estimates it
    #[arg(long, group = "columns", conflicts_with = "json")]
    rate: bool,
    #[command(flatten)]
    which: Which,
}

/// A view of targets.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// Totals since the start
    #[arg(long, group = "columns", conflicts_with = "json")]
    stats: bool,
    /// What comes a second: each two seconds a quarter of the way to what came in them, as LVS estimates it
    #[arg(long, group = "columns", conflicts_with = "json")]
    rate: bool,
    /// The limits of each, and how often they turned flows away
    #[arg(long, group = "columns", conflicts_with = "json")]
    thresholds: bool,
    #[command(flatten)]
    which: Which,
}

/// Of what, how and how often.
#[derive(Debug, Clone, Args)]
struct Which {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

impl Services {
    /// Shows the services of what `status` answers.
    ///
    /// # Errors
    /// If there is no answer, or the one that is asked for is not there.
    pub(crate) async fn show(
        &self,
        status: impl AsyncFn() -> Result<Value, String>,
    ) -> Result<String, String> {
        let columns = match (self.stats, self.rate) {
            (true, _) => SERVICE_STATS,
            (_, true) => SERVICE_RATES,
            _ => SERVICES,
        };
        let services = async || self.which.services(&status().await?).map(Value::Array);
        let shown = self.which.shown;
        shown.show(services, |all| text(columns, list(all))).await
    }
}

impl Targets {
    /// Shows the targets of what `status` answers, each with its service's name and limits.
    ///
    /// # Errors
    /// If there is no answer, or the service that is asked for is not there.
    pub(crate) async fn show(
        &self,
        status: impl AsyncFn() -> Result<Value, String>,
    ) -> Result<String, String> {
        let columns = match (self.stats, self.rate, self.thresholds) {
            (true, ..) => TARGET_STATS,
            (_, true, _) => TARGET_RATES,
            (.., true) => TARGET_THRESHOLDS,
            _ => TARGETS,
        };
        let targets = async || self.which.services(&status().await?).map(targets_of);
        let shown = self.which.shown;
        shown.show(targets, |all| text(columns, list(all))).await
    }
}

/// The targets of services, each with its service's name and limits.
fn targets_of(services: Vec<Value>) -> Value {
    let of_service = |service: Value| {
        let targets = list(&service["targets"]).to_vec();
        targets.into_iter().map(move |mut target| {
            target["service"] = service["name"].clone();
            target["limits"] = json!({
                "connections": service["limits"]["target_connections"],
                "new_per_second": service["limits"]["target_new_per_second"],
            });
            target
        })
    };
    services.into_iter().flat_map(of_service).collect()
}

impl Which {
    fn services(&self, status: &Value) -> Result<Vec<Value>, String> {
        let all = list(&status["services"]);
        let Some(wanted) = &self.service else {
            return Ok(all.to_vec());
        };
        let found = all.iter().find(|service| service["name"] == **wanted);
        let names = all.iter().filter_map(|service| service["name"].as_str());
        match found {
            Some(service) => Ok(vec![service.clone()]),
            None => Err(no_such("service", wanted, names)),
        }
    }
}

pub(crate) fn text(columns: &[Column], items: &[Value]) -> String {
    let headings: Vec<&str> = columns.iter().map(|column| column.heading).collect();
    let row = |item: &Value| {
        let cells = columns.iter();
        cells.map(|column| (column.show)(item)).collect()
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    table(&headings, &rows)
}

/// A column: its heading, and how it is read from a service or target of `/status`.
pub(crate) struct Column {
    heading: &'static str,
    show: fn(&Value) -> String,
}

/// A column each: of its own name, or named with the way to what it shows.
macro_rules! columns {
    ($($heading:literal $(=> $show:expr)?),+ $(,)?) => {
        &[$($crate::views::Column::new($heading, $crate::views::columns!(@ $heading $($show)?))),+]
    };
    (@ $heading:literal) => { |item| ::shared::cli::cell(&item[$heading]) };
    (@ $heading:literal $show:expr) => { $show };
}

pub(crate) use columns;

impl Column {
    pub(crate) const fn new(heading: &'static str, show: fn(&Value) -> String) -> Column {
        Column { heading, show }
    }
}

const SERVICES: &[Column] = columns![
    "name",
    "vip",
    "port",
    "protocol",
    "mode",
    "scheduler",
    "persistence" => |service| persistence(&service["persistence"]),
    "client_address",
    "targets" => |service| list(&service["targets"]).len().to_string(),
    "healthy" => |service| match service["sorry"] == true {
        true => format!("{} (sorry)", cell(&service["healthy"])),
        false => cell(&service["healthy"]),
    },
    "operator" => |service| match service["vip_force"].as_str() {
        Some("withdraw") => told("vip drained", &service["vip_operator"], shared::bus::unix_ms()),
        _ => "-".into(),
    },
    "active",
    "inactive",
];

const SERVICE_STATS: &[Column] = columns![
    "name",
    "flows_created",
    "packets_in",
    "packets_out",
    "bytes_in",
    "bytes_out",
    "resets_sent",
    "denied",
    "limited",
    "no_target",
];

const SERVICE_RATES: &[Column] = columns![
    "name",
    "connections/s" => |service| rate(&service["rates"]["connections"]),
    "packets_in/s" => |service| rate(&service["rates"]["packets_in"]),
    "packets_out/s" => |service| rate(&service["rates"]["packets_out"]),
    "bytes_in/s" => |service| rate(&service["rates"]["bytes_in"]),
    "bytes_out/s" => |service| rate(&service["rates"]["bytes_out"]),
];

const TARGETS: &[Column] = columns![
    "service",
    "address",
    "weight",
    "effective_weight",
    "up",
    "draining",
    "sorry",
    "operator" => |target| operator(&target["operator"], shared::bus::unix_ms()),
    "active",
    "inactive",
    "since" => |target| age(&target["since_unix_ms"], shared::bus::unix_ms()),
    "reason",
    "registered_by",
];

const TARGET_STATS: &[Column] = columns![
    "service",
    "address",
    "flows_created",
    "packets_in",
    "packets_out",
    "bytes_in",
    "bytes_out",
    "resets",
    "port_exhausted",
];

const TARGET_RATES: &[Column] = columns![
    "service",
    "address",
    "connections/s" => |target| rate(&target["rates"]["connections"]),
    "packets_in/s" => |target| rate(&target["rates"]["packets_in"]),
    "packets_out/s" => |target| rate(&target["rates"]["packets_out"]),
    "bytes_in/s" => |target| rate(&target["rates"]["bytes_in"]),
    "bytes_out/s" => |target| rate(&target["rates"]["bytes_out"]),
];

const TARGET_THRESHOLDS: &[Column] = columns![
    "service",
    "address",
    "most_flows" => |target| cell(&target["limits"]["connections"]),
    "flows",
    "most_new/s" => |target| cell(&target["limits"]["new_per_second"]),
    "connections/s" => |target| rate(&target["rates"]["connections"]),
    "at_limit",
];

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whole, but for what is less than ten.
fn rate(value: &Value) -> String {
    match value.as_f64() {
        None => cell(value),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// `5m/24 web`: for how long, for which prefix, if that is less than the address, and in which group, if in one.
fn persistence(value: &Value) -> String {
    let Some(seconds) = value["timeout_seconds"].as_u64() else {
        return "-".into();
    };
    let whole = |prefix: &u64| ![32, 128].contains(prefix);
    let prefix = value["source_prefix"].as_u64().filter(whole);
    let prefix = prefix.map(|prefix| format!("/{prefix}"));
    let group = value["group"].as_str().map(|group| format!(" {group}"));
    let [prefix, group] = [prefix, group].map(Option::unwrap_or_default);
    format!("{}{prefix}{group}", duration(seconds))
}

/// How long ago that was; nothing is known of 0.
fn age(unix_ms: &Value, now_unix_ms: u64) -> String {
    match unix_ms.as_u64() {
        None | Some(0) => "-".into(),
        Some(then) => duration(now_unix_ms.saturating_sub(then) / 1000),
    }
}

/// `drain, weight 3 for 5m by ann: new disk`.
fn operator(intent: &Value, now_unix_ms: u64) -> String {
    if intent.is_null() {
        return "-".into();
    }
    let drain = (intent["drain"] == true).then(|| "drain".to_owned());
    let weight = intent["weight"].as_u64();
    let weight = weight.map(|weight| format!("weight {weight}"));
    let words: Vec<String> = drain.into_iter().chain(weight).collect();
    told(&words.join(", "), intent, now_unix_ms)
}

/// What an operator wants, for how long already, who that is and why.
fn told(what: &str, asked: &Value, now_unix_ms: u64) -> String {
    let age = age(&asked["since_unix_ms"], now_unix_ms);
    let mut told = format!("{what} for {age}");
    if let Some(by) = asked["by"].as_str() {
        told.push_str(&format!(" by {by}"));
    }
    if let Some(reason) = asked["reason"].as_str() {
        told.push_str(&format!(": {reason}"));
    }
    told
}

/// In its two greatest units: `3d4h`, `5m`, `12s`.
pub(crate) fn duration(seconds: u64) -> String {
    const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let mut left = seconds;
    let mut text = String::new();
    let greatest = UNITS.iter().position(|(unit, _)| seconds >= *unit);
    for (unit, letter) in UNITS.iter().skip(greatest.unwrap_or(3)).take(2) {
        let n = left / unit;
        left %= unit;
        if n > 0 || seconds == 0 {
            text.push_str(&format!("{n}{letter}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Cli {
        Services(Services),
        Targets(Targets),
    }

    fn shown(arguments: &str) -> Result<String, String> {
        let target = json!({
                    "address": "10.0.0.1:80", "weight": 2, "effective_weight": 0.5, "up": true, "draining": false, "flows": 5, "active": 3, "inactive": 2,
                    "since_unix_ms": 0, "reason": "not probed", "registered_by": null, "flows_created": 50, "packets_in": 300,
                    "packets_out": 200, "bytes_in": 3000, "bytes_out": 2000, "resets": 1, "port_exhausted": 4, "at_limit": 6,
                    "rates": { "connections": 1.0, "packets_in": 2.0, "packets_out": 3.0, "bytes_in": 40.0, "bytes_out": 50.0 },
        });
        let status = json!({ "services": [
            {
                "name": "web", "vip": "10.0.0.100", "port": 80, "protocol": "tcp", "mode": "fullnat", "scheduler": "wlc",
                "persistence": { "timeout_seconds": 300, "source_prefix": 24, "group": "shop" }, "client_address": "toa", "healthy": 1,
                "limits": { "target_connections": 100, "target_new_per_second": null }, "vip_force": "withdraw", "vip_operator": { "by": "ann", "reason": "rack 3", "since_unix_ms": 0 }, "flows": 7, "active": 4, "inactive": 3, "flows_created": 70,
                "packets_in": 500, "packets_out": 400, "bytes_in": 5000, "bytes_out": 4000, "resets_sent": 3, "denied": 2,
                "limited": 1, "no_target": 0,
                "rates": { "connections": 0.25, "packets_in": 12.4, "packets_out": 9.99, "bytes_in": 1234.5, "bytes_out": 0.0 },
                "targets": [target],
            },
            { "name": "dns", "targets": [] },
        ] });
        let arguments = ["weir"].into_iter().chain(arguments.split(' '));
        let cli = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let status = async || Ok(status.clone());
        runtime.unwrap().block_on(async {
            match cli {
                Cli::Services(services) => services.show(status).await,
                Cli::Targets(targets) => targets.show(status).await,
            }
        })
    }

    /// The heading and the first row, cell by cell.
    fn cells(arguments: &str) -> Vec<(String, String)> {
        let text = shown(arguments).unwrap();
        // Columns are two blanks apart at least; cells have single ones.
        let words = |line: usize| {
            let line = text.lines().nth(line).unwrap().split("  ");
            let words = line.map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words(0).len(), words(1).len(), "{text}");
        words(0).into_iter().zip(words(1)).collect()
    }

    fn are(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(heading, cell): &(&str, &str)| ((*heading).into(), (*cell).into());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn services_are_shown_with_all_that_ipvsadm_shows() {
        assert_eq!(
            cells("services"),
            are(&[
                ("NAME", "web"),
                ("VIP", "10.0.0.100"),
                ("PORT", "80"),
                ("PROTOCOL", "tcp"),
                ("MODE", "fullnat"),
                ("SCHEDULER", "wlc"),
                ("PERSISTENCE", "5m/24 shop"),
                ("CLIENT_ADDRESS", "toa"),
                ("TARGETS", "1"),
                ("HEALTHY", "1"),
                ("OPERATOR", "vip drained for - by ann: rack 3"),
                ("ACTIVE", "4"),
                ("INACTIVE", "3"),
            ])
        );
        assert_eq!(
            cells("services --stats"),
            are(&[
                ("NAME", "web"),
                ("FLOWS_CREATED", "70"),
                ("PACKETS_IN", "500"),
                ("PACKETS_OUT", "400"),
                ("BYTES_IN", "5000"),
                ("BYTES_OUT", "4000"),
                ("RESETS_SENT", "3"),
                ("DENIED", "2"),
                ("LIMITED", "1"),
                ("NO_TARGET", "0"),
            ])
        );
        assert_eq!(
            cells("services --rate"),
            are(&[
                ("NAME", "web"),
                ("CONNECTIONS/S", "0.2"),
                ("PACKETS_IN/S", "12"),
                ("PACKETS_OUT/S", "10"),
                ("BYTES_IN/S", "1234"),
                ("BYTES_OUT/S", "0"),
            ])
        );
    }

    #[test]
    fn targets_are_shown_with_their_service() {
        assert_eq!(
            cells("targets"),
            are(&[
                ("SERVICE", "web"),
                ("ADDRESS", "10.0.0.1:80"),
                ("WEIGHT", "2"),
                ("EFFECTIVE_WEIGHT", "0.5"),
                ("UP", "true"),
                ("DRAINING", "false"),
                ("SORRY", "-"),
                ("OPERATOR", "-"),
                ("ACTIVE", "3"),
                ("INACTIVE", "2"),
                ("SINCE", "-"),
                ("REASON", "not probed"),
                ("REGISTERED_BY", "-"),
            ])
        );
        assert_eq!(
            cells("targets --stats"),
            are(&[
                ("SERVICE", "web"),
                ("ADDRESS", "10.0.0.1:80"),
                ("FLOWS_CREATED", "50"),
                ("PACKETS_IN", "300"),
                ("PACKETS_OUT", "200"),
                ("BYTES_IN", "3000"),
                ("BYTES_OUT", "2000"),
                ("RESETS", "1"),
                ("PORT_EXHAUSTED", "4"),
            ])
        );
        assert_eq!(
            cells("targets --rate"),
            are(&[
                ("SERVICE", "web"),
                ("ADDRESS", "10.0.0.1:80"),
                ("CONNECTIONS/S", "1.0"),
                ("PACKETS_IN/S", "2.0"),
                ("PACKETS_OUT/S", "3.0"),
                ("BYTES_IN/S", "40"),
                ("BYTES_OUT/S", "50"),
            ])
        );
        assert_eq!(
            cells("targets --thresholds"),
            are(&[
                ("SERVICE", "web"),
                ("ADDRESS", "10.0.0.1:80"),
                ("MOST_FLOWS", "100"),
                ("FLOWS", "5"),
                ("MOST_NEW/S", "-"),
                ("CONNECTIONS/S", "1.0"),
                ("AT_LIMIT", "6"),
            ])
        );
    }

    #[test]
    fn json_has_everything_and_targets_name_their_service() {
        let services: Value = serde_json::from_str(&shown("services --json").unwrap()).unwrap();
        assert_eq!(services[0]["rates"]["bytes_in"], 1234.5);
        let targets = shown("targets --json").unwrap();
        let targets: Value = serde_json::from_str(&targets).unwrap();
        assert_eq!(targets[0]["service"], "web");
        assert_eq!(targets[0]["limits"]["connections"], 100);
        assert_eq!(targets[0]["reason"], "not probed");
    }

    #[test]
    fn one_service_can_be_asked_for_and_one_kind_of_columns() {
        assert_eq!(shown("targets --service dns").unwrap().lines().count(), 1);
        assert_eq!(shown("services --service dns").unwrap().lines().count(), 2);
        assert_eq!(
            shown("services --service nosuch"),
            Err("service \"nosuch\": expected one of dns, web".into())
        );
        for both in [
            "services --stats --rate",
            "targets --thresholds --rate",
            "targets --stats --json",
            "services --json --rate",
            "targets --thresholds --json",
        ] {
            assert!(shown(both).unwrap_err().contains("cannot be used with"));
        }
    }

    #[test]
    fn what_an_operator_wants_is_shown_with_since_when_by_whom_and_why() {
        let since = |drain: bool, weight: Option<u16>, reason: Option<&str>| {
            let intent = json!({
                "drain": drain, "weight": weight, "by": "ann", "reason": reason, "since_unix_ms": 5_000,
            });
            operator(&intent, 65_000)
        };
        assert_eq!(since(true, None, None), "drain for 1m by ann");
        assert_eq!(
            since(false, Some(3), Some("new disk")),
            "weight 3 for 1m by ann: new disk"
        );
        assert_eq!(since(true, Some(0), None), "drain, weight 0 for 1m by ann");
    }

    #[test]
    fn times_are_shown_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_661, "1h1m"),
            (86_400 * 3 + 59, "3d"),
            (86_400 * 3 + 7_300, "3d2h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(age(&json!(5_000), 65_000), "1m");
        assert_eq!(
            age(&json!(5_000), 0),
            "0s",
            "by a clock that is ahead of ours"
        );
    }
}
