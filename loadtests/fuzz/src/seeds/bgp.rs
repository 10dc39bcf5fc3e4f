//! Messages of a BGP neighbour (RFC 4271). The first byte of an input says how far the session has come and in what pieces the rest
//! arrives, see `bgp_ctl::fuzzing`.

/// Fresh, after OPEN, after OPEN and KEEPALIVE; the last again passive, internal, and in pieces of 7 bytes.
const CHOICES: [u8; 6] = [0, 1, 2, 2 | 8, 2 | 4, 2 | 7 << 4];

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const ROUTE_REFRESH: u8 = 5;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let streams = [
        open(&[]),
        // Multiprotocol IPv4, route refresh, 4-octet AS 65001; extended messages, graceful restart, an unknown capability.
        open(&[
            1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, 0xfd, 0xe9, 6, 0, 64, 2, 0, 120, 222, 1, 0,
        ]),
        message(KEEPALIVE, &[]),
        [open(&[1, 4, 0, 1, 0, 1]), message(KEEPALIVE, &[]), update()].concat(),
        update(),
        // End of RIB, and a withdrawal of 192.0.2.0/24.
        message(UPDATE, &[0, 0, 0, 0]),
        message(UPDATE, &[0, 4, 24, 192, 0, 2, 0, 0]),
        // Attributes that are there twice, too long, or of an unknown kind (RFC 7606).
        message(
            UPDATE,
            &[0, 0, 0, 11, 0x40, 1, 1, 0, 0x40, 1, 1, 0, 0xc0, 99, 0],
        ),
        message(UPDATE, &[0, 0, 0, 4, 0x40, 2, 255, 0]),
        // Cease: administrative shutdown with a text (RFC 9003).
        message(NOTIFICATION, &[6, 2, 4, b'd', b'o', b'n', b'e']),
        message(NOTIFICATION, &[1, 1]),
        message(ROUTE_REFRESH, &[0, 1, 0, 1]),
        // A length below the shortest, above the longest, and a wrong marker.
        [&[0xff; 16][..], &[0, 18, KEEPALIVE]].concat(),
        [&[0xff; 16][..], &[0xff, 0xff, UPDATE]].concat(),
        [&[0xfe; 16][..], &[0, 19, KEEPALIVE]].concat(),
        message(9, &[]),
    ];
    CHOICES
        .iter()
        .flat_map(|choice| {
            streams
                .iter()
                .map(move |stream| [&[*choice][..], stream].concat())
        })
        .collect()
}

/// AS 65001, hold time 90 s, identifier 10.2.0.1, the capabilities given.
fn open(capabilities: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 2, 0, 1];
    match u8::try_from(capabilities.len()) {
        Ok(0) | Err(_) => body.push(0),
        Ok(length) => {
            body.extend([length + 2, 2, length]);
            body.extend(capabilities);
        }
    }
    message(OPEN, &body)
}

/// 198.51.100.0/24 by AS 65001, next hop 10.2.0.1, MED 10, community 65000:1.
fn update() -> Vec<u8> {
    let attributes = [
        &[0x40, 1, 1, 0][..],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 3, 4, 10, 2, 0, 1],
        &[0x80, 4, 4, 0, 0, 0, 10],
        &[0xc0, 8, 4, 0xfd, 0xe8, 0, 1],
    ]
    .concat();
    let mut body = vec![0, 0, 0, attributes.len() as u8];
    body.extend(attributes);
    body.extend([24, 198, 51, 100]);
    message(UPDATE, &body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}
