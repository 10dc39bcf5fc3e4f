//! The session without sockets: whole messages out, cross-checked by a second codec, and everything a neighbour can do wrong.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use proptest::prelude::*;

use super::*;

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

#[test]
fn open_offers_four_octet_as_ipv4_unicast_and_both_route_refreshes() {
    let mut session = Session::new(external());
    let now = Instant::now();
    session.handle(now, Input::Start);
    let messages = sent(&session.handle(now, Input::Connected(US)));
    let expected = "ffffffffffffffffffffffffffffffff 0031 01 04 fdf2 0009 0a02000b 14 \
                    0212 0104 0001 0001 0200 4600 0600 4104 0000fdf2";
    assert_eq!(messages, [hex(&unhex(expected))]);
    let BgpMessage::Open(open) = cross_checked(&messages[0]) else {
        panic!("not an OPEN")
    };
    assert_eq!(
        (open.my_asn4(), open.hold_time(), open.bgp_id()),
        (65010, 9, US)
    );
    assert_eq!(session.state(), State::OpenSent);
}

#[test]
fn a_four_octet_as_stands_in_the_open_as_as_trans() {
    let mut session = Session::new(SessionSettings {
        local_as: 4_200_000_001,
        ..external()
    });
    let now = Instant::now();
    session.handle(now, Input::Start);
    let messages = sent(&session.handle(now, Input::Connected(US)));
    let BgpMessage::Open(open) = cross_checked(&messages[0]) else {
        panic!("not an OPEN")
    };
    assert_eq!((open.my_as(), open.my_asn4()), (23456, 4_200_000_001));
}

#[test]
fn external_update_has_as_path_next_hop_med_and_communities() {
    let settings = SessionSettings {
        communities: vec!["65010:1".parse().unwrap()],
        ..external()
    };
    let (_, _, messages) = established(settings, |session| {
        let communities = vec!["65010:100".parse().unwrap(), "65010:7:8".parse().unwrap()];
        session.announce(
            VIP,
            Attributes {
                med: Some(50),
                communities,
            },
        );
    });
    let update = "ffffffffffffffffffffffffffffffff 0051 02 0000 0035 \
                  400101 00  400206 0201 0000fdf2  400304 0a02000b  800404 00000032 \
                  c00808 fdf20001 fdf20064  c0200c 0000fdf2 00000007 00000008  20 0a000064";
    let end_of_rib = "ffffffffffffffffffffffffffffffff 0017 02 0000 0000";
    assert_eq!(messages, [hex(&unhex(update)), hex(&unhex(end_of_rib))]);
    let read = format!("{:?}", cross_checked(&messages[0]));
    for part in ["10.0.0.100/32", "65010", "10.2.0.11", "metric: 50"] {
        assert!(read.contains(part), "{part} in {read}");
    }
}

#[test]
fn internal_update_has_local_pref_and_an_empty_as_path() {
    let settings = SessionSettings {
        local_pref: 200,
        ..internal()
    };
    let (_, _, messages) = established(settings, |session| {
        session.announce(VIP, Attributes::default())
    });
    let update = "ffffffffffffffffffffffffffffffff 0031 02 0000 0015 \
                  400101 00  400200  400304 0a02000b  400504 000000c8  20 0a000064";
    assert_eq!(messages[0], hex(&unhex(update)));
    let read = format!("{:?}", cross_checked(&messages[0]));
    assert!(read.contains("10.0.0.100/32"), "{read}");
}

#[test]
fn the_configured_next_hop_replaces_our_address() {
    let settings = SessionSettings {
        next_hop: Some(Ipv4Addr::new(192, 0, 2, 9)),
        ..external()
    };
    let (_, _, messages) = established(settings, |session| {
        session.announce(VIP, Attributes::default())
    });
    assert!(messages[0].contains("400304c0000209"), "{}", messages[0]);
}

