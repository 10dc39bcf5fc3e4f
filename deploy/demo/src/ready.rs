//! Waiting for a condition, with a limit and a reason when it does not come.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `condition` until it returns `Ok`, or `limit` has passed: then the error says what was awaited, and
/// the last reason it was not there. Returns how long it took.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let begin = Instant::now();
    loop {
        interrupt::check()?;
        match condition() {
            Ok(found) => return Ok((found, begin.elapsed())),
            Err(reason) if begin.elapsed() >= limit => {
                bail!("waited {:.1} s for {what}: {reason:#}", limit.as_secs_f64())
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_condition_that_comes_true_returns_its_value() -> Result<()> {
        let mut calls = 0;
        let (value, _) = until("three calls", Duration::from_secs(5), || {
            calls += 1;
            if calls == 3 {
                Ok(calls)
            } else {
                Err(anyhow!("only {calls}"))
            }
        })?;
        assert_eq!(value, 3);
        Ok(())
    }

    #[test]
    fn a_condition_that_never_comes_says_what_and_why() {
        let error = until("the moon", Duration::from_millis(30), || {
            Err::<(), _>(anyhow!("still day"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "waited 0.0 s for the moon: still day");
    }
}
