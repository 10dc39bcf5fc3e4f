//! What a run needs, asked before it begins.

use std::path::Path;

use anyhow::Result;

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
    let mut asked = bench_report::needs::Needs::default();
    asked.file(needs.gateway, "cargo build --release -p l4-gateway --bins");
    asked.program("dpdk-testpmd", "dpdk-dev");
    asked.program("taskset", "util-linux");
    asked.program("setpriv", "util-linux");
    asked.program("chrt", "util-linux");
    if let Some(cycles) = needs.cycles {
        asked.file(
            cycles,
            "cargo build --release -p dataplane --example cycles",
        );
        asked.program("valgrind", "valgrind");
    }
    if needs.profiler {
        asked.profiler(needs.directory, "--profile none");
    }
    asked.writable(needs.results);
    asked.met()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_built_first_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let needs = Needs {
            gateway: &directory.path().join("l4-gateway"),
            cycles: Some(&directory.path().join("cycles")),
            profiler: false,
            results: &directory.path().join("l4.json"),
            directory: directory.path(),
        };
        let error = check(&needs).unwrap_err().to_string();
        for part in [
            "cargo build --release -p l4-gateway --bins",
            "cargo build --release -p dataplane --example cycles",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
