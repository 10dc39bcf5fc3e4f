//! What is sent: whole messages, read again by a second codec.

use super::*;

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
