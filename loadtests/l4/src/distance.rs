//! How far apart the two CPUs are: how long a cache line takes to the other core and back.
//!
//! Every frame crosses from one core to the other, so this decides what a bench over shared memory can show. A host moves the CPUs of its
//! virtual machines about: to two cores that share a cache (some 60 ns), to two that do not (300 ns and more), and back within seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// A look, a tenth of a millisecond or so, has parts of so many turns. The quickest counts: what interrupts one says nothing of the way.
const PARTS: u32 = 3;
const TURNS: u32 = 600;
/// And one turn before them, in which the other thread wakes.
const LAST: u32 = 1 + PARTS * TURNS;
/// How often a side looks in vain before it lets others have its CPU.
const PATIENCE: u32 = 10_000;
/// The cores are far apart when a turn takes so many times the shortest seen.
const FAR: u32 = 4;

/// Measures it, with a thread of its own on the other CPU that sleeps in between.
pub(crate) struct Distance {
    ball: Arc<Ball>,
    serve: SyncSender<()>,
    /// Nanoseconds a turn, at best and at worst so far.
    pub(crate) shortest: u32,
    pub(crate) longest: u32,
}

/// On a pair of cache lines of its own, as some CPUs fetch two at once.
#[repr(align(128))]
struct Ball(AtomicU32);

impl Distance {
    /// To `cpu`, from wherever the calling thread is bound.
    pub(crate) fn to(cpu: usize) -> Result<Distance> {
        let ball = Arc::new(Ball(AtomicU32::new(0)));
        let (serve, served) = sync_channel(0);
        let other = Arc::clone(&ball);
        let mut only = CpuSet::new();
        only.set(cpu);
        thread::Builder::new()
            .name("distance".into())
            .spawn(move || {
                sched_setaffinity(None, &only).map(|()| return_balls(&other, &served))
            })?;
        Ok(Distance {
            ball,
            serve,
            shortest: u32::MAX,
            longest: 0,
        })
    }

    /// Nanoseconds to the other core and back. The other CPU must have nothing else to do.
    pub(crate) fn look(&mut self) -> Result<u32> {
        self.ball.0.store(0, Ordering::Relaxed);
        let nobody = "the thread that measures the distance could not be bound to the other CPU";
        self.serve.send(()).context(nobody)?;
        self.turn(1);
        let (mut next, mut turn) = (2, u32::MAX);
        for _ in 0..PARTS {
            let began = Instant::now();
            for _ in 0..TURNS {
                self.turn(next);
                next += 1;
            }
            turn = turn.min((began.elapsed().as_nanos() / u128::from(TURNS)) as u32);
        }
        self.shortest = self.shortest.min(turn);
        self.longest = self.longest.max(turn);
        Ok(turn)
    }

    /// Whether a turn of so many nanoseconds says that the cores are far apart.
    pub(crate) fn is_far(&self, turn: u32) -> bool {
        turn > self.shortest.saturating_mul(FAR)
    }

    fn turn(&self, turn: u32) {
        self.ball.0.store(2 * turn - 1, Ordering::Release);
        let mut patience = PATIENCE;
        while self.ball.0.load(Ordering::Acquire) != 2 * turn {
            wait(&mut patience);
        }
    }
}

/// Waits a little; the other side may need our CPU to go on.
fn wait(patience: &mut u32) {
    match patience.checked_sub(1) {
        Some(left) => {
            *patience = left;
            std::hint::spin_loop();
        }
        None => thread::yield_now(),
    }
}

/// Adds one to each odd number, until the last.
fn return_balls(ball: &Ball, served: &Receiver<()>) {
    while served.recv().is_ok() {
        let (mut last, mut patience) = (0, PATIENCE);
        while last < 2 * LAST {
            let seen = ball.0.load(Ordering::Acquire);
            if seen % 2 == 1 {
                (last, patience) = (seen + 1, PATIENCE);
                ball.0.store(last, Ordering::Release);
            } else {
                wait(&mut patience);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_some_time_and_far_is_several_times_the_shortest() {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| allowed.is_set(*cpu))
            .collect();
        let mut distance = Distance::to(*cpus.last().unwrap()).unwrap();
        let turn = distance.look().unwrap();
        assert!((1..1_000_000_000).contains(&turn));
        assert_eq!((distance.shortest, distance.longest), (turn, turn));
        distance.shortest = 60;
        assert!(!distance.is_far(60 * FAR));
        assert!(distance.is_far(60 * FAR + 1));
    }
}
