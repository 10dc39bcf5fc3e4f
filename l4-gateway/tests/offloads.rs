//! Checksums left to a NIC that is none, by a real kernel.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use lab::{Gateway, Lab, VIP};

const DROPPED: &str = "weir_l4_dropped_total{worker=\"0\",reason=\"bad_transport_checksum\"}";

/// Sends datagrams to a port of the VIP; whether one came back.
fn ask(lab: &Lab, port: u16, times: u8) -> Result<(), ErrorKind> {
    lab.client().run(move || {
        let socket = UdpSocket::bind(("10.2.0.1", 0)).unwrap();
        socket.connect((VIP, port)).unwrap();
        for n in 0..times {
            socket.send(&[n; 20]).map_err(|error| error.kind())?;
        }
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let answer = socket.recv(&mut [0; 100]);
        answer.map(|_| ()).map_err(|error| error.kind())
    })
}

#[test]
fn a_client_whose_checksums_are_left_to_a_nic_is_dropped_and_the_log_says_why_once() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let offload = |state| {
        lab.client()
            .shell(&format!("ethtool -K c0 tx {state} >/dev/null"));
    };
    assert_eq!(ask(&lab, 53, 1), Ok(()));
    assert_eq!(ask(&lab, 54, 1), Err(ErrorKind::ConnectionRefused));
    offload("on");
    for (port, sent) in [(53, 8), (54, 16)] {
        assert_eq!(ask(&lab, port, 8), Err(ErrorKind::WouldBlock), "silence");
        gateway.wait("counted", || gateway.metric(DROPPED) >= sent);
    }
    let refused = lab.client().run(|| {
        let vip = (VIP, 81).into();
        TcpStream::connect_timeout(&vip, Duration::from_millis(1200)).map(|_| ())
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut);
    let told = || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("wrong TCP or UDP"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    gateway.wait("told", || !told().is_empty());
    let told = told();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "WARN",
        "port=\"ext\"",
        "ethtool -K ext0 tx off rx off gso off tso off gro off",
    ] {
        assert!(told[0].contains(part), "{part} is not in {told:?}");
    }
    offload("off");
    assert_eq!(ask(&lab, 53, 1), Ok(()));
    assert_eq!(ask(&lab, 54, 1), Err(ErrorKind::ConnectionRefused));
}
