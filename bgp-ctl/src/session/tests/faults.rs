//! Everything a neighbour can do wrong, and everything that can happen in any order.

use proptest::prelude::*;

use super::*;

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
