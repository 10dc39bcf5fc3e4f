//! Entry points for the fuzz targets: plain functions over bytes, which must return whatever the bytes are.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::route::Attributes;
use crate::session::{Input, Session, SessionSettings, State};

/// A router's OPEN: AS 65001, hold time 90 s, identifier 10.2.0.1, 4-octet AS and both route refreshes.
const OPEN: [u8; 49] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0, 49, 1, 4, 0xfd, 0xe9, 0, 90, 10, 2, 0, 1, 20, 2, 18, 1, 4, 0, 1, 0, 1, 2, 0, 70, 0, 6, 0,
    65, 4, 0, 0, 0xfd, 0xe9,
];
/// A KEEPALIVE.
const KEEPALIVE: [u8; 19] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0, 19, 4,
];

/// What a neighbour sends. The first byte chooses how far the session has come, whether it is internal, and in what pieces the
/// rest arrives.
pub fn session_input(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else {
        return;
    };
    let local = Ipv4Addr::new(10, 2, 0, 11);
    let remote_as = 65001;
    let now = Instant::now();
    let mut session = Session::new(SessionSettings {
        local_as: if choice & 4 == 0 { 65010 } else { remote_as },
        remote_as,
        router_id: local,
        hold_time: 9,
        connect_retry: Duration::from_secs(1),
        connect_retry_max: Duration::from_secs(15),
        connect_timeout: Duration::from_secs(5),
        passive: choice & 8 != 0,
        next_hop: None,
        med: None,
        local_pref: 100,
        communities: Vec::new(),
        seed: 1,
    });
    session.announce(Ipv4Addr::new(10, 0, 0, 100), Attributes::default());
    session.handle(now, Input::Start);
    session.handle(
        now,
        if choice & 8 == 0 {
            Input::Connected(local)
        } else {
            Input::Incoming(local)
        },
    );
    let greetings: &[&[u8]] = match choice & 3 {
        0 => &[],
        1 => &[&OPEN],
        _ => &[&OPEN, &KEEPALIVE],
    };
    for greeting in greetings {
        session.handle(now, Input::Received(greeting));
    }
    let piece = match choice >> 4 {
        0 => stream.len().max(1),
        size => usize::from(size),
    };
    for bytes in stream.chunks(piece) {
        session.handle(now, Input::Received(bytes));
        if session.state() == State::Idle {
            break;
        }
    }
    if let Some(due) = session.deadline() {
        session.handle(due, Input::Tick);
    }
    session.handle(now, Input::Stop("done"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_greetings_lead_where_they_should() {
        let handle = |greetings: &[&[u8]]| {
            let mut data = vec![2];
            greetings
                .iter()
                .for_each(|greeting| data.extend_from_slice(greeting));
            session_input(&data);
        };
        handle(&[]);
        handle(&[&KEEPALIVE, &OPEN]);
    }

    proptest! {
        #[test]
        fn any_bytes_return(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            session_input(&data);
        }
    }
}
