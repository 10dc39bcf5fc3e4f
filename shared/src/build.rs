//! What this was built of, and with: see `shared/build.rs`. What can't be known is `unknown`.

/// The workspace's version.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The commit, 12 digits. `unknown` without git, and in builds that are not optimised.
pub const COMMIT: &str = env!("WEIR_BUILD_COMMIT");
/// The compiler.
pub const RUSTC: &str = env!("WEIR_BUILD_RUSTC");
/// `release` or `debug`.
pub const PROFILE: &str = env!("WEIR_BUILD_PROFILE");
/// The platform it is for.
pub const TARGET: &str = env!("WEIR_BUILD_TARGET");

/// All of it, as `--version` prints it after the binary's name.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("WEIR_BUILD_COMMIT"),
    ", ",
    env!("WEIR_BUILD_RUSTC"),
    ", ",
    env!("WEIR_BUILD_PROFILE"),
    ", ",
    env!("WEIR_BUILD_TARGET"),
    ")"
);
