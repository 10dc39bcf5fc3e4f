//! Between whom a frame goes, for the filter of a capture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The ends of a frame that carries IP. Ports are 0 where there are none: fragments, ICMP, and what does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameEnds {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// It carries a packet of others: it is in a tunnel (RFC 2003, RFC 2473).
    pub(crate) is_outer: bool,
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Of a VLAN tag; one with number 0 says a priority only.
const TAG: [u8; 2] = [0x81, 0x00];
const TCP: u8 = 6;
const UDP: u8 = 17;
const TUNNELS: [u8; 2] = [4, 41];
/// Extension headers before the transport header that are looked at: more than any sound packet has.
const EXTENSIONS: usize = 8;

/// Reads the addresses of a frame, which may have a priority tag; none if it carries no IP.
pub(crate) fn of(frame: &[u8]) -> Option<FrameEnds> {
    match *frame.get(12..)?.first_chunk()? {
        TAG if u16::from_be_bytes(*frame.get(14..)?.first_chunk()?) & 0x0fff == 0 => {
            carried(frame.get(16..)?)
        }
        _ => carried(frame.get(12..)?),
    }
}

/// By what stands behind the MAC addresses and the tag.
fn carried(payload: &[u8]) -> Option<FrameEnds> {
    let (ether_type, packet) = payload.split_first_chunk()?;
    match *ether_type {
        IPV4 => v4(packet),
        IPV6 => v6(packet),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<FrameEnds> {
    let header = packet.first_chunk::<20>()?;
    let [source, destination] = [12, 16].map(|at| {
        let mut octets = [0; 4];
        octets.copy_from_slice(&header[at..at + 4]);
        IpAddr::V4(Ipv4Addr::from(octets))
    });
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let payload = packet.get(usize::from(header[0] & 15) * 4..);
    let transport = payload
        .filter(|_| first)
        .map(|payload| (header[9], payload));
    Some(ends(source, destination, transport))
}

fn v6(packet: &[u8]) -> Option<FrameEnds> {
    let header = packet.first_chunk::<40>()?;
    let [source, destination] = [8, 24].map(|at| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    });
    let transport = transport_of_v6(header[6], packet.get(40..).unwrap_or_default());
    Some(ends(source, destination, transport))
}

/// Walks the extension headers (RFC 8200 section 4) to the transport header.
fn transport_of_v6(mut next: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    for _ in 0..EXTENSIONS {
        let length = match next {
            // Hop-by-hop, routing, destination options: in units of 8 bytes, not counting the first.
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            // Fragment: only the first has ports.
            44 if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) & 0xfff8 == 0 => 8,
            44 => return None,
            protocol => return Some((protocol, rest)),
        };
        next = *rest.first()?;
        rest = rest.get(length..)?;
    }
    None
}

/// `transport` is the protocol of the first header that is not IP's, and what begins with it, where they are known.
fn ends(source: IpAddr, destination: IpAddr, transport: Option<(u8, &[u8])>) -> FrameEnds {
    let ports = transport.and_then(|(protocol, payload)| match protocol {
        TCP | UDP => payload.first_chunk(),
        _ => None,
    });
    let [s0, s1, d0, d1] = ports.copied().unwrap_or_default();
    FrameEnds {
        source: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
        is_outer: transport.is_some_and(|(protocol, _)| TUNNELS.contains(&protocol)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_frame(protocol: u8, offset: u16, options: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4);
        frame.extend([0x45 + (options / 4) as u8, 0, 0, 40, 0, 0]);
        frame.extend(offset.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; options]);
        frame.extend([0, 80, 1, 0, 9, 9, 9, 9]);
        frame
    }

    fn shown(frame: &[u8]) -> String {
        let shown = |ends: FrameEnds| format!("{} {}", ends.source, ends.destination);
        of(frame).map_or_else(|| "none".into(), shown)
    }

    #[test]
    fn ports_are_read_where_there_are_any() {
        assert_eq!(shown(&v4_frame(6, 0, 0)), "10.0.0.1:80 10.0.0.2:256");
        assert_eq!(shown(&v4_frame(17, 0x2000, 8)), "10.0.0.1:80 10.0.0.2:256");
        assert_eq!(shown(&v4_frame(17, 0x2001, 0)), "10.0.0.1:0 10.0.0.2:0");
        assert_eq!(shown(&v4_frame(1, 0, 0)), "10.0.0.1:0 10.0.0.2:0");
        assert_eq!(shown(&v4_frame(6, 0, 0)[..34]), "10.0.0.1:0 10.0.0.2:0");
        assert_eq!(shown(&v4_frame(6, 0, 0)[..33]), "none");
        let mut arp = v4_frame(6, 0, 0);
        arp[13] = 6;
        assert_eq!(shown(&arp), "none");
        assert_eq!(shown(&[]), "none");
    }

    #[test]
    fn a_priority_tag_is_read_over_and_no_other() {
        let mut frame = v4_frame(6, 0, 0);
        frame.splice(12..12, [0x81, 0, 0xa0, 0]);
        assert_eq!(shown(&frame), "10.0.0.1:80 10.0.0.2:256");
        assert_eq!(shown(&frame[..17]), "none");
        frame[15] = 100;
        assert_eq!(shown(&frame), "none");
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut frame = vec![0; 12];
        frame.extend(IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 32, 0, 64]);
        frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let fragment = frame.len();
        frame.extend([6, 0, 0, 1, 0, 0, 0, 7]);
        frame.extend([0, 80, 1, 0]);
        assert_eq!(shown(&frame), "[2001:db8::1]:80 [2001:db8::2]:256");
        frame[fragment + 3] = 9;
        assert_eq!(shown(&frame), "[2001:db8::1]:0 [2001:db8::2]:0");
        for length in 54..frame.len() {
            assert_eq!(shown(&frame[..length]), "[2001:db8::1]:0 [2001:db8::2]:0");
        }
    }
}
