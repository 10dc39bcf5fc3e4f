//! Entry points for fuzzers: any bytes in, no panic, and the promises of the module asserted.

use serde_json::Value;

use crate::actors::View;
use shared::admin::{arguments, asker};

use crate::admin::Which;
use crate::capture::{Blocks, Request, ends};
use crate::filter::End;
use crate::worker::Vlan;

/// Takes the bytes as a frame of a VLAN (its number is the first two), and as a capture that a node sends.
///
/// # Panics
/// When a promise is broken: other ends read of the first part of a frame than of all of it, a tag where there is none, blocks that
/// depend on the pieces in which they come.
pub fn capture(input: &[u8]) {
    if let Some(([n0, n1], frame)) = input.split_first_chunk() {
        let tag = frame.get(12..16);
        let number = u16::from_be_bytes([*n0, *n1]);
        if Vlan::new(number).is_some_and(|vlan| vlan.is_on(frame)) {
            let [_, _, high, low] = tag
                .and_then(<[u8]>::first_chunk)
                .copied()
                .unwrap_or_default();
            assert_eq!(tag.map(|tag| &tag[..2]), Some(&[0x81, 0][..]));
            assert_eq!(u16::from_be_bytes([high & 0x0f, low]), number);
        }
        let whole = ends::of(frame);
        for length in 0..frame.len().min(128) {
            let Some(part) = ends::of(&frame[..length]) else {
                continue;
            };
            let known = whole.map(|whole| {
                [
                    (whole.source, part.source),
                    (whole.destination, part.destination),
                ]
            });
            for (whole, part) in known.into_iter().flatten() {
                assert_eq!(part.ip(), whole.ip(), "the first {length} bytes");
                assert!(
                    [0, whole.port()].contains(&part.port()),
                    "a port of its own"
                );
            }
            assert!(whole.is_some(), "an end that more bytes take away");
        }
    }
    let mut blocks = Blocks::default();
    if let Ok(whole) = blocks.push(input) {
        let (mut piecewise, mut pieces) = (Blocks::default(), Vec::new());
        for piece in input.chunks(7) {
            let read = piecewise.push(piece);
            assert!(read.is_ok(), "{read:?}, all at once not");
            pieces.extend(read.unwrap_or_default());
        }
        assert_eq!((pieces, piecewise.tally()), (whole, blocks.tally()));
    }
}

/// Takes the bytes as the arguments of a command of the admin listener, and as an end that a filter names.
///
/// # Panics
/// When a promise is broken: an end that reads otherwise once it was written, a name that doesn't fit a log.
pub fn command(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(end) = text.parse() {
        reads_back(end);
    }
    let Ok(arguments_of_all) = serde_json::from_str::<Value>(text) else {
        return;
    };
    if let Ok(which) = arguments::<Which>(arguments_of_all.clone())
        && let Ok(filter) = which.filter(&View::default())
    {
        let ends = filter.ends;
        for end in [ends.client, ends.vip, ends.local, ends.target] {
            end.into_iter().for_each(reads_back);
        }
    }
    if let Ok(request) = arguments::<Request>(arguments_of_all.clone())
        && request.check().is_ok()
    {
        let written = serde_json::to_value(&request).map(arguments::<Request>);
        assert!(matches!(written, Ok(Ok(again)) if again == request));
    }
    if let Ok(by) = asker(&arguments_of_all) {
        assert!(by.chars().count() <= 120 && !by.chars().any(char::is_control));
    }
}

fn reads_back(end: End) {
    assert_eq!(end.to_string().parse(), Ok(end));
}
