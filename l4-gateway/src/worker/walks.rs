//! Walks through a worker's flows, a step each tick. Those that look and those that end flows go on side by side: ending a million flows takes a
//! minute, as each step sends some hundred RSTs, and whoever looks meanwhile waits for none of that.

use std::collections::VecDeque;

use dataplane::{Emitted, Now, Tables, Worker};

use super::ending::{Ending, FlowEnd};
use super::inquiry::{FlowSearch, Inquiry};

/// Walks of one kind that may have been asked for and not come to their end; further questions wait in their channel.
const MOST: usize = 8;

/// The walks that were asked for, of each kind the first under way.
#[derive(Debug, Default)]
pub(super) struct Walks {
    searches: VecDeque<FlowSearch>,
    ends: VecDeque<FlowEnd>,
}

impl Walks {
    /// Whether one more of either kind may be asked for.
    pub(super) fn have_room(&self) -> bool {
        self.searches.len() < MOST && self.ends.len() < MOST
    }

    pub(super) fn search(&mut self, inquiry: Inquiry) {
        self.searches.push_back(FlowSearch::new(inquiry));
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ends.push_back(FlowEnd::new(ending));
    }

    /// Goes on: a step of each kind.
    pub(super) fn step(
        &mut self,
        worker: &mut Worker,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
    ) {
        if let Some(search) = self.searches.pop_front()
            && let Some(search) = search.step(worker, now)
        {
            self.searches.push_front(search);
        }
        if let Some(end) = self.ends.pop_front()
            && let Some(end) = end.step(worker, tables, now, out)
        {
            self.ends.push_front(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dataplane::{Counters, Ids, Limits, Secret};
    use tokio::sync::oneshot;

    use super::*;
    use crate::filter::FlowFilter;
    use crate::worker::Found;

    fn end(walks: &mut Walks) -> oneshot::Receiver<u64> {
        let (reply, answer) = oneshot::channel();
        let filter = FlowFilter::default();
        walks.end(Ending { filter, reply });
        answer
    }

    fn search(walks: &mut Walks) -> oneshot::Receiver<Found> {
        let (reply, answer) = oneshot::channel();
        walks.search(Inquiry {
            filter: FlowFilter::default(),
            limit: 0,
            count: true,
            reply,
        });
        answer
    }

    #[test]
    fn who_looks_at_a_million_flows_does_not_wait_for_those_that_end_them() {
        const FLOWS: u32 = 1 << 20;
        let limits = Limits {
            flows: FLOWS,
            ..Limits::default()
        };
        let tables = Tables::builder();
        let tables = tables.build(&mut Ids::new(&limits), None).unwrap();
        let counters = Arc::new(Counters::new(1, &limits));
        let mut worker = Worker::new(0, 1, &limits, Secret::new([7; 32]), counters);
        let mut walks = Walks::default();
        let mut out = Emitted::new();
        let mut step = |walks: &mut Walks| walks.step(&mut worker, &tables, Now(0), &mut out);

        // As long as it takes alone.
        let mut alone = search(&mut walks);
        let mut steps = 0;
        while alone.try_recv().is_err() {
            step(&mut walks);
            steps += 1;
        }
        let mut ends = [(); 3].map(|()| end(&mut walks));
        let mut beside = search(&mut walks);
        for _ in 0..steps {
            assert!(walks.have_room());
            step(&mut walks);
        }
        assert!(beside.try_recv().is_ok(), "within {steps} steps");
        let ended = ends.each_mut().map(|answer| answer.try_recv().is_ok());
        assert_eq!(ended, [true, false, false]);

        // Nobody waits for what others have given up.
        drop(ends);
        for _ in 0..MOST {
            drop(end(&mut walks));
            step(&mut walks);
        }
        step(&mut walks);
        assert!(walks.ends.len() < MOST && walks.have_room());
        let waiting = [(); MOST].map(|()| search(&mut walks));
        assert!(!walks.have_room());
        drop(waiting);
    }
}
