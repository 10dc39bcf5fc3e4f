//! Buffers of workers, the bounded queue, and the thread that writes.

use super::file::LogFile;
use super::{Destination, Entry, Format, Settings};
use crate::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A buffer this full goes to the writer, in bytes.
const BUFFER: usize = 16 * 1024;
/// Buffers waiting for the writer, over all workers.
const QUEUE: usize = 64;
/// A failing disk is complained about this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// The open access log; clone it into every worker and take a [`Buffer`] there.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// The thread that writes; [`Writer::finish`] waits for it.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Item>,
    thread: JoinHandle<()>,
}

/// One worker's lines that have not been handed over. Dropping it hands them over.
#[derive(Debug)]
pub struct Buffer {
    log: AccessLog,
    lines: Batch,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    count: u64,
}

#[derive(Debug)]
enum Item {
    Lines(Batch),
    Stop,
}

impl AccessLog {
    /// Opens the destination and starts the writer's thread.
    ///
    /// # Errors
    /// [`Error::AccessLog`]: the file cannot be opened for appending, or the thread cannot be started.
    pub fn open(settings: &Settings) -> Result<(AccessLog, Writer), Error> {
        let failed = |source| Error::AccessLog {
            path: settings.destination.path().into(),
            source,
        };
        let output: Box<dyn Write + Send> = match &settings.destination {
            Destination::Stderr => Box::new(io::stderr()),
            Destination::File(path) => Box::new(LogFile::open(path).map_err(failed)?),
        };
        AccessLog::to(output, settings.format).map_err(failed)
    }

    fn to(output: Box<dyn Write + Send>, format: Format) -> io::Result<(AccessLog, Writer)> {
        let (queue, items) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(output, &items, &lost))?;
        let log = AccessLog {
            format,
            queue: queue.clone(),
            dropped,
        };
        Ok((log, Writer { queue, thread }))
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> Buffer {
        Buffer {
            log: self.clone(),
            lines: Batch::default(),
        }
    }

    /// Lines lost so far, because the writer could not keep up or could not write.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Buffer {
    /// Logs a request. Never blocks.
    pub fn record(&mut self, entry: &Entry<'_>) {
        if self.lines.bytes.capacity() == 0 {
            self.lines.bytes.reserve(BUFFER + 1024);
        }
        self.log.format.line(entry, &mut self.lines.bytes);
        self.lines.count += 1;
        if self.lines.bytes.len() >= BUFFER {
            self.flush();
        }
    }

    /// Hands over what is there. Call it about once a second, so that lines of a quiet worker appear. Never blocks.
    pub fn flush(&mut self) {
        if self.lines.count == 0 {
            return;
        }
        let sent = self
            .log
            .queue
            .try_send(Item::Lines(std::mem::take(&mut self.lines)));
        if let Err(
            TrySendError::Full(Item::Lines(lines)) | TrySendError::Disconnected(Item::Lines(lines)),
        ) = sent
        {
            self.log.dropped.fetch_add(lines.count, Ordering::Relaxed);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Writer {
    /// Waits until everything handed over so far is written, or the time is up: a stuck disk must not keep the process from ending. True when
    /// all was written. Lines handed over later are dropped and counted.
    pub fn finish(self, within: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + within;
        let mut stop = Some(Item::Stop);
        loop {
            stop = stop.and_then(|item| match self.queue.try_send(item) {
                Err(TrySendError::Full(item)) => Some(item),
                Ok(()) | Err(TrySendError::Disconnected(_)) => None,
            });
            if self.thread.is_finished() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn write_all(mut output: Box<dyn Write + Send>, items: &Receiver<Item>, lost: &AtomicU64) {
    let mut complained: Option<Instant> = None;
    for item in items {
        let Item::Lines(lines) = item else {
            return;
        };
        if let Err(error) = output.write_all(&lines.bytes) {
            lost.fetch_add(lines.count, Ordering::Relaxed);
            if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
                tracing::warn!(%error, "the access log cannot be written; lines are lost");
                complained = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode, Version};
    use std::sync::mpsc::{Sender, channel};
    use std::time::SystemTime;

    fn record(buffer: &mut Buffer, target: &str) {
        buffer.record(&Entry {
            time: SystemTime::UNIX_EPOCH,
            client: [192, 0, 2, 7].into(),
            listener: "web",
            scheme: "http",
            method: &Method::GET,
            host: None,
            target,
            version: Version::HTTP_11,
            status: StatusCode::OK,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            upstream_duration: None,
            route: None,
            upstream: None,
            backend: None,
            tries: 0,
            reason: None,
            referer: None,
            user_agent: None,
        });
    }

    #[test]
    fn lines_of_all_workers_reach_the_file_whole_and_survive_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let rotated = folder.path().join("access.log.1");
        std::fs::write(&path, "kept\n").unwrap();
        let settings = Settings {
            destination: Destination::File(path.clone()),
            format: Format::Combined,
        };
        let (log, writer) = AccessLog::open(&settings).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let mut buffer = log.buffer();
                scope.spawn(move || {
                    for request in 0..1_000 {
                        record(&mut buffer, &format!("/{worker}/{request}"));
                    }
                });
            }
        });
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while read(&path).lines().count() < 2_001 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::rename(&path, &rotated).unwrap();
        std::thread::sleep(super::super::file::CHECK_EVERY);
        let mut buffer = log.buffer();
        record(&mut buffer, "/after");
        drop(buffer);
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(log.dropped(), 0);
        let before = read(&rotated);
        assert_eq!(before.lines().count(), 2_001);
        assert!(before.starts_with("kept\n"));
        assert!(
            before
                .lines()
                .skip(1)
                .all(|line| line.starts_with("192.0.2.7 - - [") && line.ends_with("\"-\" \"-\""))
        );
        let after = read(&path);
        assert!(
            after.lines().count() == 1 && after.contains("GET /after HTTP/1.1"),
            "{after:?}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let settings = Settings {
            destination: Destination::File("/nonexistent/access.log".into()),
            format: Format::Json,
        };
        let error = AccessLog::open(&settings).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot open the access log /nonexistent/access.log: "),
            "{error}"
        );
    }

    /// Writes only when told to.
    struct Stuck {
        entered: Sender<()>,
        go: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            self.go.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_disk_costs_lines_and_never_time() {
        let (entered, has_entered) = channel();
        let (release, go) = channel();
        let (log, writer) = AccessLog::to(Box::new(Stuck { entered, go }), Format::Json).unwrap();
        let mut buffer = log.buffer();
        record(&mut buffer, "/first");
        buffer.flush();
        has_entered.recv().unwrap();
        // The writer holds one batch and the queue takes QUEUE more; of the rest every line is lost and counted.
        for _ in 0..QUEUE + 10 {
            record(&mut buffer, "/");
            buffer.flush();
        }
        assert_eq!(log.dropped(), 10);
        let started = Instant::now();
        assert!(!writer.finish(Duration::from_millis(50)));
        assert!(started.elapsed() < Duration::from_secs(5));
        // Failed writes are counted too: the held batch and those in the queue.
        drop(release);
        let deadline = Instant::now() + Duration::from_secs(10);
        while log.dropped() < (QUEUE + 11) as u64 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(log.dropped(), (QUEUE + 11) as u64);
    }
}
