//! Coming up, staying up, going down: timers, backoff, passive sessions, collisions.

use super::*;

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
