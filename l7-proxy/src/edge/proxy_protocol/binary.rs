//! Version 2 (section 2.2): a signature, four bytes that say what follows and how long it is, addresses, extensions (TLVs).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, Header, MAX_LENGTH, Malformed, Parse};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// Two paths of 108 bytes.
const UNIX_ADDRESSES: usize = 216;

/// The extension that holds a checksum of the whole header (section 2.2.3).
const CRC32C: u8 = 0x03;

enum Command {
    /// The sender's own connection: what follows is to be ignored.
    Local,
    Proxy,
}

pub(super) fn parse(received: &[u8]) -> Result<Parse, Malformed> {
    let command = match received.get(12) {
        None => return Ok(Parse::Partial),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(byte) if byte >> 4 == 2 => return Err(Malformed::Command),
        Some(_) => return Err(Malformed::Version),
    };
    let (Some(kind), Some(length)) = (received.get(13), received.get(14..FIXED)) else {
        return Ok(Parse::Partial);
    };
    let length = FIXED
        + length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if length > MAX_LENGTH {
        return Err(Malformed::TooLong);
    }
    let Some(header) = received.get(..length) else {
        return Ok(Parse::Partial);
    };
    let ends = match command {
        Command::Local => None,
        Command::Proxy => proxied(header, *kind)?,
    };
    Ok(Parse::Complete(Header { length, ends }))
}

/// What a complete header with the command PROXY says. The kind's upper half is the address family, its lower half the transport.
fn proxied(header: &[u8], kind: u8) -> Result<Option<Ends>, Malformed> {
    let block = &header[FIXED..];
    let is_stream = match kind & 0x0f {
        0 | 2 => false,
        1 => true,
        _ => return Err(Malformed::Family),
    };
    let (ends, addresses) = match kind >> 4 {
        // Unspecified: where addresses would end and extensions begin is unknown.
        0 => return Ok(None),
        1 => {
            let (ends, length) = ends::<Ipv4Addr, 4>(block)?;
            (Some(ends), length)
        }
        2 => {
            let (ends, length) = ends::<Ipv6Addr, 16>(block)?;
            (Some(ends), length)
        }
        3 if block.len() >= UNIX_ADDRESSES => (None, UNIX_ADDRESSES),
        3 => return Err(Malformed::Addresses),
        _ => return Err(Malformed::Family),
    };
    check_extensions(header, FIXED + addresses)?;
    Ok(ends.filter(|_| is_stream))
}

/// Two addresses of `N` bytes and two ports, and how many bytes they take together.
fn ends<A, const N: usize>(block: &[u8]) -> Result<(Ends, usize), Malformed>
where
    A: From<[u8; N]> + Into<IpAddr>,
{
    let read = || {
        let (source, rest) = block.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let [from_high, from_low, to_high, to_low] = *rest.first_chunk()?;
        let from_port = u16::from_be_bytes([from_high, from_low]);
        let to_port = u16::from_be_bytes([to_high, to_low]);
        Some(Ends {
            source: SocketAddr::new(A::from(*source).into(), from_port),
            destination: SocketAddr::new(A::from(*destination).into(), to_port),
        })
    };
    let ends = read().ok_or(Malformed::Addresses)?;
    Ok((ends, 2 * N + 4))
}

/// Walks the extensions, which begin at `from`: each a type, a length of two bytes and a value. Only the checksum is of interest.
fn check_extensions(header: &[u8], from: usize) -> Result<(), Malformed> {
    let mut checksum = None;
    let mut at = from;
    while at < header.len() {
        let [kind, high, low] = *header[at..].first_chunk().ok_or(Malformed::Extension)?;
        let value = at + 3;
        let next = value + usize::from(u16::from_be_bytes([high, low]));
        if next > header.len() {
            return Err(Malformed::Extension);
        }
        if kind == CRC32C {
            let given = <[u8; 4]>::try_from(&header[value..next])
                .map(u32::from_be_bytes)
                .map_err(|_| Malformed::Extension)?;
            if checksum.replace((value, given)).is_some() {
                return Err(Malformed::Extension);
            }
        }
        at = next;
    }
    match checksum {
        Some((value, given)) if crc32c(header, value..value + 4) != given => {
            Err(Malformed::Checksum)
        }
        _ => Ok(()),
    }
}

/// The CRC32C (RFC 3720 appendix B.4) of `bytes`, those in `zeroed` counted as zero. A bit at a time: a header is short, and few have a checksum.
pub(super) fn crc32c(bytes: &[u8], zeroed: std::ops::Range<usize>) -> u32 {
    let sum = bytes.iter().enumerate().fold(u32::MAX, |sum, (at, byte)| {
        let byte = if zeroed.contains(&at) { 0 } else { *byte };
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    !sum
}
