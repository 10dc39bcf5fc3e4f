//! Announcing our addresses on their segments (RFC 5227 3, RFC 4861 7.2.6), so that nobody goes on with what was known of them before; and
//! saying so when another host has one of them (RFC 5227 2.4).
//!
//! The first worker does it for all. Announcements get lost, so each is repeated; a node with many VIPs spreads them over time.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, Event, Worker};
use crate::counters::WorkerCount;
use crate::limits::{
    ANNOUNCEMENT_INTERVAL, ANNOUNCEMENTS, ANNOUNCEMENTS_AT_ONCE, ANNOUNCEMENTS_PER_SECOND,
};
use crate::neighbour::emit;
use crate::rate::TokenBucket;
use crate::tables::{Announced, Owned, Tables};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ipv6::ALL_NODES;
use crate::wire::ndp::{self, Ndp};
use crate::{Emitted, MacAddr, Now, Port, PortIndex};

/// What is still to be announced.
pub(super) struct Announcements {
    /// The snapshot's as of the last look.
    known: Arc<[Announced]>,
    announcement: u64,
    /// By round: what is due in it, and when, in milliseconds. Each in the order of time.
    rounds: [VecDeque<(u64, Announced)>; ANNOUNCEMENTS],
    /// What is to be announced once more, for its port's [`Port::announce_every`].
    refresh: VecDeque<Announced>,
    /// By port: when its addresses were last refreshed, in milliseconds.
    refreshed: Vec<(PortIndex, u64)>,
    allowance: TokenBucket,
}

impl Announcements {
    pub(super) fn new() -> Self {
        Self {
            known: Arc::default(),
            announcement: 0,
            rounds: Default::default(),
            refresh: VecDeque::new(),
            refreshed: Vec::new(),
            allowance: TokenBucket::new(ANNOUNCEMENTS_PER_SECOND),
        }
    }

    /// Takes over a snapshot: what is new, or elsewhere than before, is due; what is gone is announced no more.
    pub(super) fn follow(&mut self, tables: &Tables, now: Now) {
        let all = tables.announced();
        let again = std::mem::replace(&mut self.announcement, tables.announcement())
            != tables.announcement();
        if Arc::ptr_eq(&self.known, all) && !again {
            return;
        }
        let before = std::mem::replace(&mut self.known, Arc::clone(all));
        let is_listed = |list: &[Announced], one: &Announced| list.binary_search(one).is_ok();
        for round in &mut self.rounds {
            round.retain(|(_, one)| !again && is_listed(all, one));
        }
        self.refresh.retain(|one| is_listed(all, one));
        let new = all
            .iter()
            .filter(|one| again || !is_listed(&before, one))
            .map(|one| (now.millis(), *one));
        if let Some(first) = self.rounds.first_mut() {
            first.extend(new);
        }
    }

    /// Announces those that are `wanted` as if they were new, and returns them. Those that still wait for their first time keep their places:
    /// otherwise whoever asks again and again would keep the last of many from ever being announced.
    fn again(&mut self, now: Now, wanted: impl Fn(&Announced) -> bool) -> Vec<Announced> {
        let chosen: Vec<Announced> = self
            .known
            .iter()
            .filter(|one| wanted(one))
            .copied()
            .collect();
        if let Some((first, later)) = self.rounds.split_first_mut() {
            for round in later {
                round.retain(|(_, one)| !wanted(one));
            }
            let waiting: BTreeSet<Announced> = first.iter().map(|(_, one)| *one).collect();
            let new = chosen.iter().filter(|one| !waiting.contains(one));
            first.extend(new.map(|one| (now.millis(), *one)));
        }
        chosen
    }

    /// Plans another announcement, once each, of the addresses of a port that wants one by now; not before the last planned have gone. Of several
    /// ports the one that has waited longest comes first: otherwise one that always wants more than may go would keep the others out.
    fn look_for_refreshes(&mut self, ports: &[Port], now: Now) {
        let now = now.millis();
        let mut longest: Option<(u64, usize)> = None;
        for port in ports {
            let Some(every) = port.announce_every else {
                continue;
            };
            let known = self.refreshed.iter().position(|(of, _)| *of == port.index);
            let place = known.unwrap_or(self.refreshed.len());
            if known.is_none() {
                self.refreshed.push((port.index, now));
            }
            let waited = self
                .refreshed
                .get(place)
                .map_or(0, |(_, last)| now.saturating_sub(*last));
            let is_due = u128::from(waited) >= every.as_millis();
            if is_due && longest.is_none_or(|(most, _)| waited > most) {
                longest = Some((waited, place));
            }
        }
        if let Some((_, place)) = longest
            && let Some((port, last)) = self.refreshed.get_mut(place)
            && self.refresh.is_empty()
        {
            *last = now;
            let its_own = self.known.iter().filter(|one| one.port == *port);
            self.refresh.extend(its_own);
        }
    }

