//! Whether the frame buffers fit the memory they are given.

use shared::config::Table;

use super::Config;
use crate::sizes::Sizes;

/// Records a mistake where ordinary pages were counted out and can't hold the frame buffers, and a warning where they may have no room for the rest. Of
/// hugepages the host alone knows.
pub(super) fn holds_frames(root: &mut Table<'_>, config: &Config) {
    let Some(memory) = config.eal.memory.filter(|_| !config.eal.huge_pages) else {
        return;
    };
    let sizes = Sizes::of(config);
    let has = memory.bytes() >> 20;
    if has >= sizes.mebibytes.into() {
        return;
    }
    let Some(mut eal) = root.table("eal") else {
        return;
    };
    let message = format!(
        "{} frame buffers take {}MiB, and {}MiB with rings and drivers",
        sizes.frames, sizes.frames_mebibytes, sizes.mebibytes
    );
    let hint = "leave it out, as it is worked out from the ports, or lower `frames`";
    match has > sizes.frames_mebibytes.into() {
        true => eal.warning("memory", message, hint),
        false => eal.mistake("memory", message, hint),
    }
}
