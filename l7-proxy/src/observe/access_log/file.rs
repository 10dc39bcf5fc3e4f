//! An appended-to file that notices when it was moved away, as log rotation does.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::group::Group;

/// Whether the path still leads to the open file is looked at this often, when something is written.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);

/// That it can't be opened again is complained about this often.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Who may read the log: set whenever it is opened, whatever the umask, on a file that is there already too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Permissions. `None` leaves those of a new file to the umask.
    pub mode: Option<u32>,
    /// The group. `None` leaves a new file with the process's group.
    pub group: Option<Group>,
}

impl Access {
    /// The group goes first: the one before must not gain what `mode` allows.
    fn set(&self, file: &File) -> io::Result<()> {
        if let Some(group) = &self.group {
            group.give(file)?;
        }
        match self.mode {
            Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    access: Access,
    file: File,
    checked: Instant,
}

impl LogFile {
    pub(super) fn open(path: &Path, access: &Access) -> io::Result<LogFile> {
        Ok(LogFile {
            path: path.to_owned(),
            access: access.clone(),
            file: append_to(path, access)?,
            checked: Instant::now(),
        })
    }

    /// Goes over to the file that is now at the path, if that is another one. True if it did.
    pub(super) fn reopen_if_moved(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_EVERY {
            return false;
        }
        self.checked = Instant::now();
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let open = self.file.metadata().map(identity).ok();
        let there = std::fs::metadata(&self.path).map(identity).ok();
        if open == there {
            return false;
        }
        match append_to(&self.path, &self.access) {
            Ok(file) => {
                self.file = file;
                true
            }
            Err(error) => {
                // Lines go on to the old file: better there than nowhere.
                shared::log_at_most_every!(
                    COMPLAIN,
                    tracing::Level::WARN,
                    path = %self.path.display(),
                    %error,
                    "the access log was moved away and can't be opened again: lines go on to the old file"
                );
                false
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path, access: &Access) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    access.set(&file)?;
    Ok(file)
}
