//! Questions for a MAC (ARP requests, neighbour solicitations), and how frames made here leave.

use std::net::IpAddr;

use crate::counters::{Cells, WorkerCount};
use crate::emitted::Emitted;
use crate::next_hops::NextHop;
use crate::wire::arp::{Arp, Operation};
use crate::wire::ipv6;
use crate::wire::ndp::{self, Ndp};
use crate::{MacAddr, PortIndex, Tables};

/// Asks who has an address: the host whose MAC is `known`, or everybody.
pub(crate) fn ask_for(
    tables: &Tables,
    hop: NextHop,
    known: Option<MacAddr>,
    out: &mut Emitted,
    cells: &Cells,
) {
    let Some(port) = tables.port(hop.port) else {
        return;
    };
    // Without an address of the family nobody could answer: the port lost it with the last snapshot.
    match (hop.address, port.ipv4, port.ipv6) {
        (IpAddr::V4(address), Some(own), _) => {
            let request = Arp {
                operation: Operation::Request,
                sender_mac: port.mac,
                sender: own.address,
                target_mac: MacAddr::default(),
                target: address,
            };
            let to = known.unwrap_or(MacAddr::BROADCAST);
            cells.worker(WorkerCount::ArpRequests, 1);
            emit(out, cells, port.index, &request.frame(to));
        }
        (IpAddr::V6(address), _, Some(own)) => {
            let group = ipv6::solicited_node(address);
            let (destination, to) =
                known.map_or((group, ndp::multicast_mac(group)), |mac| (address, mac));
            let solicitation = Ndp {
                kind: ndp::Kind::Solicitation,
                source: own.address,
                destination,
                target: address,
                mac: Some(port.mac),
            };
            cells.worker(WorkerCount::NeighbourSolicitations, 1);
            emit(out, cells, port.index, &solicitation.frame(port.mac, to));
        }
        (IpAddr::V4(_), None, _) | (IpAddr::V6(_), _, None) => {}
    }
}

/// Hands a frame to the caller, or counts that there was no room; whether it goes.
pub(crate) fn emit(out: &mut Emitted, cells: &Cells, port: PortIndex, frame: &[u8]) -> bool {
    let goes = out.frame(port, frame);
    let count = if goes {
        WorkerCount::Emitted
    } else {
        WorkerCount::EmittedOverflow
    };
    cells.worker(count, 1);
    goes
}
