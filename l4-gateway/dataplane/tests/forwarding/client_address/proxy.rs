//! PROXY protocol v2 in front of the first byte: the client's numbers cross the wrap within the header.

use dataplane::{ClientAddress, DropReason, Verdict};

use super::talk::{ORIGIN, Part, TARGET_ISN, Talk, header, part, toa, too_big};
use super::{MSS_1460, mss};
use crate::frame::{ACK, FIN, PSH, RST, SYN, mac, tcp};
use crate::net::{BOTH, Net};
use crate::resets::expire;
use crate::rig::{INSIDE, OUTSIDE, SECOND, from_client, to_target};

const URG: u8 = 0x20;

fn sack(blocks: &[[u32; 2]]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    option.extend(
        blocks
            .as_flattened()
            .iter()
            .flat_map(|edge| edge.to_be_bytes()),
    );
    option
}

#[test]
fn the_header_goes_in_front_of_the_first_byte_and_all_behind_it_is_further_on() {
    for net in BOTH {
        let header = header(net);
        let h = header.len() as i32;
        let with_header = |data: &[u8]| [&header[..], data].concat();
        let mut talk = Talk::begin(net, ClientAddress::ProxyV2);
        talk.down(
            &part(0, SYN | ACK).options(&MSS_1460),
            &part(0, SYN | ACK).options(&mss(1500 - net.ip_header() as u16 - 20 - h as u16)),
        );
        // The handshake's last ACK and a keep-alive probe, without and with a byte, are where they were.
        talk.up(&part(0, ACK), &part(0, ACK));
        talk.up(&part(-1, ACK), &part(-1, ACK));
        talk.up(&part(-1, ACK).data(b"x"), &part(-1, ACK).data(b"x"));
        let first = part(0, ACK | PSH).data(b"GET /");
        let arrives = part(0, ACK | PSH).data(&with_header(b"GET /"));
        talk.up(&first, &arrives);
        talk.up(
            &part(5, ACK).data(b" HTTP/1.1"),
            &part(5 + h, ACK).data(b" HTTP/1.1"),
        );
        talk.up(&part(14, ACK), &part(14 + h, ACK));
        // Sent again, the same again.
        talk.up(&first, &arrives);
        // Sent again in other pieces: the header is still in front.
        talk.up(
            &part(0, ACK).data(b"G"),
            &part(0, ACK).data(&with_header(b"G")),
        );
        talk.up(&part(1, ACK).data(b"ET /"), &part(1 + h, ACK).data(b"ET /"));
        assert_eq!(talk.told(), (3, 0, 0));
    }
}

#[test]
fn acknowledgments_lose_the_header_and_one_inside_it_acknowledges_nothing() {
    for net in BOTH {
        let h = header(net).len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(&[7; 100])).unwrap();
        for (theirs, clients) in [(-1, -1), (0, 0), (1, 0), (h - 1, 0)] {
            talk.down(&part(theirs, ACK), &part(clients, ACK));
        }
        // Blocks: of the header's end and what follows it, and of a later segment.
        let at = |n: i32, shift: u32| ORIGIN.wrapping_add(shift).wrapping_add_signed(n);
        let theirs = sack(&[
            [at(h - 3, talk.shift), at(h + 40, talk.shift)],
            [at(h + 200, talk.shift), at(h + 300, talk.shift)],
        ]);
        let clients = sack(&[[at(0, 0), at(40, 0)], [at(200, 0), at(300, 0)]]);
        talk.down(
            &part(0, ACK).options(&theirs),
            &part(0, ACK).options(&clients),
        );
        talk.down(
            &part(h, ACK | PSH).data(b"answer"),
            &part(0, ACK | PSH).data(b"answer"),
        );
        talk.down(&part(h + 100, ACK), &part(100, ACK));
        let theirs = sack(&[[at(h + 200, talk.shift), at(h + 300, talk.shift)]]);
        let clients = sack(&[[at(200, 0), at(300, 0)]]);
        talk.down(
            &part(h + 100, ACK).options(&theirs),
            &part(100, ACK).options(&clients),
        );
    }
}

