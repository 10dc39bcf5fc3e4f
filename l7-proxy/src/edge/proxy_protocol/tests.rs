//! Headers byte by byte, and what is not one.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn told(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    })
}

/// A version 2 header: the signature, then `command`, `kind`, the length and what follows.
fn binary(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[command, kind],
        &length,
        block,
    ]
    .concat()
}

/// 192.0.2.7:51000 to 10.0.0.100:443.
const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 100, 0xc7, 0x38, 1, 0xbb];

/// 2001:db8::7 to 2001:db8::64, the same ports.
fn v6() -> Vec<u8> {
    let address = |last| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        bytes[15] = last;
        bytes
    };
    [&address(7)[..], &address(0x64), &[0xc7, 0x38, 1, 0xbb]].concat()
}

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, value].concat()
}

/// The same header with its checksum, which must be its last extension, filled in.
fn summed(mut header: Vec<u8>) -> Vec<u8> {
    let at = header.len() - 4;
    let sum = binary::crc32c(&header, at..at + 4);
    header[at..].copy_from_slice(&sum.to_be_bytes());
    header
}

fn good() -> Vec<(&'static str, Vec<u8>, Option<Ends>)> {
    let v4 = told("192.0.2.7:51000", "10.0.0.100:443");
    let v6_ends = told("[2001:db8::7]:51000", "[2001:db8::64]:443");
    let text = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    let longest = "UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
    let (ipv6, unix) = (v6(), [b'/'; 216]);
    let crc = extension(3, &[0; 4]);
    let unique = extension(5, b"request-1");
    vec![
        ("TCP4", text("TCP4 192.0.2.7 10.0.0.100 51000 443"), v4),
        (
            "TCP6",
            text("TCP6 2001:db8::7 2001:db8::64 51000 443"),
            v6_ends,
        ),
        (
            "TCP6 written out, the longest line there can be but for its ports",
            text(
                "TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 2001:0db8:0000:0000:0000:0000:0000:0064 51000 443",
            ),
            v6_ends,
        ),
        (
            "ports at their ends",
            text("TCP4 192.0.2.7 10.0.0.100 0 65535"),
            told("192.0.2.7:0", "10.0.0.100:65535"),
        ),
        ("UNKNOWN", text("UNKNOWN"), None),
        ("UNKNOWN with addresses", text(longest), None),
        (
            "UNKNOWN with anything",
            text("UNKNOWN \x01\r, whatever"),
            None,
        ),
        ("binary IPv4", binary(0x21, 0x11, &V4), v4),
        ("binary IPv6", binary(0x21, 0x21, &ipv6), v6_ends),
        (
            "binary IPv4 with extensions",
            binary(0x21, 0x11, &[&V4[..], &unique, &extension(4, &[])].concat()),
            v4,
        ),
        (
            "binary IPv4 with a checksum",
            summed(binary(0x21, 0x11, &[&V4[..], &unique, &crc].concat())),
            v4,
        ),
        (
            "binary IPv6 with a checksum",
            summed(binary(0x21, 0x21, &[&ipv6[..], &crc].concat())),
            v6_ends,
        ),
        (
            "the longest taken",
            binary(
                0x21,
                0x11,
                &[&V4[..], &extension(4, &[0; 4096 - 16 - 12 - 3])].concat(),
            ),
            v4,
        ),
        ("LOCAL", binary(0x20, 0, &[]), None),
        (
            "LOCAL with a block that makes no sense",
            binary(0x20, 0xff, &[3, 0xff, 0xff]),
            None,
        ),
        ("unspecified", binary(0x21, 0, &[]), None),
        ("unspecified with addresses", binary(0x21, 0x01, &V4), None),
        (
            "IPv4 of an unspecified transport",
            binary(0x21, 0x10, &V4),
            None,
        ),
        ("a datagram", binary(0x21, 0x12, &V4), None),
        ("a datagram over IPv6", binary(0x21, 0x22, &ipv6), None),
        ("a Unix socket", binary(0x21, 0x31, &unix), None),
        (
            "a Unix socket with a checksum",
            summed(binary(0x21, 0x31, &[&unix[..], &crc].concat())),
            None,
        ),
    ]
}

