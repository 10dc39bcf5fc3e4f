//! What a run needs, asked before it begins: it takes minutes, and should not end for want of a program.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::profile;

/// What will be used.
pub(crate) struct Needs<'a> {
    pub(crate) gateway: &'a Path,
    /// The example whose instructions are counted, if they are.
    pub(crate) cycles: Option<&'a Path>,
    pub(crate) profiler: bool,
    pub(crate) results: &'a Path,
    /// For trials.
    pub(crate) directory: &'a Path,
}

/// Asks for all of it.
///
/// # Errors
/// When anything is missing: all of that, each with what to do.
pub(crate) fn check(needs: &Needs<'_>) -> Result<()> {
    let missing = missing(needs);
    if !missing.is_empty() {
        bail!("not begun:\n  - {}", missing.join("\n  - "));
    }
    Ok(())
}

fn missing(needs: &Needs<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut want = |is_there: bool, say: String| {
        if !is_there {
            missing.push(say);
        }
    };
    let gateway = needs.gateway;
    want(
        gateway.is_file(),
        format!(
            "{}: cargo build --release -p l4-gateway --bins",
            gateway.display()
        ),
    );
    for (program, package) in [
        ("dpdk-testpmd", "dpdk-dev"),
        ("taskset", "util-linux"),
        ("setpriv", "util-linux"),
    ] {
        want(
            is_program(program),
            format!("{program}: install the Debian package {package}"),
        );
    }
    if let Some(cycles) = needs.cycles {
        want(
            cycles.is_file(),
            format!(
                "{}: cargo build --release -p dataplane --example cycles",
                cycles.display()
            ),
        );
        want(
            runs("valgrind", &["--version"]),
            "valgrind: install the Debian package valgrind".into(),
        );
    }
    if needs.profiler {
        want(
            profile::is_possible(needs.directory),
            "perf can't record: install the Debian package linux-perf, be root, or give --profile none".into(),
        );
        want(
            runs("addr2line", &["--version"]),
            "addr2line: install the Debian package binutils, or give --profile none".into(),
        );
    }
    if let Err(error) = writable(needs.results) {
        want(false, format!("{}: {error}", needs.results.display()));
    }
    missing
}

/// testpmd has no option that only says that it is there.
fn is_program(name: &str) -> bool {
    runs("sh", &["-c", "command -v \"$0\"", name])
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

/// Whether the file can be written, without changing what is in it.
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
        let nowhere = directory.path().join("l4-gateway");
        let cycles = directory.path().join("cycles");
        let results = directory.path().join("taken");
        std::fs::create_dir(&results).unwrap();
        let needs = Needs {
            gateway: &nowhere,
            cycles: Some(&cycles),
            profiler: false,
            results: &results,
            directory: directory.path(),
        };
        let error = check(&needs).unwrap_err().to_string();
        for part in [
            "cargo build --release -p l4-gateway --bins",
            "cargo build --release -p dataplane --example cycles",
            "taken: ",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(is_program("sh") && !is_program("weir-no-such-program"));
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