#[test]
fn a_vips_own_med_stands_before_the_neighbours() {
    let (mut session, now, messages) = established(
        SessionSettings {
            med: Some(5),
            ..external()
        },
        |session| session.announce(VIP, Attributes::default()),
    );
    assert!(messages[0].contains("80040400000005"), "{}", messages[0]);
    session.announce(
        VIP,
        Attributes {
            med: Some(6),
            communities: Vec::new(),
        },
    );
    let again = sent(&session.handle(now, Input::Routes));
    assert!(again[0].contains("80040400000006"), "{again:?}");
}

#[test]
fn withdrawal_is_an_update_with_the_prefix_among_withdrawn_routes() {
    let (mut session, now, _) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    session.withdraw(VIP);
    let messages = sent(&session.handle(now, Input::Routes));
    let update = "ffffffffffffffffffffffffffffffff 001c 02 0005 20 0a000064 0000";
    assert_eq!(messages, [hex(&unhex(update))]);
    assert!(format!("{:?}", cross_checked(&messages[0])).contains("10.0.0.100/32"));
    assert!(
        session.handle(now, Input::Routes).is_empty(),
        "told once is enough"
    );
    assert!(session.advertised().is_empty());
}

#[test]
fn routes_of_a_thousand_vips_fit_few_updates_of_legal_size() {
    let vip = |n: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 0)) + n);
    let (mut session, now, messages) = established(external(), |session| {
        (0..1000).for_each(|n| session.announce(vip(n), Attributes::default()));
    });
    assert_eq!(messages.len(), 4, "three UPDATEs and End-of-RIB");
    (0..1000).for_each(|n| session.withdraw(vip(n)));
    let withdrawn = sent(&session.handle(now, Input::Routes));
    assert_eq!(withdrawn.len(), 3);
    for message in messages.iter().chain(&withdrawn) {
        assert!(message.len() / 2 <= 4096);
        cross_checked(message);
    }
}

#[test]
fn stop_withdraws_then_says_cease_with_its_text_then_closes() {
    let (mut session, now, _) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    let actions = session.handle(now, Input::Stop("node restarts"));
    let messages = sent(&actions);
    let withdraw = "ffffffffffffffffffffffffffffffff 001c 02 0005 20 0a000064 0000";
    // RFC 9003: Cease (6), Administrative Shutdown (2), length and text.
    let cease = format!(
        "ffffffffffffffffffffffffffffffff 0023 03 0602 0d {}",
        hex(b"node restarts")
    );
    assert_eq!(messages, [hex(&unhex(withdraw)), hex(&unhex(&cease))]);
    assert_eq!(actions.last(), Some(&Action::Close));
    cross_checked(&messages[1]);
    assert_eq!(
        (session.state(), session.deadline()),
        (State::Idle, None),
        "stopped for good"
    );
}

#[test]
fn a_new_session_is_told_everything_again() {
    let (mut session, mut now, first) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    let down = session.handle(now, Input::Lost("gone"));
    assert!(down.contains(&Action::Down("gone".to_owned())), "{down:?}");
    assert!(session.advertised().is_empty());
    let deadline = session.deadline().unwrap();
    assert!(deadline <= now + Duration::from_secs(1));
    now = deadline;
    assert_eq!(session.handle(now, Input::Tick), [Action::Connect]);
    session.handle(now, Input::Connected(US));
    session.handle(now, Input::Received(&router_open(65001, 90, [10, 2, 0, 1])));
    assert_eq!(
        sent(&session.handle(now, Input::Received(&unhex(KEEPALIVE)))),
        first
    );
}

#[test]
fn route_refresh_repeats_all_routes_between_its_markers() {
    let (mut session, now, first) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    let refresh = framed(5, &[0, 1, 0, 1]);
    let messages = sent(&session.handle(now, Input::Received(&refresh)));
    assert_eq!(
        messages,
        [
            hex(&framed(5, &[0, 1, 1, 1])),
            first[0].clone(),
            hex(&framed(5, &[0, 1, 2, 1]))
        ]
    );
    for ignored in [[0, 2, 0, 1], [0, 1, 0, 2], [0, 1, 1, 1], [0, 99, 0, 1]] {
        assert!(
            session
                .handle(now, Input::Received(&framed(5, &ignored)))
                .is_empty(),
            "{ignored:?}"
        );
    }
    assert_eq!(session.state(), State::Established);
}

