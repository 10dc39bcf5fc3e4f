//! The client's address in front of the stream and in a TCP option: whole frames, over IPv4 and IPv6. Here is what both ways to tell it
//! have in common.

mod mptcp;
mod proxy;
mod talk;
mod toa;

use dataplane::{ClientAddress, DropReason};

use super::frame::{self, ACK, FIN, PSH, SYN, tcp};
use super::net::{BOTH, Net};
use super::rig::{self, OUTSIDE, Rig, from_client, to_client};
use talk::{Part, Talk, client, header, part, toa, too_big};

const MSS_1460: [u8; 4] = [2, 4, 5, 0xb4];

fn mss(size: u16) -> Vec<u8> {
    [&[2, 4][..], &size.to_be_bytes()].concat()
}

/// What a client takes for the size that a target doesn't tell (RFC 9293 3.7.1).
fn default_mss(net: Net) -> u16 {
    match net {
        Net::V4 => 536,
        Net::V6 => 1220,
    }
}

#[test]
fn clients_are_told_a_smaller_segment_size() {
    for net in BOTH {
        let (header, toa) = (header(net).len() as u16, toa(net).len() as u16);
        let headers = net.ip_header() as u16 + 20;
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
                [mss(default_mss(net)), scale.to_vec()].concat(),
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
    for net in BOTH {
        let headers = net.ip_header() + 20;
        for (client_address, inserted) in [
            (ClientAddress::ProxyV2, header(net).len()),
            (ClientAddress::Toa, toa(net).len()),
        ] {
            let mut talk = Talk::over(net, client_address, [1500, 1400], &part(-1, SYN));
            talk.from_target(&part(0, SYN | ACK)).unwrap();
            let fits = 1400 - headers - inserted;
            let before = talk.told();
            // Sent, not acknowledged, sent again.
            for _ in 0..2 {
                let long = part(0, ACK).data(&vec![7; fits + 1]);
                assert_eq!(talk.from_client(&long), Err(DropReason::TooBig));
                let quote = talk.as_client_sends(&long).ip();
                let quote = &quote[..quote.len().min(net.quoted())];
                let (own, client) = (net.outside_address(), client(net).ip());
                let error = too_big(net, own, client, 1400 - inserted as u32, quote);
                assert_eq!(talk.emitted(), [(OUTSIDE, to_client(&error))]);
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
    for net in BOTH {
        let header = header(net);
        let h = header.len() as i32;
        let router = net.address(2, 1);
        let error = |talk: &mut Talk, seen: &[u8], quoted: usize| {
            let error = too_big(net, router, net.local_ip(), 1300, &seen[..quoted]);
            talk.inside(&error).unwrap()
        };
        let expected = |sent: &[u8], mtu: u32| {
            to_client(&too_big(net, net.vip_ip(), client(net).ip(), mtu, sent).ttl(63))
        };
        // (as the client sent it, as it left); the router's TTL is what was left.
        let data = b"0123456789".repeat(6);
        let first = part(0, ACK | PSH).data(&data);
        let with_header = part(0, ACK | PSH).data(&[&header[..], &data].concat());
        let as_sent = |talk: &Talk, part: &Part| talk.as_client_sends(part).ttl(60).ip();
        for (sent, left) in [
            (&first, &with_header),
            (&part(60, ACK).data(&data), &part(60 + h, ACK).data(&data)),
            (&part(0, ACK), &part(0, ACK)),
            (&part(0, ACK | FIN), &part(0, ACK | FIN).data(&header)),
        ] {
            let mut talk = Talk::established(net, ClientAddress::ProxyV2);
            talk.from_client(&first).unwrap();
            let seen = talk.as_target_sees(left).ttl(60).ip();
            let own = as_sent(&talk, sent);
            // Whole; cut behind the header, inside it, and in front of it; and cut inside the TCP header, as short as RFC 792 allows: all
            // that tells of the header then is the packet's length.
            let inserted = seen.len() - own.len();
            let payload = net.ip_header() + 20;
            let cuts = [
                payload + 40,
                payload + 7,
                payload,
                payload - 6,
                payload - 12,
            ];
            for quoted in [seen.len()].into_iter().chain(cuts) {
                if quoted > seen.len() {
                    continue;
                }
                let left_of_it = quoted - inserted.min(quoted.saturating_sub(payload));
                let got = error(&mut talk, &seen, quoted);
                assert_eq!(
                    got,
                    expected(&own[..left_of_it], 1300 - h as u32),
                    "{quoted} of {left:?}"
                );
            }
        }
        // Only ports and number: that is put right.
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        let seen = talk
            .as_target_sees(&part(60 + h, ACK).data(&data))
            .ttl(60)
            .ip();
        let own = as_sent(&talk, &part(60, ACK).data(&data));
        let short = net.ip_header() + 8;
        let got = error(&mut talk, &seen, short);
        assert_eq!(got, expected(&own[..short], 1300 - h as u32));
        // With the header out of the way a router's size holds as it is.
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&first).unwrap();
        talk.from_target(&part(60 + h, ACK)).unwrap();
        let got = error(&mut talk, &seen, seen.len());
        assert_eq!(got, expected(&own, 1300));
        // And with the option.
        let toa = toa(net);
        let mut talk = Talk::established(net, ClientAddress::Toa);
        let seen = talk
            .as_target_sees(&part(0, ACK).options(&toa).data(&data))
            .ttl(60)
            .ip();
        let own = as_sent(&talk, &part(0, ACK).data(&data));
        let options = net.ip_header() + 20;
        for quoted in [seen.len(), options + 4, options, options - 6, options - 12] {
            let left_of_it = quoted - toa.len().min(quoted.saturating_sub(options));
            let got = error(&mut talk, &seen, quoted);
            let expected = expected(&own[..left_of_it], 1300 - toa.len() as u32);
            assert_eq!(got, expected, "{quoted} of a segment with the option");
        }
    }
}

/// RFC 4884: the quote is padded to a length that the header tells, and the extension stands behind it.
#[test]
fn errors_with_an_extension_quote_what_the_client_sent_and_keep_it_in_its_place() {
    let extension = [0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 1, 2, 3];
    for net in BOTH {
        let ((kind, code), unit, place) = match net {
            Net::V4 => (net.too_big(), 4, 16),
            // "Packet too big" has no room to tell a length.
            Net::V6 => (net.port_unreachable(), 8, 24),
        };
        let length = (128 / unit) << place;
        let mtu = |mtu: usize| if net == Net::V4 { mtu as u32 } else { 0 };
        let padded = |packet: &[u8]| {
            let mut quote = packet[..packet.len().min(128)].to_vec();
            quote.resize(128, 0);
            [&quote[..], &extension].concat()
        };
        let (router, data) = (net.address(2, 1), b"0123456789");
        for client_address in [ClientAddress::ProxyV2, ClientAddress::Toa] {
            let (seen, inserted) = match client_address {
                ClientAddress::Toa => (part(0, ACK).options(&toa(net)).data(data), toa(net).len()),
                _ => {
                    let stream = [&header(net)[..], data].concat();
                    (part(0, ACK).data(&stream), header(net).len())
                }
            };
            let mut talk = Talk::established(net, client_address);
            let seen = talk.as_target_sees(&seen).ttl(60).ip();
            let own = talk.as_client_sends(&part(0, ACK).data(data)).ttl(60).ip();
            let rest = length | mtu(1300);
            let error = frame::icmp(router, net.local_ip(), kind, code, rest, &padded(&seen));
            // What is cut off the end of a long quote comes back as padding: there is nothing else to put there.
            let mut quote = padded(&own);
            if seen.len() > 128 {
                quote[128 - inserted..128].fill(0);
            }
            let rest = length | mtu(1300 - inserted);
            let (vip, client) = (net.vip_ip(), client(net).ip());
            let expected = frame::icmp(vip, client, kind, code, rest, &quote).ttl(63);
            let got = talk.inside(&error).unwrap();
            assert_eq!(got, to_client(&expected), "{client_address:?}, {net:?}");
        }
    }
}

#[test]
fn forged_addresses_become_padding_whatever_the_service_tells_its_targets() {
    for net in BOTH {
        for client_address in [
            ClientAddress::None,
            ClientAddress::ProxyV2,
            ClientAddress::Toa,
        ] {
            let mut forged = toa(net);
            *forged.last_mut().unwrap() ^= 1;
            let blank = vec![1; forged.len()];
            let told = |options: &[u8]| match client_address {
                ClientAddress::Toa if options.len() + forged.len() <= 40 => {
                    [&toa(net)[..], options].concat()
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
    for net in BOTH {
        let header = header(net);
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.reload(ClientAddress::Toa, |_| {});
        talk.up(
            &part(0, ACK).data(b"x"),
            &part(0, ACK).data(&[&header[..], b"x"].concat()),
        );
        let mut talk = Talk::established(net, ClientAddress::None);
        talk.reload(ClientAddress::ProxyV2, |_| {});
        talk.up(&part(0, ACK).data(b"x"), &part(0, ACK).data(b"x"));
        assert_eq!(talk.told(), (0, 0, 0));
    }
}

#[test]
fn a_syn_in_fragments_makes_no_flow_where_the_address_would_go_along() {
    for net in BOTH {
        for client_address in [ClientAddress::ProxyV2, ClientAddress::Toa] {
            let mut services = net.services();
            services[0].client_address = client_address;
            let mut rig = Rig::serving(net, &rig::small(), &services).resolved();
            let from = net.client(7, 5000);
            let syn = tcp(from, net.vip(80), SYN).seq(1, 0).data(&[7; 80]);
            let parts = syn.cut(5, &[40]);
            let dropped = rig.dropped(OUTSIDE, from_client(&parts[0]));
            assert_eq!(dropped, DropReason::ClientAddress);
            assert_eq!(rig.flow_count(), 0, "{net:?} {client_address:?}");
            let dropped = rig.dropped(OUTSIDE, from_client(&parts[1]));
            assert_eq!(dropped, DropReason::NoFlow);
            rig.open(from, 1);
        }
    }
}
