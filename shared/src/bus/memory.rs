//! What is kept on disk of the bus, to be used by the next life of this process until the bus says otherwise.
//!
//! A node that restarts while the bus is away would otherwise know no registered target and no operator's wish: it would come back empty, and with
//! it a whole fleet that is restarted node by node. Kept are registrations and operators' wishes; the rest is said again by whoever it is about.
//!
//! The file is text: a line about the file, then a line a record. It is written beside the old one and put in its place, so it is there whole or
//! as it was; lines that make no sense are passed over.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Inner;
use super::key::is_name;
use super::record::{Record, unix_ms};
use super::store::MAX_KEYS;

/// How often it is looked whether something has changed; as often it is written at most.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is written though nothing has changed: the file says when it was true.
const REFRESH: Duration = Duration::from_secs(60);
/// Largest file that is written or read, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// The environment variable by which systemd names a unit's StateDirectory=.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

#[derive(Serialize, Deserialize)]
struct Header {
    weir_bus: u32,
    saved_unix_ms: u64,
}

/// A file of one node's bus.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    path: PathBuf,
}

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) records: Vec<Record>,
    /// How long ago it was true, by this machine's clock.
    pub(super) age: Duration,
    /// Lines that made no sense.
    pub(super) garbage: usize,
}

impl Memory {
    /// The file for node `node` in `directory`, or in the one that systemd made for the unit; none if there is neither.
    pub(super) fn of(directory: Option<&Path>, node: &str) -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "not configuration: said by systemd"
        )]
        let of_unit = || {
            let directories = std::env::var_os(STATE_DIRECTORY)?;
            std::env::split_paths(&directories).next()
        };
        let directory = directory.map(Path::to_path_buf).or_else(of_unit)?;
        is_name(node).then(|| Self {
            path: directory.join(format!("bus-{node}.state")),
        })
    }

    /// What was kept, if anything was. What can't be read is a line in the log and no more: a node must start without it.
    pub(super) fn load(&self) -> Remembered {
        match read(&self.path) {
            Ok(remembered) => {
                if remembered.garbage > 0 {
                    tracing::warn!(
                        file = %self.path.display(),
                        lines = remembered.garbage,
                        "parts of what was known of the bus can't be understood and are not used"
                    );
                }
                tracing::info!(
                    file = %self.path.display(),
                    records = remembered.records.len(),
                    age = ?remembered.age,
                    "using what was known of the bus until it says otherwise"
                );
                remembered
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Remembered::default(),
            Err(error) => {
                tracing::warn!(
                    file = %self.path.display(),
                    "what was known of the bus can't be read and is not used: {error}"
                );
                Remembered::default()
            }
        }
    }

    /// Keeps what is known on disk for as long as the bus lives, from a thread of its own.
    pub(super) fn keep(self, bus: &Arc<Inner>) {
        let bus = Arc::downgrade(bus);
        let spawned = std::thread::Builder::new()
            .name("bus-memory".to_owned())
            .spawn(move || self.run(&bus));
        if let Err(error) = spawned {
            tracing::warn!("what is known of the bus is not kept on disk: {error}");
        }
    }

    fn run(&self, bus: &Weak<Inner>) {
        let mut written = None;
        let mut age = Duration::ZERO;
        loop {
            std::thread::sleep(LOOK);
            age += LOOK;
            let Some(bus) = bus.upgrade() else {
                return;
            };
            let state = bus.lock();
            let version = state.store.memorable_version();
            if written == Some(version) && age < REFRESH {
                continue;
            }
            let records = state.store.memorable();
            drop(state);
            drop(bus);
            match write(&self.path, &records, unix_ms()) {
                Ok(()) => (written, age) = (Some(version), Duration::ZERO),
                Err(error) => crate::log_at_most_every!(
                    Duration::from_secs(60),
                    tracing::Level::WARN,
                    file = %self.path.display(),
                    "what is known of the bus can't be kept on disk, a restart without the bus would not know it: {error}"
                ),
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Remembered> {
    let mut lines = BufReader::new(File::open(path)?.take(MAX_FILE)).split(b'\n');
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let header = lines.next().ok_or_else(|| bad("it is empty"))??;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| bad("it does not begin as one of ours"))?;
    if header.weir_bus != 1 {
        return Err(bad("it is of another version"));
    }
    let mut remembered = Remembered {
        age: Duration::from_millis(unix_ms().saturating_sub(header.saved_unix_ms)),
        ..Remembered::default()
    };
    for line in lines.take(MAX_KEYS) {
        match Record::decode(&line?) {
            Ok(record) if is_memorable(&record) => remembered.records.push(record),
            _ => remembered.garbage += 1,
        }
    }
    Ok(remembered)
}

fn write(path: &Path, records: &[Record], now_unix_ms: u64) -> io::Result<()> {
    let mut text = serde_json::to_vec(&Header {
        weir_bus: 1,
        saved_unix_ms: now_unix_ms,
    })?;
    for record in records {
        // One that is valid here is valid there; what isn't is left out.
        if let Ok(line) = record.encode() {
            text.push(b'\n');
            text.extend(line);
        }
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other("more than 64 MiB"));
        }
    }
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Whether a record is worth keeping.
pub(super) fn is_memorable(record: &Record) -> bool {
    matches!(record, Record::Registration(_) | Record::Drain(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{DrainRecord, RegistrationRecord, Tier};

    fn records() -> Vec<Record> {
        vec![
            DrainRecord {
                tier: Tier::L4,
                id: "l4-1".into(),
                drain: true,
                by: "test".into(),
                since_unix_ms: 1,
            }
            .into(),
            RegistrationRecord {
                service: "web".into(),
                addr: "10.3.0.21:8080".parse().unwrap(),
                node: "l7-1".into(),
                weight: 1,
                draining: false,
                ttl_ms: 3000,
            }
            .into(),
        ]
    }

    #[test]
    fn what_was_written_is_read_with_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::of(Some(directory.path()), "l4-1").unwrap();
        assert!(memory.load().records.is_empty(), "there is none yet");
        write(&memory.path, &records(), unix_ms() - 5000).unwrap();
        let remembered = memory.load();
        assert_eq!(remembered.records, records());
        assert!(remembered.age >= Duration::from_secs(5));
        assert!(remembered.age < Duration::from_secs(60));
    }

    #[test]
    fn garbage_is_passed_over_and_never_a_reason_not_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::of(Some(directory.path()), "l4-1").unwrap();
        for garbage in [
            &b""[..],
            b"\xff\x00",
            b"{}",
            b"{\"weir_bus\":2,\"saved_unix_ms\":0}",
        ] {
            fs::write(&memory.path, garbage).unwrap();
            assert!(memory.load().records.is_empty());
        }
        write(&memory.path, &records(), 0).unwrap();
        let mut text = fs::read(&memory.path).unwrap();
        text.truncate(text.len() - 10);
        text.extend(b"\n\xff\xff\n{\"version\":1}");
        fs::write(&memory.path, &text).unwrap();
        let remembered = memory.load();
        assert_eq!(remembered.records, records()[..1]);
        assert_eq!(remembered.garbage, 3);
        // A directory where the file should be.
        fs::remove_file(&memory.path).unwrap();
        fs::create_dir(&memory.path).unwrap();
        assert!(memory.load().records.is_empty());
    }
}
