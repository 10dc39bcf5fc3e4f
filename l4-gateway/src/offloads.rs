//! Wrong checksums of TCP and UDP, put down to their usual cause: a sender that leaves them to a NIC, where there is none that makes them.

use std::collections::BTreeSet;

use dataplane::PortIndex;

use crate::config::PortConfig;
use crate::devices::interface_name;

/// The ports of which that was said: once is enough, the counter tells the rest.
#[derive(Debug, Default)]
pub(crate) struct WrongChecksums {
    said: BTreeSet<PortIndex>,
}

impl WrongChecksums {
    /// What to do about it; none if it was said of this port before.
    pub(crate) fn advice(&mut self, port: &PortConfig) -> Option<String> {
        self.said.insert(port.index).then(|| advice(port))
    }
}

fn advice(port: &PortConfig) -> String {
    let devices = std::iter::once(&port.device).chain(&port.members);
    let commands: Vec<String> = devices
        .filter_map(interface_name)
        .map(|name| format!("ethtool -K {name} tx off rx off gso off tso off gro off"))
        .collect();
    match commands.as_slice() {
        [] => "switch off checksum offloads of the senders that reach the port without a NIC (veth, virtio)".into(),
        commands => format!(
            "`{}`, and the same for its other end where that is virtual (a veth's peer, a VM's tap)",
            commands.join("; ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;
    use crate::config::Config;

    const PORTS: &str = r#"
[node]
id = "l4-1"
[[ports]]
name = "ext"
device = "net_af_packet0,iface=ext0"
address = "10.2.0.11/24"
gateway = "10.2.0.1"
[[ports]]
name = "int"
device = "0000:3b:00.0"
address = "10.3.0.11/24"
local_ips = ["10.3.0.100"]
[[ports]]
name = "pair"
device = "net_bonding0,mode=1"
members = ["net_af_packet2,iface=a", "net_af_packet3,iface=b"]
address = "10.4.0.11/24"
[[services]]
name = "web"
vip = "10.0.0.100"
protocol = "tcp"
port = 80
targets = [{ address = "10.3.0.21:8080" }]
"#;

    #[test]
    fn each_port_is_told_of_once_by_the_interfaces_below_it() {
        let document = Document::from_toml("l4.toml", PORTS).unwrap();
        let config = document.parse(Config::parse).unwrap();
        let mut wrong = WrongChecksums::default();
        let command = |name| format!("ethtool -K {name} tx off rx off gso off tso off gro off");
        let elsewhere =
            "and the same for its other end where that is virtual (a veth's peer, a VM's tap)";
        let expected = [
            format!("`{}`, {elsewhere}", command("ext0")),
            "switch off checksum offloads of the senders that reach the port without a NIC (veth, virtio)".into(),
            format!("`{}; {}`, {elsewhere}", command("a"), command("b")),
        ];
        for (port, expected) in config.ports.iter().zip(expected) {
            assert_eq!(wrong.advice(port), Some(expected));
            assert_eq!(wrong.advice(port), None, "again");
        }
    }
}
