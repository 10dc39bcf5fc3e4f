//! Who listens on an address already, as far as `/proc` tells. Only for words in an error: the kernel has decided by then.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// `TCP_LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Who holds an address; displays as what follows "address in use".
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// This process, and nobody else.
    Ourselves,
    /// Another process.
    Process {
        /// Its id.
        pid: u32,
        /// What the kernel calls it.
        name: String,
    },
    /// Somebody whose files this process may not look at, or nobody any more.
    Unknown,
}

impl Found {
    /// That the address is in use, and by whom.
    pub fn blamed_for(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{error}{self}"))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Ourselves => f.write_str(", by this process"),
            Found::Process { pid, name } => {
                write!(f, ", by {name} (pid {pid}): a listener is one process's")
            }
            Found::Unknown => f.write_str(
                ", by a process that can't be seen from here; as root, `ss -ltnp` names it",
            ),
        }
    }
}

/// Looks through the listening sockets of this network namespace for those that stand in the way of `address`.
pub fn find(address: SocketAddr) -> Found {
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(listening(&text, address));
    }
    let ours = sockets_of(Path::new("/proc/self"));
    let held = !inodes.is_empty();
    let foreign: HashSet<u64> = inodes.difference(&ours).copied().collect();
    if foreign.is_empty() {
        return match held {
            true => Found::Ourselves,
            false => Found::Unknown,
        };
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !sockets_of(&process.path()).is_disjoint(&foreign) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim().escape_debug().to_string();
            return Found::Process { pid, name };
        }
    }
    Found::Unknown
}

/// The inodes of the sockets that a process has open, as far as this one may look.
fn sockets_of(process: &Path) -> HashSet<u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten();
    files
        .flatten()
        .filter_map(|file| {
            let link = fs::read_link(file.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

/// The inodes of sockets in such a table that listen where `address` would.
fn listening(table: &str, address: SocketAddr) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        let mut fields = line.split_ascii_whitespace();
        let local = parse(fields.nth(1)?)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let in_the_way = local.port() == address.port() && overlap(local.ip(), address.ip());
        (state == LISTEN && in_the_way).then_some(inode)
    })
}

/// Whether two listeners on one port could get the same connection. A wildcard IPv6 socket may take IPv4 as well.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        _ if one == other => true,
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            one.is_unspecified() || other.is_unspecified()
        }
        (IpAddr::V6(six), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(six)) => six.is_unspecified(),
    }
}

/// `0100007F:1F90`: the address as words in the machine's byte order, the port as a number.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
                bytes.copy_from_slice(&word);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_under_every_address_it_is_in_the_way_of() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        for address in ["127.0.0.1", "0.0.0.0", "::"] {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            assert_eq!(find(address), Found::Ourselves, "{address}");
        }
        for address in ["127.0.0.2", "::1"] {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            assert_eq!(find(address), Found::Unknown, "{address}");
        }
    }

    #[test]
    fn listeners_are_read_from_the_kernels_tables() {
        let table = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   \
            1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
            garbage\n";
        if cfg!(target_endian = "little") {
            let at = |text: &str| -> Vec<u64> { listening(table, text.parse().unwrap()).collect() };
            assert_eq!(at("[::1]:8080"), [4711]);
            assert_eq!(at("[::]:8080"), [4711]);
            assert!(at("[::1]:8081").is_empty() && at("[::2]:8080").is_empty());
        }
    }
}
