//! What a running process hands to the one that takes over from it: its listening sockets and what it knows, over a Unix socket.
//!
//! ```text
//!   old ── sockets (each packet with file descriptors, SCM_RIGHTS) ──▶ new
//!       ── what is known of backends ─────────────────────────────────▶
//!       ── end ───────────────────────────────────────────────────────▶
//!       ◀──────────────────────────────────────── serving, or failed ──
//! ```
//!
//! Packets keep their bounds (SOCK_SEQPACKET) and are JSON. The socket is the new process's standard input, which it can take over without
//! being told a number.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// File descriptors in one packet; the kernel takes 253 (SCM_MAX_FD).
const MAX_DESCRIPTORS: usize = 128;

/// Backends in one packet.
const MAX_BACKENDS: usize = 256;

/// Largest packet, in bytes: [`MAX_BACKENDS`] whose upstreams have names as long as they may be.
const MAX_PACKET: usize = 128 << 10;

/// How often one who waits looks whether there is still a point in it.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// What the old process gives.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// Listening sockets by the address they were configured with.
    pub(super) listeners: Vec<(SocketAddr, Vec<TcpListener>)>,
    /// The admin listener, and where it listens.
    pub(super) admin: Option<(SocketAddr, TcpListener)>,
    /// Backends that are down.
    pub(super) down: Vec<Down>,
}

/// A backend that failed its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Down {
    /// The upstream's name.
    pub(super) upstream: String,
    /// The backend.
    pub(super) address: SocketAddr,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Packet {
    Listener(SocketAddr),
    Admin(SocketAddr),
    Down(Vec<Down>),
    End,
    Serving,
    Failed(String),
}

/// How long the old process waits for the new one: until a time, and no longer than it wants to be taken over from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience<'a> {
    until: Instant,
    given_up: &'a AtomicBool,
}

