//! Runs a k6 script in the client's namespace and reads back every single request.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;
use crate::lab::Lab;
use crate::process::{spawn_logged, tail};
use crate::topology;

/// One request, as the client lived it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was begun, before any connection was made: microseconds since the epoch.
    pub start: u64,
    /// From then until its body was complete, or it was given up: microseconds.
    pub elapsed: u64,
    /// Whether status, body and serving node were as expected.
    pub ok: bool,
    /// What was wrong if not.
    pub reason: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The host asked for.
    pub host: String,
    /// The application that answered.
    pub node: String,
    /// The L7 node it came through, as the application saw it.
    pub l7: String,
    /// The client's address, as the application was told it in X-Forwarded-For.
    pub client: String,
}

impl Sample {
    /// When it ended: microseconds since the epoch.
    pub fn end(&self) -> u64 {
        self.start + self.elapsed
    }
}

/// Everything a run recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Every request, in the order begun.
    pub samples: Vec<Sample>,
    /// Requests that were due and not sent, because every virtual user was waiting for an answer.
    pub not_sent: usize,
}

/// A k6 run on its way.
#[derive(Debug)]
pub struct Load {
    child: Child,
    samples: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Starts `script` (a file of `loadtests/k6`) in the client's namespace with `environment`.
    pub fn start(
        lab: &Lab,
        name: &str,
        script: &str,
        environment: &[(&str, String)],
    ) -> Result<Load> {
        let k6 = repository().join("target/venv/bin/k6");
        if !k6.exists() {
            bail!("{} is missing: run deploy/install-deps.sh", k6.display());
        }
        let samples = lab.directory().join(format!("k6-{name}.csv"));
        let log = lab.log(&format!("k6-{name}"));
        for old in [&samples, &log] {
            if old.exists() {
                fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        let mut command = lab.namespace("client").command(&k6);
        command
            .arg("run")
            .args([
                "--no-usage-report",
                "--quiet",
                "--no-color",
                "--address",
                "",
            ])
            .arg("--out")
            .arg(format!("csv={}", samples.display()))
            .arg(repository().join("loadtests/k6").join(script))
            .env("K6_CSV_TIME_FORMAT", "unix_micro")
            .env("K6_CSV_SAVE_INTERVAL", "200ms")
            // Certificates are really checked, against the demo's own authority.
            .env("SSL_CERT_FILE", lab.certs().join("ca.pem"));
        for (key, value) in environment {
            command.env(key, value);
        }
        Ok(Load {
            child: spawn_logged(&mut command, &log)?,
            samples,
            log,
        })
    }

    /// Whether the first request is through.
    pub fn has_begun(&self) -> bool {
        fs::read_to_string(&self.samples).is_ok_and(|text| text.contains("\nweir_request,"))
    }

    /// Waits for the end of the run; `limit` is how long that may take.
    pub fn finish(mut self, limit: Duration) -> Result<Recorded> {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("waiting for k6")? {
                break status;
            }
            if begin.elapsed() > limit {
                bail!("k6 still runs after {:.0} s", limit.as_secs_f64());
            }
            interrupt::sleep(Duration::from_millis(50))?;
        };
        // 99: a threshold was crossed. Whether that matters is for the caller, who sees the samples.
        if !status.success() && status.code() != Some(99) {
            bail!(
                "k6 failed ({status}); the end of {}:\n{}",
                self.log.display(),
                tail(&self.log, 15)
            );
        }
        read_samples(&self.samples)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Only a run that was given up still has a child to end.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The checkout this program was built from.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .unwrap_or(manifest)
        .to_path_buf()
}

fn read_samples(path: &Path) -> Result<Recorded> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut recorded = parse(&text).with_context(|| format!("reading {}", path.display()))?;
    recorded.samples.sort_by_key(|sample| sample.start);
    Ok(recorded)
}

/// Picks the requests out of k6's CSV.
fn parse(text: &str) -> Result<Recorded> {
    let mut lines = text.lines();
    let header = fields(lines.next().context("the file is empty")?);
    let column = |name: &str| {
        header
            .iter()
            .position(|field| field == name)
            .with_context(|| format!("no column {name}"))
    };
    let (time, value, tags) = (
        column("timestamp")?,
        column("metric_value")?,
        column("extra_tags")?,
    );
    if column("metric_name")? != 0 {
        bail!("the first column is not metric_name");
    }
    let mut recorded = Recorded::default();
    for line in lines {
        let dropped = line.starts_with("dropped_iterations,");
        if !dropped && !line.starts_with("weir_request,") {
            continue;
        }
        let row = fields(line);
        let field = |index: usize| row.get(index).map(String::as_str).unwrap_or_default();
        let end: u64 = field(time)
            .parse()
            .with_context(|| format!("time in {line}"))?;
        let value: f64 = field(value)
            .parse()
            .with_context(|| format!("value in {line}"))?;
        if dropped {
            recorded.not_sent += value as usize;
            continue;
        }
        let mut tags: BTreeMap<&str, &str> = field(tags)
            .split('&')
            .filter_map(|tag| tag.split_once('='))
            .collect();
        let mut tag = |name: &str| tags.remove(name).unwrap_or_default().to_owned();
        let elapsed = (value * 1000.0) as u64;
        recorded.samples.push(Sample {
            start: end.saturating_sub(elapsed),
            elapsed,
            ok: tag("ok") == "1",
            reason: tag("reason"),
            scheme: tag("scheme"),
            host: tag("host"),
            node: tag("node"),
            l7: tag("l7")
                .parse::<SocketAddrV4>()
                .ok()
                .and_then(|peer| topology::node_at(*peer.ip()))
                .unwrap_or_default()
                .into(),
            client: tag("client"),
        });
    }
    Ok(recorded)
}

/// The fields of one CSV line (RFC 4180, without line breaks inside quotes: k6 writes none here).
fn fields(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                push(&mut all, '"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            other => push(&mut all, other),
        }
    }
    all
}

