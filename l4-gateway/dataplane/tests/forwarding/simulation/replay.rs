//! Which runs a test makes, and how one that failed is made again: `WEIR_SEED` names one run, `WEIR_SIMULATION_SECONDS` asks for runs
//! beyond the usual ones, until so much time has passed. What happens in a run depends on neither.

use std::time::{Duration, Instant};

/// Makes the runs of the test of this name (its path in this binary): those of `usual` seeds and what is asked for beyond them, or only
/// the one that is to be repeated. Whether they were the usual ones at least, so that the test can ask what they have met.
pub fn each_seed(
    test: &str,
    usual: std::ops::RangeInclusive<u64>,
    mut run: impl FnMut(u64),
) -> bool {
    let mut repeatable = |seed| {
        let named = Named { test, seed };
        run(seed);
        drop(named);
    };
    if let Some(seed) = number("WEIR_SEED") {
        repeatable(seed);
        return false;
    }
    let beyond = usual.end() + 1;
    usual.for_each(&mut repeatable);
    if let Some(seconds) = number("WEIR_SIMULATION_SECONDS") {
        let (start, length) = (Instant::now(), Duration::from_secs(seconds));
        let mut seeds = beyond..;
        while let Some(seed) = seeds.next().filter(|_| start.elapsed() < length) {
            repeatable(seed);
        }
        println!("{test}: up to seed {}", seeds.start - 1);
    }
    true
}

/// Says how to make a run again if it doesn't come to its end.
struct Named<'t> {
    test: &'t str,
    seed: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let profile = if cfg!(debug_assertions) {
                ""
            } else {
                " --release"
            };
            eprintln!(
                "the simulation failed; this repeats the run:\nWEIR_SEED={} cargo test{profile} -p dataplane --test forwarding {} -- --exact --nocapture",
                self.seed, self.test
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a seed to repeat, or time to spend, isn't configuration"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable}={text}: {error}"),
    }
}
