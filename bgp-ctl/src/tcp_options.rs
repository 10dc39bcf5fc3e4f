//! Two socket options no safe crate offers: TCP MD5 signatures and the minimum TTL.

#![allow(unsafe_code)]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

/// Longest TCP MD5 key the kernel takes, in bytes (`TCP_MD5SIG_MAXKEYLEN`).
pub(crate) const MAX_MD5_KEY: usize = 80;

/// Signs segments to and from `peer` with `key` (RFC 2385); on a listener, those of connections from `peer`.
///
/// # Errors
/// What the kernel says, and `InvalidInput` for a key longer than 80 bytes.
pub(crate) fn set_md5(socket: &impl AsFd, peer: Ipv4Addr, key: &[u8]) -> io::Result<()> {
    // struct tcp_md5sig of linux/tcp.h: sockaddr_storage (128 bytes), flags and prefix length (1 each), key length (2),
    // interface index (4), key (80).
    const KEY_LENGTH: usize = 130;
    const KEY: usize = 136;
    let mut signature = [0u8; KEY + MAX_MD5_KEY];
    let Some(room) = signature.get_mut(KEY..KEY + key.len()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "TCP MD5 key is longer than 80 bytes",
        ));
    };
    room.copy_from_slice(key);
    signature[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    signature[4..8].copy_from_slice(&peer.octets());
    signature[KEY_LENGTH..KEY_LENGTH + 2].copy_from_slice(&(key.len() as u16).to_ne_bytes());
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature)
}

/// Drops packets whose TTL on arrival is below `ttl` (RFC 5082).
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_minimum_ttl(socket: &impl AsFd, ttl: u8) -> io::Result<()> {
    set(
        socket,
        libc::IPPROTO_IP,
        libc::IP_MINTTL,
        &libc::c_int::from(ttl).to_ne_bytes(),
    )
}

fn set(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: `descriptor` is open for the length of this call, as `socket` is borrowed; the kernel reads `value.len()` bytes from
    // `value`, which is borrowed too, and keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            descriptor,
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
