//! The TCP probe: the target's kernel completes a handshake.

use super::connect::{Purpose, connect};
use super::{Attempt, Finding};

pub(super) async fn probe(attempt: &Attempt) -> Result<Finding, Finding> {
    connect(attempt, Purpose::Reach).await?;
    Ok(Finding::success("connected"))
}
