//! The client's address in TCP option 254 of what may complete the handshake.

use dataplane::{ClientAddress, DropReason, Verdict};

use super::talk::{Talk, part, toa};
use super::{MSS_1460, default_mss, mss};
use crate::frame::{ACK, FIN, PSH, RST, SYN};
use crate::net::BOTH;
use crate::rig::INSIDE;

#[test]
fn the_option_goes_into_what_may_complete_the_handshake() {
    for net in BOTH {
        let toa = toa(net);
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
            &part(0, SYN | ACK).options(&mss(default_mss(net) - toa.len() as u16)),
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
    for net in BOTH {
        for spoken in [part(0, ACK | PSH).data(b"220 ready"), part(0, ACK | FIN)] {
            let mut talk = Talk::established(net, ClientAddress::Toa);
            talk.down(&spoken, &spoken);
            talk.up(&part(0, ACK), &part(0, ACK));
        }
        // Not when it refuses, or when nobody knows whether it does.
        let mut talk = Talk::established(net, ClientAddress::Toa);
        talk.down(&part(0, RST), &part(0, RST));
        talk.up(&part(0, ACK), &part(0, ACK).options(&toa(net)));
        // Nor what it sent in the connection before, and comes late.
        for late in [part(-12_000, ACK | FIN), part(-1, ACK | PSH).data(b"bye")] {
            let mut talk = Talk::established(net, ClientAddress::Toa);
            talk.down(&late, &late);
            talk.up(&part(0, ACK), &part(0, ACK).options(&toa(net)));
        }
    }
}

#[test]
fn full_options_make_room_for_the_address() {
    for net in BOTH {
        let toa = toa(net);
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
            Verdict::Transmit(INSIDE)
        );
        assert_eq!(
            talk.full(&part(0, ACK)),
            Verdict::Drop(DropReason::ClientAddress)
        );
        assert_eq!(talk.told(), (told.0 + 2, 2, 0));
    }
}
