//! The sections every tier has: `[node]`, `[admin]`, `[bus]`, `[log]`. The reference is `deploy/reference/shared.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Table;
use super::table::nearest;

/// `[node]`: who this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSection {
    /// Stable name of the node, unique within its tier: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub id: String,
}

impl NodeSection {
    /// Reads `[node]` of the root table. `node.id` is required.
    pub fn parse(root: &mut Table<'_>) -> Option<Self> {
        let mut node = root.required_table("node")?;
        let id: String = node.required("id")?;
        node.allows_name("id", &id, "a node").then_some(Self { id })
    }
}

/// `[admin]`: the listener for metrics, health, status and commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSection {
    /// Where to listen.
    pub listen: SocketAddr,
}

impl AdminSection {
    /// Reads `[admin]` of the root table; without `listen`, 127.0.0.1 with the tier's own port.
    pub fn parse(root: &mut Table<'_>, default_port: u16) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], default_port));
        let listen = root
            .table("admin")
            .map_or(default, |mut admin| admin.or("listen", default));
        Self { listen }
    }
}

/// `[bus]`: how the nodes share state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusSection {
    /// The way records travel.
    pub transport: Transport,
}

/// The way records travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// They don't: watchers in this process only. The default, with nothing to install.
    Local,
    /// A JetStream key-value bucket.
    Nats(Box<NatsSection>),
}

/// `[bus.nats]`: the servers and the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsSection {
    /// Server addresses as `host:port` or `nats://host:port` or `tls://host:port`; at least one.
    pub servers: Vec<String>,
    /// Name of the key-value bucket.
    pub bucket: String,
    /// Copies the servers keep of the bucket (a cluster's size at most).
    pub replicas: usize,
    /// User and password, where the server asks for them.
    pub login: Option<Login>,
    /// A file with NATS credentials (JWT and key), where the server asks for them.
    pub credentials: Option<PathBuf>,
    /// Certificate authority the server's certificate must come from, PEM. Setting it requires TLS.
    pub ca: Option<PathBuf>,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Longest pause between two attempts to connect.
    pub retry_max: Duration,
    /// How long the servers remember that a key was deleted; a node cut off for longer keeps what it knew of the key.
    pub deletes_kept: Duration,
    /// Where what was last known is kept for the next life of the process. Without it, in the directory that systemd makes for the unit; without that,
    /// nowhere.
    pub state_dir: Option<PathBuf>,
}

