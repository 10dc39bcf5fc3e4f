//! PROXY headers of both versions, with the first bytes of what follows them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

/// Types of extensions, and the CRC32C of the IPv4 header below with that extension alone.
const CRC32C: u8 = 3;
const NOOP: u8 = 4;
const UNIQUE_ID: u8 = 5;
const IPV4_CHECKSUM: [u8; 4] = [0x9a, 0xb3, 0xb7, 0x61];

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (ipv4, ipv6) = (
        addresses(CLIENT, VIP),
        addresses(CLIENT.to_ipv6_mapped(), Ipv6Addr::LOCALHOST),
    );
    let mut seeds: Vec<Vec<u8>> = [
        "PROXY TCP4 192.0.2.7 10.0.0.100 51000 443\r\n\x16\x03\x01",
        "PROXY TCP6 2001:db8::7 ::ffff:10.0.0.100 51000 443\r\nGET / HTTP/1.1\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.100 0 01\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    seeds.extend([
        header(0x20, 0x00, &[]),
        header(0x20, 0xff, &[CRC32C, 0xff]),
        header(0x21, 0x00, &[0; 3]),
        header(0x21, 0x11, &ipv4),
        header(0x21, 0x12, &ipv4),
        header(0x21, 0x21, &ipv6),
        header(0x21, 0x31, &[b'/'; 216]),
        header(
            0x21,
            0x11,
            &[&ipv4[..], &extension(CRC32C, &IPV4_CHECKSUM)].concat(),
        ),
        header(
            0x21,
            0x21,
            &[
                &ipv6[..],
                &extension(CRC32C, &[0; 4]),
                &extension(NOOP, &[]),
            ]
            .concat(),
        ),
        header(
            0x21,
            0x11,
            &[
                &ipv4[..],
                &extension(UNIQUE_ID, b"request-1"),
                &extension(0xea, &[1; 23]),
            ]
            .concat(),
        ),
        header(
            0x21,
            0x11,
            &[&ipv4[..], &extension(NOOP, &[0; 4000])].concat(),
        ),
        header(0x31, 0x44, &ipv4),
    ]);
    seeds
}

fn header(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, kind], &length, block].concat()
}

/// From port 51000 to port 443.
fn addresses(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    let bytes = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [
        bytes(source.into()),
        bytes(destination.into()),
        vec![0xc7, 0x38, 0x01, 0xbb],
    ]
    .concat()
}

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

pub(super) fn words() -> Vec<String> {
    [
        "PROXY ",
        "TCP4 ",
        "TCP6 ",
        "UNKNOWN",
        "\r\n",
        "\r\n\r\n\0\r\nQUIT\n",
        "::",
        "65535",
    ]
    .map(str::to_owned)
    .to_vec()
}
