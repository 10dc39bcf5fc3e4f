//! A port in a VLAN, against frames made by hand: the kernel here may have no VLAN devices.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use lab::{Gateway, LOCAL_IP, Lab};

/// A client at 10.2.0.1 that speaks the VLAN of its second argument: answers ARP for itself, sends UDP to the VIP, and prints each answer with its tag.
/// First it sends the same in the VLANs that follow (-1: without a tag), which nobody may answer.
const CLIENT: &str = r#"
import select, socket, struct, sys, time
gateway = bytes.fromhex(sys.argv[1].replace(":", ""))
vlan, *others = map(int, sys.argv[2:])
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(("c0", 0))
raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes tags off
own = raw.getsockname()[4]
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def tagged(tag, kind, body):
    tag = b"" if tag < 0 else struct.pack("!HH", 0x8100, tag)
    return gateway + own + tag + struct.pack("!H", kind) + body
def question(tag, port, text):
    udp = struct.pack("!HHHH", port, 53, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton("10.2.0.1"), socket.inet_aton("10.0.0.100"))
    return tagged(tag, 0x0800, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp)
def listen(seconds, answers):
    end = time.time() + seconds
    while answers and select.select([raw], [], [], max(0, end - time.time()))[0]:
        frame, control, _, sender = raw.recvmsg(2048, 512)
        if sender[2] == 4: continue  # what we sent ourselves
        status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", control[0][2])
        tag = tci & 0xfff if status & 0x10 else None
        kind = frame[12:14]
        if kind == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == socket.inet_aton("10.2.0.1"):
            print("asked", tag, flush=True)
            reply = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own + frame[38:42] + frame[22:28] + frame[28:32]
            raw.send(tagged(vlan, 0x0806, reply))
        if kind == b"\x08\x00" and frame[23] == 17 and frame[26:30] == socket.inet_aton("10.0.0.100"):
            length = struct.unpack("!H", frame[38:40])[0]
            print("answered", tag, struct.unpack("!H", frame[36:38])[0], frame[42:34 + length].decode(), flush=True)
            answers -= 1
listen(0.2, 1)
for port in range(3):
    for other in others: raw.send(question(other, 6000 + port, b"other"))
for port in range(4):
    raw.send(question(vlan, 5000 + port, b"hello"))
    raw.send(question(vlan | 0xa000, 5500 + port, b"with priority"))
listen(20, 8)
listen(0.2, 1) # one too many
"#;

/// What the client says that speaks a VLAN with a port, and sends in others. What the kernel at its end makes of untagged frames must not mix in.
fn said_by_client(lab: &Lab, gateway: &Gateway, vlans: &[&str]) -> String {
    lab.client().ip(&["addr", "flush", "dev", "c0"]);
    let mac = gateway.status()["ports"][0]["mac"]
        .as_str()
        .unwrap()
        .to_owned();
    let output = lab
        .client()
        .command("python3")
        .args(["-c", CLIENT, &mac])
        .args(vlans)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Eight datagrams were answered, each with this tag, and those sent otherwise were not.
fn assert_answers(said: &str, tag: &str) {
    let answers: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("answered"))
        .collect();
    assert_eq!(answers.len(), 8, "{said}");
    for answer in answers {
        // The echo names whom it saw.
        let parts: Vec<&str> = answer.split(' ').collect();
        assert_eq!(parts[1], tag, "{answer}");
        assert!(
            matches!(parts[2].parse(), Ok(5000..=5003 | 5500..=5503)),
            "{answer}"
        );
        assert!(parts[3][1..].starts_with(&LOCAL_IP.to_string()), "{answer}");
    }
}

#[test]
fn a_port_in_a_vlan_forwards_its_frames_and_no_others() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let config = lab
        .usual()
        .replacen("gateway =", "vlan = 100\ngateway =", 1);
    let gateway = Gateway::launch(&lab, &config);
    // Its router is the client, which is yet to begin.
    gateway.wait("asking for its router", || {
        let ready = gateway.ready();
        ready.is_err_and(|why| why.contains("10.2.0.1 on port ext"))
    });
    // A priority tag (VLAN 0) is as good as none.
    let said = said_by_client(&lab, &gateway, &["100", "200", "-1", "0"]);
    assert!(
        said.contains("asked 100\n"),
        "the next hop is asked for in the VLAN: {said}"
    );
    assert!(!said.contains("asked None"), "{said}");
    assert_answers(&said, "100");
    assert!(
        gateway.workers("other_vlan")[0] >= 9,
        "{}",
        gateway.status()
    );
    assert_eq!(gateway.service("udp")["flows_created"], 8);
}

#[test]
fn a_port_in_no_vlan_takes_frames_that_are_tagged_with_a_priority_only() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let said = said_by_client(&lab, &gateway, &["0", "200"]);
    assert_answers(&said, "None");
    assert_eq!(gateway.service("udp")["flows_created"], 8);
}

#[test]
fn a_vlan_has_a_number_from_1_to_4094() {
    let lab = Lab::new();
    for (vlan, right) in [("0", false), ("4095", false), ("4094", true)] {
        let config = lab
            .usual()
            .replacen("gateway =", &format!("vlan = {vlan}\ngateway ="), 1);
        let file = lab.directory.path().join("check.toml");
        std::fs::write(&file, config).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_l4-gateway"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), right, "{vlan}");
        if !right {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.contains("ports[0].vlan: expected an integer from 1 to 4094"),
                "{said}"
            );
        }
    }
}
