//! Man pages and shell completions, made from the parsers of the binaries, so that they say what the binaries take.
//!
//! ```text
//! man/l4-gateway.1, man/l4-gateway-reload.1, ...
//! bash/l4-gateway.bash   zsh/_l4-gateway   fish/l4-gateway.fish
//! ```

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// The command lines of all binaries.
pub fn commands() -> [Command; 4] {
    [
        l4_gateway::cli::Cli::command(),
        l7_proxy::cli::Cli::command(),
        bgp_ctl::cli::Cli::command(),
        health::cli::Cli::command(),
    ]
}

/// Writes all pages and completions below `directory`, which is made if it isn't there. Returns the files.
///
/// # Errors
/// If one can't be written.
pub fn write(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let inside = |name: &str| -> anyhow::Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    };
    let shells = [
        (Shell::Bash, inside("bash")?),
        (Shell::Zsh, inside("zsh")?),
        (Shell::Fish, inside("fish")?),
    ];
    let man = inside("man")?;
    for mut command in commands() {
        let name = command.get_name().to_owned();
        for (shell, directory) in &shells {
            written.push(clap_complete::generate_to(
                *shell,
                &mut command,
                &name,
                directory,
            )?);
        }
        clap_mangen::generate_to(command, &man).with_context(|| man.display().to_string())?;
    }
    for page in fs::read_dir(&man).with_context(|| man.display().to_string())? {
        written.push(page?.path());
    }
    written.sort();
    Ok(written)
}
