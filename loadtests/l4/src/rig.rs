//! The generator's end of the wire: one core, two memif ports to whatever forwards between them.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dataplane::{Frame, MacAddr};
use l4_gateway::dpdk::{
    Device, Eal, EalSettings, Mbuf, Memory, Pool, Port, PortSettings, RssKey, RxQueue, StartedPort,
    Tsc, TxQueue,
};

use crate::address::{INNER, OUTER, ROUTER};
use crate::packet::{Ethernet, SHORTEST};
use crate::stream::Order;

/// Frames received at once, and made at once.
pub(crate) const RECEIVE: usize = 64;
pub(crate) const SEND: usize = 32;

/// Frame buffers: the rings of all ports ever opened, as the driver keeps those of a port that is closed.
const FRAMES: u32 = 65_535;
/// Bytes of each, headroom not counted: more than the longest frame here, and no more than needed. Thousands are on their way at a time, and the
/// pages that they lie on compete with the gateway's tables for the CPU's few address translations.
const ROOM: u16 = 256;
const ARP_PATIENCE: Duration = Duration::from_secs(10);
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// DPDK on the generator's core.
pub(crate) struct Generator {
    pub(crate) tsc: Tsc,
    pub(crate) order: Order,
    pub(crate) received: Vec<Mbuf>,
    /// The first frame that was not what its receiver must get.
    pub(crate) strange: Option<String>,
    pool: Pool,
    outgoing: Vec<Mbuf>,
    devices: u32,
    eal: Eal,
}

/// Two ports to one forwarder: `outer` is where clients are, `inner` where targets are.
pub(crate) struct Rig {
    pub(crate) outer: Arm,
    pub(crate) inner: Arm,
}

/// One port.
pub(crate) struct Arm {
    receive: RxQueue,
    transmit: TxQueue,
    mac: MacAddr,
    /// Header of frames to the forwarder.
    pub(crate) ethernet: Ethernet,
}

impl Generator {
    /// Starts EAL on the CPU that this thread is bound to.
    pub(crate) fn start(huge_pages: bool) -> Result<Generator> {
        let memory = if huge_pages {
            Memory::HugePages
        } else {
            Memory::Ordinary(320)
        };
        let eal = Eal::start(&EalSettings {
            file_prefix: format!("bench-l4-{}", std::process::id()),
            memory,
            devices: Vec::new(),
            workers: Vec::new(),
            // Frames are handed over in place ("zero-copy"), for which the forwarder maps our memory as one file.
            extra: vec!["--single-file-segments".into()],
        })?;
        let pool = Pool::new(&eal, "frames", FRAMES, ROOM)?;
        Ok(Generator {
            tsc: eal.tsc(),
            order: Order::new(),
            received: Vec::with_capacity(RECEIVE),
            strange: None,
            outgoing: Vec::with_capacity(SEND),
            pool,
            devices: 0,
            eal,
        })
    }

    /// Connects to a forwarder that listens on these sockets.
    pub(crate) fn connect(&mut self, outer: &Path, inner: &Path) -> Result<Rig> {
        let (outer, inner) = (self.device(outer)?, self.device(inner)?);
        Ok(Rig {
            outer: self.arm(&outer)?,
            inner: self.arm(&inner)?,
        })
    }

    fn arm(&mut self, device: &Device) -> Result<Arm> {
        let memory = MemoryFiles::open()?;
        let arm = Arm::new(self.start_port(device)?)?;
        memory.restore()?;
        Ok(arm)
    }

    fn device(&mut self, socket: &Path) -> Result<Device> {
        let name = format!("net_memif{}", self.devices);
        self.devices += 1;
        let device: Device = format!(
            "{name},role=client,zero-copy=yes,socket-abstract=no,socket={}",
            socket.display()
        )
        .parse()
        .map_err(anyhow::Error::msg)?;
        self.eal.probe(&device)?;
        Ok(device)
    }

    fn start_port(&mut self, device: &Device) -> Result<StartedPort> {
        let settings = PortSettings {
            queues: 1,
            mtu: Some(1500),
            descriptors: 1024,
            rss_key: RssKey([0; 64]),
        };
        Ok(Port::open(&self.eal, device)?.start(settings, &self.pool)?)
    }