#[test]
fn many_refreshes_read_at_once_are_answered_once() {
    let (mut session, now, _) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    let refreshes = framed(5, &[0, 1, 0, 1]).repeat(500);
    assert_eq!(
        sent(&session.handle(now, Input::Received(&refreshes))).len(),
        3
    );
}

#[test]
fn a_neighbour_without_four_octet_as_is_told_as_trans_and_as4_path() {
    let mut session = Session::new(SessionSettings {
        local_as: 4_200_000_001,
        ..external()
    });
    let now = Instant::now();
    session.announce(VIP, Attributes::default());
    session.handle(now, Input::Start);
    session.handle(now, Input::Connected(US));
    let open = [4, 0xfd, 0xe9, 0, 90, 10, 2, 0, 1, 8, 2, 6, 1, 4, 0, 1, 0, 1];
    session.handle(now, Input::Received(&framed(1, &open)));
    let messages = sent(&session.handle(now, Input::Received(&unhex(KEEPALIVE))));
    // AS_PATH of 2 octets with AS_TRANS, AS4_PATH (17) with the true number (RFC 6793 4.2.2).
    assert!(messages[0].contains("40020402015ba0"), "{}", messages[0]);
    assert!(
        messages[0].contains("c011060201fa56ea01"),
        "{}",
        messages[0]
    );
}

#[test]
fn keepalives_go_out_each_third_of_the_agreed_hold_time() {
    let (mut session, mut now, _) = established(external(), |_| {});
    assert_eq!(session.hold_time(), Some(9), "the smaller proposal counts");
    for _ in 0..5 {
        let due = session.deadline().unwrap();
        let wait = due - now;
        assert!(
            wait >= Duration::from_millis(2250) && wait <= Duration::from_secs(3),
            "{wait:?}"
        );
        now = due;
        assert_eq!(sent(&session.handle(now, Input::Tick)), [KEEPALIVE]);
        session.handle(now, Input::Received(&unhex(KEEPALIVE)));
    }
}

#[test]
fn a_silent_neighbour_is_given_up_after_the_hold_time() {
    let (mut session, start, _) = established(external(), |session| {
        session.announce(VIP, Attributes::default())
    });
    let mut now = start;
    let mut actions = Vec::new();
    while session.state() == State::Established {
        now = session.deadline().unwrap();
        actions = session.handle(now, Input::Tick);
    }
    assert_eq!(now - start, Duration::from_secs(9));
    // Hold Timer Expired is code 4, subcode 0 (RFC 4271 6.5).
    assert_eq!(sent(&actions), [hex(&framed(3, &[4, 0]))]);
    assert_eq!(session.counts().hold_timer_expired, 1);
}

#[test]
fn failures_are_retried_with_growing_jittered_waits() {
    let mut session = Session::new(external());
    let mut now = Instant::now();
    session.handle(now, Input::Start);
    for expected in [1.0, 2.0, 4.0, 8.0, 15.0, 15.0] {
        assert!(session.handle(now, Input::Lost("refused")).is_empty());
        assert_eq!(session.state(), State::Active);
        let wait = (session.deadline().unwrap() - now).as_secs_f64();
        assert!(
            wait >= 0.75 * expected && wait <= expected,
            "{wait} for {expected}"
        );
        now = session.deadline().unwrap();
        assert_eq!(session.handle(now, Input::Tick), [Action::Connect]);
    }
}