#[test]
fn once_the_target_has_the_header_segments_are_only_shifted() {
    for net in BOTH {
        let h = header(net).len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.down(&part(h + 5, ACK), &part(5, ACK));
        // What comes late brings no second header, and stands where the first left it.
        talk.up(&part(0, ACK).data(b"first"), &part(h, ACK).data(b"first"));
        talk.up(&part(0, ACK), &part(h, ACK));
        talk.up(
            &part(5, ACK).data(b"second"),
            &part(5 + h, ACK).data(b"second"),
        );
        // 3 GiB on, where a comparison with the stream's beginning would be wrong.
        let far = 3u32 << 30;
        talk.up(
            &part(far as i32, ACK).data(b"late"),
            &part((far + h as u32) as i32, ACK).data(b"late"),
        );
        talk.down(
            &part((far + h as u32 + 4) as i32, ACK),
            &part((far + 4) as i32, ACK),
        );
        assert_eq!(talk.told(), (1, 0, 0));
    }
}

#[test]
fn a_second_segment_may_come_before_the_first() {
    for net in BOTH {
        let header = header(net);
        let h = header.len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.up(
            &part(100, ACK | FIN).data(b"second"),
            &part(100 + h, ACK | FIN).data(b"second"),
        );
        talk.down(&part(0, ACK), &part(0, ACK));
        talk.up(
            &part(0, ACK).data(&[1; 100]),
            &part(0, ACK).data(&[&header[..], &[1; 100]].concat()),
        );
        talk.down(&part(h + 107, ACK), &part(107, ACK));
        assert_eq!(talk.told(), (1, 0, 0));
    }
}

#[test]
fn a_stream_without_a_byte_has_its_header_too() {
    for net in BOTH {
        let header = header(net);
        let h = header.len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.up(&part(0, ACK | FIN), &part(0, ACK | FIN).data(&header));
        talk.up(&part(0, ACK | FIN), &part(0, ACK | FIN).data(&header));
        talk.up(&part(1, ACK), &part(1 + h, ACK));
        talk.down(&part(h + 1, ACK | FIN), &part(1, ACK | FIN));
        talk.up(&part(1, ACK), &part(1 + h, ACK));
    }
}

#[test]
fn padding_of_a_short_frame_does_not_travel_between_header_and_link() {
    let net = Net::V4;
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    let mut frame = from_client(&talk.as_client_sends(&part(0, ACK | FIN)));
    // As a link pads it.
    frame.resize(60, 0xee);
    let sent = talk.rig.transmitted(OUTSIDE, frame);
    let expected = talk.as_target_sees(&part(0, ACK | FIN).data(&header(net)));
    assert_eq!(sent, (INSIDE, to_target(&expected.ttl(63), 21)));
}

#[test]
fn a_reset_has_the_number_that_the_target_expects() {
    for net in BOTH {
        let h = header(net).len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        // Nothing sent yet; data in an RST (RFC 9293 3.5.3) is none of the stream.
        talk.up(&part(0, RST), &part(0, RST));
        talk.up(
            &part(0, RST | ACK).data(b"why"),
            &part(0, RST | ACK).data(b"why"),
        );
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.up(&part(5, RST | ACK), &part(5 + h, RST | ACK));
        // The target's own numbers are nobody's business; what it acknowledges is.
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.down(&part(0, RST), &part(0, RST));
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.down(&part(h + 5, RST | ACK), &part(5, RST | ACK));
    }
}

#[test]
fn urgent_data_is_as_far_behind_the_header_as_it_was_behind_the_number() {
    for net in BOTH {
        let header = header(net);
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let sent = part(0, ACK | URG)
            .data(b"hurry")
            .with(|part| part.urgent = 3);
        let arrives = part(0, ACK | URG)
            .data(&[&header[..], b"hurry"].concat())
            .with(|part| part.urgent = 3 + header.len() as u16);
        talk.up(&sent, &arrives);
    }
}