/// A user's name and password at the NATS server.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// Password, read from the file named in the configuration.
    pub password_file: PathBuf,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl BusSection {
    /// Reads `[bus]` of the root table; without it, the bus stays within the process.
    pub fn parse(root: &mut Table<'_>) -> Self {
        let local = Self {
            transport: Transport::Local,
        };
        let Some(mut bus) = root.table("bus") else {
            return local;
        };
        let by_nats = bus.one_of_or("transport", &[("local", false), ("nats", true)], false);
        let nats = bus
            .table("nats")
            .and_then(|mut table| NatsSection::parse(&mut table));
        match (by_nats, nats) {
            (true, Some(nats)) => Self {
                transport: Transport::Nats(Box::new(nats)),
            },
            (true, None) => {
                if !bus.has("nats") {
                    bus.mistake(
                        "nats",
                        "is missing",
                        "transport = \"nats\" needs [bus.nats] with `servers`",
                    );
                }
                local
            }
            (false, _) => local,
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl NatsSection {
    fn parse(table: &mut Table<'_>) -> Option<Self> {
        let servers = table.required::<Vec<String>>("servers");
        if let Some(servers) = &servers {
            if servers.is_empty() {
                table.mistake(
                    "servers",
                    "expected at least one server",
                    "write [\"127.0.0.1:4222\"]",
                );
            }
            for server in servers {
                if server.parse::<async_nats::ServerAddr>().is_err() {
                    table.mistake(
                        "servers",
                        format!("{server:?} is not a NATS server"),
                        "write \"host:port\"",
                    );
                }
            }
        }
        let bucket = table.or("bucket", "weir".to_owned());
        if !(1..=64).contains(&bucket.len())
            || !bucket
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            table.mistake(
                "bucket",
                format!("{bucket:?} can't be a bucket's name"),
                "1 to 64 letters, digits, dashes or underscores",
            );
        }
        let user = table.optional::<String>("user");
        let password_file = table.reread_file("password_file");
        let login = match (user, password_file) {
            (Some(user), Some(password_file)) => Some(Login {
                user,
                password_file,
            }),
            (None, None) => None,
            (Some(_), None) => {
                table.mistake("password_file", "is missing", "`user` needs it");
                None
            }
            (None, Some(_)) => {
                table.mistake("user", "is missing", "`password_file` needs it");
                None
            }
        };
        Some(Self {
            bucket,
            replicas: table.within("replicas", 1..=5, 1),
            login,
            credentials: table.reread_file("credentials"),
            ca: table.reread_file("ca"),
            connect_timeout: table.within(
                "connect_timeout",
                Duration::from_millis(100)..=Duration::from_secs(60),
                Duration::from_secs(2),
            ),
            retry_max: table.within(
                "retry_max",
                Duration::from_millis(100)..=Duration::from_secs(300),
                Duration::from_secs(2),
            ),
            state_dir: table.optional("state_dir"),
            deletes_kept: table.within("deletes_kept", Duration::from_secs(1)..=365 * DAY, DAY),
            servers: servers?,
        })
    }
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSection {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// What is logged, as a filter such as `info` or `info,l7_proxy=debug`.
    pub level: String,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

impl LogSection {
    /// Reads `[log]` of the root table; without it, text from `info` up.
    pub fn parse(root: &mut Table<'_>) -> Self {
        let default = Self::default();
        let Some(mut log) = root.table("log") else {
            return default;
        };
        let format = log.one_of_or(
            "format",
            &[("json", LogFormat::Json), ("text", LogFormat::Text)],
            default.format,
        );
        let level = log.or("level", default.level);
        if let Some((message, near)) = mistaken(&level) {
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "write \"info\", or \"info,l7_proxy=debug\"".to_owned(),
            };
            log.mistake("level", message, hint);
        }
        Self { format, level }
    }
}

/// The levels there are, each with all that is above it.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What is wrong with a log filter, and the level that may have been meant. A word that is no level is a module to `EnvFilter`, of which
/// all is logged, and of all others nothing: so each part must say its level.
fn mistaken(filter: &str) -> Option<(String, Option<&'static str>)> {
    for part in filter.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if LEVELS
            .iter()
            .all(|known| !level.eq_ignore_ascii_case(known))
        {
            let message = format!("expected error, warn, info, debug or trace, got {level:?}");
            return Some((message, nearest(level, LEVELS.into_iter())));
        }
    }
    // Spaces around a module would be part of its name.
    let spaced = filter.contains(char::is_whitespace);
    let refused = spaced || tracing_subscriber::EnvFilter::try_new(filter).is_err();
    refused.then(|| (format!("{filter:?} is not a log filter"), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    #[test]
    fn a_log_filter_says_a_level_for_all_or_by_module() {
        let parsed = |level: &str| {
            let document =
                Document::from_toml("f.toml", &format!("[log]\nlevel = {level:?}")).unwrap();
            document
                .parse(|root| Some(LogSection::parse(root)))
                .map_err(|mistakes| mistakes.to_string())
        };
        for level in [
            "error",
            "WARN",
            "off",
            "info,l4_gateway=debug",
            "l4_gateway::control=trace",
            "warn,async_nats=off,[request]=debug",
        ] {
            assert_eq!(parsed(level).unwrap().level, level);
        }
        let expected = "log.level: expected error, warn, info, debug or trace, got";
        let example = "write \"info\", or \"info,l7_proxy=debug\"";
        for (level, mistake) in [
            (
                "warning",
                format!("{expected} \"warning\" — did you mean \"warn\"?"),
            ),
            ("verbose", format!("{expected} \"verbose\" — {example}")),
            (
                "inof",
                format!("{expected} \"inof\" — did you mean \"info\"?"),
            ),
            ("", format!("{expected} \"\" — {example}")),
            ("3", format!("{expected} \"3\" — {example}")),
            (
                "info,l4_gateway",
                format!("{expected} \"l4_gateway\" — {example}"),
            ),
            (
                "info,l4_gateway=debgu",
                format!("{expected} \"debgu\" — did you mean \"debug\"?"),
            ),
            (
                "l4_gateway=debug, info",
                format!("{expected} \" info\" — did you mean \"info\"?"),
            ),
            (
                "info, l4_gateway=debug",
                format!("log.level: \"info, l4_gateway=debug\" is not a log filter — {example}"),
            ),
            (
                "info,[{=debug",
                format!("log.level: \"info,[{{=debug\" is not a log filter — {example}"),
            ),
        ] {
            assert_eq!(parsed(level).unwrap_err(), format!("f.toml:2: {mistake}"));
        }
    }
}
