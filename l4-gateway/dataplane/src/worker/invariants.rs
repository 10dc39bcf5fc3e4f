//! What must always hold of a worker, and of all workers together. For tests: it walks everything.

use super::Worker;
use crate::ports::PortPool;

impl Worker {
    /// Panics if the parts of the worker contradict each other. For tests: it walks everything.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let free = self.flows.check_invariants();
        let mut on_wheel = 0;
        let mut living = 0;
        self.wheel.each(&self.flows, |number| {
            on_wheel += 1;
            living += u32::from(self.flows.get(number).is_alive());
        });
        assert_eq!(living, self.flows.len(), "each living flow is on the wheel");
        assert_eq!(
            on_wheel + free,
            self.flows.capacity(),
            "each entry is on the wheel or free"
        );
        let two_sided = || self.flows.iter().filter(|(_, flow)| flow.is_two_sided());
        assert_eq!(
            self.ports.total_used(),
            two_sided().count() as u64,
            "each flow under FULLNAT has one local port, and no port is lost"
        );
        let mut used = std::collections::HashMap::new();
        for (_, flow) in two_sided() {
            assert_eq!(
                PortPool::owner(flow.local_port, self.workers),
                self.index,
                "the port of another worker"
            );
            *used.entry((flow.target_id, flow.local_id)).or_insert(0u16) += 1;
        }
        for ((target, local), count) in used {
            assert_eq!(
                self.ports.used(target, local),
                count,
                "ports towards {target:?} on {local:?}"
            );
        }
        let mut established = std::collections::HashMap::new();
        for (_, flow) in self.flows.iter() {
            let count = established.entry(flow.target_id).or_insert(0_u64);
            *count += u64::from(flow.is_established());
        }
        for (target, count) in established {
            assert_eq!(
                self.cells.established_flows(target),
                count,
                "established flows to {target:?}"
            );
        }
        if self.workers == 1 {
            Self::check_together([self]);
        }
        self.neighbours.check_invariants();
        self.fragments.check_invariants();
    }

    /// Panics if what the workers of a process keep together contradicts what each of them has.
    #[doc(hidden)]
    pub fn check_together<'w>(workers: impl IntoIterator<Item = &'w Self>) {
        let mut workers = workers.into_iter().peekable();
        let Some(counters) = workers.peek().map(|worker| &worker.counters) else {
            return;
        };
        let seated = workers.map(|worker| {
            let flows = worker.flows.iter();
            flows.filter(|(_, flow)| flow.is_seated()).count() as u64
        });
        assert_eq!(
            counters.shared().sources.connections(),
            seated.sum::<u64>(),
            "each flow counted for a source is there"
        );
    }
}
