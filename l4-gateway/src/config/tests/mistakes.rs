//! What users see when a configuration is wrong.

use super::{parse, with};

#[test]
fn mistakes_name_the_key_and_what_to_do() {
    let target = "{ address = \"10.3.0.21:8080\" }";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("id = \"l4-1\"", "")], "node.id: is missing"),
        (
            &[("name = \"int\"", "name = \"\\u001b[31mint\"")],
            "ports[1].name: \"\\u{1b}[31mint\" can't be a port's name — 1 to 64 letters",
        ),
        (
            &[("port = 80", "port = 80\nclient_address = \"proxy\"")],
            "client_address: expected one of \"none\", \"proxy_v2\", \"toa\", got \"proxy\"",
        ),
        (
            &[
                ("port = 80", "port = 80\nclient_address = \"toa\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].client_address: is for protocol = \"tcp\" only — leave it out",
        ),
        (
            &[
                ("port = 80", "port = 80\non_unknown_segment = \"drop\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].on_unknown_segment: is for protocol = \"tcp\" only",
        ),
        (
            &[
                ("port = 80", "port = 80\nreset_on_expiry = true"),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].reset_on_expiry: is for protocol = \"tcp\" only",
        ),
        (
            &[
                ("port = 80", "port = 80\ntimestamps = \"strip\""),
                ("protocol = \"tcp\"", "protocol = \"udp\""),
            ],
            "services[0].timestamps: is for protocol = \"tcp\" only",
        ),
        (
            &[(
                "port = 80",
                "port = 80\npersistence = { timeout = \"1m\", prefix_v6 = 64 }",
            )],
            "services[0].persistence.prefix_v6: is for services with an IPv6 VIP only — leave it out",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nlimits = { source_connections = 1, source_prefix_v4 = 24 }",
                ),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
            ],
            "services[0].limits.source_prefix_v4: is for services with an IPv4 VIP only — leave it out",
        ),
        (
            &[
                ("port = 80", "port = 80\nclient_address = \"toa\""),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("10.3.0.21:8080", "[fd00:3::21]:8080"),
                ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
                ("\"10.3.0.11/24\"", "\"fd00:3::11/64\"\nmtu = 1299"),
            ],
            "services[0].targets[0].address: fd00:3::21 is behind port int, whose mtu of 1299 is too small for client_address = \"toa\" — with IPv6 it takes 1300 at least",
        ),
        (
            &[
                ("port = 80", "port = 80\nmode = \"tunnel\""),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("10.3.0.21:8080", "fd00:3::21"),
                ("[\"10.3.0.100\"]", "[\"fd00:3::100\"]"),
                ("\"10.3.0.11/24\"", "\"fd00:3::11/64\"\nmtu = 1319"),
            ],
            "services[0].targets[0].address: fd00:3::21 is behind port int, whose mtu of 1319 is too small for mode = \"tunnel\" — with IPv6 it takes 1320 at least",
        ),
        (
            &[("port = 80", "port = 80\nleast_path_mtu = 575")],
            "services[0].least_path_mtu: expected an integer from 576 to 1500, got 575",
        ),
        (
            &[
                ("port = 80", "port = 80\nleast_path_mtu = 1279"),
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
            ],
            "services[0].least_path_mtu: expected an integer from 1280 to 1500, got 1279",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"dr\"\nleast_path_mtu = 1280",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].least_path_mtu: is for mode = \"fullnat\" only",
        ),
        (
            &[("iface=int0", "iface=ext0")],
            "l4.toml:13: ports[1].device: interface ext0 is port ext's already — each device has an interface of its own",
        ),
        (
            &[(",iface=ext0", "")],
            "l4.toml:7: ports[0].device: the interface is missing — write \"net_af_packet0,iface=eth0\"",
        ),
        (
            &[("iface=ext0", "iface=")],
            "ports[0].device: iface= can't be an interface: expected 1 to 15 bytes without `/` and `:` — name one of `ip link`",
        ),
        (
            &[("iface=ext0", "iface=an-interface-too")],
            "ports[0].device: iface=an-interface-too can't be an interface",
        ),
        (
            &[("iface=ext0", "iface=ext0,iface=ext1")],
            "ports[0].device: iface is there twice — leave one out",
        ),
        (
            &[("iface=ext0", "iface=ext0,framesize=4096")],
            "ports[0].device: unknown argument \"framesize\" — af_packet takes iface, qpairs, blocksz, framesz, framecnt, qdisc_bypass",
        ),
        (
            &[("net_af_packet0", "eth_af_packet0")],
            "ports[0].device: eth_af_packet is the driver's old name",
        ),
        (
            &[("iface=ext0", "iface=ext0,qpairs=0")],
            "ports[0].device: expected qpairs=1 or more, got qpairs=0 — leave it out",
        ),
        (
            &[
                ("iface=ext0", "iface=ext0,qpairs=1"),
                ("[[ports]]", "[workers]\ncount = 2\n[[ports]]"),
            ],
            "ports[0].device: qpairs=1 is less than the port's queues (2) — leave it out: it follows from `queues`",
        ),
        (
            &[("iface=ext0", "iface=ext0,framesz=1024")],
            "ports[0].device: slots of 1024 bytes (framesz) have no room for packets of 1500 (mtu) — leave framesz and blocksz out",
        ),
        (
            &[("iface=ext0\"", "iface=ext0,blocksz=4096\"\nmtu = 2000")],
            "ports[0].device: slots of 2048 bytes (framesz) have no room for packets of 2000 (mtu)",
        ),
        (
            &[("iface=ext0", "iface=ext0,framesz=8192")],
            "ports[0].device: expected blocksz as a multiple of 4096 and of the slots of 8192 bytes (framesz), got 4096",
        ),
        (
            &[("iface=ext0", "iface=ext0,framecnt=511")],
            "ports[0].device: expected framecnt as a multiple of the 2 slots of a block, got 511",
        ),
        (
            &[("net_af_packet0,iface=ext0", "net_af_packet0;iface=ext0")],
            "l4.toml:7: ports[0].device: expected a DPDK device such as \"0000:3b:00.0\" or \"net_af_packet0,iface=eth0\", \
             got \"net_af_packet0;iface=ext0\" — write `,` between arguments: \"net_af_packet0,iface=ext0\"",
        ),
        (
            &[("net_af_packet0,iface=ext0", "0000:3b:00.9")],
            "got \"0000:3b:00.9\" — of a PCI address, the device goes up to 1f and the function up to 7",
        ),
        (
            &[
                ("net_af_packet0,iface=ext0", "0000:3b:00.0"),
                ("net_af_packet1,iface=int0", "3B:00.0"),
            ],
            "ports[1].device: the device \"0000:3b:00.0\" is already at ports[0].device",
        ),
        (
            &[(
                "gateway =",
                "exception = \"net_tap0,iface=ext0\"\ngateway =",
            )],
            "l4.toml:9: ports[0].exception: interface ext0 is port ext's already — name another for the kernel's side, such as iface=weir-ext",
        ),
        (
            &[(
                "local_ips =",
                "exception = \"net_tap0,iface=ext0\"\nlocal_ips =",
            )],
            "ports[1].exception: interface ext0 is port ext's already",
        ),
        (
            &[(
                "gateway =",
                "exception = \"net_af_packet0,iface=a\"\ngateway =",
            )],
            "ports[0].exception: the device \"net_af_packet0\" is already at ports[0].device",
        ),
        (
            &[
                ("gateway =", "exception = \"net_tap0\"\ngateway ="),
                ("local_ips =", "exception = \"net_tap0\"\nlocal_ips ="),
            ],
            "ports[1].exception: the device \"net_tap0\" is already at ports[0].exception",
        ),
        (
            &[(
                "device = \"net_af_packet0,iface=ext0\"",
                "device = \"net_bonding0,mode=1\"\nmtu = 1501\nmembers = [\"net_af_packet0,iface=a\", \"net_af_packet2,iface=b\"]",
            )],
            "l4.toml:8: ports[0].mtu: a bond of af_packet members takes no more than 1500, got 1501",
        ),
        (
            &[(
                "device = \"net_af_packet0,iface=ext0\"",
                "device = \"net_bonding0,mode=1\"\nmembers = [\"net_af_packet0,iface=a\", \"net_af_packet2,iface=a\"]",
            )],
            "ports[0].members: interface a is port ext's already — each device has an interface of its own",
        ),
        (
            &[(
                "device = \"net_af_packet0,iface=ext0\"",
                "device = \"net_bonding0,mode=1\"\nmembers = [\"net_af_packet0,iface=a\", \"net_af_packet2\"]",
            )],
            "ports[0].members: net_af_packet2: the interface is missing",
        ),
        (
            &[(
                "gateway =",
                "routes = [{ to = \"10.9.0.0/16\", via = \"10.2.0.2\" }, { to = \"10.9.8.7/16\", via = \"10.2.0.3\" }]\ngateway =",
            )],
            "ports[0].routes[1].to: 10.9.8.7/16 has a route of this port already, at ports[0].routes[0] — name all its routers in the `via` of one",
        ),
        (
            &[(
                "[[ports]]",
                "[eal]\nhuge_pages = false\nframes = 65535\nmemory = \"255MiB\"\n[[ports]]",
            )],
            "l4.toml:8: eal.memory: 65535 frame buffers take 255MiB, and 303MiB with rings and drivers — leave it out",
        ),
        (&[("port = 80", "")], "services[0].port: is missing"),
        (
            &[("protocol = \"tcp\"", "")],
            "services[0].protocol: is missing",
        ),
        (
            &[("protocol = \"tcp\"", "protocol = \"sctp\"")],
            "expected one of \"tcp\", \"udp\"",
        ),
        (
            &[("port = 80", "port = 80\nscheduler = \"wllc\"")],
            "scheduler: expected one of \"rr\", \"wrr\", \"lc\", \"wlc\", \"sh\", \"maglev\", got \"wllc\" — did you mean \"wlc\"?",
        ),
        (
            &[("port = 80", "port = 80\nschedular = \"rr\"")],
            "services[0].schedular: unknown key — did you mean `scheduler`?",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"10.2.0.11\"")],
            "vip: 10.2.0.11 is the address of port ext",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"10.3.0.100\"")],
            "vip: 10.3.0.100 is a LocalIP of port int",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"224.0.0.1\"")],
            "vip: 224.0.0.1 is not an address that clients can connect to",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\"")],
            "10.3.0.21:8080 is not of the family of the VIP 2001:db8::1",
        ),
        (
            &[("vip = \"10.0.0.100\"", "vip = \"fe80::1\"")],
            "vip: fe80::1 is not an address that clients can connect to",
        ),
        (
            &[("\"10.3.0.11/24\"", "[\"10.3.0.11/24\", \"10.9.0.11/24\"]")],
            "l4.toml:14: ports[1].address: give one of each family at most",
        ),
        (
            &[("\"10.3.0.11/24\"", "[]")],
            "l4.toml:14: ports[1].address: the list is empty: write an address with a prefix length such as \"10.0.0.1/24\" or \"fd00::1/64\"",
        ),
        (
            &[("\"10.2.0.1\"", "[]")],
            "l4.toml:9: ports[0].gateway: the list is empty: write an IP address, or a list of them",
        ),
        (
            &[("\"10.2.0.1\"", "[\"10.2.0.1\", \"10.2.0.2\", \"10.2.0.1\"]")],
            "l4.toml:9: ports[0].gateway: 10.2.0.1 is given twice",
        ),
        (
            &[(
                "\"10.2.0.1\"",
                "[\"10.2.0.1\", \"10.2.0.2\", \"10.2.0.3\", \"10.2.0.4\", \"10.2.0.5\", \"10.2.0.6\", \"10.2.0.7\", \"10.2.0.8\", \"10.2.0.9\"]",
            )],
            "l4.toml:9: ports[0].gateway: 9 routers of one family are more than 8",
        ),
        (
            &[(
                "gateway = \"10.2.0.1\"",
                "gateway = [\"10.2.0.1\", \"10.9.0.1\"]",
            )],
            "l4.toml:9: ports[0].gateway: 10.9.0.1 is not in the port's network",
        ),
        (
            &[(
                "gateway = \"10.2.0.1\"",
                "gateway = \"10.2.0.1\"\nnext_hops = \"ecmp\"",
            )],
            "ports[0].next_hops: expected one of \"in_order\", \"by_flow\", got \"ecmp\"",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"fd00:3::100\"]")],
            "local_ips: the port has no address of the family of fd00:3::100",
        ),
        (
            &[
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
            ],
            "no port leads to fd00:3::21",
        ),
        (
            &[
                ("vip = \"10.0.0.100\"", "vip = \"2001:db8::1\""),
                ("\"10.3.0.21:8080\"", "\"[fd00:3::21]:8080\""),
                ("\"10.3.0.11/24\"", "[\"10.3.0.11/24\", \"fd00:3::11/64\"]"),
            ],
            "fd00:3::21 is behind port int, which has no LocalIP of its family",
        ),
        (
            &[(
                "\"10.3.0.11/24\"",
                "[\"10.3.0.11/24\", \"fd00:3::11/64\"]\nmtu = 1279",
            )],
            "ports[1].mtu: 1279 is less than a link of IPv6 has",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.9.0.100\"]")],
            "ports[1].local_ips: 10.9.0.100 is not in the port's network 10.3.0.11/24",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.3.0.11\"]")],
            "10.3.0.11 is the port's own address",
        ),
        (
            &[("[\"10.3.0.100\"]", "[\"10.3.0.100\", \"10.3.0.100\"]")],
            "the address \"10.3.0.100\" is already at",
        ),
        (
            &[("[\"10.3.0.100\"]", "[]")],
            "10.3.0.21 is behind port int, which has no LocalIP of its family — give port int local_ips",
        ),
        (
            &[("gateway = \"10.2.0.1\"", "gateway = \"10.9.0.1\"")],
            "ports[0].gateway: 10.9.0.1 is not in the port's network",
        ),
        (
            &[
                ("gateway = \"10.2.0.1\"", ""),
                ("10.3.0.21:8080", "10.77.0.1:80"),
            ],
            "no port leads to 10.77.0.1",
        ),
        (
            &[("10.3.0.21:8080", "10.3.0.11:80")],
            "10.3.0.11 is this node's own",
        ),
        (
            &[
                ("10.3.0.21:8080", "10.0.0.100:8080"),
                (
                    "gateway = \"10.2.0.1\"",
                    "gateway = \"10.2.0.1\"\nlocal_ips = [\"10.2.0.100\"]",
                ),
            ],
            "services[0].targets[0].address: 10.0.0.100 is a VIP of this node",
        ),
        (&[("10.3.0.21:8080", "10.3.0.21:0")], "0 is not a port"),
        (
            &[("10.3.0.21:8080\"", "10.3.0.21:8080\", sorry = true")],
            "services[0].targets: all of them are sorry targets",
        ),
        (
            &[("port = 80", "port = 80\nmode = \"nat\"")],
            "services[0].mode: expected one of \"fullnat\", \"dr\", \"tunnel\"",
        ),
        (
            &[("port = 80", "port = 80\nmode = \"dr\"")],
            "services[0].targets[0].address: packets reach 10.3.0.21 for port 80, as clients sent them",
        ),
        (
            &[
                ("port = 80", "port = 80\nmode = \"dr\""),
                ("10.3.0.21:8080", "10.9.0.21"),
            ],
            "10.9.0.21 is behind a router of port ext, and DR reaches its own network only — take mode = \"tunnel\" for it",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"tunnel\"\ntimestamps = \"keep\"",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].timestamps: is for mode = \"fullnat\" only",
        ),
        (
            &[
                (
                    "port = 80",
                    "port = 80\nmode = \"dr\"\nclient_address = \"toa\"",
                ),
                ("10.3.0.21:8080", "10.3.0.21"),
            ],
            "services[0].client_address: is for mode = \"fullnat\" only",
        ),
        (
            &[("10.3.0.21:8080", "10.3.0.21")],
            "services[0].targets[0].address: expected an address with a port",
        ),
        (
            &[("10.3.0.21:8080", "web1.example.com:80")],
            "got \"web1.example.com:80\" — names are not looked up; write an address",
        ),
        (
            &[("10.3.0.21:8080", "224.0.0.1:80")],
            "224.0.0.1 is not an address of one host",
        ),
        (
            &[("port = 80", "port = 0")],
            "services[0].port: expected a port from 1 to 65535, a range such as \"8000-8999\", or \"*\" for all, got 0",
        ),
        (
            &[
                ("10.2.0.11/24", "0.0.0.11/8"),
                ("gateway = \"10.2.0.1\"", ""),
            ],
            "0.0.0.11 can't be a host's address",
        ),
        (
            &[(
                target,
                "{ address = \"10.3.0.21:8080\" }, { address = \"10.3.0.21:8080\" }",
            )],
            "10.3.0.21:8080 is a target of this service already",
        ),
        (
            &[(target, "{ address = \"10.3.0.21:8080\", weight = 2000 }")],
            "weight: expected an integer from 0 to 1000",
        ),
        (
            &[("targets = [{ address = \"10.3.0.21:8080\" }]", "")],
            "services[0].targets: the service has none",
        ),
        (
            &[("port = 80", "port = 80\nfrom_registrations = true")],
            "l4.toml:22: services[0].from_registrations: registrations come by the bus, and the bus stays within this process",
        ),
        (
            &[("name = \"int\"", "name = \"ext\"")],
            "the port name \"ext\" is already at",
        ),
        (
            &[("net_af_packet1", "net_af_packet0")],
            "the device \"net_af_packet0\" is already at",
        ),
        (
            &[("net_af_packet0,iface=ext0", "eth0")],
            "ports[0].device: expected a DPDK device such as \"0000:3b:00.0\" or \"net_af_packet0,iface=eth0\", got \"eth0\" \
             — a PCI address, or a virtual device with its arguments",
        ),
        (
            &[("10.2.0.11/24", "10.2.0.11")],
            "ports[0].address: expected an address with a prefix length",
        ),
        (
            &[("gateway", "queues = 2\ngateway")],
            "ports[0].queues: 2 are more than there are workers (1) — leave it out, or give [workers] more",
        ),
        (
            &[("gateway", "queues = 0\ngateway")],
            "ports[0].queues: expected an integer from 1 to 64, got 0",
        ),
        (
            &[("gateway", "mtu = 100\ngateway")],
            "ports[0].mtu: expected an integer from 576 to 9600",
        ),
        (
            &[("[[ports]]", "[eal]\nargs = [\"--lcores=1\"]\n[[ports]]")],
            "eal.args: --lcores is set by the gateway itself — use workers.count and workers.cores",
        ),
        (
            &[("[[ports]]", "[eal]\nmemory = \"64MiB\"\n[[ports]]")],
            "eal.memory: hugepages are taken as they are needed",
        ),
        (
            &[("[[ports]]", "[workers]\npoll = \"buzy\"\n[[ports]]")],
            "did you mean \"busy\"?",
        ),
        (
            &[("[[ports]]", "[workers]\ncores = [1, 1]\n[[ports]]")],
            "CPU \"1\" is already at",
        ),
        (
            &[("[[ports]]", "[workers]\ncount = 3\ncores = [1]\n[[ports]]")],
            "1 CPUs, but count = 3",
        ),
        (
            &[("port = 80", "port = 80\ncut_down_after = \"25h\"")],
            "services[0].cut_down_after: expected a duration from 0s to 1d, got \"25h\" — write \"never\" to leave such flows alone",
        ),
        (
            &[("port = 80", "port = 80\ncut_down_after = \"always\"")],
            "services[0].cut_down_after: expected a duration such as \"5m\", or \"never\", got \"always\"",
        ),
        (
            &[("port = 80", "port = 80\none_packet = false")],
            "services[0].one_packet: is for protocol = \"udp\" only — leave it out",
        ),
        (
            &[
                ("\"tcp\"", "\"udp\""),
                (
                    "port = 80",
                    "port = 80\none_packet = true\npersistence = { timeout = \"1m\" }",
                ),
            ],
            "services[0].one_packet: persistence keeps a client's datagrams together",
        ),
        (
            &[
                ("\"tcp\"", "\"udp\""),
                (
                    "port = 80",
                    "port = 80\none_packet = true\nscheduler = \"wlc\"",
                ),
            ],
            "services[0].one_packet: this scheduler goes by connections, and single datagrams are none — take rr for lc, wrr for wlc",
        ),
        (
            &[("port = 80", "port = 80\npersistence = { prefix_v4 = 24 }")],
            "services[0].persistence.timeout: is missing",
        ),
        (
            &[(
                "port = 80",
                "port = 80\npersistence = { timeout = \"25h\" }",
            )],
            "services[0].persistence.timeout: expected a duration from 1s to 1d, got \"25h\"",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nlimits = { connections = \"many\" }",
            )],
            "services[0].limits.connections: expected an integer from 1 to 1000000000, got \"many\"",
        ),
        (
            &[("port = 80", "port = 80\nlimits = { connections = 0 }")],
            "services[0].limits.connections: expected an integer from 1 to 1000000000, got 0",
        ),
        (
            &[("port = 80", "port = 80\nlimits = { source_prefix_v4 = 33 }")],
            "services[0].limits.source_prefix_v4: expected an integer from 0 to 32, got 33",
        ),
        (
            &[("port = 80", "port = 80\ndeny = [\"10.1.2.3/8\"]")],
            "services[0].deny: 10.1.2.3/8 has bits set beyond its length — write 10.0.0.0/8",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]",
            )],
            "services[0].deny: 10.0.0.0/8 is allowed too — leave it in one of both lists",
        ),
        (
            &[("port = 80", "port = 80\non_limit = \"reset\"")],
            "services[0].on_limit: expected one of \"rst\", \"drop\", got \"reset\"",
        ),
        (
            &[(
                "port = 80",
                "port = 80\nscheduler = \"lc\"\nslow_start = \"10s\"",
            )],
            "services[0].slow_start: the weight grows, and this scheduler doesn't ask for it — take wrr for rr, wlc for lc",
        ),
        (
            &[("[[ports]]", "[workers]\nlongest_sleep = \"1ms\"\n[[ports]]")],
            "busy workers never sleep",
        ),
    ];
    for (changes, complaint) in cases {
        let complaints = parse(&with(changes)).expect_err(complaint);
        assert!(
            complaints.contains(complaint),
            "{changes:?} gave {complaints:?}, not {complaint:?}"
        );
    }
}
