//! `[upstreams.NAME]`.

use crate::upstream::{Algorithm, BackendSettings, KeepAlive, UpstreamSettings};
use health::{CheckSettings, State};
use shared::config::Table;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

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
        let settings = parse(&name, &mut table);
        (name, settings)
    };
    tables.into_iter().map(parse).unzip()
}

fn parse(name: &str, table: &mut Table<'_>) -> UpstreamSettings {
    let balance = table.one_of_or("balance", Algorithm::NAMES, Algorithm::default());
    let defaults = UpstreamSettings::new(name, balance, parse_backends(table));
    UpstreamSettings {
        connect_timeout: table.within("connect_timeout", TIMES, defaults.connect_timeout),
        response_timeout: table.within("response_timeout", TIMES, defaults.response_timeout),
        keep_alive: parse_keep_alive(table),
        retries: table.within("retries", 0..=10, defaults.retries),
        health: parse_health(table),
        ..defaults
    }
}

fn parse_backends(upstream: &mut Table<'_>) -> Vec<BackendSettings> {
    let mut tables = upstream.tables_by("backends", "address");
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
    for table in &mut tables {
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
        backends.push(BackendSettings { address, weight });
    }
    upstream.unique_in::<SocketAddr>("backend", &tables, "address");
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        upstream.mistake(
            "backends",
            "all weights are 0",
            "no backend would get requests: give one a weight of 1 or more",
        );
    }
    backends
}

fn parse_keep_alive(upstream: &mut Table<'_>) -> KeepAlive {
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