#[test]
fn a_header_is_taken_whole_and_nothing_behind_it() {
    for (what, header, ends) in good() {
        let expected = Ok(Parse::Complete(Header {
            length: header.len(),
            ends,
        }));
        assert_eq!(parse(&header), expected, "{what}");
        for behind in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", &header] {
            assert_eq!(parse(&[&header, behind].concat()), expected, "{what}");
        }
        for end in 0..header.len() {
            assert_eq!(
                parse(&header[..end]),
                Ok(Parse::Partial),
                "{what}: {end} bytes"
            );
        }
    }
}

#[test]
fn what_is_not_a_header_is_refused_at_the_first_byte_that_shows_it() {
    use Malformed::{
        Addresses, Checksum, Command, Extension, Family, Line, NoHeader, TooLong, Version,
    };
    let text = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    let v4_with = |more: &[u8]| binary(0x21, 0x11, &[&V4[..], more].concat());
    let crc = extension(3, &[0; 4]);
    let mut wrong_sum = summed(v4_with(&crc));
    wrong_sum[16] ^= 1;
    // (what, bytes, how many of them it takes to know, why)
    let table: Vec<(&str, Vec<u8>, usize, Malformed)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1, NoHeader),
        (
            "a method that begins alike",
            b"PROPFIND / HTTP/1.1\r\n".to_vec(),
            4,
            NoHeader,
        ),
        ("a TLS hello", b"\x16\x03\x01\x02\x00".to_vec(), 1, NoHeader),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n".to_vec(), 3, NoHeader),
        ("lower case", b"proxy TCP4 ".to_vec(), 1, NoHeader),
        (
            "a leading line end",
            b"\r\nPROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            3,
            NoHeader,
        ),
        (
            "a broken signature",
            b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
            12,
            NoHeader,
        ),
        ("nothing in the line", text(""), 8, Line),
        (
            "an unknown protocol",
            text("TCP5 1.1.1.1 2.2.2.2 1 2"),
            32,
            Line,
        ),
        ("UNKNOWN without a gap", text("UNKNOWNX"), 16, Line),
        ("two spaces", text("TCP4  1.1.1.1 2.2.2.2 1 2"), 33, Line),
        (
            "a trailing space",
            text("TCP4 1.1.1.1 2.2.2.2 1 2 "),
            33,
            Line,
        ),
        (
            "a field too many",
            text("TCP4 1.1.1.1 2.2.2.2 1 2 3"),
            34,
            Line,
        ),
        ("a field too few", text("TCP4 1.1.1.1 2.2.2.2 1"), 30, Line),
        ("tabs", text("TCP4\t1.1.1.1\t2.2.2.2\t1\t2"), 32, Line),
        ("IPv6 in TCP4", text("TCP4 ::1 ::2 1 2"), 24, Line),
        ("IPv4 in TCP6", text("TCP6 1.1.1.1 2.2.2.2 1 2"), 32, Line),
        ("families mixed", text("TCP4 1.1.1.1 ::2 1 2"), 28, Line),
        ("a zone", text("TCP6 fe80::1%eth0 ::2 1 2"), 33, Line),
        ("brackets", text("TCP6 [::1] ::2 1 2"), 26, Line),
        ("a short address", text("TCP4 1.1.1 2.2.2.2 1 2"), 30, Line),
        (
            "an octal address",
            text("TCP4 01.1.1.1 2.2.2.2 1 2"),
            33,
            Line,
        ),
        ("a name", text("TCP4 localhost 2.2.2.2 1 2"), 34, Line),
        (
            "a large port",
            text("TCP4 1.1.1.1 2.2.2.2 65536 2"),
            36,
            Line,
        ),
        ("a signed port", text("TCP4 1.1.1.1 2.2.2.2 +1 2"), 33, Line),
        (
            "a port with a leading zero",
            text("TCP4 1.1.1.1 2.2.2.2 01 2"),
            33,
            Line,
        ),
        ("no port", text("TCP4 1.1.1.1 2.2.2.2  2"), 31, Line),
        (
            "not text",
            b"PROXY TCP4 \xff 2.2.2.2 1 2\r\n".to_vec(),
            26,
            Line,
        ),
        (
            "a bare line feed",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n".to_vec(),
            31,
            Line,
        ),
        (
            "a carriage return too many",
            text("TCP4 1.1.1.1 2.2.2.2 1 2\r"),
            33,
            Line,
        ),
        (
            "a line without an end",
            [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            107,
            TooLong,
        ),
        (
            "a line one byte too long",
            text(&format!("UNKNOWN {}", "x".repeat(92))),
            107,
            TooLong,
        ),
        ("version 1 in binary", binary(0x11, 0x11, &V4), 13, Version),
        ("version 3", binary(0x31, 0x11, &V4), 13, Version),
        ("an unknown command", binary(0x22, 0x11, &V4), 13, Command),
        ("an unknown family", binary(0x21, 0x41, &V4), 28, Family),
        ("an unknown transport", binary(0x21, 0x13, &V4), 28, Family),
        (
            "no room for IPv4",
            binary(0x21, 0x11, &V4[..11]),
            27,
            Addresses,
        ),
        (
            "no room for IPv6",
            binary(0x21, 0x21, &v6()[..35]),
            51,
            Addresses,
        ),
        (
            "no room for paths",
            binary(0x21, 0x31, &[0; 215]),
            231,
            Addresses,
        ),
        ("nothing at all", binary(0x21, 0x11, &[]), 16, Addresses),
        (
            "longer than is taken",
            binary(0x21, 0x11, &[0; 4081]),
            16,
            TooLong,
        ),
        (
            "as long as can be said",
            binary(0x20, 0, &[0; 65535]),
            16,
            TooLong,
        ),
        ("half an extension", v4_with(&[4, 0]), 30, Extension),
        (
            "an extension beyond the header",
            v4_with(&[4, 0, 2, 0]),
            32,
            Extension,
        ),
        (
            "a short checksum",
            v4_with(&extension(3, &[0; 3])),
            34,
            Extension,
        ),
        (
            "two checksums",
            v4_with(&[&crc[..], &crc].concat()),
            42,
            Extension,
        ),
        ("a checksum of other bytes", wrong_sum, 35, Checksum),
    ];
    for (what, bytes, known_at, why) in table {
        assert_eq!(
            parse(&bytes[..known_at - 1]),
            Ok(Parse::Partial),
            "{what}: one byte less"
        );
        assert_eq!(parse(&bytes[..known_at]), Err(why), "{what}");
        assert_eq!(parse(&bytes), Err(why), "{what}: all of it");
    }
}

