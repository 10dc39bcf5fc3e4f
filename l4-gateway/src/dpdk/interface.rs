//! The kernel's interface below a port: whether it still is the one that the driver opened.
//!
//! af_packet's sockets stay with the interface they were bound to. When that is deleted or moved to another network namespace, the kernel takes them
//! from it for good: nothing comes or goes by them, though an interface of the same name, or the same one, comes back. The driver says nothing of it, so
//! a socket of our own stands beside its sockets and loses the interface when they do. It is bound to no protocol and receives nothing.

use std::ffi::CString;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::DpdkError;

/// See the module.
#[derive(Debug)]
pub struct Interface {
    name: String,
    socket: OwnedFd,
    /// The kernel's word on its carrier, kept open: it is asked for a hundred times a second, and the way to the file takes longer than to read it.
    /// The file stays with the interface through other names. None without sysfs.
    carrier: Option<File>,
}

impl Interface {
    /// The interface called `name` now, in this process's network namespace.
    ///
    /// # Errors
    /// When there is none, or the process may not open packet sockets.
    pub fn open(name: &str) -> Result<Interface, DpdkError> {
        let failed = |error: Error| DpdkError::new(format!("interface {name}"), error.to_string());
        let c_name = CString::new(name).map_err(|error| failed(error.into()))?;
        // SAFETY: a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(failed(Error::last_os_error()));
        }
        // SAFETY: takes numbers only.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(failed(Error::last_os_error()));
        }
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut address = packet_address();
        address.sll_ifindex = index as i32;
        // SAFETY: `address` is a packet address of the length given, alive during the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                ADDRESS_LENGTH,
            )
        };
        match bound {
            0 => Ok(Interface {
                name: name.to_owned(),
                socket,
                carrier: File::open(carrier_of(name)).ok(),
            }),
            _ => Err(failed(Error::last_os_error())),
        }
    }

    /// Its name when it was opened, as the configuration has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was taken away, which is final. Another name changes nothing.
    pub fn is_gone(&self) -> bool {
        let mut address = packet_address();
        let mut length = ADDRESS_LENGTH;
        // SAFETY: `address` is a live place for as many bytes as `length` says.
        let told = unsafe {
            libc::getsockname(
                self.socket.as_raw_fd(),
                (&raw mut address).cast(),
                &mut length,
            )
        };
        told != 0 || address.sll_ifindex <= 0
    }

    /// Whether it is up and has a carrier; `None` where nobody says, as without sysfs.
    pub fn has_carrier(&self) -> Option<bool> {
        let mut said = [0];
        match self.carrier.as_ref()?.read_at(&mut said, 0) {
            Ok(_) => Some(said == *b"1"),
            Err(error) => carrier_unread(&error),
        }
    }
}

/// As [`Interface::has_carrier`], of the interface of that name; `None` also where there is none.
pub fn has_carrier(name: &str) -> Option<bool> {
    match std::fs::read(carrier_of(name)) {
        Ok(said) => Some(said.first() == Some(&b'1')),
        Err(error) => carrier_unread(&error),
    }
}

fn carrier_of(name: &str) -> String {
    format!("/sys/class/net/{name}/carrier")
}

/// That of an interface that is set down can't be read.
fn carrier_unread(error: &Error) -> Option<bool> {
    (error.raw_os_error() == Some(libc::EINVAL)).then_some(false)
}

/// ethtool's request by number: the state of generic receive offload; flags, among them that of large receive offload.
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// Whether an interface merges what it receives in software (GRO), and in hardware (LRO). Both give who reads from it frames longer than any that were sent.
///
/// # Errors
/// When there is no such interface, or its driver doesn't say.
pub fn merges(name: &str) -> std::io::Result<(bool, bool)> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let ask = |command: u32| {
        let mut value = EthtoolValue { command, data: 0 };
        let mut request = InterfaceRequest::named(name)?;
        request.data = (&raw mut value).cast();
        // SAFETY: the request is one of an interface's name and a pointer to a value, as ethtool's simple requests want it; both live during the call.
        let status =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        match status {
            0.. => Ok(value.data),
            _ => Err(Error::last_os_error()),
        }
    };
    Ok((
        ask(ETHTOOL_GGRO)? != 0,
        ask(ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0,
    ))
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ifreq` with a pointer in its union, padded to the union's size.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u64; 2],
}

impl InterfaceRequest {
    fn named(name: &str) -> std::io::Result<InterfaceRequest> {
        let mut request = InterfaceRequest {
            name: [0; libc::IFNAMSIZ],
            data: std::ptr::null_mut(),
            rest: [0; 2],
        };
        let place = request.name.get_mut(..name.len());
        // The last byte stays the terminating zero.
        match place.filter(|place| place.len() < libc::IFNAMSIZ) {
            Some(place) => place.copy_from_slice(name.as_bytes()),
            None => return Err(std::io::ErrorKind::InvalidInput.into()),
        }
        Ok(request)
    }
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn packet_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_there_is_not_gone_and_another_can_t_be_opened() {
        let loopback = Interface::open("lo").expect("the tests of this crate run as root");
        assert_eq!((loopback.name(), loopback.is_gone()), ("lo", false));
        assert_eq!(loopback.has_carrier(), has_carrier("lo"));
        assert_eq!(has_carrier("weir-none"), None);
        let error = Interface::open("weir-none").unwrap_err().to_string();
        assert!(error.contains("interface weir-none"), "{error}");
    }
}
