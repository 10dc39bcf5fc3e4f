//! What a run needs, asked before it begins: it takes minutes, and should not end for want of a program.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::profile;

/// What is missing so far, each with what to do about it.
#[derive(Debug, Default)]
pub struct Needs {
    missing: Vec<String>,
}

impl Needs {
    /// Says so if something isn't there.
    pub fn want(&mut self, is_there: bool, say: impl Into<String>) {
        if !is_there {
            self.missing.push(say.into());
        }
    }

    /// A file that a command makes.
    pub fn file(&mut self, path: &Path, made_by: &str) {
        self.want(path.is_file(), format!("{}: {made_by}", path.display()));
    }

    /// A program of a Debian package, found by its name.
    pub fn program(&mut self, name: &str, package: &str) {
        self.want(
            runs("sh", &["-c", "command -v \"$0\"", name]),
            format!("{name}: install the Debian package {package}"),
        );
    }

    /// What profiles are taken with; `directory` is for a trial, `without` the option that does without them.
    pub fn profiler(&mut self, directory: &Path, without: &str) {
        self.want(
            profile::is_possible(directory),
            format!("perf can't record: install the Debian package linux-perf, be root, or give {without}"),
        );
        self.want(
            runs("addr2line", &["--version"]),
            format!("addr2line: install the Debian package binutils, or give {without}"),
        );
    }

    /// A file that is written at the end; what is in it stays as it is.
    pub fn writable(&mut self, path: &Path) {
        if let Err(error) = writable(path) {
            self.want(false, format!("{}: {error}", path.display()));
        }
    }

    /// # Errors
    /// When anything is missing: all of that.
    pub fn met(self) -> Result<()> {
        if !self.missing.is_empty() {
            bail!("not begun:\n  - {}", self.missing.join("\n  - "));
        }
        Ok(())
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

fn writable(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let is_new = !path.exists();
    std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)?;
    if is_new {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_told_at_once_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let mut needs = Needs::default();
        needs.file(&directory.path().join("proxy"), "cargo build -p proxy");
        needs.program("sh", "dash");
        needs.program("weir-no-such-program", "none-such");
        needs.writable(&taken);
        let error = needs.met().unwrap_err().to_string();
        for part in [
            "proxy: cargo build -p proxy",
            "weir-no-such-program: install the Debian package none-such",
            "taken: ",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("dash"), "what is there is not missing");
        assert!(Needs::default().met().is_ok());
    }

    #[test]
    fn asking_leaves_earlier_results_alone() {
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path().join("results/l4.json");
        writable(&results).unwrap();
        assert!(!results.exists());
        std::fs::write(&results, "earlier").unwrap();
        writable(&results).unwrap();
        assert_eq!(std::fs::read_to_string(&results).unwrap(), "earlier");
    }
}