#[test]
fn data_in_a_syn_is_cut_off_and_comes_again() {
    for net in BOTH {
        let options = [MSS_1460, [34, 2, 1, 1]].concat();
        let syn = part(-1, SYN).options(&options).data(b"early data");
        let mut talk = Talk::over(net, ClientAddress::ProxyV2, [1500; 2], &syn);
        let bare = part(-1, SYN).options(&options);
        talk.up(&syn, &bare);
        talk.from_target(&part(0, SYN | ACK)).unwrap();
        let header = header(net);
        talk.up(
            &part(0, ACK).data(b"early data"),
            &part(0, ACK).data(&[&header[..], b"early data"].concat()),
        );
        // Elsewhere it goes through.
        let mut talk = Talk::begin(net, ClientAddress::None);
        talk.up(&syn, &syn);
    }
}

#[test]
fn nothing_gets_in_front_of_the_header() {
    for net in BOTH {
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let forged = part(-2, ACK).data(b"PROXY TCP4 1.1.1.1");
        assert_eq!(talk.from_client(&forged), Err(DropReason::ClientAddress));
        // A SYN with another number would put the beginning elsewhere; only the target's word for it counts.
        talk.up(&part(999, SYN), &part(999, SYN));
        assert_eq!(
            talk.from_client(&part(-1, ACK).data(b"PROXY")),
            Err(DropReason::ClientAddress)
        );
        let header = header(net);
        talk.up(
            &part(0, ACK).data(b"x"),
            &part(0, ACK).data(&[&header[..], b"x"].concat()),
        );
        // A SYN-ACK for none of the client's SYNs doesn't pass.
        assert_eq!(
            talk.from_target(&part(500, SYN | ACK)),
            Err(DropReason::ClientAddress)
        );
    }
}

#[test]
fn a_target_that_begins_anew_gets_the_header_anew() {
    for (net, far) in BOTH
        .into_iter()
        .flat_map(|net| [(net, 700), (net, 1 << 30)])
    {
        let header = header(net);
        let h = header.len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.down(&part(h + 5, ACK), &part(5, ACK));
        // Both have forgotten the connection; the client takes its port again.
        talk.up(&part(far, SYN).data(b"early"), &part(far + h, SYN));
        talk.down(
            &part(far + 1 + h, SYN | ACK).options(&MSS_1460),
            &part(far + 1, SYN | ACK).options(&mss(1500 - net.ip_header() as u16 - 20 - h as u16)),
        );
        talk.up(&part(far + 1, ACK), &part(far + 1 + h, ACK));
        talk.up(
            &part(far + 1, ACK).data(b"again"),
            &part(far + 1 + h, ACK).data(&[&header[..], b"again"].concat()),
        );
        talk.up(&part(far + 6, ACK), &part(far + 6 + 2 * h, ACK));
        talk.down(&part(far + 6 + 2 * h, ACK), &part(far + 6, ACK));
        talk.up(
            &part(far + 6, ACK).data(b"more"),
            &part(far + 6 + 2 * h, ACK).data(b"more"),
        );
        assert_eq!(talk.told(), (2, 0, 0));
        let mut talk = Talk::established(net, ClientAddress::Toa);
        talk.down(&part(0, ACK | FIN), &part(0, ACK | FIN));
        talk.up(&part(far, SYN), &part(far, SYN));
        talk.from_target(&part(far + 1, SYN | ACK)).unwrap();
        talk.up(&part(far + 1, ACK), &part(far + 1, ACK).options(&toa(net)));
    }
}

#[test]
fn a_frame_without_room_for_the_header_is_dropped() {
    for net in BOTH {
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let first = part(0, ACK).data(b"first");
        assert_eq!(talk.full(&first), Verdict::Drop(DropReason::ClientAddress));
        assert_eq!(talk.told(), (0, 1, 0));
        let header = header(net);
        talk.up(
            &first,
            &part(0, ACK).data(&[&header[..], b"first"].concat()),
        );
    }
}

#[test]
fn errors_about_answers_acknowledge_what_the_target_did() {
    for net in BOTH {
        let h = header(net).len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        for (clients, theirs) in [(5, 5 + h), (0, 0)] {
            let quote = talk.as_client_sees(&part(clients, ACK).data(b"answer"));
            let router = net.stranger(9).ip();
            let error = too_big(net, router, net.vip_ip(), 1300, &quote.ttl(60).ip());
            let acknowledged = ORIGIN.wrapping_add(talk.shift).wrapping_add_signed(theirs);
            let own = tcp(net.target(21, 8080), talk.local, ACK)
                .seq(TARGET_ISN + 1, acknowledged)
                .data(b"answer")
                .ttl(60);
            let (from, to) = (net.local_ip(), net.target_ip(21));
            let expected = too_big(net, from, to, 1300, &own.ip()).ttl(63);
            assert_eq!(talk.rig.outside(&error), (INSIDE, to_target(&expected, 21)));
        }
    }
}