#[test]
fn an_attempt_without_answer_is_given_up_and_made_again() {
    let mut session = Session::new(external());
    let now = Instant::now();
    session.handle(now, Input::Start);
    let due = session.deadline().unwrap();
    assert_eq!(due - now, Duration::from_secs(5));
    assert_eq!(
        session.handle(due, Input::Tick),
        [Action::Close, Action::Connect]
    );
    assert!(
        session
            .last_error()
            .unwrap()
            .starts_with("no answer within 5s")
    );
}

#[test]
fn a_passive_session_waits_to_be_connected() {
    let mut session = Session::new(SessionSettings {
        passive: true,
        ..external()
    });
    let now = Instant::now();
    assert!(session.handle(now, Input::Start).is_empty());
    assert_eq!(session.deadline(), None);
    let actions = session.handle(now, Input::Incoming(US));
    assert_eq!(actions[0], Action::AcceptIncoming);
    assert_eq!(session.state(), State::OpenSent);
    session.handle(now, Input::Received(&router_open(65001, 90, [10, 2, 0, 1])));
    session.handle(now, Input::Received(&unhex(KEEPALIVE)));
    assert_eq!(session.state(), State::Established);
}

/// Cease, Connection Collision Resolution (RFC 4486).
const COLLISION: [u8; 2] = [6, 7];

#[test]
fn of_two_colliding_connections_the_one_of_the_higher_identifier_lives() {
    let meet = |id: [u8; 4]| {
        let mut session = Session::new(external());
        let now = Instant::now();
        session.handle(now, Input::Start);
        session.handle(now, Input::Connected(US));
        assert!(
            session.handle(now, Input::Incoming(US)).is_empty(),
            "undecided until the OPEN tells the identifier"
        );
        let actions = session.handle(now, Input::Received(&router_open(65001, 90, id)));
        (session, now, actions)
    };

    let (mut session, now, actions) = meet([10, 2, 0, 1]);
    assert_eq!(
        actions.last(),
        Some(&Action::RefuseIncoming(Bytes::from(framed(3, &COLLISION)))),
        "ours is higher"
    );
    session.handle(now, Input::Received(&unhex(KEEPALIVE)));
    assert_eq!(session.state(), State::Established);

    let (mut session, now, actions) = meet([10, 2, 0, 200]);
    let position = |wanted: &Action| actions.iter().position(|action| action == wanted).unwrap();
    let cease = position(&Action::Send(Bytes::from(framed(3, &COLLISION))));
    let close = position(&Action::Close);
    let accept = position(&Action::AcceptIncoming);
    assert!(cease < close && close < accept, "{actions:?}");
    assert_eq!(
        session.state(),
        State::OpenSent,
        "begun anew on the neighbour's connection"
    );
    session.handle(
        now,
        Input::Received(&router_open(65001, 90, [10, 2, 0, 200])),
    );
    session.handle(now, Input::Received(&unhex(KEEPALIVE)));
    assert_eq!(session.state(), State::Established);
}

#[test]
fn a_connection_beside_an_established_session_is_refused() {
    let (mut session, now, _) = established(external(), |_| {});
    let actions = session.handle(now, Input::Incoming(US));
    assert_eq!(
        actions,
        [Action::RefuseIncoming(Bytes::from(framed(3, &COLLISION)))]
    );
    assert_eq!(session.state(), State::Established);
}

#[test]
fn a_waiting_connection_takes_over_when_ours_fails() {
    let mut session = Session::new(external());
    let now = Instant::now();
    session.handle(now, Input::Start);
    session.handle(now, Input::Connected(US));
    session.handle(now, Input::Incoming(US));
    let actions = session.handle(now, Input::Lost("reset"));
    assert!(actions.contains(&Action::AcceptIncoming), "{actions:?}");
    assert_eq!(session.state(), State::OpenSent);
}

