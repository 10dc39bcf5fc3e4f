//! Frames that a capture looks at, behind the number of a VLAN; the blocks of a capture; arguments of commands.

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const VLAN: u16 = 100;

pub(super) fn captures() -> Vec<Vec<u8>> {
    let ports = [0, 80, 1, 0, 9, 9, 9, 9];
    let v4 = |protocol, fragment: u16, rest: &[u8]| {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(rest);
        packet
    };
    let v6 = |next, rest: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 32, next, 64];
        packet.extend([[0xfd; 16], [0x20; 16]].as_flattened());
        packet.extend(rest);
        packet
    };
    let frame = |tag: &[u8], ether_type: [u8; 2], packet: &[u8]| {
        [&VLAN.to_be_bytes(), &MACS[..], tag, &ether_type, packet].concat()
    };
    let (ipv4, ipv6) = ([8, 0], [0x86, 0xdd]);
    // A fragment header behind destination options.
    let extended = [
        60, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0,
        0, 7,
    ];
    let mut options = v4(17, 0, &[1, 1, 1, 0]);
    options[0] = 0x46;
    options.extend(ports);
    vec![
        frame(&[], ipv4, &v4(6, 0, &ports)),
        frame(&[], ipv4, &v4(17, 0x2001, &ports)),
        frame(&[], ipv4, &v4(4, 0, &v4(6, 0, &ports))),
        frame(&[], ipv4, &options),
        frame(&[], ipv6, &v6(6, &ports)),
        frame(&[], ipv6, &v6(41, &v6(17, &ports))),
        frame(&[], ipv6, &v6(0, &[&extended[..], &ports].concat())),
        frame(&[0x81, 0, 0xe0, 100], ipv4, &v4(6, 0, &ports)),
        frame(&[], [8, 6], &[0; 28]),
        capture(),
    ]
}

/// A section, an interface, a packet of four bytes and statistics that say how many were dropped.
fn capture() -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    };
    let section = [
        &0x1a2b_3c4d_u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0xff; 8],
    ]
    .concat();
    let packet = [&[0; 12][..], &[4, 0, 0, 0, 4, 0, 0, 0], b"four"].concat();
    let dropped = [&[0; 12][..], &[5, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0], &[0; 4]].concat();
    [
        block(0x0a0d_0d0a, &section),
        block(1, &[1, 0, 0, 0, 0, 1, 0, 0]),
        block(6, &packet),
        block(5, &dropped),
    ]
    .concat()
}

pub(super) fn commands() -> Vec<Vec<u8>> {
    [
        "10.2.0.1",
        "10.2.0.0/24",
        "10.2.0.1:80",
        "2001:db8::/64",
        "[2001:db8::1]:80",
        "null",
        r#"{"by": "an operator"}"#,
        r#"{"client": "10.2.0.0/24", "vip": "10.0.0.100:80", "protocol": "tcp", "state": "established", "limit": 7}"#,
        r#"{"service": "web", "local": "10.3.0.100:1024", "target": "[fd00::21]:80"}"#,
        r#"{"target": "fd00::/8", "packets": 1, "bytes": 64, "seconds": 300, "snap": 65535}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(super) fn words() -> Vec<String> {
    [
        "client", "vip", "local", "target", "service", "protocol", "state", "limit", "packets",
        "bytes", "seconds", "snap", "by", "null", "tcp", "udp", "::", "/", "[", "]:", "ffff:",
    ]
    .map(str::to_owned)
    .to_vec()
}
