//! The `[...health]` table of a configuration: how the targets of one service or upstream are checked.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use shared::config::{FromValue, Table, Value};

use crate::probe::{HttpProbe, Probe, StatusSet, UdpProbe};
use crate::threshold::{State, Thresholds};

/// Times that make sense for probes. Below, the prober is the load; above, nobody is watching.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// Successes or failures in a row that make sense.
const COUNTS: RangeInclusive<u32> = 1..=100;

/// Longest payload or expected reply of a UDP probe, in bytes: one datagram that fits any link.
const PAYLOAD_LIMIT: usize = 1200;

/// How targets are checked: a [`Check`](crate::Check) without its address. The keys are described in `deploy/reference/health.md`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckSettings {
    /// What is sent and what answer is wanted.
    pub probe: Probe,
    /// Probed in place of the target's own port.
    pub port: Option<u16>,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// For the whole probe: connecting, asking and reading the answer.
    pub timeout: Duration,
    /// Successes in a row that bring a target up.
    pub rise: u32,
    /// Failures in a row that take a target down.
    pub fall: u32,
    /// How often a failed probe is repeated before it counts as one failure.
    pub retries: u32,
    /// From a failed probe to its repetition.
    pub retry_delay: Duration,
    /// Each interval is stretched or shortened by up to this share of itself, 0.0 to 0.5.
    pub jitter: f64,
    /// The state until the first probe has an answer.
    pub initially: State,
    /// The local address probes come from; the kernel chooses when absent.
    pub source: Option<IpAddr>,
}

impl Default for CheckSettings {
    /// A TCP probe every 2 s: up after 2, down after 3.
    fn default() -> CheckSettings {
        CheckSettings {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            retries: 0,
            retry_delay: Duration::from_millis(250),
            jitter: 0.1,
            initially: State::Down,
            source: None,
        }
    }
}

impl CheckSettings {
    /// Reads the table. What is wrong is recorded in it; `None` only where nothing can be made of it.
    pub fn parse(table: &mut Table<'_>) -> Option<CheckSettings> {
        let defaults = CheckSettings::default();
        let kind = match table.has("type") {
            true => table.one_of(
                "type",
                &[("tcp", Kind::Tcp), ("udp", Kind::Udp), ("http", Kind::Http)],
            ),
            false => {
                table.mistake("type", "is missing", "write \"tcp\", \"udp\" or \"http\"");
                None
            }
        };
        keys_of_others(table, kind);
        let interval = table.within("interval", TIMES, defaults.interval);
        let timeout = table.within("timeout", TIMES, defaults.timeout.min(interval));
        if timeout > interval {
            table.mistake(
                "timeout",
                format!(
                    "{} is longer than the interval, {}",
                    timeout.written(),
                    interval.written()
                ),
                "probes of one target do not overlap: lengthen `interval` or shorten `timeout`",
            );
        }
        let port = table.optional_within("port", 1..=u16::MAX);
        let settings = CheckSettings {
            probe: Probe::Tcp,
            port,
            interval,
            timeout,
            rise: table.within("rise", COUNTS, defaults.rise),
            fall: table.within("fall", COUNTS, defaults.fall),
            retries: table.within("retries", 0..=*COUNTS.end(), defaults.retries),
            retry_delay: table.within("retry_delay", TIMES, defaults.retry_delay),
            jitter: table.within("jitter", 0.0..=0.5, defaults.jitter),
            source: table.optional("source"),
            // A silent UDP target is never heard to be up, so that it would wait for ever.
            initially: table.one_of_or(
                "initially",
                &[("up", State::Up), ("down", State::Down)],
                if kind == Some(Kind::Udp) {
                    State::Up
                } else {
                    defaults.initially
                },
            ),
        };
        let probe = match kind? {
            Kind::Tcp => Probe::Tcp,
            Kind::Udp => Probe::Udp(udp(table)),
            Kind::Http => Probe::Http(http(table)),
        };
        Some(CheckSettings { probe, ..settings })
    }

    /// When to believe the probes.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            rise: self.rise,
            fall: self.fall,
            retries: self.retries,
            initially: self.initially,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Http,
}

/// The keys that not every type of probe has, and the types that have them.
const OF_SOME: [(&str, &[Kind], &str); 9] = [
    ("method", &[Kind::Http], "\"http\""),
    ("path", &[Kind::Http], "\"http\""),
    ("host", &[Kind::Http], "\"http\""),
    ("proxy_protocol", &[Kind::Http], "\"http\""),
    ("payload", &[Kind::Udp], "\"udp\""),
    ("payload_hex", &[Kind::Udp], "\"udp\""),
    ("expect_hex", &[Kind::Udp], "\"udp\""),
    ("require_reply", &[Kind::Udp], "\"udp\""),
    ("expect", &[Kind::Udp, Kind::Http], "\"udp\" or \"http\""),
];