    /// Sends `count` frames, at most [`SEND`], each made by `make`; how many the ring took.
    #[inline]
    pub(crate) fn send(
        &mut self,
        arm: &mut Arm,
        count: usize,
        mut make: impl FnMut(usize, &mut Mbuf, &Ethernet),
    ) -> usize {
        if !self.pool.allocate_burst(&mut self.outgoing, count as u16) {
            return 0;
        }
        for frame in &mut self.outgoing {
            frame.prefetch_to_write();
        }
        for (index, frame) in self.outgoing.iter_mut().enumerate() {
            make(index, frame, &arm.ethernet);
        }
        let sent = arm.transmit.transmit(&mut self.outgoing);
        Mbuf::free_burst(&mut self.outgoing);
        sent
    }

    /// Receives into `received`, which must be empty; ARP is answered and not among it.
    #[inline]
    pub(crate) fn receive(&mut self, arm: &mut Arm) -> usize {
        arm.receive.receive(&mut self.received);
        // Only of short frames more is read than their length: each look into a frame is a cache miss.
        if self.received.iter().any(|frame| is_arp(frame.bytes())) {
            self.answer(arm);
        }
        self.received.len()
    }

    /// Frees what was received.
    #[inline]
    pub(crate) fn done(&mut self) {
        Mbuf::free_burst(&mut self.received);
    }

    #[cold]
    fn answer(&mut self, arm: &mut Arm) {
        let mut at = 0;
        while let Some(frame) = self.received.get(at) {
            let bytes = frame.bytes();
            if !is_arp(bytes) {
                at += 1;
                continue;
            }
            if let Some(answer) = answer(bytes, arm.mac)
                && let Some(mut reply) = self.pool.allocate()
                && reply.fill(&answer)
            {
                let mut frames = vec![reply];
                arm.transmit.transmit(&mut frames);
            }
            self.received.swap_remove(at);
        }
    }

    /// Finds the gateway's MAC addresses, as its neighbours would, then answers its own questions for a while.
    pub(crate) fn resolve(&mut self, rig: &mut Rig, answering: Duration) -> Result<()> {
        for (arm, own, wanted) in [
            (&mut rig.outer, ROUTER, OUTER),
            (&mut rig.inner, std::net::Ipv4Addr::new(10, 3, 1, 0), INNER),
        ] {
            let began = Instant::now();
            let mac = loop {
                if began.elapsed() > ARP_PATIENCE {
                    bail!("the gateway does not answer ARP for {wanted}");
                }
                let request = arp(
                    1,
                    (arm.mac, own.octets()),
                    (MacAddr([0; 6]), wanted.octets()),
                );
                let mut frames: Vec<Mbuf> = self.pool.allocate().into_iter().collect();
                for frame in &mut frames {
                    frame.fill(&request);
                }
                arm.transmit.transmit(&mut frames);
                std::thread::sleep(Duration::from_millis(5));
                arm.receive.receive(&mut self.received);
                let reply = |frame: &Mbuf| reply_of(frame.bytes(), wanted.octets());
                let found = self.received.iter().find_map(reply);
                self.answer(arm);
                self.done();
                if let Some(mac) = found {
                    break mac;
                }
            };
            arm.ethernet = ethernet(mac, arm.mac, 0x0800);
        }
        let began = Instant::now();
        while began.elapsed() < answering {
            for arm in [&mut rig.outer, &mut rig.inner] {
                self.receive(arm);
                self.done();
            }
        }
        Ok(())
    }
}

/// EAL's memory is files that it holds open. The driver passes them to the other side and then, once connected, closes them
/// (`memif_connect` in DPDK 22.11 to 24.11), so that no second port could be connected.
struct MemoryFiles(Vec<(i32, File)>);

