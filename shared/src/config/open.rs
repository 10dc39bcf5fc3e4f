//! Opening files without waiting for somebody who never comes: a named pipe has its reader wait for a writer, a terminal for a person, and a device may
//! never end.
//!
//! Whatever a configuration names has to be a regular file. The configuration itself may come by a pipe too, as in `check --config <(generate)` or
//! `... | check --config /dev/stdin`, and is waited for as long as there is hope.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// How long the writer of a pipe may write nothing before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a regular file, and nothing else.
///
/// # Errors
/// Those of the system, and what else it is.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Before it is opened too, as that alone does something to some devices.
    regular(&std::fs::metadata(path)?)?;
    let file = open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// What is in a regular file, or comes by a pipe: one byte more than `most` at most.
///
/// # Errors
/// Those of the system, what else it is, or that nobody writes to the pipe.
pub(super) fn read_configuration(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?.file_type();
    if !found.is_file() && !found.is_fifo() {
        return Err(other(found, "a regular file or a pipe"));
    }
    let file = open(path)?;
    let limit = most as u64 + 1;
    let mut bytes = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        FromPipe(file, PATIENCE)
            .take(limit)
            .read_to_end(&mut bytes)?;
    } else {
        file.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Without waiting for the writer of a pipe. Of a regular file, reading waits for the disk all the same.
fn open(path: &Path) -> io::Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new()
        .read(true)
        .custom_flags(without_waiting)
        .open(path)
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(other(metadata.file_type(), "a regular file")),
    }
}

fn other(found: FileType, expected: &str) -> io::Error {
    let what = match found {
        found if found.is_dir() => "a directory",
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        _ => "a device",
    };
    let kind = match found.is_dir() {
        true => ErrorKind::IsADirectory,
        false => ErrorKind::InvalidInput,
    };
    io::Error::new(kind, format!("it is {what}, not {expected}"))
}

/// The reading end of a pipe that was opened without waiting, and how long its writer may write nothing.
struct FromPipe(File, Duration);

impl Read for FromPipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let FromPipe(pipe, patience) = self;
        loop {
            // Asked before each reading: without a writer there would be an end before the beginning.
            let mut waits = [PollFd::new(pipe, PollFlags::IN)];
            let limit = Timespec::try_from(*patience).map_err(io::Error::other)?;
            match poll(&mut waits, Some(&limit)) {
                Ok(0) => {
                    let why =
                        format!("it is a pipe to which nobody wrote anything for {patience:?}");
                    return Err(io::Error::new(ErrorKind::TimedOut, why));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match pipe.read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;
    use std::thread;
    use std::time::Instant;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn pipe() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        (directory, path)
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up() {
        let (_directory, path) = pipe();
        let began = Instant::now();
        let mut read = Vec::new();
        let error = FromPipe(open(&path).unwrap(), SHORT)
            .read_to_end(&mut read)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is a pipe to which nobody wrote anything for 100ms"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_pipe_whose_writer_stops_in_the_middle_is_given_up() {
        let (_directory, path) = pipe();
        let reader = open(&path).unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"[node]\n").unwrap();
        let error = FromPipe(reader, SHORT).read_to_end(&mut Vec::new());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_slow_writer_is_read_to_its_end() {
        let (_directory, path) = pipe();
        let to = path.clone();
        let writer = thread::spawn(move || {
            thread::sleep(SHORT);
            let mut pipe = File::options().write(true).open(to).unwrap();
            for part in ["[node]\n", "id = ", "\"a\"\n"] {
                pipe.write_all(part.as_bytes()).unwrap();
                thread::sleep(SHORT);
            }
        });
        let read = read_configuration(&path, 1 << 10).unwrap();
        writer.join().unwrap();
        assert_eq!(read, b"[node]\nid = \"a\"\n");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let (directory, fifo) = pipe();
        let socket = directory.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let zero = PathBuf::from("/dev/zero");
        for (path, what) in [
            (&directory.path().to_owned(), "a directory"),
            (&zero, "a device"),
            (&socket, "a socket"),
            (&fifo, "a pipe"),
        ] {
            let error = open_regular(path).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("it is {what}, not a regular file")
            );
            if *path != fifo {
                let error = read_configuration(path, 9).unwrap_err();
                let expected = format!("it is {what}, not a regular file or a pipe");
                assert_eq!(error.to_string(), expected);
            }
        }
    }
}
