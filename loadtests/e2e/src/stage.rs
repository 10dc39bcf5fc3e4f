//! The one chain all tests run on, whole again before each of them.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use demo::chain::{self, Chain};
use demo::k6::repository;
use demo::lab::Lab;

/// The chain, and a turn-taking lock around it.
#[derive(Debug)]
pub struct Stage {
    chain: Mutex<Chain>,
    lab: Lab,
    /// Held as long as the chain is up: a second run must not tear it down.
    _lock: File,
}

impl Stage {
    /// Brings the chain up in namespaces `weirtest-*`, with files under `target/e2e`; the binaries are those built
    /// beside this test.
    pub fn up() -> Result<Stage> {
        let lab = Lab::new("weirtest", &repository().join("target/e2e"))?;
        let _lock = lab.lock()?;
        let chain = Chain::up(&lab, &chain::sibling_binaries()?, &|line| {
            println!("chain: {line}")
        })?;
        Ok(Stage {
            chain: Mutex::new(chain),
            lab,
            _lock,
        })
    }

    /// Takes it down.
    pub fn down(&self) -> Result<()> {
        Chain::down(&self.lab)
    }

    /// Gives the chain to one test; what an earlier one left broken is mended first.
    pub fn take(&self) -> Result<MutexGuard<'_, Chain>> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.mend().context("mending the chain before the test")?;
        Ok(chain)
    }
}

/// Runs one of our binaries outside any namespace and returns what came of it.
pub fn run_binary(name: &str, arguments: &[&str]) -> Result<Output> {
    let path: PathBuf = chain::sibling_binaries()?.join(name);
    Command::new(&path)
        .args(arguments)
        .output()
        .with_context(|| format!("running {}", path.display()))
}
