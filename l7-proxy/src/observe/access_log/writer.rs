//! Buffers of workers, the bounded queue, and the thread that writes.

use super::file::LogFile;
use super::{Destination, Entry, Format, Settings};
use crate::error::Error;
use crate::observe::metrics::{Loss, log_lines_dropped};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A buffer this full goes to the writer, in bytes: some two hundred lines share what a hand-over and a write cost.
const BUFFER: usize = 64 * 1024;
/// Buffers waiting for the writer, over all workers.
const QUEUE: usize = 64;
/// A failing disk is complained about this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// The open access log; clone it into every worker and take a [`Buffer`] there.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Item>,
    dropped: Arc<Dropped>,
}

/// The thread that writes; [`Writer::finish`] waits for it.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: SyncSender<Item>,
    thread: Arc<JoinHandle<()>>,
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
        let output: Box<dyn Output> = match &settings.destination {
            Destination::Stderr => Box::new(io::stderr()),
            Destination::File(path) => {
                Box::new(LogFile::open(path, &settings.access).map_err(failed)?)
            }
        };
        AccessLog::to(output, settings.destination.path(), settings.format).map_err(failed)
    }

    fn to(output: Box<dyn Output>, path: &Path, format: Format) -> io::Result<(AccessLog, Writer)> {
        let (queue, items) = sync_channel(QUEUE);
        let dropped = Arc::new(Dropped::default());
        let lost = Arc::clone(&dropped);
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(output, &path, &items, &lost))?;
        let log = AccessLog {
            format,
            queue: queue.clone(),
            dropped,
        };
        let thread = Arc::new(thread);
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
        self.dropped.count.load(Ordering::Relaxed)
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
            self.log.dropped.add(lines.count, Loss::Slow);
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
    pub fn finish(&self, within: Duration) -> bool {
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

/// Lines lost.
#[derive(Debug, Default)]
struct Dropped {
    count: AtomicU64,
}

impl Dropped {
    fn add(&self, lines: u64, loss: Loss) {
        self.count.fetch_add(lines, Ordering::Relaxed);
        log_lines_dropped(loss).increment(lines);
    }
}

/// What lines are written to.
trait Output: Write + Send {
    /// Called before each batch. True if what is written from now on goes to another file than before.
    fn turn(&mut self) -> bool {
        false
    }
}

impl Output for io::Stderr {}

impl Output for LogFile {
    fn turn(&mut self) -> bool {
        self.reopen_if_moved()
    }
}

fn write_all(mut output: Box<dyn Output>, path: &Path, items: &Receiver<Item>, lost: &Dropped) {
    let mut complained: Option<Instant> = None;
    let mut lost_since = 0;
    // Whether the last thing written is the beginning of a line. Cutting it off might cut what another process has appended meanwhile.
    let mut torn = false;
    for item in items {
        let Item::Lines(lines) = item else {
            return;
        };
        torn &= !output.turn();
        let Err((whole, error)) = write_lines(&mut *output, &lines.bytes, &mut torn) else {
            if lost_since > 0 {
                tracing::info!(path = %path.display(), lost = lost_since, "the access log is written again");
                lost_since = 0;
                complained = None;
            }
            continue;
        };
        let count = lines.count.saturating_sub(whole);
        lost_since += count;
        lost.add(count, Loss::Failed);
        if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
            tracing::warn!(path = %path.display(), %error, lost = lost_since, "the access log can't be written: lines are lost");
            complained = Some(Instant::now());
        }
    }
}

/// Writes lines, on a line of their own whatever was torn before. On failure, how many of them are whole.
fn write_lines(
    output: &mut dyn Output,
    lines: &[u8],
    torn: &mut bool,
) -> Result<(), (u64, io::Error)> {
    if *torn {
        output.write_all(b"\n").map_err(|error| (0, error))?;
        *torn = false;
    }
    let mut rest = lines;
    while !rest.is_empty() {
        let error = match output.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let written = lines.get(..lines.len() - rest.len()).unwrap_or_default();
        *torn = written.last().is_some_and(|last| *last != b'\n');
        let whole = written.iter().filter(|byte| **byte == b'\n').count();
        return Err((whole as u64, error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::Access;
    use http::{Method, StatusCode, Version};
    use std::sync::mpsc::{Sender, channel};
    use std::time::SystemTime;

    fn record(buffer: &mut Buffer, target: &str) {
        buffer.record(&Entry {
            time: SystemTime::UNIX_EPOCH,
            client: "192.0.2.7",
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
            access: Access::default(),
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
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
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
            access: Access::default(),
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

    impl Output for Stuck {}

    #[test]
    fn a_stuck_disk_costs_lines_and_never_time() {
        let (entered, has_entered) = channel();
        let (release, go) = channel();
        let (log, writer) = AccessLog::to(
            Box::new(Stuck { entered, go }),
            Path::new("stuck"),
            Format::Json,
        )
        .unwrap();
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

    /// A disk with so many bytes left.
    struct Full(Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let fits = bytes.len().min(*room);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..fits]);
            *room -= fits;
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Full {}

    #[test]
    fn after_a_full_disk_every_line_but_the_torn_one_is_whole() {
        let disk = Arc::new(std::sync::Mutex::new((Vec::new(), 10)));
        let mut output = Full(disk.clone());
        let mut torn = false;
        let mut write = |lines: &str| {
            let result = write_lines(&mut output, lines.as_bytes(), &mut torn);
            result.map_err(|(whole, _)| whole)
        };
        assert_eq!(write("one\ntwo\nthree\n"), Err(2));
        assert_eq!(write("four\n"), Err(0));
        disk.lock().unwrap().1 = 100;
        assert_eq!(write("five\nsix\n"), Ok(()));
        let text = String::from_utf8(disk.lock().unwrap().0.clone()).unwrap();
        assert_eq!(text, "one\ntwo\nth\nfive\nsix\n");
        // Nothing is torn at the end of a line.
        disk.lock().unwrap().1 = 4;
        assert_eq!(write("ten\nten\n"), Err(1));
        disk.lock().unwrap().1 = 100;
        assert_eq!(write("end\n"), Ok(()));
        let text = String::from_utf8(disk.lock().unwrap().0.clone()).unwrap();
        assert!(text.ends_with("six\nten\nend\n"), "{text}");
    }
}
