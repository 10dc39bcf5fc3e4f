//! `[bgp]` of the configuration, parsed into types that can't be wrong. The reference is `deploy/reference/bgp-ctl.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use shared::config::sections::{AdminSection, BusSection, LogSection, NodeSection, Transport};
use shared::config::{Cidr, Configuration, FromValue, NamedFile, Table, Value, open_regular};

use crate::decision::{AnnounceWhen, VipPolicy};
use crate::error::Error;
use crate::route::{Attributes, Community};
use crate::tcp_options::MAX_MD5_KEY;

/// The port BGP listens on (RFC 4271 8.2.1).
pub const BGP_PORT: u16 = 179;
/// Where the `bgp-ctl` binary answers `status`, unless configured.
pub const ADMIN_PORT: u16 = 9404;

/// Everything the `bgp-ctl` binary reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[node]`.
    pub node: NodeSection,
    /// `[admin]`.
    pub admin: AdminSection,
    /// `[bus]`.
    pub bus: BusSection,
    /// `[log]`.
    pub log: LogSection,
    /// `[follow]`: the L4 node whose VIPs are announced; the own `node.id` if not given.
    pub follow: String,
    /// `[bgp]`.
    pub bgp: BgpSection,
}

impl Config {
    /// Reads the whole document.
    pub fn parse(root: &mut Table<'_>) -> Option<Self> {
        let node = NodeSection::parse(root);
        let admin = AdminSection::parse(root, ADMIN_PORT);
        let bus = BusSection::parse(root);
        let log = LogSection::parse(root);
        if bus.transport == Transport::Local {
            root.mistake(
                "bus",
                "expected transport = \"nats\": the node is followed over the bus, and a local one ends with this process",
                "or give l4-gateway the [bgp] section",
            );
        }
        let follow = root
            .table("follow")
            .map(|mut follow| follow.required::<String>("node"));
        if !root.has("bgp") {
            root.mistake(
                "bgp",
                "is missing",
                "without [bgp] there is nobody to announce to",
            );
        }
        let bgp = BgpSection::parse(root);
        let node = node?;
        let follow = match follow {
            Some(given) => given?,
            None => node.id.clone(),
        };
        Some(Self {
            node,
            admin,
            bus,
            log,
            follow,
            bgp: bgp?,
        })
    }
}

impl Configuration for Config {
    const TIER: &'static str = "bgp";
    const ADMIN_PORT: u16 = ADMIN_PORT;

    fn parse(root: &mut Table<'_>) -> Option<Self> {
        Self::parse(root)
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Config) -> impl PartialEq + '_ {
            let Config {
                node,
                admin,
                bus,
                log,
                follow,
                bgp,
            } = config;
            (node, admin, bus, log, follow, bgp.fixed())
        }
        fixed(self) == fixed(other)
    }
}

/// `[bgp]`: who announces, to whom, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpSection {
    /// Our autonomous system.
    pub local_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where neighbours may connect to; `None`: only we connect.
    pub listen: Option<SocketAddrV4>,
    /// The routers, one or more.
    pub neighbours: Vec<NeighbourSettings>,
    /// How VIPs are announced that have no entry of their own.
    pub default_vip: VipSettings,
    /// VIPs with an entry of their own.
    pub vips: BTreeMap<Ipv4Addr, VipSettings>,
    /// Networks a VIP must be in to be announced; none: anywhere.
    pub allowed: Vec<Cidr>,
    /// Between the withdrawals and the Cease of a clean exit: time for the routers to stop sending.
    pub shutdown_wait: Duration,
}

