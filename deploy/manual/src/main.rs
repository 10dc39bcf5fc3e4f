//! Writes man pages and shell completions of all binaries to the directory named, `target/manual` if none is.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1);
    let directory = directory.map_or_else(|| PathBuf::from("target/manual"), PathBuf::from);
    for file in manual::write(&directory)? {
        println!("{}", file.display());
    }
    Ok(())
}
