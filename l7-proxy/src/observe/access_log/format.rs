//! Lines: JSON, or nginx's "combined". Bytes a client chose never reach the log raw.

use super::Entry;
use super::escape::{combined, json};
use super::timestamp::Timestamp;
use http::{HeaderValue, Version};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// nginx's `combined`, for tools that read it.
    Combined,
}

impl Format {
    /// The names used in the configuration.
    pub const NAMES: &[(&str, Format)] = &[("json", Format::Json), ("combined", Format::Combined)];

    /// Appends the line for an entry, with its newline.
    pub fn line(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Format::Json => json_line(entry, out),
            Format::Combined => combined_line(entry, out),
        }
        out.push(b'\n');
    }
}

fn json_line(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    Timestamp::of(entry.time).rfc3339(out);
    out.push(b'"');
    // Names and their punctuation are one literal each: a line is some twenty of them.
    macro_rules! text {
        ($name:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
            json($value, out);
            out.push(b'"');
        }};
    }
    // What can hold nothing to escape: names of the configuration are among it.
    macro_rules! plain {
        ($name:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $name, "\":\"").as_bytes());
            out.extend_from_slice($value.as_bytes());
            out.push(b'"');
        }};
    }
    macro_rules! number {
        ($name:literal, $value:expr) => {{
            out.extend_from_slice(concat!(",\"", $name, "\":").as_bytes());
            number(out, $value);
        }};
    }
    plain!("client", entry.client);
    plain!("listener", entry.listener);
    plain!("scheme", entry.scheme);
    plain!("method", entry.method.as_str());
    if let Some(host) = entry.host {
        text!("host", host.as_bytes());
    }
    text!("target", entry.target.as_bytes());
    plain!("version", version(entry.version));
    number!("status", entry.status.as_u16());
    number!("bytes_received", entry.bytes_received);
    number!("bytes_sent", entry.bytes_sent);
    number!("duration_us", entry.duration.as_micros());
    if let Some(duration) = entry.upstream_duration {
        number!("upstream_duration_us", duration.as_micros());
    }
    if let Some(route) = entry.route {
        plain!("route", route);
    }
    if let Some(upstream) = entry.upstream {
        plain!("upstream", upstream);
    }
    if let Some(backend) = entry.backend {
        plain!("backend", backend);
    }
    if entry.tries > 0 {
        number!("tries", entry.tries);
    }
    if let Some(reason) = entry.reason {
        plain!("reason", reason.as_str());
    }
    if let Some(referer) = entry.referer {
        text!("referer", referer.as_bytes());
    }
    if let Some(user_agent) = entry.user_agent {
        text!("user_agent", user_agent.as_bytes());
    }
    out.push(b'}');
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`, in UTC.
fn combined_line(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(entry.client.as_bytes());
    out.extend_from_slice(b" - - [");
    Timestamp::of(entry.time).common_log(out);
    out.extend_from_slice(b"] \"");
    combined(entry.method.as_str().as_bytes(), out);
    out.push(b' ');
    combined(entry.target.as_bytes(), out);
    out.push(b' ');
    out.extend_from_slice(version(entry.version).as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, entry.status.as_u16());
    out.push(b' ');
    number(out, entry.bytes_sent);
    out.extend_from_slice(b" \"");
    combined(entry.referer.map_or(b"-", HeaderValue::as_bytes), out);
    out.extend_from_slice(b"\" \"");
    combined(entry.user_agent.map_or(b"-", HeaderValue::as_bytes), out);
    out.push(b'"');
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Without the machinery of `core::fmt`, which was more than half of a line's cost.
fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::reason::Reason;
    use http::{Method, StatusCode};
    use std::time::{Duration, SystemTime};

    fn entry() -> Entry<'static> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_302_386_042),
            client: "192.0.2.7",
            listener: "web",
            scheme: "https",
            method: &Method::GET,
            host: None,
            target: "/a?b=c",
            version: Version::HTTP_2,
            status: StatusCode::OK,
            bytes_received: 0,
            bytes_sent: 1234,
            duration: Duration::from_micros(5678),
            upstream_duration: None,
            route: None,
            upstream: None,
            backend: None,
            tries: 0,
            reason: None,
            referer: None,
            user_agent: None,
        }
    }

    fn line(format: Format, entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        format.line(entry, &mut out);
        String::from_utf8(out).expect("a log line is always UTF-8")
    }

    #[test]
    fn a_plain_request_in_both_formats() {
        let entry = entry();
        assert_eq!(
            line(Format::Combined, &entry),
            "192.0.2.7 - - [21/Nov/2026:23:06:26 +0000] \"GET /a?b=c HTTP/2.0\" 200 1234 \"-\" \"-\"\n"
        );
        assert_eq!(
            line(Format::Json, &entry),
            "{\"time\":\"2026-11-21T23:06:26.042Z\",\"client\":\"192.0.2.7\",\"listener\":\"web\",\"scheme\":\"https\",\"method\":\"GET\",\
             \"target\":\"/a?b=c\",\"version\":\"HTTP/2.0\",\"status\":200,\"bytes_received\":0,\"bytes_sent\":1234,\"duration_us\":5678}\n"
        );
    }

    #[test]
    fn a_failed_request_says_why_and_where() {
        let entry = Entry {
            status: StatusCode::BAD_GATEWAY,
            route: Some("api"),
            upstream: Some("app"),
            backend: Some("10.4.0.31:8080"),
            tries: 2,
            reason: Some(Reason::ConnectFailed),
            upstream_duration: Some(Duration::from_millis(3)),
            ..entry()
        };
        let parsed: serde_json::Value = serde_json::from_str(&line(Format::Json, &entry)).unwrap();
        assert_eq!(parsed["reason"], "connect_failed");
        assert_eq!(parsed["backend"], "10.4.0.31:8080");
        assert_eq!(
            (
                &parsed["status"],
                &parsed["tries"],
                &parsed["upstream_duration_us"]
            ),
            (&502.into(), &2.into(), &3000.into())
        );
    }

    #[test]
    fn hostile_bytes_stay_within_their_field_and_line() {
        let hostile: Vec<u8> = (1u8..=255)
            .filter(|byte| {
                *byte != b'\n' && *byte != b'\r' && *byte != 0x7f && (*byte >= 32 || *byte == b'\t')
            })
            .collect();
        let hostile = HeaderValue::from_bytes(&hostile).unwrap();
        let quoting = HeaderValue::from_static("\" 200 0 \"-\" \"\\");
        let entry = Entry {
            target: "/\"\\\u{1b}[2J\u{7f}\u{85}\u{2028}ü",
            host: Some(&hostile),
            user_agent: Some(&hostile),
            referer: Some(&quoting),
            ..entry()
        };

        let text = line(Format::Combined, &entry);
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.bytes()
                .all(|byte| byte == b'\n' || (32..127).contains(&byte)),
            "{text}"
        );
        assert_eq!(
            text.matches('"').count(),
            6,
            "quotes come only from us: {text}"
        );
        assert!(
            text.contains(r#""GET /\x22\x5C\x1B[2J\x7F\xC2\x85\xE2\x80\xA8\xC3\xBC HTTP/2.0""#),
            "{text}"
        );

        let text = line(Format::Json, &entry);
        assert!(
            !text.trim_end_matches('\n').chars().any(char::is_control),
            "{text:?}"
        );
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            parsed["target"], entry.target,
            "valid text survives the escaping"
        );
        assert_eq!(parsed["referer"], "\" 200 0 \"-\" \"\\");
        let user_agent = parsed["user_agent"].as_str().unwrap();
        assert!(user_agent.starts_with("\t !\"#"), "{user_agent}");
        assert!(
            user_agent.ends_with("\\xFE\\xFF"),
            "bytes that are not UTF-8 are spelled out: {user_agent}"
        );
    }
}
