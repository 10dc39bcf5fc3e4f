//! Ports and their queues.

use std::ffi::CString;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Rss;

use super::bond::Member;
use super::eal::Environment;
use super::link::{self, Link};
use super::ring::forget_front;
use super::{Device, DpdkError, Eal, Mbuf, Pool, RssKey, spread};

/// A driver's answer to what it has no means for (ENOTSUP).
const NOT_SUPPORTED: i32 = -libc::ENOTSUP;

/// How a port is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSettings {
    /// Receive and transmit queues, each.
    pub queues: u16,
    /// Largest IP packet, in bytes; none for a driver that takes what its interface and its own buffers have room for.
    pub mtu: Option<u16>,
    /// Descriptors a queue; the driver may round.
    pub descriptors: u16,
    /// What frames are hashed with to spread them over several queues, where the driver lets it be chosen.
    pub rss_key: RssKey,
}

/// A probed port that has not been started.
pub struct Port {
    id: u16,
    name: String,
    environment: Arc<Environment>,
}

impl Port {
    /// The port that EAL made of `device`.
    ///
    /// # Errors
    /// When the driver did not make a port of that name.
    pub fn open(eal: &Eal, device: &Device) -> Result<Port, DpdkError> {
        let what = || format!("port {device}");
        let name = CString::new(device.name())
            .map_err(|_| DpdkError::new(what(), "the name holds a zero byte"))?;
        let mut id = 0;
        // SAFETY: `name` is a C string and `id` a place for one number, both alive during the call.
        let status = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) };
        match status {
            0 => Ok(Port {
                id,
                name: device.to_string(),
                environment: eal.environment().clone(),
            }),
            status => Err(DpdkError::from_status(what(), status)),
        }
    }

    /// Leaves the port to the bond that has taken it.
    pub fn into_member(self, name: &str) -> Member {
        Member::new(name, self.id, self.environment)
    }

    /// Configures and starts the port; frames come from `pool`.
    ///
    /// # Errors
    /// The driver's refusal, with the step that it refused.
    pub fn start(self, settings: PortSettings, pool: &Pool) -> Result<StartedPort, DpdkError> {
        let Port {
            id,
            name,
            environment,
        } = self;
        let step = |what: &str, status: i32| match status {
            0.. => Ok(()),
            status => Err(DpdkError::from_status(
                format!("port {name}: {what}"),
                status,
            )),
        };
        let mut info = dpdk_sys::rte_eth_dev_info::default();
        // SAFETY: `id` is a probed port; `info` is a live place for the result.
        step("reading its abilities", unsafe {
            dpdk_sys::rte_eth_dev_info_get(id, &mut info)
        })?;
        let most = info.max_rx_queues.min(info.max_tx_queues);
        if settings.queues > most {
            let why = format!("{} queues wanted, the driver has {most}", settings.queues);
            return Err(DpdkError::new(format!("port {name}: queues"), why));
        }

        let mut conf = dpdk_sys::rte_eth_conf::default();
        // 0 is the driver's default.
        conf.rxmode.mtu = settings.mtu.map_or(0, u32::from);
        let hashes = info.flow_type_rss_offloads & dpdk_sys::WEIR_RSS_IP_TCP_UDP;
        if settings.queues > 1 && hashes != 0 {
            conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
            if let Some(key) = settings.rss_key.bytes(info.hash_key_size) {
                // Never freed: DPDK keeps the pointer, and drivers read the key when the port starts.
                let key = Vec::leak(key.to_vec());
                conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
                conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
            }
        }
        // All frames come from one pool, unshared and in one segment: what the fast free asks for.
        conf.txmode.offloads = info.tx_offload_capa & dpdk_sys::WEIR_TX_OFFLOAD_MBUF_FAST_FREE;
        // SAFETY: `dev_flags` is null or points to the driver's flags, which stay.
        let flags = unsafe { info.dev_flags.as_ref() }.map_or(0, |flags| *flags);
        let reports_link = flags & dpdk_sys::WEIR_DEV_INTR_LSC != 0;
        conf.intr_conf.set_lsc(u32::from(reports_link));
        // SAFETY: as above; DPDK copies `conf`.
        step("configuring", unsafe {
            dpdk_sys::rte_eth_dev_configure(id, settings.queues, settings.queues, &conf)
        })?;

        let (mut receive, mut transmit) = (settings.descriptors, settings.descriptors);
        // SAFETY: as above; both counts are live places.
        step("descriptors", unsafe {
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut receive, &mut transmit)
        })?;
        // SAFETY: `id` is a probed port. The socket is -1 ("any") for virtual devices, which the setup calls take as such.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(id) } as u32;
        let mut transmit_conf = info.default_txconf;
        transmit_conf.offloads = conf.txmode.offloads;
        for queue in 0..settings.queues {
            // SAFETY: the port is configured with more queues than `queue` and not started; a null configuration means the driver's default;
            // the pool lives as long as EAL does.
            step("receive queue", unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    receive,
                    socket,
                    std::ptr::null(),
                    pool.as_ptr(),
                )
            })?;
            // SAFETY: as above; DPDK copies the configuration.
            step("transmit queue", unsafe {
                dpdk_sys::rte_eth_tx_queue_setup(id, queue, transmit, socket, &transmit_conf)
            })?;
        }
        if reports_link {
            step("reports of its link", link::report(id))?;
        }
        // SAFETY: the port and all its queues are configured.
        step("starting", unsafe { dpdk_sys::rte_eth_dev_start(id) })?;
        // Neighbour solicitations go to a multicast group for each address, LocalIPs and VIPs among them. Virtual devices that
        // filter nothing can't be asked.
        // SAFETY: as above.
        match unsafe { dpdk_sys::rte_eth_allmulticast_enable(id) } {
            NOT_SUPPORTED => {
                tracing::debug!(port = %name, "the driver doesn't choose among multicast frames")
            }
            status => step("receiving all multicast frames", status)?,
        }
        // A bond has its members' only now.
        let mut address = dpdk_sys::rte_ether_addr::default();
        // SAFETY: as above.
        step("reading its MAC address", unsafe {
            dpdk_sys::rte_eth_macaddr_get(id, &mut address)
        })?;
        let rss = match (settings.queues, hashes) {
            (0..=1, _) => Err("the port has one queue".into()),
            (_, 0) => Err("the driver does not hash".into()),
            _ => spread::even(id, info.reta_size, settings.queues).map(Arc::new),
        };
        let shared = Arc::new(Running {
            id,
            name,
            _environment: environment,
        });
        let queues = (0..settings.queues)
            .map(|index| {
                (
                    RxQueue {
                        port: shared.clone(),
                        index,
                        unreadable: 0,
                    },
                    TxQueue {
                        port: shared.clone(),
                        index,
                    },
                )
            })
            .collect();
        Ok(StartedPort {
            shared,
            mac: address.addr_bytes,
            rss,
            queues,
        })
    }
}