#[test]
fn what_breaks_the_protocol_is_answered_with_the_right_notification() {
    let bad_marker = [vec![0u8; 16], vec![0, 19, 4]].concat();
    let cases: [(&str, Vec<u8>, &[u8]); 9] = [
        ("marker", bad_marker, &[1, 1]),
        (
            "length below the header",
            [vec![0xff; 16], vec![0, 18, 4]].concat(),
            &[1, 2, 0, 18],
        ),
        (
            "length above 4096",
            [vec![0xff; 16], vec![0x10, 0x01, 2]].concat(),
            &[1, 2, 0x10, 0x01],
        ),
        ("message type", framed(9, &[]), &[1, 3, 9]),
        (
            "version",
            framed(1, &[3, 0, 1, 0, 90, 1, 1, 1, 1, 0]),
            &[2, 1, 0, 4],
        ),
        ("AS", router_open(65002, 90, [10, 2, 0, 1]), &[2, 2]),
        ("identifier", router_open(65001, 90, [0, 0, 0, 0]), &[2, 3]),
        ("hold time", router_open(65001, 2, [10, 2, 0, 1]), &[2, 6]),
        ("order", framed(2, &[0, 0, 0, 0]), &[5, 0]),
    ];
    for (what, input, notification) in cases {
        let mut session = Session::new(external());
        let now = Instant::now();
        session.handle(now, Input::Start);
        session.handle(now, Input::Connected(US));
        let actions = session.handle(now, Input::Received(&input));
        assert_eq!(sent(&actions), [hex(&framed(3, notification))], "{what}");
        assert_eq!(actions.last(), Some(&Action::Close), "{what}");
        assert_eq!(session.state(), State::Idle, "{what}");
        assert_eq!(session.counts().protocol_errors, 1, "{what}");
        assert!(
            session.deadline().is_some_and(|due| due > now),
            "{what}: tried again later"
        );
        cross_checked(&sent(&actions)[0]);
    }
}

#[test]
fn a_malformed_attribute_is_survived_and_counted() {
    // ORIGIN with value 9 (RFC 7606 7.1: treat as withdraw), AS_PATH, NEXT_HOP, one prefix.
    let attributes = unhex("400101 09  400206 0201 0000fde9  400304 0a020001");
    let mut body = vec![0, 0, 0, u8::try_from(attributes.len()).unwrap()];
    body.extend(attributes);
    body.extend([24, 192, 0, 2]);
    let (mut session, now, _) = established(external(), |_| {});
    assert!(
        session
            .handle(now, Input::Received(&framed(2, &body)))
            .is_empty()
    );
    assert_eq!(
        (session.state(), session.counts().malformed_updates),
        (State::Established, 1)
    );
}

#[test]
fn an_update_whose_routes_cannot_be_found_ends_the_session() {
    for body in [
        &[0, 9, 0, 0][..],
        &[0, 0, 0, 200],
        &[0, 0, 0, 0, 33, 1, 2, 3, 4, 5],
    ] {
        let (mut session, now, _) = established(external(), |_| {});
        let actions = session.handle(now, Input::Received(&framed(2, body)));
        assert!(sent(&actions)[0].starts_with(&hex(&[0xff; 16])), "{body:?}");
        assert_eq!(session.state(), State::Idle, "{body:?}");
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::Down(_))),
            "{body:?}"
        );
    }
}

#[test]
fn the_neighbours_reason_is_kept_without_its_control_characters() {
    let (mut session, now, _) = established(external(), |_| {});
    let text = b"bye\x1b[2J\n";
    let mut body = vec![6, 2, u8::try_from(text.len()).unwrap()];
    body.extend(text);
    session.handle(now, Input::Received(&framed(3, &body)));
    let error = session.last_error().unwrap();
    assert!(
        error.ends_with("Administrative Shutdown): bye[2J"),
        "{error:?}"
    );
    assert_eq!(session.counts().notifications_received, 1);
    assert_eq!(
        session.counts().notifications_sent,
        0,
        "a NOTIFICATION is never answered with one"
    );
}

