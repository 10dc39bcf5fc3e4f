//! Another host claims a next hop's address. Anyone on the segment can; a node that believed it at once would send what is meant for the next hop
//! astray until that is asked again. So the MAC in use is asked first, directly, three times in 450 ms, and stays if it answers
//! (as RFC 5227 2.4 lets a host defend its address; RFC 4861 7.2.5 would believe it).
//!
//! ```text
//!                another MAC claims the address
//!   Reachable ----------------------------------> Contested --- the MAC in use answers ---> Reachable, as it was
//!                                                     |
//!                                                     +------ 3 questions in vain -------> Probing, by the other MAC
//! ```
//!
//! A host that takes the address over, from one that is dead or has given it up, is believed after that time. LAN hosts answer within
//! milliseconds, so three lost questions are no accident; and no router is found down sooner (`worker/routers.rs`). Where the MAC in use is known
//! not to answer already, the other is believed at once. If both answer, the older stays, whichever is right: going back and forth would serve
//! neither. It is reported.
//!
//! A storm of claims takes one place in the neighbour, and costs a question every 150 ms.

use super::{Neighbour, Neighbours, State};
use crate::counters::Cells;
use crate::emitted::{Emitted, Learned, Weight};
use crate::limits::{CONTEST_PROBES, NEIGHBOUR_REACHABLE};
use crate::{MacAddr, Now, Tables};

/// A next hop that went over to another MAC because the one in use no longer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) learned: Learned,
    pub(crate) from: MacAddr,
    /// The snapshot names it.
    pub(crate) named: bool,
}

impl Neighbour {
    /// Whether another MAC than the one in use is to be believed at once. If not, the contest begins, or goes on with another claimant: the
    /// latest, as somebody else's claims must not keep out who fails over.
    pub(super) fn gives_way(&mut self, learned: Learned, now: Now) -> bool {
        match learned.weight {
            Weight::Hint => false,
            Weight::Settled => true,
            Weight::Claim if self.is_anyone_asked() => true,
            Weight::Claim => {
                self.claimant = Some(learned.mac);
                if self.state != State::Contested {
                    self.state = State::Contested;
                    self.requests = 0;
                    self.due = now.millis();
                }
                false
            }
        }
    }
}

impl Neighbours {
    /// The next step of a contest: the MAC in use is asked, or has answered, or has lost.
    pub(super) fn contest(
        &mut self,
        tables: &Tables,
        now: Now,
        at: usize,
        out: &mut Emitted,
        cells: &Cells,
    ) {
        let entry = &mut self.entries[at];
        let Some(claimant) = entry.claimant else {
            entry.state = State::Reachable;
            entry.due = now.millis() + NEIGHBOUR_REACHABLE;
            return;
        };
        if entry.requests < CONTEST_PROBES {
            return self.ask(tables, now, at, out, cells);
        }
        let from = entry.mac();
        entry.header[..6].copy_from_slice(&claimant.0);
        entry.claimant = None;
        entry.has_only_spoken(now);
        self.times[at].since = now.millis();
        self.settled.push(Settled {
            learned: Learned {
                port: entry.port,
                address: entry.address,
                mac: claimant,
                weight: Weight::Settled,
            },
            from,
            named: entry.named,
        });
    }

    /// The next of the contests that the MAC in use has lost.
    pub(crate) fn settled(&mut self) -> Option<Settled> {
        self.settled.pop()
    }
}