    /// One that is due and may go now; its next round is planned.
    fn next(&mut self, now: Now) -> Option<Announced> {
        let is_due =
            |round: &VecDeque<(u64, _)>| round.front().is_some_and(|(due, _)| *due <= now.millis());
        let at = self.rounds.iter().position(is_due);
        if at.is_none() && self.refresh.is_empty() || !self.allowance.take(now) {
            return None;
        }
        let Some(at) = at else {
            return self.refresh.pop_front();
        };
        let (_, one) = self.rounds.get_mut(at)?.pop_front()?;
        if let Some(next) = self.rounds.get_mut(at + 1) {
            next.push_back((now.millis() + ANNOUNCEMENT_INTERVAL, one));
        }
        Some(one)
    }
}

impl Worker {
    /// Announces addresses of this node again, as if they were new: those of a list, or all. Returns each with its port and MAC. For the first
    /// worker: the others announce nothing.
    ///
    /// # Errors
    /// The addresses of the list that this node does not announce: then it announces none of the others either.
    pub fn announce_again(
        &mut self,
        now: Now,
        addresses: Option<&[IpAddr]>,
    ) -> Result<Vec<(PortIndex, IpAddr, MacAddr)>, Vec<IpAddr>> {
        // Sets, as an operator's list may be long, and packets wait meanwhile.
        let known = self.announcements.known.iter().map(|one| one.address);
        let known: BTreeSet<IpAddr> = known.collect();
        let list = addresses.unwrap_or_default();
        let is_unknown = |address: &&IpAddr| !known.contains(*address);
        let unknown: Vec<IpAddr> = list.iter().filter(is_unknown).copied().collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let list: Option<BTreeSet<&IpAddr>> = addresses.map(|list| list.iter().collect());
        let wanted = |one: &Announced| list.as_ref().is_none_or(|list| list.contains(&one.address));
        let chosen = self.announcements.again(now, wanted);
        Ok(chosen
            .iter()
            .map(|one| (one.port, one.address, one.mac))
            .collect())
    }

    /// Sends the announcements that are due.
    pub(super) fn announce(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        if self.index == 0 {
            self.announcements.look_for_refreshes(tables.ports(), now);
        }
        for _ in 0..ANNOUNCEMENTS_AT_ONCE {
            let Some(one) = self.announcements.next(now) else {
                break;
            };
            self.announce_one(&one, out);
        }
    }

    fn announce_one(&self, one: &Announced, out: &mut Emitted) {
        let Announced { port, address, mac } = *one;
        match address {
            IpAddr::V4(address) => {
                let announcement = Arp {
                    operation: Operation::Request,
                    sender_mac: mac,
                    sender: address,
                    target_mac: MacAddr::default(),
                    target: address,
                };
                self.cells.worker(WorkerCount::ArpRequests, 1);
                let frame = announcement.frame(MacAddr::BROADCAST);
                emit(out, &self.cells, port, &frame);
            }
            IpAddr::V6(address) => {
                let announcement = Ndp {
                    kind: ndp::Kind::Advertisement {
                        solicited: false,
                        overrides: true,
                    },
                    source: address,
                    destination: ALL_NODES,
                    target: address,
                    mac: Some(mac),
                };
                self.cells.worker(WorkerCount::NeighbourAdvertisements, 1);
                let frame = announcement.frame(mac, ndp::multicast_mac(ALL_NODES));
                emit(out, &self.cells, port, &frame);
            }
        }
    }

    /// Another host at `mac` says that it has `address`, which is `owned` by this node. That is a conflict if this node answers for it on the
    /// port: it is told, and a LocalIP is defended, as answers of targets would go astray (RFC 5227 2.4 b). A VIP isn't: it may be served by
    /// the other.
    #[cold]
    pub(super) fn contend(
        &mut self,
        context: &mut Context<'_>,
        address: IpAddr,
        owned: Owned,
        mac: MacAddr,
    ) {
        let port = context.port;
        let announced = Announced {
            port: port.index,
            address,
            mac: port.mac,
        };
        let is_ours = |port: &Port| port.mac == mac;
        if context.tables.ports().iter().any(is_ours)
            || context
                .tables
                .announced()
                .binary_search(&announced)
                .is_err()
        {
            return;
        }
        self.cells.worker(WorkerCount::AddressConflicts, 1);
        let due = self.reports.address_conflict.pass(context.now);
        let event = Event::AddressConflict {
            port: port.index,
            address,
            mac,
        };
        self.report_if(due, context.out, event);
        if let Owned::LocalIp(id) = owned
            && self.counters.shared().may_defend(id, context.now)
        {
            self.announce_one(&announced, context.out);
        }
    }
}