impl Patience<'_> {
    /// From now on, `for_long` at most; it ends when `given_up` is set.
    pub(super) fn new(for_long: Duration, given_up: &AtomicBool) -> Patience<'_> {
        let until = Instant::now() + for_long;
        Patience { until, given_up }
    }

    /// # Errors
    /// That it has ended, and why: `what` has not happened.
    pub(super) fn lasts(&self, what: &str) -> Result<(), String> {
        if self.given_up.load(Ordering::Acquire) {
            return Err("given up: this process was asked to end meanwhile".into());
        }
        match Instant::now() < self.until {
            true => Ok(()),
            false => Err(format!("{what} in time")),
        }
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Two ends; neither survives an exec, except where it is made a standard stream.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(one), Channel(other)))
    }

    /// The end that is this process's standard input.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn from_stdin() -> io::Result<Channel> {
        Ok(Channel(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// For making it a standard stream of a child.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Gives everything away.
    ///
    /// # Errors
    /// If the other end is gone, or does not read for `patience`.
    pub(super) fn give(&self, inheritance: &Inheritance, patience: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Send, Some(patience))?;
        for (address, sockets) in &inheritance.listeners {
            for some in sockets.chunks(MAX_DESCRIPTORS) {
                self.send(&Packet::Listener(*address), some)?;
            }
        }
        if let Some((address, socket)) = &inheritance.admin {
            self.send(&Packet::Admin(*address), std::slice::from_ref(socket))?;
        }
        for some in inheritance.down.chunks(MAX_BACKENDS) {
            self.send(&Packet::Down(some.to_vec()), &[])?;
        }
        self.send(&Packet::End, &[])
    }

    /// Takes what the other end gives.
    ///
    /// # Errors
    /// If it ends or pauses for `patience` before it gave everything, or gives something else.
    pub(super) fn take(&self, patience: Duration) -> io::Result<Inheritance> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut inheritance = Inheritance::default();
        loop {
            match self.receive()? {
                (Packet::Listener(address), sockets) => {
                    let listeners = &mut inheritance.listeners;
                    let known = listeners.iter_mut().find(|(known, _)| *known == address);
                    let sockets = sockets.into_iter().map(TcpListener::from);
                    match known {
                        Some((_, some)) => some.extend(sockets),
                        None => listeners.push((address, sockets.collect())),
                    }
                }
                (Packet::Admin(address), sockets) => {
                    let socket = sockets.into_iter().next().map(TcpListener::from);
                    inheritance.admin = socket.map(|socket| (address, socket));
                }
                (Packet::Down(some), _) => inheritance.down.extend(some),
                (Packet::End, _) => return Ok(inheritance),
                (Packet::Serving | Packet::Failed(_), _) => {
                    return Err(io::Error::other("an answer where sockets were expected"));
                }
            }
        }
    }

    /// Tells the old process that this one serves, or why it does not.
    ///
    /// # Errors
    /// If the other end is gone.
    pub(super) fn answer(&self, outcome: Result<(), String>) -> io::Result<()> {
        let packet = match outcome {
            Ok(()) => Packet::Serving,
            Err(why) => Packet::Failed(why.chars().take(MAX_PACKET / 8).collect()),
        };
        self.send(&packet, &[])
    }

    /// Waits until the new process serves.
    ///
    /// # Errors
    /// What it says is wrong; or that it ended, or `patience` did.
    pub(super) fn answered(&self, patience: &Patience<'_>) -> Result<(), String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ended before it served; its log says why".into(),
            _ => error.to_string(),
        };
        set_socket_timeout(&self.0, Timeout::Recv, Some(LOOK))
            .map_err(io::Error::from)
            .map_err(failed)?;
        loop {
            match self.receive() {
                Ok((Packet::Serving, _)) => return Ok(()),
                Ok((Packet::Failed(why), _)) => return Err(why),
                Ok(_) => return Err("it says something that is no answer".into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    patience.lasts("it does not serve")?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn send(&self, packet: &Packet, sockets: &[TcpListener]) -> io::Result<()> {
        let text = serde_json::to_vec(packet)?;
        if text.len() > MAX_PACKET {
            return Err(io::Error::other("a packet that is too large"));
        }
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("too many descriptors in a packet"));
        }
        // With a time limit on the socket, a signal interrupts the call whatever its handler was installed with.
        loop {
            let text = [IoSlice::new(&text)];
            match sendmsg(&self.0, &text, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    fn receive(&self) -> io::Result<(Packet, Vec<OwnedFd>)> {
        let mut text = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let text = &mut [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, text, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                sockets.extend(some);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::other("a packet that is too large"));
        }
        let packet = serde_json::from_slice(&text[..received.bytes])?;
        Ok((packet, sockets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn sockets_and_what_is_known_arrive_whole_however_many_there_are() {
        let sockets: Vec<TcpListener> = (0..300)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("socket"))
            .collect();
        let addresses: Vec<_> = sockets.iter().map(|one| one.local_addr().ok()).collect();
        let down: Vec<Down> = (0..1_000)
            .map(|number| Down {
                upstream: "u".repeat(128),
                address: ([10, 0, 0, 1], number).into(),
            })
            .collect();
        let web = ([127, 0, 0, 1], 80).into();
        let admin = TcpListener::bind("127.0.0.1:0").expect("socket");
        let given = Inheritance {
            listeners: vec![(web, sockets)],
            admin: Some((([127, 0, 0, 1], 9402).into(), admin)),
            down: down.clone(),
        };
        let (old, new) = Channel::pair().expect("pair");
        std::thread::scope(|scope| {
            scope.spawn(|| old.give(&given, PATIENCE).expect("given"));
            let taken = new.take(PATIENCE).expect("taken");
            let [(address, sockets)] = &taken.listeners[..] else {
                panic!("{taken:?}");
            };
            assert_eq!(*address, web);
            let there: Vec<_> = sockets.iter().map(|one| one.local_addr().ok()).collect();
            assert_eq!(there, addresses);
            assert_eq!(taken.down, down);
            assert!(taken.admin.is_some());
        });
    }

    #[test]
    fn a_process_that_ends_or_says_what_is_wrong_is_told_apart_from_a_silent_one() {
        let (old, new) = Channel::pair().expect("pair");
        new.answer(Err("no certificate".into())).expect("answered");
        let given_up = AtomicBool::new(false);
        let patience = Patience::new(PATIENCE, &given_up);
        assert_eq!(old.answered(&patience), Err("no certificate".to_owned()));
        new.answer(Ok(())).expect("answered");
        assert_eq!(old.answered(&patience), Ok(()));
        let short = Patience::new(Duration::from_millis(20), &given_up);
        let silent = old.answered(&short).unwrap_err();
        assert_eq!(silent, "it does not serve in time");
        given_up.store(true, Ordering::Release);
        let given_up = old.answered(&patience).unwrap_err();
        assert!(given_up.starts_with("given up"), "{given_up}");
        drop(new);
        let ended = old.answered(&patience).unwrap_err();
        assert!(ended.starts_with("it ended before"), "{ended}");
    }
}
