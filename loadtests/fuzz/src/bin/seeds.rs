//! Writes the seeds of all targets and their dictionaries below a folder: `seeds/<target>/<number>` and `<target>.dict`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use fuzz::{TARGETS, seeds};

fn main() -> Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("say where to write to")?);
    for (target, _) in TARGETS {
        let inputs = folder.join("seeds").join(target);
        fs::create_dir_all(&inputs)?;
        for (index, seed) in seeds::of(target).iter().enumerate() {
            fs::write(inputs.join(format!("{index:03}")), seed)?;
        }
        let mut dictionary = String::new();
        for word in seeds::words(target) {
            // libFuzzer's own form: quoted, all but plain letters and digits as \xHH.
            dictionary.push('"');
            for byte in word.bytes() {
                match byte.is_ascii_alphanumeric() {
                    true => dictionary.push(char::from(byte)),
                    false => write!(dictionary, "\\x{byte:02x}")?,
                }
            }
            dictionary.push_str("\"\n");
        }
        fs::write(folder.join(format!("{target}.dict")), dictionary)?;
    }
    Ok(())
}
