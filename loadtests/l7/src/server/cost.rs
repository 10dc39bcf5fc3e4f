//! What a process has cost: CPU time and memory, from `/proc` (proc(5)).

use std::fs;
use std::iter::Sum;
use std::ops::Sub;

use anyhow::{Context, Result};

/// Clock ticks of `/proc/.../stat`, by USER_HZ, which is 100 on every machine Linux runs on now.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// CPU time of all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Nanoseconds, to the nanosecond.
    pub(crate) total: u64,
    /// Nanoseconds in user space and in the kernel, as far as the clock's ticks tell: good over seconds, not over a window.
    pub(crate) user: u64,
    pub(crate) kernel: u64,
    /// Nanoseconds that it was ready to run and others had the CPU.
    pub(crate) waited: u64,
}

impl Cost {
    pub(crate) fn of(process: u32) -> Result<Cost> {
        let mut cost = Cost::default();
        for thread in threads(process)? {
            let path = format!("/proc/{process}/task/{thread}/schedstat");
            // A thread that ended meanwhile.
            let Ok(text) = fs::read_to_string(path) else {
                continue;
            };
            let mut fields = text.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (fields.next(), fields.next()) else {
                continue;
            };
            cost.total += ran;
            cost.waited += waited;
        }
        let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name, in brackets, may hold anything.
        let (_, rest) = text.rsplit_once(')').context("/proc/.../stat")?;
        let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
        let (Some(Ok(user)), Some(Ok(kernel))) = (fields.next(), fields.next()) else {
            anyhow::bail!("/proc/.../stat has no utime and stime: {rest}");
        };
        cost.user = user * TICK_NANOSECONDS;
        cost.kernel = kernel * TICK_NANOSECONDS;
        Ok(cost)
    }
}

impl Sub for Cost {
    type Output = Cost;

    fn sub(self, before: Cost) -> Cost {
        Cost {
            total: self.total.saturating_sub(before.total),
            user: self.user.saturating_sub(before.user),
            kernel: self.kernel.saturating_sub(before.kernel),
            waited: self.waited.saturating_sub(before.waited),
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), |sum, cost| Cost {
            total: sum.total + cost.total,
            user: sum.user + cost.user,
            kernel: sum.kernel + cost.kernel,
            waited: sum.waited + cost.waited,
        })
    }
}

pub(crate) fn threads(process: u32) -> Result<Vec<u32>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    let names = tasks.flatten().map(|task| task.file_name());
    Ok(names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

/// Bytes: the process's own and its part of what it shares with others.
pub(crate) fn memory(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let kibibytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc has no Pss")?
        .parse()?;
    Ok(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn time_that_was_spent_is_seen() {
        let process = std::process::id();
        let before = Cost::of(process).unwrap();
        let began = Instant::now();
        let mut work = 0u64;
        loop {
            work = work.wrapping_mul(3).wrapping_add(1);
            let spent = Cost::of(process).unwrap() - before;
            if spent.total > 50_000_000 && spent.user + spent.kernel > 0 {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{spent:?} {work}"
            );
        }
        assert!(memory(process).unwrap() > 1 << 20);
    }
}