fn push(all: &mut [String], character: char) {
    if let Some(last) = all.last_mut() {
        last.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_with_their_start_outcome_and_tags() {
        let text = "metric_name,timestamp,metric_value,status,extra_tags,metadata\n\
                    http_reqs,1000000,1.000000,200,,\n\
                    weir_request,1500000,250.000000,200,host=a.test&node=app-1&ok=1&scheme=http&l7=10.4.0.21:4711&client=10.1.0.10,\n\
                    weir_request,1600000,12.000000,0,\"host=a.test&ok=0&reason=body, \"\"x\"\"&scheme=https\",\n";
        let samples = parse(text).unwrap().samples;
        assert_eq!(samples.len(), 2);
        assert_eq!(
            (samples[0].start, samples[0].elapsed, samples[0].ok),
            (1_250_000, 250_000, true)
        );
        assert_eq!(
            (
                samples[0].node.as_str(),
                samples[0].l7.as_str(),
                samples[0].client.as_str()
            ),
            ("app-1", "l7-1", "10.1.0.10")
        );
        assert_eq!(
            (samples[1].ok, samples[1].reason.as_str()),
            (false, "body, \"x\"")
        );
    }

    #[test]
    fn dropped_iterations_are_counted_as_not_sent() {
        let text = "metric_name,timestamp,metric_value,extra_tags\n\
                    dropped_iterations,7000000,1.000000,\ndropped_iterations,8000000,3.000000,\n";
        let recorded = parse(text).unwrap();
        assert_eq!((recorded.samples.len(), recorded.not_sent), (0, 4));
    }

    #[test]
    fn a_file_without_the_expected_columns_is_an_error() {
        assert!(parse("time,value\n").is_err());
        assert!(parse("").is_err());
    }
}