impl MemoryFiles {
    /// Opens each once more.
    fn open() -> Result<MemoryFiles> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str());
            let number = number.and_then(|name| name.parse().ok());
            let target = std::fs::read_link(&path).unwrap_or_default();
            let target = target.to_string_lossy();
            if let Some(number) = number
                && target.starts_with("/memfd:")
                && !target.starts_with("/memfd:memif")
            {
                let file = File::options().read(true).write(true).open(&path)?;
                files.push((number, file));
            }
        }
        Ok(MemoryFiles(files))
    }

    /// Puts those that were closed back under their numbers.
    fn restore(self) -> Result<()> {
        for (number, file) in self.0 {
            if std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok() {
                continue;
            }
            let restored = rustix::io::fcntl_dupfd_cloexec(&file, number)?.into_raw_fd();
            if restored != number {
                bail!("file {number} of EAL's memory was closed and its number taken");
            }
        }
        Ok(())
    }
}

impl Arm {
    /// Of a port whose other end is there.
    fn new(mut port: StartedPort) -> Result<Arm> {
        let (receive, transmit) = port.take_queues().pop().context("a port without queue")?;
        let began = Instant::now();
        while !port.link().up {
            if began.elapsed() > LINK_PATIENCE {
                bail!("the forwarder does not take the connection");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mac = MacAddr(port.mac());
        Ok(Arm {
            receive,
            transmit,
            mac,
            ethernet: ethernet(MacAddr([2, 0, 0, 0, 0, 0x99]), mac, 0x0800),
        })
    }
}

fn ethernet(to: MacAddr, from: MacAddr, ether_type: u16) -> Ethernet {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
    header
}

/// An ARP frame (RFC 826): 1 asks, 2 answers.
fn arp(operation: u8, sender: (MacAddr, [u8; 4]), target: (MacAddr, [u8; 4])) -> [u8; 42] {
    let to = if operation == 1 {
        MacAddr::BROADCAST
    } else {
        target.0
    };
    let mut frame = [0; 42];
    frame[..14].copy_from_slice(&ethernet(to, sender.0, 0x0806));
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame[22..28].copy_from_slice(&sender.0.0);
    frame[28..32].copy_from_slice(&sender.1);
    frame[32..38].copy_from_slice(&target.0.0);
    frame[38..42].copy_from_slice(&target.1);
    frame
}

/// ARP is never padded here.
#[inline]
fn is_arp(frame: &[u8]) -> bool {
    frame.len() < SHORTEST && frame.get(12..14) == Some(&[8, 6])
}

/// The answer to an ARP request for any address but the sender's own.
fn answer(frame: &[u8], mac: MacAddr) -> Option<[u8; 42]> {
    let frame: &[u8; 42] = frame.first_chunk()?;
    let [.., s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = *frame;
    let (sender, target) = ([s0, s1, s2, s3], [t0, t1, t2, t3]);
    let is_request = frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && sender != target;
    is_request.then(|| arp(2, (mac, target), (sender_mac(frame), sender)))
}

/// The MAC in an ARP reply from `wanted`.
fn reply_of(frame: &[u8], wanted: [u8; 4]) -> Option<MacAddr> {
    let frame: &[u8; 42] = frame.first_chunk()?;
    let is_reply = frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == wanted;
    is_reply.then(|| sender_mac(frame))
}

fn sender_mac(frame: &[u8; 42]) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[22..28]);
    MacAddr(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arp_is_kept_from_those_who_count() {
        let (mac, own, asked) = (MacAddr([2, 0, 0, 0, 0, 1]), [10, 3, 0, 11], [10, 3, 1, 0]);
        let request = arp(1, (mac, own), (MacAddr([0; 6]), asked));
        assert!(is_arp(&request));
        // A reset has no more than its headers, and must not go unseen.
        let mut reset = [0; 54];
        reset[..14].copy_from_slice(&ethernet(mac, mac, 0x0800));
        assert!(!is_arp(&reset));
        assert!(!is_arp(&request[..13]));
        let answered = answer(&request, MacAddr([2, 0, 0, 0, 0, 2])).unwrap();
        assert_eq!(
            reply_of(&answered, asked),
            Some(MacAddr([2, 0, 0, 0, 0, 2]))
        );
        assert_eq!(answer(&answered, mac), None);
    }
}