/// What passes of a connection, by the numbers of each end; and what the target expects next of the stream that has the header.
type Case = (&'static str, Vec<(bool, Part)>, i32);

fn cases(net: Net) -> Vec<Case> {
    let h = header(net).len() as i32;
    let up = |part| (true, part);
    let down = |part| (false, part);
    let first = || up(part(0, ACK).data(b"first"));
    vec![
        ("nothing was sent", vec![], 0),
        ("the header is under way", vec![first()], h + 5),
        (
            "half of it has arrived",
            vec![first(), down(part(h / 2, ACK))],
            h + 5,
        ),
        (
            "all of it has, and no byte of the client's",
            vec![first(), down(part(h, ACK))],
            h + 5,
        ),
        (
            "the client's data has too",
            vec![first(), down(part(h + 5, ACK))],
            h + 5,
        ),
        (
            "and it goes on",
            vec![
                first(),
                down(part(h + 5, ACK)),
                up(part(5, ACK).data(b"second")),
            ],
            h + 11,
        ),
        (
            "and something old comes late",
            vec![
                first(),
                up(part(5, ACK).data(b"second")),
                down(part(h + 11, ACK)),
                first(),
            ],
            h + 11,
        ),
        (
            "an end without a byte",
            vec![up(part(0, ACK | FIN)), down(part(h + 1, ACK))],
            h + 1,
        ),
    ]
}

fn reached(net: Net, segments: &[(bool, Part)]) -> Talk {
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    for (is_clients, part) in segments {
        if *is_clients {
            talk.from_client(part).unwrap();
        } else {
            talk.from_target(part).unwrap();
        }
    }
    talk.rig.out.clear();
    talk
}

#[test]
fn an_idle_connection_that_expires_is_reset_where_each_end_counts_it() {
    for net in BOTH {
        for (description, segments, expects) in cases(net) {
            let mut talk = reached(net, &segments);
            let sent = expire(&mut talk.rig);
            assert_eq!(sent, talk.resets(expects), "{net:?}: {description}");
        }
    }
}

#[test]
fn a_connection_that_is_cut_is_reset_where_each_end_counts_it() {
    for net in BOTH {
        for (description, segments, expects) in cases(net) {
            let mut talk = reached(net, &segments);
            talk.reload(ClientAddress::ProxyV2, |service| {
                service.targets[0].cut = true;
            });
            let rig = &mut talk.rig;
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
            let expected = talk.resets(expects);
            assert_eq!(talk.emitted(), expected, "{net:?}: {description}");
        }
    }
}

/// A host whose path takes 1280 bytes sends IPv6 packets of that size, whatever it is told (RFC 8201 4).
#[test]
fn a_header_that_the_least_path_would_not_take_goes_ahead_of_the_segment() {
    for (net, total, ahead) in [
        (Net::V4, 1280, false),
        (Net::V6, 1228, false),
        (Net::V6, 1229, true),
        (Net::V6, 1280, true),
        (Net::V6, 1281, false),
    ] {
        let header = header(net);
        let behind = header.len() as i32;
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        for (flags, options) in [
            (ACK, &[][..]),
            (PSH | ACK, &timestamps[..]),
            (FIN | PSH | ACK, &[][..]),
        ] {
            let length = total - net.ip_header() - 20 - options.len();
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let first = part(0, flags).options(options).data(&payload);
            let mut talk = Talk::established(net, ClientAddress::ProxyV2);
            // Sent, lost, sent again.
            for _ in 0..2 {
                if !ahead {
                    let both = [&header[..], &payload].concat();
                    talk.up(&first, &part(0, flags).options(options).data(&both));
                    assert!(talk.emitted().is_empty(), "{net:?}, {total} bytes");
                    continue;
                }
                // The header is first on the wire: what is emitted leaves in order, but behind what leaves from the burst.
                let sent = from_client(&talk.as_client_sends(&first));
                assert_eq!(talk.rig.try_send(OUTSIDE, sent).0, Verdict::Consumed);
                let alone = part(0, flags & !FIN).options(options).data(&header);
                let rest = part(behind, flags).options(options).data(&payload);
                let expected =
                    [alone, rest].map(|part| to_target(&talk.as_target_sees(&part).ttl(63), 21));
                assert_eq!(talk.emitted(), expected.map(|frame| (INSIDE, frame)));
            }
            assert_eq!(talk.told(), (2, 0, 0));
            // The target got the header alone: to the client that is nothing yet.
            talk.down(&part(behind, ACK), &part(0, ACK));
            // Now all its numbers are moved.
            talk.up(&first, &part(behind, flags).options(options).data(&payload));
            assert!(talk.emitted().is_empty());
            let end = length as i32 + i32::from(flags & FIN != 0);
            talk.down(&part(behind + end, ACK), &part(end, ACK));
            assert_eq!(talk.told(), (2, 0, 0));
        }
    }
}

#[test]
fn a_header_that_goes_ahead_waits_for_the_next_hop_with_its_segment() {
    let net = Net::V6;
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    // Nobody has answered there for a while.
    talk.rig.now.0 += 60 * SECOND;
    for _ in 0..1000 {
        talk.rig.now.0 += SECOND / 100;
        let rig = &mut talk.rig;
        rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
    }
    let (header, payload) = (header(net), [7; 1220]);
    let first = from_client(&talk.as_client_sends(&part(0, ACK).data(&payload)));
    assert_eq!(talk.rig.try_send(OUTSIDE, first).0, Verdict::Held);
    talk.rig.out.clear();
    talk.rig.resolve(INSIDE, net.target_ip(21), mac(21));
    let behind = part(header.len() as i32, ACK).data(&payload);
    let expected = [part(0, ACK).data(&header), behind]
        .map(|part| to_target(&talk.as_target_sees(&part).ttl(63), 21));
    assert_eq!(talk.emitted(), expected.map(|frame| (INSIDE, frame)));
    assert_eq!(talk.told(), (1, 0, 0));
}

#[test]
fn a_segment_whose_header_can_not_go_ahead_does_not_go_either() {
    let net = Net::V6;
    let first = part(0, ACK).data(&[7; 1220]);
    // The next hop doesn't answer: the first waits for it in vain.
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    let wait = |talk: &mut Talk, seconds: u64| {
        for _ in 0..100 * seconds {
            talk.rig.now.0 += SECOND / 100;
            let rig = &mut talk.rig;
            rig.worker.tick(&rig.tables, rig.now, &mut rig.out);
        }
    };
    talk.rig.now.0 += 60 * SECOND;
    wait(&mut talk, 10);
    let sent = from_client(&talk.as_client_sends(&first));
    assert_eq!(talk.rig.try_send(OUTSIDE, sent).0, Verdict::Held);
    wait(&mut talk, 4);
    talk.rig.out.clear();
    assert_eq!(talk.from_client(&first), Err(DropReason::ClientAddress));
    assert!(talk.emitted().is_empty());
    assert_eq!(talk.told(), (1, 1, 0));

    // No more can be emitted. There may have been room for a header, but not for its segment.
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    let sent = from_client(&talk.as_client_sends(&first));
    let verdict = loop {
        match talk.rig.try_send(OUTSIDE, sent.clone()).0 {
            Verdict::Consumed => {}
            other => break other,
        }
    };
    assert_eq!(verdict, Verdict::Drop(DropReason::ClientAddress));
    let alone = part(0, ACK).data(&header(net));
    let alone = (INSIDE, to_target(&talk.as_target_sees(&alone).ttl(63), 21));
    let emitted = talk.emitted();
    let headers = emitted.iter().filter(|frame| **frame == alone).count();
    assert!(headers > 500, "{headers}");
    assert_eq!(talk.told(), (headers as u64, 1, 0));
    // The client repeats it when there is room again.
    let again = talk.rig.try_send(OUTSIDE, sent).0;
    assert_eq!(
        (again, talk.emitted()),
        (Verdict::Consumed, emitted[..2].to_vec())
    );
}