impl BgpSection {
    /// Reads `[bgp]` of the root table. `None` if there is none, or after recording mistakes.
    pub fn parse(root: &mut Table<'_>) -> Option<Self> {
        let mut bgp = root.table("bgp")?;
        let local_as = autonomous_system(&mut bgp, "local_as");
        let router_id = router_id(&mut bgp);
        let listen = listen(&mut bgp);
        // The rest changes while the process runs.
        let mut live = bgp.live();
        let defaults = Defaults::parse(&mut live);
        let policy = policy(&mut live, VipPolicy::default());
        let shutdown_wait = live.within(
            "shutdown_wait",
            Duration::ZERO..=Duration::from_secs(60),
            Duration::from_millis(200),
        );

        let allowed = live.or("allowed", Vec::new());
        let default_vip = VipSettings {
            policy,
            attributes: Attributes::default(),
        };
        let vips = vips(&mut live, policy);
        let mut tables = live.tables_by("neighbours", "address");
        if tables.is_empty() {
            bgp.mistake(
                "neighbours",
                "expected at least one neighbour",
                "write [[bgp.neighbours]] with `address` and `remote_as`",
            );
        }
        let read = |table: &mut Table<'_>| {
            NeighbourSettings::parse(table, &defaults, local_as, listen.is_some())
        };
        let neighbours = tables.iter_mut().filter_map(read).collect();
        bgp.unique_in::<Ipv4Addr>("neighbour", &tables, "address");
        Some(Self {
            local_as: local_as?,
            router_id: router_id?,
            listen,
            neighbours,
            default_vip,
            vips,
            allowed,
            shutdown_wait,
        })
    }

    /// All that only a restart changes.
    pub fn fixed(&self) -> impl PartialEq + use<> {
        let Self {
            local_as,
            router_id,
            listen,
            neighbours: _,
            default_vip: _,
            vips: _,
            allowed: _,
            shutdown_wait: _,
        } = self;
        (*local_as, *router_id, *listen)
    }

    /// Whether a VIP may be announced, by the networks of `allowed`.
    pub(crate) fn allows(&self, vip: Ipv4Addr) -> bool {
        let mut networks = self.allowed.iter();
        self.allowed.is_empty() || networks.any(|network| network.contains(vip.into()))
    }

    /// How a VIP is announced.
    pub fn vip(&self, vip: Ipv4Addr) -> &VipSettings {
        self.vips.get(&vip).unwrap_or(&self.default_vip)
    }
}

/// How one VIP is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipSettings {
    /// When it is announced.
    pub policy: VipPolicy,
    /// What it is announced with, beside what each neighbour adds.
    pub attributes: Attributes,
}

/// One router, from `[[bgp.neighbours]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourSettings {
    /// The router's address.
    pub address: Ipv4Addr,
    /// The port it listens on.
    pub port: u16,
    /// Its autonomous system.
    pub remote_as: u32,
    /// Source address of our connections; the kernel's choice if not given.
    pub local_address: Option<Ipv4Addr>,
    /// TCP MD5 key (RFC 2385).
    pub password: Option<Password>,
    /// Proposed hold time, in whole seconds of 3 or more; a KEEPALIVE is sent each third of what is agreed.
    pub hold_time: Duration,
    /// Wait after a failure, doubled for each further one.
    pub connect_retry: Duration,
    /// Longest wait between attempts.
    pub connect_retry_max: Duration,
    /// How long a connection may take to be accepted.
    pub connect_timeout: Duration,
    /// Time to live of what we send, and what we accept.
    pub ttl: Ttl,
    /// Wait for the router to connect.
    pub passive: bool,
    /// Next hop of what we announce to it; our address of the connection if not given.
    pub next_hop: Option<Ipv4Addr>,
    /// MED, where the VIP has none of its own.
    pub med: Option<u32>,
    /// LOCAL_PREF; sent only where `remote_as` is our own.
    pub local_pref: u32,
    /// Communities on every VIP.
    pub communities: Vec<Community>,
}

/// The time to live (IPv4) of packets to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The kernel's default, for internal neighbours.
    System,
    /// Exactly this many hops.
    Hops(u8),
    /// Generalized TTL security (RFC 5082): send 255, accept nothing below.
    Security,
}

/// A TCP MD5 key or where to find it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The key itself.
    Text(String),
    /// A file that holds it; read at each attempt to connect, so that it can be changed without a restart. The listener reads it once.
    File(NamedFile),
}

impl Password {
    /// The key.
    ///
    /// # Errors
    /// If the file can't be read, or what it holds can't be a key.
    pub fn read(&self) -> Result<String, Error> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(file) => file.path(),
        };
        let unreadable = |source| Error::PasswordFile {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = open_regular(path).map_err(unreadable)?;
        file.take(MAX_MD5_KEY as u64 + 2)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        key_in(&text).map_or_else(
            || Err(Error::Password(path.to_owned())),
            |key| Ok(key.to_owned()),
        )
    }
}

/// The key that a file with this text holds, if it is one.
fn key_in(text: &str) -> Option<&str> {
    let key = text.trim_end_matches(['\n', '\r']);
    (1..=MAX_MD5_KEY).contains(&key.len()).then_some(key)
}

