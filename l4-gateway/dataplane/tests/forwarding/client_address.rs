//! The client's address in front of the stream and in a TCP option: whole frames, over IPv4 and IPv6. The client's numbers cross the
//! wrap within the header.

mod talk;

use dataplane::{ClientAddress, DropReason, Verdict};

use super::frame::{ACK, FIN, PSH, RST, SYN};
use talk::{ORIGIN, TARGET_ISN, Talk, nets, packet, part, too_big};

const URG: u8 = 0x20;
const MSS_1460: [u8; 4] = [2, 4, 5, 0xb4];

fn mss(size: u16) -> Vec<u8> {
    [&[2, 4][..], &size.to_be_bytes()].concat()
}

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
    for net in nets() {
        let header = net.header();
        let h = header.len() as i32;
        let with_header = |data: &[u8]| [&header[..], data].concat();
        let mut talk = Talk::begin(net, ClientAddress::ProxyV2);
        talk.down(
            &part(0, SYN | ACK).options(&MSS_1460),
            &part(0, SYN | ACK).options(&mss(1500 - net.ip() as u16 - 20 - h as u16)),
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
        talk.worker.check_invariants();
    }
}

#[test]
fn acknowledgments_lose_the_header_and_one_inside_it_acknowledges_nothing() {
    for net in nets() {
        let h = net.header().len() as i32;
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
    for net in nets() {
        let h = net.header().len() as i32;
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
    for net in nets() {
        let header = net.header();
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
    for net in nets() {
        let header = net.header();
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
    let [net, _] = nets();
    let mut talk = Talk::established(net, ClientAddress::ProxyV2);
    let mut frame = talk.to_client(&talk.as_client_sends(&part(0, ACK | FIN)));
    // As a link pads it, addressed to the outer port.
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 10]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame.resize(60, 0xee);
    let (verdict, sent) = talk.burst(dataplane::PortIndex(0), frame);
    assert_eq!(verdict, Verdict::Transmit(dataplane::PortIndex(1)));
    let expected = talk.as_target_sees(&part(0, ACK | FIN).data(&net.header()), 63);
    assert_eq!(sent[14..], expected);
}

#[test]
fn a_reset_has_the_number_that_the_target_expects() {
    for net in nets() {
        let h = net.header().len() as i32;
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
    for net in nets() {
        let header = net.header();
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
    for net in nets() {
        let options = [MSS_1460, [34, 2, 1, 1]].concat();
        let syn = part(-1, SYN).options(&options).data(b"early data");
        let mut talk = Talk::over(net, ClientAddress::ProxyV2, [1500; 2], &syn);
        let bare = part(-1, SYN).options(&options);
        talk.up(&syn, &bare);
        talk.from_target(&part(0, SYN | ACK)).unwrap();
        let header = net.header();
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
    for net in nets() {
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let forged = part(-2, ACK).data(b"PROXY TCP4 1.1.1.1");
        assert_eq!(talk.from_client(&forged), Err(DropReason::ClientAddress));
        // A SYN with another number would put the beginning elsewhere; only the target's word for it counts.
        talk.up(&part(999, SYN), &part(999, SYN));
        assert_eq!(
            talk.from_client(&part(-1, ACK).data(b"PROXY")),
            Err(DropReason::ClientAddress)
        );
        let header = net.header();
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
    for (net, far) in nets()
        .into_iter()
        .flat_map(|net| [(net, 700), (net, 1 << 30)])
    {
        let header = net.header();
        let h = header.len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.down(&part(h + 5, ACK), &part(5, ACK));
        // Both have forgotten the connection; the client takes its port again.
        talk.up(&part(far, SYN).data(b"early"), &part(far + h, SYN));
        talk.down(
            &part(far + 1 + h, SYN | ACK).options(&MSS_1460),
            &part(far + 1, SYN | ACK).options(&mss(1500 - net.ip() as u16 - 20 - h as u16)),
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
        talk.up(&part(far + 1, ACK), &part(far + 1, ACK).options(&net.toa()));
    }
}

#[test]
fn a_frame_without_room_for_the_header_is_dropped() {
    for net in nets() {
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let first = part(0, ACK).data(b"first");
        assert_eq!(talk.full(&first), Verdict::Drop(DropReason::ClientAddress));
        assert_eq!(talk.told(), (0, 1, 0));
        let header = net.header();
        talk.up(
            &first,
            &part(0, ACK).data(&[&header[..], b"first"].concat()),
        );
    }
}

#[test]
fn clients_are_told_a_smaller_segment_size() {
    for net in nets() {
        let (header, toa) = (net.header().len() as u16, net.toa().len() as u16);
        let headers = net.ip() as u16 + 20;
        let default = if net.is_v6() { 1220 } else { 536 };
        let scale = [1, 3, 3, 7];
        let cases: [(&str, u16, Vec<u8>, Vec<u8>); 4] = [
            ("as announced", 1500, mss(1400), mss(1400)),
            (
                "more than the link to the target takes",
                1500,
                mss(8960),
                mss(1500 - headers),
            ),
            (
                "not at all: the default",
                1500,
                scale.to_vec(),
                [mss(default), scale.to_vec()].concat(),
            ),
            ("without room to say so", 1500, vec![1; 40], vec![1; 40]),
        ];
        for (client_address, inserted) in [
            (ClientAddress::ProxyV2, header),
            (ClientAddress::Toa, toa),
            (ClientAddress::None, 0),
        ] {
            for (description, mtu, announced, least) in &cases {
                let mut talk = Talk::over(net, client_address, [9000, *mtu], &part(-1, SYN));
                let told = match (client_address, least[0]) {
                    (ClientAddress::None, _) => announced.clone(),
                    (_, 2) => {
                        let size = u16::from_be_bytes([least[2], least[3]]) - inserted;
                        [mss(size), least[4..].to_vec()].concat()
                    }
                    _ => least.clone(),
                };
                println!("{description}, {client_address:?}, {net:?}");
                talk.down(
                    &part(0, SYN | ACK).options(announced),
                    &part(0, SYN | ACK).options(&told),
                );
            }
        }
    }
}

#[test]
fn what_is_too_long_with_the_header_is_answered_by_the_size_that_fits() {
    for net in nets() {
        let headers = net.ip() + 20;
        for (client_address, inserted) in [
            (ClientAddress::ProxyV2, net.header().len()),
            (ClientAddress::Toa, net.toa().len()),
        ] {
            let mut talk = Talk::over(net, client_address, [1500, 1400], &part(-1, SYN));
            talk.from_target(&part(0, SYN | ACK)).unwrap();
            let fits = 1400 - headers - inserted;
            let before = talk.told();
            // Sent, not acknowledged, sent again.
            for _ in 0..2 {
                let long = part(0, ACK).data(&vec![7; fits + 1]);
                assert_eq!(talk.from_client(&long), Err(DropReason::TooBig));
                let (own, quoted) = if net.is_v6() {
                    ("2001:db8:2::11", 1232)
                } else {
                    ("10.2.0.11", 548)
                };
                let quote = talk.as_client_sends(&long);
                let quote = &quote[..quote.len().min(quoted)];
                let mtu = 1400 - inserted as u32;
                let error = too_big(own.parse().unwrap(), net.client.ip(), mtu, 64, quote);
                assert_eq!(talk.emitted(), [talk.to_client(&error)]);
            }
            assert_eq!(talk.told(), before);
            let arrived = talk
                .from_client(&part(0, ACK).data(&vec![7; fits]))
                .unwrap();
            assert_eq!(arrived.len(), 14 + 1400);
        }
        // What needs no header has the whole link.
        let mut talk = Talk::over(net, ClientAddress::ProxyV2, [1500, 1400], &part(-1, SYN));
        let arrived = talk
            .from_client(&part(1, ACK).data(&vec![7; 1400 - headers]))
            .unwrap();
        assert_eq!(arrived.len(), 14 + 1400);
    }
}

#[test]
fn errors_of_routers_quote_what_the_client_sent() {
    for net in nets() {
        let header = net.header();
        let h = header.len() as i32;
        let error = |talk: &mut Talk, seen: &[u8], quoted: usize| {
            let error = too_big(net.router, net.local_ip, 1300, 64, &seen[..quoted]);
            talk.inside(&error).unwrap()
        };
        let expected = |talk: &Talk, sent: &[u8], mtu: u32| {
            talk.to_client(&too_big(net.vip.ip(), net.client.ip(), mtu, 63, sent))
        };
        // (as the client sent it, as it left); the router's TTL is what was left.
        let data = b"0123456789".repeat(6);
        let first = part(0, ACK | PSH).data(&data);
        let with_header = part(0, ACK | PSH).data(&[&header[..], &data].concat());
        let as_sent = |part: &talk::Part| {
            let numbers = (ORIGIN.wrapping_add_signed(part.n), TARGET_ISN + 1);
            packet(net.client, net.vip, numbers, 60, part)
        };
        for (sent, left) in [
            (&first, &with_header),
            (&part(60, ACK).data(&data), &part(60 + h, ACK).data(&data)),
            (&part(0, ACK), &part(0, ACK)),
            (&part(0, ACK | FIN), &part(0, ACK | FIN).data(&header)),
        ] {
            let mut talk = Talk::established(net, ClientAddress::ProxyV2);
            talk.from_client(&first).unwrap();
            let (seen, own) = (talk.as_target_sees(left, 60), as_sent(sent));
            // Whole; cut behind the header, inside it, and in front of it.
            let inserted = seen.len() - own.len();
            let payload = net.ip() + 20;
            for quoted in [seen.len(), payload + 40, payload + 7, payload] {
                if quoted > seen.len() {
                    continue;
                }
                let left_of_it = quoted - inserted.min(quoted - payload);
                let got = error(&mut talk, &seen, quoted);
                assert_eq!(
                    got,
                    expected(&talk, &own[..left_of_it], 1300 - h as u32),
                    "{quoted} of {left:?}"
                );
            }
        }
        // Only ports and number: that is put right.
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let seen = talk.as_target_sees(&part(60 + h, ACK).data(&data), 60);
        let own = as_sent(&part(60, ACK).data(&data));
        let short = net.ip() + 8;
        let got = error(&mut talk, &seen, short);
        assert_eq!(got, expected(&talk, &own[..short], 1300 - h as u32));
        // With the header out of the way a router's size holds as it is.
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&first).unwrap();
        talk.from_target(&part(60 + h, ACK)).unwrap();
        let got = error(&mut talk, &seen, seen.len());
        assert_eq!(got, expected(&talk, &own, 1300));
        // And with the option.
        let toa = net.toa();
        let mut talk = Talk::established(net, ClientAddress::Toa);
        let seen = talk.as_target_sees(&part(0, ACK).options(&toa).data(&data), 60);
        let own = as_sent(&part(0, ACK).data(&data));
        let got = error(&mut talk, &seen, seen.len());
        assert_eq!(got, expected(&talk, &own, 1300 - toa.len() as u32));
    }
}

#[test]
fn errors_about_answers_acknowledge_what_the_target_did() {
    for net in nets() {
        let h = net.header().len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        for (clients, theirs) in [(5, 5 + h), (0, 0)] {
            let quote = talk.as_client_sees(&part(clients, ACK).data(b"answer"), 60);
            let error = too_big("192.0.2.9".parse().unwrap(), net.vip.ip(), 1300, 64, &quote);
            if net.is_v6() {
                continue;
            }
            let mut frame = talk.to_client(&error);
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 10]);
            frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            let (verdict, sent) = talk.burst(dataplane::PortIndex(0), frame);
            assert_eq!(verdict, Verdict::Transmit(dataplane::PortIndex(1)));
            let acknowledged = ORIGIN.wrapping_add(talk.shift).wrapping_add_signed(theirs);
            let own = packet(
                net.target,
                talk.local,
                (TARGET_ISN + 1, acknowledged),
                60,
                &part(0, ACK).data(b"answer"),
            );
            let expected = too_big(net.local_ip, net.target.ip(), 1300, 63, &own);
            assert_eq!(sent[14..], expected);
        }
    }
}

#[test]
fn the_option_goes_into_what_may_complete_the_handshake() {
    for net in nets() {
        let toa = net.toa();
        let options = [&MSS_1460[..], &[4, 2, 1, 1]].concat();
        let syn = part(-1, SYN).options(&options);
        let with = |options: &[u8]| [&toa[..], options].concat();
        let mut talk = Talk::over(net, ClientAddress::Toa, [1500; 2], &syn);
        talk.up(&syn, &part(-1, SYN).options(&with(&options)));
        talk.from_target(&part(0, SYN | ACK)).unwrap();
        // Whichever of these the target hears first; also when it asks again.
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
        talk.up(
            &part(0, ACK).options(&timestamps),
            &part(0, ACK).options(&with(&timestamps)),
        );
        talk.up(&part(0, ACK), &part(0, ACK).options(&toa));
        let first = part(0, ACK | PSH).data(b"first");
        talk.up(&first, &part(0, ACK | PSH).options(&toa).data(b"first"));
        talk.down(
            &part(0, SYN | ACK),
            &part(0, SYN | ACK)
                .options(&mss(if net.is_v6() { 1220 } else { 536 } - toa.len() as u16)),
        );
        // An ACK of nothing proves nothing: a target that is still in the handshake sends one for what is out of its window.
        talk.down(&part(0, ACK), &part(0, ACK));
        talk.up(&part(5, ACK | FIN), &part(5, ACK | FIN).options(&toa));
        talk.up(&part(5, RST), &part(5, RST));
        talk.down(&part(5, ACK), &part(5, ACK));
        talk.up(&first, &first);
        talk.up(&part(5, ACK), &part(5, ACK));
        assert_eq!(talk.told(), (6, 0, 0));
    }
}

#[test]
fn the_option_is_needed_no_more_when_the_target_speaks() {
    for net in nets() {
        for spoken in [part(0, ACK | PSH).data(b"220 ready"), part(0, ACK | FIN)] {
            let mut talk = Talk::established(net, ClientAddress::Toa);
            talk.down(&spoken, &spoken);
            talk.up(&part(0, ACK), &part(0, ACK));
        }
        // Not when it refuses, or when nobody knows whether it does.
        let mut talk = Talk::established(net, ClientAddress::Toa);
        talk.down(&part(0, RST), &part(0, RST));
        talk.up(&part(0, ACK), &part(0, ACK).options(&net.toa()));
    }
}

#[test]
fn full_options_make_room_for_the_address() {
    for net in nets() {
        let toa = net.toa();
        let mut talk = Talk::established(net, ClientAddress::Toa);
        let told = talk.told();
        let junk = [3; 40];
        let mut padded = toa.clone();
        padded.resize(40, 1);
        talk.up(&part(0, ACK).options(&junk), &part(0, ACK).options(&padded));
        assert_eq!(talk.told(), (told.0 + 1, 0, 0));
        // A SYN keeps what it says: nobody has to read the address there.
        let syn = part(-1, SYN).options(&[&MSS_1460[..], &[1; 36]].concat());
        talk.up(&syn, &syn);
        assert_eq!(talk.told(), (told.0 + 1, 1, 0));
        // A frame that can't grow but has options; and one without.
        assert_eq!(
            talk.full(&part(0, ACK).options(&junk)),
            Verdict::Transmit(dataplane::PortIndex(1))
        );
        assert_eq!(
            talk.full(&part(0, ACK)),
            Verdict::Drop(DropReason::ClientAddress)
        );
        assert_eq!(talk.told(), (told.0 + 2, 2, 0));
    }
}

#[test]
fn forged_addresses_become_padding_whatever_the_service_tells_its_targets() {
    for net in nets() {
        for client_address in [
            ClientAddress::None,
            ClientAddress::ProxyV2,
            ClientAddress::Toa,
        ] {
            let mut forged = net.toa();
            *forged.last_mut().unwrap() ^= 1;
            let blank = vec![1; forged.len()];
            let told = |options: &[u8]| match client_address {
                ClientAddress::Toa if options.len() + forged.len() <= 40 => {
                    [&net.toa()[..], options].concat()
                }
                _ => options.to_vec(),
            };
            let more = [MSS_1460, [4, 2, 1, 1]].concat();
            let syn = part(-1, SYN).options(&[&forged[..], &more].concat());
            let mut talk = Talk::over(net, client_address, [1500; 2], &syn);
            let padded = [&blank[..], &more].concat();
            talk.up(&syn, &part(-1, SYN).options(&told(&padded)));
            talk.from_target(&part(0, SYN | ACK)).unwrap();
            let ack = part(0, ACK).options(&forged);
            talk.up(&ack, &part(0, ACK).options(&told(&blank)));
            assert_eq!(talk.told().2, 3);
            // A lone timestamp hides nothing; another option of the kind is none of ours.
            for harmless in [
                &[1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9][..],
                &[254, 6, 0xf9, 0x89, 1, 2, 1, 1],
            ] {
                talk.up(
                    &part(0, ACK).options(harmless),
                    &part(0, ACK).options(&told(harmless)),
                );
            }
            assert_eq!(talk.told().2, 3);
        }
    }
}

#[test]
fn a_flow_keeps_what_its_service_said_when_it_began() {
    for net in nets() {
        let header = net.header();
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.reload(ClientAddress::Toa);
        talk.up(
            &part(0, ACK).data(b"x"),
            &part(0, ACK).data(&[&header[..], b"x"].concat()),
        );
        let mut talk = Talk::established(net, ClientAddress::None);
        talk.reload(ClientAddress::ProxyV2);
        talk.up(&part(0, ACK).data(b"x"), &part(0, ACK).data(b"x"));
        assert_eq!(talk.told(), (0, 0, 0));
    }
}
