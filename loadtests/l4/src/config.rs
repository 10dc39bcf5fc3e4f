//! The gateway's configuration: an ordinary one, with memif in place of NICs.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use dataplane::Protocol;

use crate::address::{Addressing, INNER, LOCAL, LOCALS, OUTER, ROUTER};

/// What is special about a gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    /// Of its files, and in front of its rows.
    pub(crate) name: &'static str,
    pub(crate) addressing: Addressing,
    pub(crate) scheduler: &'static str,
    /// Whether targets are told of clients by PROXY v2.
    pub(crate) proxy: bool,
    /// Flows its worker can hold.
    pub(crate) flows: u32,
}

impl Variant {
    /// The file, for devices that listen and an address for the admin listener.
    pub(crate) fn render(
        &self,
        [outer, inner]: [String; 2],
        admin: SocketAddr,
        (cpu, huge_pages): (usize, bool),
    ) -> String {
        let locals = (0..LOCALS)
            .map(|n| format!("\"{}\"", Ipv4Addr::from_bits(LOCAL.to_bits() + n)))
            .collect::<Vec<_>>()
            .join(", ");
        let flows = self.flows;
        // Between its windows the gateway is stopped, which must not look like a stall; idle UDP flows must outlive a row.
        let mut text = format!(
            r#"[node]
id = "bench"
[admin]
listen = "{admin}"
[log]
level = "warn"
[eal]
huge_pages = {huge_pages}
file_prefix = "bench-gateway-{pid}"
[workers]
cores = [{cpu}]
poll = "busy"
flows = {flows}
stall_limit = "10s"
[[ports]]
name = "outer"
device = "{outer}"
address = "{OUTER}/24"
gateway = "{ROUTER}"
[[ports]]
name = "inner"
device = "{inner}"
address = "{INNER}/16"
local_ips = [{locals}]
"#,
            pid = std::process::id(),
        );
        let protocol = match self.addressing.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        for service in 0..self.addressing.services {
            let vip = self.addressing.vip(service);
            let targets = (0..self.addressing.targets)
                .map(|number| {
                    let target = self.addressing.target(service, number);
                    let address = Ipv4Addr::from_bits(target.address);
                    format!("{{ address = \"{address}:{}\" }}", target.port)
                })
                .collect::<Vec<_>>()
                .join(", ");
            // Writing to a string can't fail.
            let _ = write!(
                text,
                r#"[[services]]
name = "s{service}"
vip = "{vip}"
protocol = "{protocol}"
port = {port}
scheduler = "{scheduler}"
timeouts = {{ udp = "600s" }}
{keys}
targets = [{targets}]
"#,
                vip = Ipv4Addr::from_bits(vip.address),
                port = vip.port,
                scheduler = self.scheduler,
                keys = if self.proxy {
                    "client_address = \"proxy_v2\""
                } else {
                    ""
                },
            );
        }
        text
    }
}