/// Never shows the key.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Password(...)"),
            Self::File(file) => write!(f, "Password({})", file.path().display()),
        }
    }
}

impl FromValue for Community {
    const EXPECTED: &'static str =
        "a community such as \"65010:100\", \"65010:1:2\" (large) or \"no-export\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(String::new)
    }
}

/// Keys of `[bgp]` that each neighbour may override.
struct Defaults {
    hold_time: Duration,
    connect_retry: Duration,
    connect_retry_max: Duration,
    connect_timeout: Duration,
    next_hop: Option<Ipv4Addr>,
    med: Option<u32>,
    local_pref: u32,
    communities: Vec<Community>,
}

impl Defaults {
    fn parse(bgp: &mut Table<'_>) -> Self {
        let first = Self {
            hold_time: Duration::from_secs(9),
            connect_retry: Duration::from_secs(1),
            connect_retry_max: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            next_hop: None,
            med: None,
            local_pref: 100,
            communities: Vec::new(),
        };
        first.overridden(bgp)
    }

    fn overridden(&self, table: &mut Table<'_>) -> Self {
        let connect_retry = table.within(
            "connect_retry",
            millis(100)..=millis(300_000),
            self.connect_retry,
        );
        let connect_retry_max = table.within(
            "connect_retry_max",
            millis(100)..=millis(300_000),
            self.connect_retry_max,
        );
        if connect_retry > connect_retry_max && table.has("connect_retry_max") {
            table.mistake("connect_retry_max", "is shorter than connect_retry", "");
        }
        Self {
            hold_time: hold_time(table, self.hold_time),
            connect_retry,
            connect_retry_max: connect_retry_max.max(connect_retry),
            connect_timeout: table.within(
                "connect_timeout",
                millis(100)..=millis(300_000),
                self.connect_timeout,
            ),
            next_hop: unicast(table, "next_hop").or(self.next_hop),
            med: table.optional("med").or(self.med),
            local_pref: table.or("local_pref", self.local_pref),
            communities: communities(table).unwrap_or_else(|| self.communities.clone()),
        }
    }
}

impl NeighbourSettings {
    fn parse(
        table: &mut Table<'_>,
        defaults: &Defaults,
        local_as: Option<u32>,
        listening: bool,
    ) -> Option<Self> {
        let address = required_unicast(table, "address");
        let remote_as = autonomous_system(table, "remote_as");
        let port = table.within("port", 1..=u16::MAX, BGP_PORT);
        let local_address = unicast(table, "local_address");
        let password = password(table);
        let passive = table.or("passive", false);
        if passive && !listening {
            table.mistake(
                "passive",
                "needs a listener",
                "add `listen = \"0.0.0.0:179\"` to [bgp]",
            );
        }
        let own = defaults.overridden(table);
        let ttl = ttl(table, remote_as.is_some() && remote_as == local_as);
        Some(Self {
            address: address?,
            port,
            remote_as: remote_as?,
            local_address,
            password,
            hold_time: own.hold_time,
            connect_retry: own.connect_retry,
            connect_retry_max: own.connect_retry_max,
            connect_timeout: own.connect_timeout,
            ttl,
            passive,
            next_hop: own.next_hop,
            med: own.med,
            local_pref: own.local_pref,
            communities: own.communities,
        })
    }
}

fn vips(bgp: &mut Table<'_>, policy_default: VipPolicy) -> BTreeMap<Ipv4Addr, VipSettings> {
    let mut vips = BTreeMap::new();
    let mut tables = bgp.tables_by("vips", "address");
    for table in &mut tables {
        let address = required_unicast(table, "address");
        let attributes = Attributes {
            med: table.optional("med"),
            communities: communities(table).unwrap_or_default(),
        };
        let policy = policy(table, policy_default);
        if let Some(address) = address {
            vips.insert(address, VipSettings { policy, attributes });
        }
    }
    bgp.unique_in::<Ipv4Addr>("VIP", &tables, "address");
    vips
}

fn policy(table: &mut Table<'_>, default: VipPolicy) -> VipPolicy {
    let choices = [("all", AnnounceWhen::All), ("any", AnnounceWhen::Any)];
    VipPolicy {
        minimum_healthy: table.or("minimum_healthy", default.minimum_healthy),
        announce_when: table.one_of_or("announce_when", &choices, default.announce_when),
        announce_after: table.within(
            "announce_after",
            Duration::ZERO..=millis(600_000),
            default.announce_after,
        ),
    }
}

