//! What `--version` says of how the binary was built.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WEIR_COMMIT");
    let of_cargo = |name| variable(name).unwrap_or_else(|| "unknown".to_owned());
    let profile = of_cargo("PROFILE");
    let commit = variable("WEIR_COMMIT").or_else(|| commit(&profile));
    let rustc = said_by(&of_cargo("RUSTC"), &["--version"]);
    // "rustc 1.95.0 (59807616e 2026-04-14)": the first two words.
    let rustc = rustc.map(|text| text.split(' ').take(2).collect::<Vec<_>>().join(" "));
    for (name, value) in [
        ("COMMIT", commit),
        ("RUSTC", rustc),
        ("PROFILE", Some(profile)),
        ("TARGET", Some(of_cargo("TARGET"))),
    ] {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        println!("cargo::rustc-env=WEIR_BUILD_{name}={value}");
    }
}

/// The commit that is checked out. Of optimised builds only: to know it always, each commit would have all of the workspace compiled anew while it is
/// worked on, and one that is not looked up again would be wrong.
fn commit(profile: &str) -> Option<String> {
    if profile != "release" {
        return None;
    }
    for file in ["HEAD", "logs/HEAD", "packed-refs"] {
        if let Some(path) = said_by("git", &["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    said_by("git", &["rev-parse", "--short=12", "HEAD"])
}

/// What a command prints; none if it isn't there, fails or says nothing.
fn said_by(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts by variables"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
