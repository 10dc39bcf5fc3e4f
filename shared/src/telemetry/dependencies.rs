//! Log lines of dependencies, which know nothing of who causes them: at most one per place in their code and [`INTERVAL`].
//!
//! Our own lines that the network can cause go through `log_at_most_every!`; a library warns whenever a peer misbehaves, and so a peer
//! could write our log at its own pace (an HTTP/2 PING acknowledgement nobody waits for is a WARN each). The line that passes says how many
//! were held back since the last. Dependencies that the log filter names are shown whole: somebody wants to see them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::AtMostEvery;

/// One line of each place passes in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Places that are counted apart. Those of all dependencies that ever log are fewer; two that meet share a line.
const PLACES: usize = 64;

/// The crates of this workspace, as targets begin with.
const OURS: [&str; 8] = [
    "l4_gateway",
    "dataplane",
    "dpdk_sys",
    "l7_proxy",
    "bgp_ctl",
    "health",
    "shared",
    "demo",
];

/// Writes events as `F` does, those of dependencies at most so often.
pub(super) struct Limited<F> {
    format: F,
    /// Targets that the filter names.
    asked: Vec<String>,
    gates: [AtMostEvery; PLACES],
}

impl<F> Limited<F> {
    /// `filter` is the one that events have passed.
    pub(super) fn new(format: F, filter: &str) -> Limited<F> {
        let target = |directive: &str| {
            let name = directive
                .split(['=', '['])
                .next()
                .unwrap_or_default()
                .trim();
            let is_level = name.parse::<tracing::level_filters::LevelFilter>().is_ok();
            (!name.is_empty() && !is_level).then(|| name.to_owned())
        };
        Limited {
            format,
            asked: filter.split(',').filter_map(target).collect(),
            gates: std::array::from_fn(|_| AtMostEvery::new()),
        }
    }

    fn is_limited(&self, target: &str) -> bool {
        let krate = target.split("::").next().unwrap_or_default();
        // The filter's directives hold for all targets that begin so.
        !OURS.contains(&krate) && !self.asked.iter().any(|asked| target.starts_with(&**asked))
    }

    fn gate(&self, metadata: &Metadata<'_>) -> &AtMostEvery {
        let mut hasher = DefaultHasher::new();
        metadata.callsite().hash(&mut hasher);
        // In range by the remainder, whatever the width of a pointer.
        &self.gates[(hasher.finish() % PLACES as u64) as usize]
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if !self.is_limited(metadata.target()) {
            return self.format.format_event(context, writer, event);
        }
        match self.gate(metadata).pass(INTERVAL) {
            // What is not written is nothing to the writer behind this one, either.
            None => Ok(()),
            Some(0) => self.format.format_event(context, writer, event),
            Some(held_back) => {
                let mut line = String::new();
                self.format
                    .format_event(context, Writer::new(&mut line), event)?;
                writer.write_str(&with_count(&line, held_back))
            }
        }
    }
}

/// A line, JSON or text, that says how many were held back.
fn with_count(line: &str, held_back: u64) -> String {
    let line = line.trim_end();
    match line.strip_suffix('}').filter(|_| line.starts_with('{')) {
        Some(object) => format!("{object},\"held_back\":{held_back}}}\n"),
        None => format!("{line} held_back={held_back}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_of_the_workspace_are_ours() {
        let manifest = include_str!("../../../Cargo.toml");
        let members = manifest
            .split_once("members = [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("", |(members, _)| members);
        let crates = members
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next())
            // These don't start these logs.
            .filter(|path| !path.starts_with("loadtests/"))
            .filter(|path| !["deploy/manual", "test-support"].contains(path))
            .map(|path| path.rsplit('/').next().unwrap_or(path).replace('-', "_"));
        let crates: Vec<String> = crates.collect();
        assert!(crates.len() >= 7, "{crates:?}");
        for name in &crates {
            assert!(OURS.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn a_line_says_how_many_were_held_back() {
        assert_eq!(
            with_count("WARN h2: {x}\n", 7),
            "WARN h2: {x} held_back=7\n"
        );
        let json = with_count("{\"level\":\"WARN\",\"message\":\"}\"}\n", 7);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&line["message"], &line["held_back"]),
            (&"}".into(), &7.into())
        );
    }

    #[test]
    fn what_the_filter_names_is_not_limited() {
        let limited = Limited::new((), "info,h2=debug,hyper::proto[span]=trace,rustls");
        for (target, expected) in [
            ("h2::proto::ping_pong", false),
            ("hyper::proto::h1", false),
            ("hyper::client", true),
            ("rustls::conn", false),
            ("async_nats", true),
            ("shared::bus", false),
            ("shared_memory::x", true),
            ("l7_proxy", false),
        ] {
            assert_eq!(limited.is_limited(target), expected, "{target}");
        }
        assert!(Limited::new((), "debug").is_limited("h2"));
    }
}
