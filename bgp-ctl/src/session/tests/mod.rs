//! The session without sockets: whole messages out, cross-checked by a second codec, and everything a neighbour can do wrong.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

use super::*;

mod faults;
mod life;
mod messages;

const US: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// A KEEPALIVE as it has to be on the wire (RFC 4271 4.4).
const KEEPALIVE: &str = "ffffffffffffffffffffffffffffffff001304";

fn external() -> SessionSettings {
    SessionSettings {
        local_as: 65010,
        remote_as: 65001,
        router_id: US,
        hold_time: 9,
        connect_retry: Duration::from_secs(1),
        connect_retry_max: Duration::from_secs(15),
        connect_timeout: Duration::from_secs(5),
        passive: false,
        next_hop: None,
        med: None,
        local_pref: 100,
        communities: Vec::new(),
        seed: 7,
    }
}

fn internal() -> SessionSettings {
    SessionSettings {
        remote_as: 65010,
        ..external()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A message of `kind` with `body`, framed by hand.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// The router's OPEN: AS, hold time, identifier 10.2.0.1 unless said otherwise, 4-octet AS, IPv4 unicast, route refresh (both).
fn router_open(asn: u16, hold_time: u16, id: [u8; 4]) -> Vec<u8> {
    let mut body = vec![4];
    body.extend(asn.to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(id);
    let capabilities = unhex(&format!(
        "0206 0104 0001 0001  0202 0200  0202 4600  0206 4104 {:08x}",
        u32::from(asn)
    ));
    body.push(u8::try_from(capabilities.len()).unwrap());
    body.extend(capabilities);
    framed(1, &body)
}

fn sent(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(message) => Some(hex(message)),
            _ => None,
        })
        .collect()
}

/// Reads a message with the other codec, which must agree that it is one, whole and valid.
fn cross_checked(message: &str) -> BgpMessage {
    let bytes = unhex(message);
    let mut context = BgpParsingContext::asn2_default();
    context.set_asn4(true);
    let mut reader = SliceReader::new(&bytes);
    let read = BgpMessage::parse(&mut reader, &mut context).expect("the other codec reads it");
    assert!(reader.is_empty(), "the other codec leaves nothing over");
    read
}

/// A session taken to Established by the shortest way, and what it sent once there.
fn established(
    settings: SessionSettings,
    prepare: impl FnOnce(&mut Session),
) -> (Session, Instant, Vec<String>) {
    let now = Instant::now();
    let asn = u16::try_from(settings.remote_as).unwrap();
    let mut session = Session::new(settings);
    prepare(&mut session);
    assert_eq!(session.handle(now, Input::Start), [Action::Connect]);
    session.handle(now, Input::Connected(US));
    session.handle(now, Input::Received(&router_open(asn, 90, [10, 2, 0, 1])));
    let up = session.handle(now, Input::Received(&unhex(KEEPALIVE)));
    assert_eq!(session.state(), State::Established);
    assert_eq!(up.first(), Some(&Action::Up));
    (session, now, sent(&up))
}
