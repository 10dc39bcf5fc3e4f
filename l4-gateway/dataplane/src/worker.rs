//! One lcore's forwarder.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use crate::counters::Counters;
use crate::emitted::Emitted;
use crate::frame::{Frame, Verdict};
use crate::ids::{ServiceId, TargetId};
use crate::limits::Limits;
use crate::mac::MacAddr;
use crate::port::PortIndex;
use crate::secret::Secret;
use crate::service::Protocol;
use crate::tables::Tables;
use crate::time::Now;

/// One lcore's forwarder: its flows, local ports, next hops and timers. It shares nothing but [`Counters`], which only
/// it writes in its part.
pub struct Worker {
    index: u16,
    workers: u16,
    counters: Arc<Counters>,
}

impl Worker {
    /// Makes worker `index` of `workers` and allocates all it will ever hold. All workers of a process get the same limits,
    /// secret and counters.
    #[must_use]
    pub fn new(
        index: u16,
        workers: u16,
        limits: &Limits,
        secret: Secret,
        counters: Arc<Counters>,
    ) -> Self {
        let _ = (limits, secret);
        Self {
            index,
            workers,
            counters,
        }
    }

    /// Works on one burst received on `port` and writes one verdict a frame. `verdicts` must be at least as long as `frames`;
    /// what is beyond is left alone. Frames of the worker's own go to `out`, which is added to, not cleared.
    ///
    /// A frame is changed only with the verdicts [`Verdict::Transmit`], [`Verdict::Held`] and [`Verdict::Drop`].
    pub fn burst<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        frames: &mut [F],
        verdicts: &mut [Verdict],
        out: &mut Emitted,
    ) {
        let _ = (
            tables,
            now,
            port,
            frames,
            verdicts,
            out,
            self.index,
            self.workers,
            &self.counters,
        );
    }

    /// Like [`Worker::burst`] for frames another worker answered [`Verdict::Redirect`] for; `port` is where they came in. They
    /// are never redirected again.
    pub fn handed_over<F: Frame>(
        &mut self,
        tables: &Tables,
        now: Now,
        port: PortIndex,
        frames: &mut [F],
        verdicts: &mut [Verdict],
        out: &mut Emitted,
    ) {
        let _ = (tables, now, port, frames, verdicts, out);
    }

    /// Takes over what another worker learned ([`crate::Event::Learned`]); frames that waited for it go to `out`.
    pub fn learn(
        &mut self,
        now: Now,
        port: PortIndex,
        address: Ipv4Addr,
        mac: MacAddr,
        out: &mut Emitted,
    ) {
        let _ = (now, port, address, mac, out);
    }

    /// Runs the timers: flows that expired go, next hops are refreshed or asked for again. Call it about every millisecond;
    /// the work of one call is bounded, what is left is done by the next.
    pub fn tick(&mut self, tables: &Tables, now: Now, out: &mut Emitted) {
        let _ = (tables, now, out);
    }

    /// The flows of this worker, in no order. Walks the table: for an operator, not for a loop.
    pub fn flows(&self, now: Now) -> impl Iterator<Item = FlowView> + '_ {
        let _ = now;
        std::iter::empty()
    }

    /// Flows in the table.
    #[must_use]
    pub fn flow_count(&self) -> u32 {
        0
    }

    /// Local ports this worker could still give to new flows towards a target, over all LocalIPs it is reached by.
    #[must_use]
    pub fn free_ports(&self, tables: &Tables, target: TargetId) -> u32 {
        let _ = (tables, target);
        0
    }

    /// Panics if the parts of the worker contradict each other. For tests: it walks everything.
    pub fn check_invariants(&self) {}
}

/// One flow, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowView {
    /// The client.
    pub client: SocketAddrV4,
    /// What the client talks to.
    pub vip: SocketAddrV4,
    /// Who the target sees.
    pub local: SocketAddrV4,
    /// The target.
    pub target: SocketAddrV4,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How far it is.
    pub state: FlowState,
    /// Its service.
    pub service: ServiceId,
    /// Its target.
    pub target_id: TargetId,
    /// Until it expires without another packet.
    pub expires_in: Duration,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// UDP.
    Udp,
    /// TCP, the client's SYN was forwarded.
    SynReceived,
    /// TCP, the handshake is complete.
    Established,
    /// TCP, the client sent FIN.
    FinClient,
    /// TCP, the target sent FIN.
    FinTarget,
    /// TCP, both sent FIN.
    TimeWait,
    /// TCP, one sent RST.
    Closed,
}
