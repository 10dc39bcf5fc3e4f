//! Links: their state, and the drivers that say when it changes.

use std::ffi::{c_int, c_void};

use tokio::sync::Notify;

/// Of all ports: who waits looks at each.
static CHANGED: Notify = Notify::const_new();

/// A port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// In Mbit/s, where the driver knows.
    pub speed_mbps: Option<u32>,
}

/// Waits until the driver of some port has reported a change of its link since the last call. Many never do.
pub async fn link_changed() {
    CHANGED.notified().await;
}

/// Reads the link as the driver last saw it; down if it can't say. The port must be started.
pub(super) fn read(port: u16) -> Link {
    let mut link = dpdk_sys::weir_link::default();
    // SAFETY: the port is started; `link` is a live place.
    let status = unsafe { dpdk_sys::weir_eth_link(port, &mut link) };
    let speed_mbps =
        (link.speed_mbps != 0 && link.speed_mbps != u32::MAX).then_some(link.speed_mbps);
    Link {
        up: status == 0 && link.up != 0,
        speed_mbps,
    }
}

/// Has changes of a port's link reported, if its driver was configured to. Returns 0 or a negative errno.
pub(super) fn report(port: u16) -> c_int {
    // SAFETY: a probed port; the function stays valid and takes no argument that could go away.
    unsafe {
        dpdk_sys::rte_eth_dev_callback_register(
            port,
            dpdk_sys::RTE_ETH_EVENT_INTR_LSC,
            Some(changed),
            std::ptr::null_mut(),
        )
    }
}

/// Runs on EAL's interrupt thread.
unsafe extern "C" fn changed(
    _port: u16,
    _event: dpdk_sys::rte_eth_event_type,
    _argument: *mut c_void,
    _answer: *mut c_void,
) -> c_int {
    CHANGED.notify_one();
    0
}
