//! Adj-RIB-Out (RFC 4271 3.2): what one neighbour should have been told, and what it has been told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::route::Attributes;

/// Desired against advertised routes of one neighbour. Every route is a /32: a VIP.
#[derive(Debug, Default)]
pub struct RibOut {
    desired: BTreeMap<Ipv4Addr, Attributes>,
    advertised: BTreeMap<Ipv4Addr, Attributes>,
}

/// What has to be sent so that the neighbour knows what is desired.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// VIPs the neighbour still believes in.
    pub withdraw: Vec<Ipv4Addr>,
    /// VIPs to announce, grouped by attributes so that a group fits one UPDATE.
    pub announce: BTreeMap<Attributes, Vec<Ipv4Addr>>,
}

impl Changes {
    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.withdraw.is_empty() && self.announce.is_empty()
    }
}

impl RibOut {
    /// The VIP shall be known to the neighbour with these attributes.
    pub fn announce(&mut self, vip: Ipv4Addr, attributes: Attributes) {
        self.desired.insert(vip, attributes);
    }

    /// The VIP shall not be known to the neighbour.
    pub fn withdraw(&mut self, vip: Ipv4Addr) {
        self.desired.remove(&vip);
    }

    /// No VIP shall be known to the neighbour.
    pub fn withdraw_all(&mut self) {
        self.desired.clear();
    }

    /// VIPs that shall be known to the neighbour.
    pub fn desired(&self) -> Vec<(Ipv4Addr, Attributes)> {
        let desired = self.desired.iter();
        desired
            .map(|(vip, attributes)| (*vip, attributes.clone()))
            .collect()
    }

    /// The session ended: the neighbour has forgotten all routes (RFC 4271 3.1), everything is sent again next time.
    pub fn forget_advertised(&mut self) {
        self.advertised.clear();
    }

    /// VIPs the neighbour has been told about.
    pub fn advertised(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.advertised.keys().copied()
    }

    /// Takes the difference between desired and advertised, and records it as sent.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for vip in self.advertised.keys() {
            if !self.desired.contains_key(vip) {
                changes.withdraw.push(*vip);
            }
        }
        for (vip, attributes) in &self.desired {
            if self.advertised.get(vip) != Some(attributes) {
                changes
                    .announce
                    .entry(attributes.clone())
                    .or_default()
                    .push(*vip);
            }
        }
        self.advertised.clone_from(&self.desired);
        changes
    }

    /// Everything desired once more, whatever was sent before: the answer to ROUTE-REFRESH (RFC 2918 4).
    pub fn take_all(&mut self) -> Changes {
        let stale: BTreeSet<Ipv4Addr> = self
            .advertised
            .keys()
            .filter(|vip| !self.desired.contains_key(vip))
            .copied()
            .collect();
        self.advertised.retain(|vip, _| stale.contains(vip));
        self.take_changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn med(value: u32) -> Attributes {
        Attributes {
            med: Some(value),
            communities: Vec::new(),
        }
    }

    #[test]
    fn only_differences_are_sent() {
        let mut rib = RibOut::default();
        rib.announce(A, med(1));
        rib.announce(B, med(1));
        assert_eq!(
            rib.take_changes().announce,
            BTreeMap::from([(med(1), vec![A, B])])
        );
        assert!(rib.take_changes().is_empty());

        rib.announce(A, med(2));
        rib.withdraw(B);
        let changes = rib.take_changes();
        assert_eq!(
            changes,
            Changes {
                withdraw: vec![B],
                announce: BTreeMap::from([(med(2), vec![A])])
            }
        );
        assert_eq!(rib.advertised().collect::<Vec<_>>(), [A]);
    }

    #[test]
    fn a_route_withdrawn_before_it_was_sent_is_never_mentioned() {
        let mut rib = RibOut::default();
        rib.announce(A, med(1));
        rib.withdraw(A);
        assert!(rib.take_changes().is_empty());
    }

    #[test]
    fn a_new_session_and_a_refresh_repeat_everything_desired() {
        let mut rib = RibOut::default();
        rib.announce(A, med(1));
        rib.take_changes();
        assert_eq!(rib.take_all().announce.len(), 1);
        rib.forget_advertised();
        rib.withdraw(A);
        assert!(
            rib.take_changes().is_empty(),
            "a forgotten route needs no withdrawal"
        );
    }

    #[test]
    fn a_refresh_still_withdraws_what_is_no_longer_desired() {
        let mut rib = RibOut::default();
        rib.announce(A, med(1));
        rib.announce(B, med(1));
        rib.take_changes();
        rib.withdraw(B);
        let changes = rib.take_all();
        assert_eq!(
            changes,
            Changes {
                withdraw: vec![B],
                announce: BTreeMap::from([(med(1), vec![A])])
            }
        );
    }
}
