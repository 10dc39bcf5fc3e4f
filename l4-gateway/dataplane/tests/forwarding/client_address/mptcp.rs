//! MPTCP (RFC 8684) numbers the bytes of each subflow by options: bytes that are put in have no place there, so it is taken out of SYNs.

use dataplane::ClientAddress;

use super::talk::{Talk, header, part, toa};
use super::{MSS_1460, mss};
use crate::frame::{ACK, PSH, SYN};
use crate::net::BOTH;

/// MP_CAPABLE of a SYN (RFC 8684 3.1).
const CAPABLE: [u8; 4] = [30, 4, 0x01, 0x01];
/// MP_JOIN of a SYN (3.2).
const JOIN: [u8; 12] = [30, 12, 0x10, 1, 0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 3, 4];
/// MP_JOIN of a SYN-ACK.
const JOINED: [u8; 16] = [30, 16, 0x10, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const BLANK: [u8; 16] = [1; 16];

#[test]
fn mptcp_is_taken_out_of_syns_where_bytes_are_inserted() {
    for net in BOTH {
        for client_address in [ClientAddress::ProxyV2, ClientAddress::Toa] {
            for offered in [&CAPABLE[..], &JOIN] {
                // At an even and at an odd place, and twice.
                for options in [
                    [&MSS_1460[..], offered].concat(),
                    [&[1], &MSS_1460[..], offered, &[1, 1, 1]].concat(),
                    [offered, &CAPABLE].concat(),
                ] {
                    let syn = part(-1, SYN).options(&options);
                    let mut blank = options.clone();
                    for at in 0..blank.len() {
                        if blank[at..].starts_with(offered) {
                            blank[at..at + offered.len()].fill(1);
                        } else if blank[at..].starts_with(&CAPABLE) {
                            blank[at..at + CAPABLE.len()].fill(1);
                        }
                    }
                    let arrives = match client_address {
                        ClientAddress::Toa if blank.len() + toa(net).len() <= 40 => {
                            [toa(net), blank].concat()
                        }
                        _ => blank,
                    };
                    let mut talk = Talk::over(net, client_address, [1500; 2], &syn);
                    talk.up(&syn, &part(-1, SYN).options(&arrives));
                }
            }
            // A target that speaks it all the same isn't heard.
            let inserted = match client_address {
                ClientAddress::Toa => toa(net).len(),
                _ => header(net).len(),
            };
            let size = 1500 - net.ip_header() - 20 - inserted;
            let mut talk = Talk::begin(net, client_address);
            let answer = part(0, SYN | ACK).options(&[&MSS_1460[..], &JOINED].concat());
            let told = [&mss(size as u16)[..], &BLANK].concat();
            talk.down(&answer, &part(0, SYN | ACK).options(&told));
        }
    }
}

#[test]
fn mptcp_passes_where_nothing_is_inserted() {
    for net in BOTH {
        let syn = part(-1, SYN).options(&[&MSS_1460[..], &CAPABLE].concat());
        let mut talk = Talk::over(net, ClientAddress::None, [1500; 2], &syn);
        talk.up(&syn, &syn);
        let answer = part(0, SYN | ACK).options(&[&MSS_1460[..], &JOINED].concat());
        talk.down(&answer, &answer);
        let dss = [30, 8, 0x20, 0x01, 0, 0, 0, 1];
        let data = part(0, ACK | PSH).options(&dss).data(b"mapped");
        talk.up(&data, &data);
    }
}

/// A connection over the port of one that is done: its SYN belongs to a flow that inserts nothing any more.
#[test]
fn a_syn_on_a_flow_whose_header_has_arrived_brings_no_mptcp_either() {
    for net in BOTH {
        let h = header(net).len() as i32;
        let mut talk = Talk::established(net, ClientAddress::ProxyV2);
        talk.from_client(&part(0, ACK).data(b"first")).unwrap();
        talk.from_target(&part(h + 5, ACK)).unwrap();
        let again = part(700, SYN).options(&[&MSS_1460[..], &CAPABLE].concat());
        let plain = part(700 + h, SYN).options(&[&MSS_1460[..], &[1; 4]].concat());
        talk.up(&again, &plain);
    }
}