/// Records a mistake at each key that other types of probes have; where the type is not known, any of them may be right.
fn keys_of_others(table: &mut Table<'_>, kind: Option<Kind>) {
    for (key, kinds, named) in OF_SOME {
        let other = kind.is_some_and(|kind| !kinds.contains(&kind));
        if table.has(key) && other {
            table.mistake(key, format!("is for type = {named} only"), "leave it out");
        }
    }
}

fn http(table: &mut Table<'_>) -> HttpProbe {
    let defaults = HttpProbe::default();
    let methods = [
        ("GET", Method::GET),
        ("HEAD", Method::HEAD),
        ("OPTIONS", Method::OPTIONS),
        ("POST", Method::POST),
    ];
    HttpProbe {
        method: table.one_of_or("method", &methods, defaults.method),
        path: table.or("path", OriginForm(defaults.path)).0,
        host: table.optional::<Host>("host").map(|host| host.0),
        expect: table.or("expect", defaults.expect),
        proxy_protocol: table.or("proxy_protocol", defaults.proxy_protocol),
    }
}

fn udp(table: &mut Table<'_>) -> UdpProbe {
    let payload = bytes(table, "payload", "payload_hex");
    let expect = bytes(table, "expect", "expect_hex");
    let require_reply = table.or("require_reply", !expect.is_empty());
    if !expect.is_empty() && !require_reply {
        table.mistake(
            "require_reply",
            "`expect` needs a reply",
            "leave `require_reply` out, or set it to true",
        );
    }
    UdpProbe {
        payload,
        expect,
        require_reply,
    }
}

/// Bytes written as text or as hexadecimal digits.
fn bytes(table: &mut Table<'_>, as_text: &'static str, as_hex: &'static str) -> Vec<u8> {
    let text = table.optional::<String>(as_text).map(String::into_bytes);
    let hex = table.optional::<Hex>(as_hex).map(|hex| hex.0);
    if text.is_some() && hex.is_some() {
        table.mistake(
            as_hex,
            format!("`{as_text}` is there too"),
            "keep one of them",
        );
    }
    let key = if hex.is_some() { as_hex } else { as_text };
    let bytes = hex.or(text).unwrap_or_default();
    if bytes.len() > PAYLOAD_LIMIT {
        table.mistake(
            key,
            format!("{} bytes are too many", bytes.len()),
            format!("at most {PAYLOAD_LIMIT}"),
        );
    }
    bytes
}

impl FromValue for StatusSet {
    const EXPECTED: &'static str = "statuses such as \"200-399\" or \"200,204\"";

    fn from_value(value: &Value) -> Result<StatusSet, String> {
        match value {
            Value::String(text) => text.parse(),
            Value::Integer(status) => status.to_string().parse(),
            _ => Err(String::new()),
        }
    }
}

struct OriginForm(PathAndQuery);

impl FromValue for OriginForm {
    const EXPECTED: &'static str = "a path such as \"/healthz\"";

    fn from_value(value: &Value) -> Result<OriginForm, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        if !text.starts_with('/') {
            return Err("it begins with a slash".to_owned());
        }
        if text.contains('#') {
            return Err("a fragment is never sent to a server".to_owned());
        }
        PathAndQuery::from_str(text)
            .map(OriginForm)
            .map_err(|error| error.to_string())
    }
}

struct Host(HeaderValue);

impl FromValue for Host {
    const EXPECTED: &'static str = "a host such as \"www.example.com\" or \"10.0.0.1:8080\"";

    fn from_value(value: &Value) -> Result<Host, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        http::uri::Authority::from_str(text)
            .ok()
            .filter(|authority| !authority.as_str().contains('@'))
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
            .map(Host)
            .ok_or_else(String::new)
    }
}

struct Hex(Vec<u8>);

impl FromValue for Hex {
    const EXPECTED: &'static str = "hexadecimal bytes such as \"00ff\" or \"00 ff\"";

