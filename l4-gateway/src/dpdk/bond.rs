//! Bonds: ports made of others, by DPDK's bonding driver in active-backup mode.

use std::sync::Arc;

use super::eal::Environment;
use super::link::{self, Link};
use super::{DpdkError, StartedPort};

/// A port that a bond has taken: the bond drives it.
pub struct Member {
    name: String,
    id: u16,
    _environment: Arc<Environment>,
}

impl Member {
    pub(super) fn new(name: &str, id: u16, environment: Arc<Environment>) -> Member {
        Member {
            name: name.to_owned(),
            id,
            _environment: environment,
        }
    }

    /// Its device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The link as the driver last saw it.
    pub fn link(&self) -> Link {
        link::read(self.id)
    }

    /// Has it take frames to any MAC address: to the bond's, where the bond can't give it that one.
    ///
    /// # Errors
    /// When its driver refuses.
    pub fn take_all(&self) -> Result<(), DpdkError> {
        // SAFETY: a probed port, configured and started by its bond.
        match unsafe { dpdk_sys::rte_eth_promiscuous_enable(self.id) } {
            0 => Ok(()),
            status => Err(DpdkError::from_status(
                format!("port {}: promiscuous mode", self.name),
                status,
            )),
        }
    }
}

impl StartedPort {
    /// Whether frames go by this member of the bond.
    pub fn is_active(&self, member: &Member) -> bool {
        // SAFETY: a started port; of one that is no bond the answer is negative.
        let active = unsafe { dpdk_sys::rte_eth_bond_primary_get(self.id()) };
        active == i32::from(member.id)
    }

    /// Sends and receives by this member of the bond from now on.
    ///
    /// # Errors
    /// When it is none.
    pub fn activate(&self, member: &Member) -> Result<(), DpdkError> {
        // SAFETY: a started port, and one that was probed; the driver changes one number, which the queues' users read each burst.
        match unsafe { dpdk_sys::rte_eth_bond_primary_set(self.id(), member.id) } {
            0 => Ok(()),
            status => Err(DpdkError::from_status(
                format!("bond: going over to {}", member.name),
                status,
            )),
        }
    }
}