fn autonomous_system(table: &mut Table<'_>, key: &'static str) -> Option<u32> {
    let number: u32 = table.required(key)?;
    // AS 0 is nobody (RFC 7607), 23456 stands for a number too large for an old speaker (RFC 6793 9).
    if matches!(number, 0 | 23456 | u32::MAX) {
        table.mistake(
            key,
            format!("{number} is reserved"),
            "private use: 64512 to 65534, 4200000000 to 4294967294",
        );
        return None;
    }
    Some(number)
}

fn router_id(bgp: &mut Table<'_>) -> Option<Ipv4Addr> {
    let id: Ipv4Addr = bgp.required("router_id")?;
    if id.is_unspecified() {
        bgp.mistake(
            "router_id",
            "0.0.0.0 can't identify a router (RFC 6286)",
            "write an address of this node",
        );
        return None;
    }
    Some(id)
}

fn listen(bgp: &mut Table<'_>) -> Option<SocketAddrV4> {
    match bgp.optional("listen")? {
        std::net::SocketAddr::V4(listen) => Some(listen),
        std::net::SocketAddr::V6(_) => {
            bgp.mistake(
                "listen",
                "expected an IPv4 address with a port",
                "write \"0.0.0.0:179\"",
            );
            None
        }
    }
}

fn required_unicast(table: &mut Table<'_>, key: &'static str) -> Option<Ipv4Addr> {
    let address = table.required(key)?;
    checked_unicast(table, key, address)
}

fn unicast(table: &mut Table<'_>, key: &'static str) -> Option<Ipv4Addr> {
    let address = table.optional(key)?;
    checked_unicast(table, key, address)
}

fn checked_unicast(
    table: &mut Table<'_>,
    key: &'static str,
    address: Ipv4Addr,
) -> Option<Ipv4Addr> {
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        table.mistake(
            key,
            format!("{address} is not the address of one machine"),
            "",
        );
        return None;
    }
    Some(address)
}

fn hold_time(table: &mut Table<'_>, default: Duration) -> Duration {
    // RFC 4271 4.2: a whole number of seconds in 16 bits, three at least. None at all would let a dead path keep its routes.
    let hold_time = table.within(
        "hold_time",
        millis(3_000)..=Duration::from_secs(65_535),
        default,
    );
    if hold_time.subsec_nanos() != 0 {
        table.mistake(
            "hold_time",
            format!("expected whole seconds, got {}", hold_time.written()),
            "",
        );
    }
    hold_time
}

fn communities(table: &mut Table<'_>) -> Option<Vec<Community>> {
    let communities: Vec<Community> = table.optional("communities")?;
    if communities.len() > 64 {
        table.mistake(
            "communities",
            format!("expected at most 64, got {}", communities.len()),
            "",
        );
        return None;
    }
    Some(communities)
}

fn password(table: &mut Table<'_>) -> Option<Password> {
    let text: Option<String> = table.secret().optional("password");
    let file = table.file_holding("password_file", |bytes| {
        match std::str::from_utf8(bytes).ok().and_then(key_in) {
            Some(_) => Ok(()),
            None => Err(format!("expected one line of 1 to {MAX_MD5_KEY} bytes")),
        }
    });
    match (text, file) {
        (Some(_), Some(_)) => {
            table.mistake(
                "password_file",
                "there is a `password` too",
                "keep one of them",
            );
            None
        }
        (Some(text), None) if text.is_empty() || text.len() > MAX_MD5_KEY => {
            table.mistake(
                "password",
                format!("expected 1 to {MAX_MD5_KEY} bytes, got {}", text.len()),
                "",
            );
            None
        }
        (Some(text), None) => Some(Password::Text(text)),
        (None, file) => file.map(Password::File),
    }
}

fn ttl(table: &mut Table<'_>, internal: bool) -> Ttl {
    let hops = table.optional_within("ttl", 1..=u8::MAX);
    match (table.or("ttl_security", false), hops) {
        (true, None) => Ttl::Security,
        (true, Some(_)) => {
            table.mistake(
                "ttl",
                "has no meaning with ttl_security, which sends 255",
                "keep one of them",
            );
            Ttl::Security
        }
        (false, Some(hops)) => Ttl::Hops(hops),
        // An external router is on the same segment unless `ttl` says otherwise.
        (false, None) if internal => Ttl::System,
        (false, None) => Ttl::Hops(1),
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
