//! `[upstreams.NAME]`.

use crate::balance::Algorithm;
use health::{CheckSettings, State};
use shared::config::Table;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

/// One upstream as configured.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name.
    pub name: String,
    /// How requests are spread.
    pub balance: Algorithm,
    /// At least one has a weight above 0.
    pub backends: Vec<BackendSettings>,
    /// Until a TCP connection to a backend is there.
    pub connect_timeout: Duration,
    /// From the request being sent until the response head is there, and the longest pause within the response body.
    pub response_timeout: Duration,
    /// Idle connections to backends.
    pub keep_alive: KeepAlive,
    /// Tries after the first one that failed.
    pub retries: u32,
    /// How backends are checked; without it they count as up.
    pub health: Option<CheckSettings>,
}

impl UpstreamSettings {
    /// An upstream with every setting that has a default at its default.
    pub fn new(
        name: impl Into<String>,
        balance: Algorithm,
        backends: Vec<BackendSettings>,
    ) -> UpstreamSettings {
        UpstreamSettings {
            name: name.into(),
            balance,
            backends,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(60),
            keep_alive: KeepAlive::default(),
            retries: 1,
            health: None,
        }
    }

    fn parse(name: &str, table: &mut Table<'_>) -> UpstreamSettings {
        let balance = table.one_of_or("balance", Algorithm::NAMES, Algorithm::default());
        let defaults = UpstreamSettings::new(name, balance, parse_backends(table));
        UpstreamSettings {
            connect_timeout: table.within("connect_timeout", TIMES, defaults.connect_timeout),
            response_timeout: table.within("response_timeout", TIMES, defaults.response_timeout),
            keep_alive: KeepAlive::parse(table),
            retries: table.within("retries", 0..=10, defaults.retries),
            health: parse_health(table),
            ..defaults
        }
    }
}

/// One backend as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to its siblings; 0 gets no new requests.
    pub weight: u32,
}

/// What is kept of connections no request is using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle connections kept per backend and worker; 0 closes each after its request.
    pub idle: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get before it is closed after its request.
    pub max_age: Duration,
}

impl Default for KeepAlive {
    fn default() -> KeepAlive {
        // An idle connection should end here before it ends at the backend; a minute is the shortest default among common servers
        // apart from Node's five seconds, which a stale connection's retry covers.
        KeepAlive {
            idle: 32,
            idle_timeout: Duration::from_secs(55),
            max_age: Duration::from_secs(600),
        }
    }
}

impl KeepAlive {
    fn parse(upstream: &mut Table<'_>) -> KeepAlive {
        let defaults = KeepAlive::default();
        let Some(mut table) = upstream.table("keep_alive") else {
            return defaults;
        };
        KeepAlive {
            idle: table.within("idle", 0..=10_000, defaults.idle),
            idle_timeout: table.within("idle_timeout", TIMES, defaults.idle_timeout),
            max_age: table.within("max_age", TIMES, defaults.max_age),
        }
    }
}

/// Reads the upstreams. The names come apart from the settings because routes may be checked against them even where settings are wrong.
pub(super) fn parse_all(root: &mut Table<'_>) -> (Vec<String>, Vec<UpstreamSettings>) {
    let tables = root.map("upstreams");
    if tables.is_empty() {
        root.mistake(
            "upstreams",
            "expected at least one upstream",
            "write [upstreams.NAME] with [[upstreams.NAME.backends]]",
        );
    }
    let parse = |(name, mut table): (String, Table<'_>)| {
        table.allows_name("", &name, "an upstream");
        let settings = UpstreamSettings::parse(&name, &mut table);
        (name, settings)
    };
    tables.into_iter().map(parse).unzip()
}

fn parse_backends(upstream: &mut Table<'_>) -> Vec<BackendSettings> {
    let tables = upstream.tables("backends");
    let path = upstream.path().to_owned();
    if tables.is_empty() {
        upstream.mistake(
            "backends",
            "expected at least one backend",
            format!("write [[{path}.backends]] with `address`"),
        );
        return Vec::new();
    }
    let mut backends = Vec::new();
    let mut places = Vec::new();
    for mut table in tables {
        let address = table.required::<SocketAddr>("address");
        let weight = table.within("weight", 0..=1000, 1);
        let Some(address) = address else {
            continue;
        };
        if address.ip().is_unspecified() || address.port() == 0 {
            table.mistake(
                "address",
                format!("nothing can be sent to {address}"),
                "write the address and port the backend listens on",
            );
        }
        places.push((format!("{}.address", table.path()), address.to_string()));
        backends.push(BackendSettings { address, weight });
    }
    upstream.unique(
        "backend",
        places
            .iter()
            .map(|(path, address)| (path.clone(), address.as_str())),
    );
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        upstream.mistake(
            "backends",
            "all weights are 0",
            "no backend would get requests: give one a weight of 1 or more",
        );
    }
    backends
}

fn parse_health(upstream: &mut Table<'_>) -> Option<CheckSettings> {
    let mut table = upstream.table("health")?;
    let decided = table.has("initially");
    let mut settings = CheckSettings::parse(&mut table)?;
    if !decided {
        // Not knowing yet is no reason to refuse requests: a backend that does not answer is skipped by the retry.
        settings.initially = State::Up;
    }
    Some(settings)
}
