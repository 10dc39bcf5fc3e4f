//! An appended-to file that notices when it was moved away, as log rotation does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whether the path still leads to the open file is looked at this often, when something is written.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    checked: Instant,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<LogFile> {
        Ok(LogFile {
            path: path.to_owned(),
            file: append_to(path)?,
            checked: Instant::now(),
        })
    }

    fn reopen_if_moved(&mut self) {
        if self.checked.elapsed() < CHECK_EVERY {
            return;
        }
        self.checked = Instant::now();
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let open = self.file.metadata().map(identity).ok();
        let there = std::fs::metadata(&self.path).map(identity).ok();
        if open != there
            && let Ok(file) = append_to(&self.path)
        {
            self.file = file;
        }
        // Where it cannot be opened again, lines go on to the old file: better there than nowhere.
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reopen_if_moved();
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
