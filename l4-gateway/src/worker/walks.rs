//! Walks through a worker's tables, a step each tick. Those that look and those that end flows go on side by side: ending a million flows takes a
//! minute, as each step sends some hundred RSTs, and whoever looks meanwhile waits for none of that.

use std::collections::VecDeque;

use dataplane::{Emitted, NeighbourView, Now, Tables, Worker};
use tokio::sync::oneshot;

use super::ending::{Ending, FlowEnd};
use super::inquiry::{FlowSearch, Inquiry, NeighbourSearch};

/// Walks of one kind that may have been asked for and not come to their end; further questions wait in their channel.
const MOST: usize = 8;

/// The walks that were asked for, of each kind the first under way.
#[derive(Debug, Default)]
pub(super) struct Walks {
    searches: VecDeque<FlowSearch>,
    ends: VecDeque<FlowEnd>,
    neighbours: VecDeque<NeighbourSearch>,
}

impl Walks {
    /// Whether one more of any kind may be asked for.
    pub(super) fn have_room(&self) -> bool {
        let waiting = [self.searches.len(), self.ends.len(), self.neighbours.len()];
        waiting.into_iter().all(|walks| walks < MOST)
    }

    pub(super) fn search(&mut self, inquiry: Inquiry) {
        self.searches.push_back(FlowSearch::new(inquiry));
    }

    pub(super) fn end(&mut self, ending: Ending) {
        self.ends.push_back(FlowEnd::new(ending));
    }

    pub(super) fn list_neighbours(&mut self, reply: oneshot::Sender<Vec<NeighbourView>>) {
        self.neighbours.push_back(NeighbourSearch::new(reply));
    }

    /// Goes on: a step of each kind.
    pub(super) fn step(
        &mut self,
        worker: &mut Worker,
        tables: &Tables,
        now: Now,
        out: &mut Emitted,
    ) {
        go_on(&mut self.searches, |search| search.step(worker, now));
        go_on(&mut self.neighbours, |search| {
            search.step(worker, tables, now)
        });
        go_on(&mut self.ends, |end| end.step(worker, tables, now, out));
    }
}

/// Takes a step of the first walk, which stays the first until it comes to its end.
fn go_on<W>(walks: &mut VecDeque<W>, step: impl FnOnce(W) -> Option<W>) {
    if let Some(walk) = walks.pop_front()
        && let Some(walk) = step(walk)
    {
        walks.push_front(walk);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dataplane::{Counters, Ids, Limits, Secret};

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
        let (reply, mut listed) = oneshot::channel();
        walks.list_neighbours(reply);
        for _ in 0..steps {
            assert!(walks.have_room());
            step(&mut walks);
        }
        assert!(beside.try_recv().is_ok(), "within {steps} steps");
        assert_eq!(listed.try_recv(), Ok(Vec::new()), "nor who lists next hops");
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