#[test]
fn the_checksum_is_crc32c() {
    // RFC 3720 appendix B.4, and the check value of the catalogues.
    assert_eq!(binary::crc32c(b"123456789", 0..0), 0xe306_9283);
    assert_eq!(binary::crc32c(&[0; 32], 0..0), 0x8a91_36aa);
    assert_eq!(binary::crc32c(&[0xff; 32], 0..32), 0x8a91_36aa);
}

#[test]
fn no_two_faults_share_a_name() {
    let names: std::collections::BTreeSet<_> = Malformed::ALL.map(Malformed::name).into();
    assert_eq!(names.len(), Malformed::ALL.len());
}

/// Something near a header: one of the good ones, with a few bytes changed, cut or added.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let headers: Vec<Vec<u8>> = good().into_iter().map(|(_, header, _)| header).collect();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        prop::sample::select(headers),
        changes,
        any::<prop::sample::Index>(),
        "\\PC{0,8}",
    )
        .prop_map(|(mut header, changes, cut, behind)| {
            for (at, byte) in changes {
                let at = at.index(header.len());
                header[at] = byte;
            }
            header.truncate(cut.index(header.len()) + 1);
            header.extend(behind.bytes());
            header
        })
}

proptest! {
    #[test]
    fn any_bytes_keep_the_promises(input in near()) {
        crate::fuzzing::proxy_header(&input);
    }

    #[test]
    fn any_address_comes_through_both_versions(source: SocketAddr, destination: SocketAddr) {
        let ends = Ends { source: plain(source), destination: plain(destination) };
        let addresses = |ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        prop_assume!(source.is_ipv4() == destination.is_ipv4());
        let (name, kind) = if source.is_ipv4() { ("TCP4", 0x11) } else { ("TCP6", 0x21) };
        let block = [
            addresses(source.ip()),
            addresses(destination.ip()),
            source.port().to_be_bytes().to_vec(),
            destination.port().to_be_bytes().to_vec(),
        ];
        let text = format!("PROXY {name} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port());
        for header in [binary(0x21, kind, &block.concat()), text.into_bytes()] {
            prop_assert_eq!(parse(&header), Ok(Parse::Complete(Header { length: header.len(), ends: Some(ends) })));
        }
    }
}

/// Without the flow and scope that an IPv6 socket address may have beside its address and port.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