#[test]
fn messages_may_arrive_in_any_pieces() {
    let stream = [
        router_open(65001, 90, [10, 2, 0, 1]),
        unhex(KEEPALIVE),
        framed(2, &[0, 0, 0, 0]),
    ]
    .concat();
    for size in [1, 2, 3, 7, 18, 19, 20, stream.len()] {
        let mut session = Session::new(external());
        let now = Instant::now();
        session.handle(now, Input::Start);
        session.handle(now, Input::Connected(US));
        for piece in stream.chunks(size) {
            session.handle(now, Input::Received(piece));
        }
        assert_eq!(session.state(), State::Established, "pieces of {size}");
        assert_eq!(session.counts().messages_received, 3, "pieces of {size}");
    }
}

/// Anything that can happen to a session, in any order.
#[derive(Debug, Clone)]
enum Any {
    Start,
    Stop,
    Connected,
    Incoming,
    Lost,
    Tick(u16),
    Announce(u8),
    Withdraw(u8),
    Bytes(Vec<u8>),
}

fn anything() -> impl Strategy<Value = Any> {
    let message = (1u8..=6, proptest::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(kind, body)| framed(kind, &body));
    prop_oneof![
        1 => Just(Any::Start),
        1 => Just(Any::Stop),
        3 => Just(Any::Connected),
        2 => Just(Any::Incoming),
        1 => Just(Any::Lost),
        2 => (0u16..20_000).prop_map(Any::Tick),
        1 => (0u8..4).prop_map(Any::Announce),
        1 => (0u8..4).prop_map(Any::Withdraw),
        3 => Just(Any::Bytes(router_open(65001, 90, [10, 2, 0, 200]))),
        3 => Just(Any::Bytes(unhex(KEEPALIVE))),
        2 => message.prop_map(Any::Bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Any::Bytes),
    ]
}

proptest! {
    #[test]
    fn nothing_that_happens_breaks_a_session(steps in proptest::collection::vec(anything(), 1..120)) {
        let mut session = Session::new(external());
        let mut now = Instant::now();
        let (mut connected, mut waiting) = (false, false);
        for step in steps {
            let input = match &step {
                Any::Start => Input::Start,
                Any::Stop => Input::Stop("stop"),
                Any::Connected => Input::Connected(US),
                Any::Incoming => { waiting = true; Input::Incoming(US) }
                Any::Lost => { connected = false; Input::Lost("lost") }
                Any::Tick(millis) => { now += Duration::from_millis(u64::from(*millis)); Input::Tick }
                Any::Announce(n) => { session.announce(Ipv4Addr::new(10, 0, 0, *n), Attributes::default()); Input::Routes }
                Any::Withdraw(n) => { session.withdraw(Ipv4Addr::new(10, 0, 0, *n)); Input::Routes }
                Any::Bytes(bytes) => Input::Received(bytes),
            };
            if matches!(step, Any::Connected) && matches!(session.state(), State::Connect | State::Active) {
                connected = true;
            }
            for action in session.handle(now, input) {
                match action {
                    Action::Send(message) => {
                        prop_assert!(connected, "sent without a connection");
                        prop_assert!(message.len() <= 4096);
                        cross_checked(&hex(&message));
                    }
                    Action::Close => connected = false,
                    Action::AcceptIncoming => {
                        prop_assert!(waiting);
                        (waiting, connected) = (false, true);
                    }
                    Action::RefuseIncoming(_) => waiting = false,
                    Action::Connect | Action::Up | Action::Down(_) => {}
                }
            }
            prop_assert_eq!(connected, session.state() >= State::OpenSent);
            prop_assert!(session.deadline().is_none_or(|due| due <= now + Duration::from_secs(240)));
            prop_assert!(session.inbox.len() <= usize::from(session.largest_message));
        }
    }

    #[test]
    fn hostile_bytes_never_panic_an_established_session(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in 1u8..=6) {
        let (mut session, now, _) = established(external(), |_| {});
        let mut message = framed(kind, &bytes[..bytes.len().min(1000)]);
        message.extend(&bytes);
        session.handle(now, Input::Received(&message));
    }
}