/// A port that receives and transmits. It stops when this and all its queues have been dropped.
pub struct StartedPort {
    shared: Arc<Running>,
    mac: [u8; 6],
    rss: Result<Arc<Rss>, String>,
    queues: Vec<(RxQueue, TxQueue)>,
}

impl StartedPort {
    /// DPDK's number of the port, as [`Mbuf::port`] gives it.
    pub fn id(&self) -> u16 {
        self.shared.id
    }

    /// The hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// How it spreads frames over its queues, read back from the driver; or why nobody can tell.
    pub fn rss(&self) -> Result<&Arc<Rss>, &str> {
        self.rss.as_ref().map_err(String::as_str)
    }

    /// Has it give TCP and UDP to `address` to the queue that is the destination port modulo `queues`, by rules; also while it runs.
    ///
    /// # Errors
    /// Why it does so for none.
    pub fn steer_by_port(&self, address: IpAddr, queues: u16) -> Result<(), String> {
        spread::steer_by_port(self.shared.id, address, queues)
    }

    /// The queues, for those who poll them; empty the second time.
    pub fn take_queues(&mut self) -> Vec<(RxQueue, TxQueue)> {
        std::mem::take(&mut self.queues)
    }

    /// The link as the driver last saw it.
    pub fn link(&self) -> Link {
        link::read(self.shared.id)
    }

