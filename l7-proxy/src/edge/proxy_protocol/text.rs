//! Version 1 (section 2.1): `PROXY TCP4 192.0.2.7 10.0.0.100 51000 443` and a line end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Ends, Header, Malformed, Parse};

pub(super) const PREFIX: &[u8] = b"PROXY ";

/// The longest line, its end included.
const MAX_LINE: usize = 107;

pub(super) fn parse(received: &[u8]) -> Result<Parse, Malformed> {
    let within = &received[..received.len().min(MAX_LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() == MAX_LINE {
            Err(Malformed::TooLong)
        } else {
            Ok(Parse::Partial)
        };
    };
    let line = within[..end]
        .strip_prefix(PREFIX)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(Malformed::Line)?;
    Ok(Parse::Complete(Header {
        length: end + 1,
        ends: ends(line)?,
    }))
}

fn ends(line: &[u8]) -> Result<Option<Ends>, Malformed> {
    // What follows UNKNOWN is to be ignored, whatever it is.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let mut fields = line.split(' ');
    let mut next = || fields.next().ok_or(Malformed::Line);
    let address = match next()? {
        "TCP4" => address::<Ipv4Addr>,
        "TCP6" => address::<Ipv6Addr>,
        _ => return Err(Malformed::Line),
    };
    let (source, destination) = (address(next()?)?, address(next()?)?);
    let ends = Ends {
        source: SocketAddr::new(source, port(next()?)?),
        destination: SocketAddr::new(destination, port(next()?)?),
    };
    match fields.next() {
        None => Ok(Some(ends)),
        Some(_) => Err(Malformed::Line),
    }
}

fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Malformed> {
    text.parse::<A>()
        .map(Into::into)
        .map_err(|_| Malformed::Line)
}

/// Digits without a sign or leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    if text.starts_with('+') || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed::Line);
    }
    text.parse().map_err(|_| Malformed::Line)
}
