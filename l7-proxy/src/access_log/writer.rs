//! Buffers of workers, the bounded queue, and the thread that writes.

use super::{Destination, Entry, Format, Settings};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// A full buffer goes to the writer.
const BUFFER: usize = 16 * 1024;
/// Buffers waiting for the writer, over all workers.
const QUEUE: usize = 64;

/// The open access log; clone it into every worker and take a [`Buffer`] there.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Batch>,
    counts: Arc<Counts>,
}

/// The thread that writes; [`Writer::finish`] waits for it.
#[derive(Debug)]
pub struct Writer {
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

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the destination and starts the writer's thread.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the thread cannot be started.
    pub fn open(settings: &Settings) -> io::Result<(AccessLog, Writer)> {
        let output: Box<dyn Write + Send> = match &settings.destination {
            Destination::Stderr => Box::new(io::stderr()),
            Destination::File(path) => Box::new(open(path)?),
        };
        let (queue, batches) = sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(output, &batches))?;
        Ok((
            AccessLog {
                format: settings.format,
                queue,
                counts,
            },
            Writer { thread },
        ))
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> Buffer {
        Buffer {
            log: self.clone(),
            lines: Batch::default(),
        }
    }

    /// Lines dropped because the writer could not keep up or failed.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

impl Buffer {
    /// Logs a request. Never blocks.
    pub fn record(&mut self, entry: &Entry<'_>) {
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
        match self.log.queue.try_send(std::mem::take(&mut self.lines)) {
            Ok(()) => {}
            Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) => {
                self.log
                    .counts
                    .dropped
                    .fetch_add(lines.count, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Writer {
    /// Waits until everything handed over is written. Drop every [`Buffer`] and [`AccessLog`] first; the thread ends with the last.
    pub fn finish(self) {
        // A panic in the thread has been reported by the panic hook; there is nothing to add at exit.
        let _ = self.thread.join();
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(mut output: Box<dyn Write + Send>, batches: &Receiver<Batch>) {
    for batch in batches {
        let _ = output.write_all(&batch.bytes);
    }
}