    fn from_value(value: &Value) -> Result<Hex, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let digits: Vec<u32> = text
            .chars()
            .filter(|character| !character.is_whitespace())
            .map(|character| {
                character
                    .to_digit(16)
                    .ok_or_else(|| format!("{character:?} is not a hexadecimal digit"))
            })
            .collect::<Result<_, _>>()?;
        if digits.len() % 2 == 1 {
            return Err("two digits make a byte, one is missing".to_owned());
        }
        // Two digits below 16 make a number below 256.
        Ok(Hex(digits
            .chunks_exact(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect()))
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    fn parse(text: &str) -> Result<CheckSettings, String> {
        let document =
            Document::from_toml("t.toml", text).map_err(|mistakes| mistakes.to_string())?;
        document
            .parse(CheckSettings::parse)
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn defaults_need_only_a_type() {
        assert_eq!(parse("type = \"tcp\"").unwrap(), CheckSettings::default());
        let udp = parse("type = \"udp\"").unwrap();
        assert_eq!(
            (udp.probe, udp.initially),
            (Probe::Udp(UdpProbe::default()), State::Up)
        );
        assert_eq!(
            parse("type = \"http\"").unwrap().probe,
            Probe::Http(HttpProbe::default())
        );
    }

    #[test]
    fn every_key_is_read() {
        let settings = parse(
            "type = \"http\"\ninterval = \"500ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 5\nretries = 2\nretry_delay = \"50ms\"\n\
             jitter = 0.25\ninitially = \"up\"\nsource = \"10.0.0.9\"\nport = 8081\nmethod = \"HEAD\"\npath = \"/healthz?full=1\"\n\
             host = \"app.example.com:8080\"\nexpect = \"200,204\"\nproxy_protocol = true",
        )
        .unwrap();
        let check = settings.check("web", "10.0.0.1:80".parse().unwrap());
        assert_eq!(check.address, "10.0.0.1:8081".parse().unwrap());
        assert_eq!(
            check.settings,
            CheckSettings {
                probe: Probe::Http(HttpProbe {
                    method: Method::HEAD,
                    path: PathAndQuery::from_static("/healthz?full=1"),
                    host: Some(HeaderValue::from_static("app.example.com:8080")),
                    expect: "200,204".parse().unwrap(),
                    proxy_protocol: true,
                }),
                port: Some(8081),
                interval: Duration::from_millis(500),
                timeout: Duration::from_millis(200),
                rise: 1,
                fall: 5,
                retries: 2,
                retry_delay: Duration::from_millis(50),
                jitter: 0.25,
                initially: State::Up,
                source: Some("10.0.0.9".parse().unwrap()),
            }
        );
        let settings =
            parse("type = \"udp\"\npayload_hex = \"00 ff 7A\"\nexpect = \"pong\"").unwrap();
        let udp = UdpProbe {
            payload: vec![0, 0xff, 0x7a],
            expect: b"pong".to_vec(),
            require_reply: true,
        };
        assert_eq!(settings.probe, Probe::Udp(udp));
    }

    #[test]
    fn a_short_interval_shortens_the_default_timeout() {
        let settings = parse("type = \"tcp\"\ninterval = \"200ms\"").unwrap();
        assert_eq!(settings.timeout, Duration::from_millis(200));
    }

    #[test]
    fn mistakes_name_the_key_and_what_to_do() {
        for (text, complaint) in [
            (
                "interval = \"1s\"",
                "type: is missing — write \"tcp\", \"udp\" or \"http\"",
            ),
            (
                "type = \"htpp\"",
                "type: expected one of \"tcp\", \"udp\", \"http\", got \"htpp\" — did you mean \"http\"?",
            ),
            (
                "type = \"tcp\"\npath = \"/\"",
                "path: is for type = \"http\" only — leave it out",
            ),
            (
                "type = \"tcp\"\nproxy_protocol = true",
                "proxy_protocol: is for type = \"http\" only — leave it out",
            ),
            (
                "type = \"http\"\npayload = \"x\"",
                "payload: is for type = \"udp\" only — leave it out",
            ),
            (
                "type = \"tcp\"\nexpect = \"200\"",
                "expect: is for type = \"udp\" or \"http\" only — leave it out",
            ),
            (
                "type = \"tcp\"\nintervall = \"1s\"",
                "did you mean `interval`?",
            ),
            (
                "type = \"tcp\"\ninterval = 5",
                "interval: expected a duration from 10ms to 1h, got 5 — write \"5s\"",
            ),
            (
                "type = \"tcp\"\ninterval = \"0s\"",
                "interval: expected a duration from 10ms to 1h, got \"0s\"",
            ),
            (
                "type = \"tcp\"\ntimeout = \"5s\"",
                "timeout: 5s is longer than the interval, 2s",
            ),
            (
                "type = \"tcp\"\nrise = 0",
                "rise: expected an integer from 1 to 100, got 0",
            ),
            (
                "type = \"tcp\"\nfall = -1",
                "fall: expected an integer from 1 to 100, got -1",
            ),
            (
                "type = \"tcp\"\njitter = 0.9",
                "jitter: expected a number from 0 to 0.5, got 0.9",
            ),
            (
                "type = \"tcp\"\nport = 0",
                "port: expected an integer from 1 to 65535, got 0",
            ),
            (
                "type = \"tcp\"\nsource = \"eth0\"",
                "source: expected an IP address",
            ),
            (
                "type = \"tcp\"\ninitially = \"UP\"",
                "initially: expected one of \"up\", \"down\"",
            ),
            (
                "type = \"http\"\npath = \"healthz\"",
                "path: expected a path such as \"/healthz\", got \"healthz\" — it begins with a slash",
            ),
            ("type = \"http\"\npath = \"/a b\"", "path: expected a path"),
            (
                "type = \"http\"\npath = \"/a#b\"",
                "a fragment is never sent",
            ),
            (
                "type = \"http\"\nhost = \"a\\r\\nEvil: 1\"",
                "host: expected a host",
            ),
            (
                "type = \"http\"\nhost = \"user@a\"",
                "host: expected a host",
            ),
            (
                "type = \"http\"\nexpect = \"2xx\"",
                "\"2xx\" is not a status from 200 to 599",
            ),
            (
                "type = \"http\"\nmethod = \"DELETE\"",
                "method: expected one of \"GET\"",
            ),
            (
                "type = \"udp\"\npayload_hex = \"0g\"",
                "'g' is not a hexadecimal digit",
            ),
            (
                "type = \"udp\"\npayload_hex = \"000\"",
                "two digits make a byte",
            ),
            (
                "type = \"udp\"\npayload = \"a\"\npayload_hex = \"00\"",
                "payload_hex: `payload` is there too",
            ),
            (
                "type = \"udp\"\nexpect = \"a\"\nrequire_reply = false",
                "require_reply: `expect` needs a reply",
            ),
        ] {
            let complaints = parse(text).unwrap_err();
            assert!(
                complaints.contains(complaint),
                "{text:?} gave {complaints:?}, not {complaint:?}"
            );
        }
    }

    #[test]
    fn keys_of_one_type_are_not_judged_where_the_type_is_not_known() {
        let keys =
            "path = \"x\"\npayload_hex = \"0\"\nrequire_reply = 1\nexpect = 7\nproxy_protocol = 1";
        assert_eq!(
            parse(&format!("type = \"icmp\"\n{keys}")).unwrap_err(),
            "t.toml:1: type: expected one of \"tcp\", \"udp\", \"http\", got \"icmp\""
        );
        assert_eq!(
            parse(keys).unwrap_err(),
            "t.toml: type: is missing — write \"tcp\", \"udp\" or \"http\""
        );
        // A key that no type has is unknown all the same.
        let complaints = parse("type = \"icmp\"\nwat = 1").unwrap_err();
        assert!(complaints.contains("wat: unknown key"), "{complaints}");
    }

    #[test]
    fn every_key_of_one_type_is_refused_by_name_for_the_others() {
        for (key, kinds, named) in OF_SOME {
            for (name, kind) in [("tcp", Kind::Tcp), ("udp", Kind::Udp), ("http", Kind::Http)] {
                // No key of one type takes a table, so it is a mistake for all types.
                let complaints = parse(&format!("type = \"{name}\"\n{key} = {{}}")).unwrap_err();
                let refused = format!("t.toml:2: {key}: is for type = {named} only — leave it out");
                assert_eq!(
                    complaints == refused,
                    !kinds.contains(&kind),
                    "{complaints}"
                );
                assert!(
                    complaints.starts_with(&format!("t.toml:2: {key}: ")),
                    "{complaints}"
                );
                assert!(!complaints.contains("unknown"), "{complaints}");
            }
        }
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let complaints =
            parse("type = \"http\"\nrise = 0\npath = \"x\"\nexpect = \"1\"\nwat = 1").unwrap_err();
        assert_eq!(complaints.lines().count(), 4, "{complaints}");
    }

    #[test]
    fn an_oversized_payload_is_refused() {
        let text = format!(
            "type = \"udp\"\npayload = \"{}\"",
            "x".repeat(PAYLOAD_LIMIT + 1)
        );
        assert!(
            parse(&text)
                .unwrap_err()
                .contains("payload: 1201 bytes are too many — at most 1200")
        );
    }
}
