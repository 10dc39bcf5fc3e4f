//! Frames as they are on an interface: read as they pass, and sent as they were written.

use std::io::Read;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Place;

/// All protocols (ETH_P_ALL of linux/if_ether.h), in network byte order.
const ALL: i32 = 0x0003u16.to_be() as i32;

/// A namespace's interface.
pub(crate) struct Wire {
    socket: Socket,
    interface: SockAddr,
}

impl Wire {
    /// Opens the interface that leads to `absent`, an address on its segment that nobody has.
    pub(crate) fn open(place: &Place, absent: Ipv4Addr) -> Wire {
        place.run(move || {
            let kind = Some(Protocol::from(ALL));
            let socket = Socket::new(Domain::PACKET, Type::RAW, kind).expect("AF_PACKET");
            socket.set_recv_buffer_size(4 << 20).unwrap();
            // An interface is known by its number, which the kernel tells with each frame: so it is made to send one.
            let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
            udp.send_to(b"who has it?", (absent, 9)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut frame = [0; 2048];
            loop {
                let interface = socket.peek_sender().expect("an ARP request");
                let length = (&socket).read(&mut frame).expect("the same frame");
                let (kind, target) = (&frame[12..14], &frame[38..42]);
                if length >= 42 && kind == [8, 6] && target == absent.octets() {
                    return Wire { socket, interface };
                }
            }
        })
    }

    /// Sends a frame. What doesn't leave, as the queue is full or the frame is nothing an interface takes, is lost, as on any wire.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        self.socket.send_to(frame, &self.interface).is_ok()
    }

    /// A frame that passed meanwhile, if any did.
    pub(crate) fn passed(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        self.socket.set_nonblocking(true).unwrap();
        let read = (&self.socket).read(&mut frame);
        self.socket.set_nonblocking(false).unwrap();
        frame.truncate(read.ok().filter(|length| *length >= 14)?);
        Some(frame)
    }

    /// The next frame that passes, either way, of which this is true.
    pub(crate) fn wait_for(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut buffer = [0; 65_536];
        while Instant::now() < deadline {
            if let Ok(length) = (&self.socket).read(&mut buffer)
                && wanted(&buffer[..length])
            {
                return buffer[..length].to_vec();
            }
        }
        panic!("no such frame passed");
    }
}