    /// The driver's counters since the start; zeros where the driver has none.
    pub fn stats(&self) -> PortStats {
        let mut stats = dpdk_sys::rte_eth_stats::default();
        // SAFETY: the port is started; `stats` is a live place.
        if unsafe { dpdk_sys::rte_eth_stats_get(self.shared.id, &mut stats) } != 0 {
            return PortStats::default();
        }
        PortStats {
            received: stats.ipackets,
            received_bytes: stats.ibytes,
            transmitted: stats.opackets,
            transmitted_bytes: stats.obytes,
            missed: stats.imissed,
            receive_errors: stats.ierrors,
            transmit_errors: stats.oerrors,
            no_buffer: stats.rx_nombuf,
        }
    }
}

/// A port's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Frames sent.
    pub transmitted: u64,
    /// Bytes sent.
    pub transmitted_bytes: u64,
    /// Frames that the device dropped because nobody fetched them in time.
    pub missed: u64,
    /// Frames received with errors.
    pub receive_errors: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
    /// Frames dropped because the pool was empty.
    pub no_buffer: u64,
}

/// One receive queue. It can be moved to a thread, not shared.
pub struct RxQueue {
    port: Arc<Running>,
    index: u16,
    unreadable: u64,
}

impl RxQueue {
    /// Appends what has arrived to `into`, up to its spare capacity; returns how many frames came.
    #[inline]
    pub fn receive(&mut self, into: &mut Vec<Mbuf>) -> usize {
        let before = into.len();
        let spare = into.spare_capacity_mut();
        let capacity = spare.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs while we hold it, this is the only handle of the queue and `&mut`; `spare` has room for `capacity` pointers,
        // which is what an `Mbuf` is.
        let received = usize::from(unsafe {
            dpdk_sys::weir_eth_rx_burst(
                self.port.id,
                self.index,
                spare.as_mut_ptr().cast(),
                capacity,
            )
        });
        // SAFETY: the driver wrote `received` mbufs, whose only owner we are now.
        unsafe { into.set_len(before + received) };
        let mut at = before;
        while at < into.len() {
            if into[at].linearise() {
                at += 1;
            } else {
                self.unreadable += 1;
                drop(into.remove(at));
            }
        }
        received
    }

    /// Frames dropped since the start because their segments did not fit one buffer.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// One transmit queue. It can be moved to a thread, not shared.
pub struct TxQueue {
    port: Arc<Running>,
    index: u16,
}

impl TxQueue {
    /// Sends from the front of `frames`; what the device had no room for stays in it. Returns how many went.
    #[inline]
    pub fn transmit(&mut self, frames: &mut Vec<Mbuf>) -> usize {
        let count = frames.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs while we hold it and the queue has no other handle; the vector is an array of `count` mbuf pointers. The
        // driver owns those it reports as sent, which are forgotten here.
        let sent = usize::from(unsafe {
            dpdk_sys::weir_eth_tx_burst(self.port.id, self.index, frames.as_mut_ptr().cast(), count)
        });
        forget_front(frames, sent);
        sent
    }
}

struct Running {
    id: u16,
    name: String,
    _environment: Arc<Environment>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: a started port; no queue handle is left, so nobody is inside a burst.
        let stopped = unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        // SAFETY: a stopped port. The number is not used again.
        let closed = unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
        for (step, status) in [("stop", stopped), ("close", closed)] {
            if status != 0 {
                let error = DpdkError::from_status(format!("port {}: {step}", self.name), status);
                tracing::warn!(%error, "a port did not shut down cleanly");
            }
        }
    }
}
