//! `[eal]`, `[workers]` and `[drain]`: what the process takes from the machine, and how it ends.

use std::time::Duration;

use shared::config::{ByteSize, Table};

use crate::worker::Poll;

/// `[eal]`: DPDK's memory and further arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalSection {
    /// Hugepages of the host; otherwise ordinary pages.
    pub huge_pages: bool,
    /// Memory for frames and rings with ordinary pages; worked out from the ports if not given.
    pub memory: Option<ByteSize>,
    /// Frame buffers; worked out from the ports if not given.
    pub frames: Option<u32>,
    /// Keeps the runtime files of nodes on one host apart; the node's id if not given.
    pub file_prefix: Option<String>,
    /// Further arguments for EAL.
    pub args: Vec<String>,
}

/// Arguments that other keys stand for, and those keys.
const SPOKEN_FOR: [(&[&str], &str); 6] = [
    (
        &["-l", "-c", "--lcores", "-s", "--main-lcore"],
        "workers.count and workers.cores",
    ),
    (
        &["-a", "--allow", "--vdev", "-b", "--block"],
        "the `device` of [[ports]]",
    ),
    (&["--no-huge"], "eal.huge_pages"),
    (&["-m"], "eal.memory"),
    (&["--file-prefix"], "eal.file_prefix"),
    (
        &["-h", "--help", "-v", "--version"],
        "the command line of l4-gateway",
    ),
];

impl EalSection {
    pub(super) fn parse(root: &mut Table<'_>) -> EalSection {
        let Some(mut eal) = root.table("eal") else {
            return EalSection {
                huge_pages: true,
                memory: None,
                frames: None,
                file_prefix: None,
                args: Vec::new(),
            };
        };
        let huge_pages = eal.or("huge_pages", true);
        let memory = eal.optional_within("memory", ByteSize(32 << 20)..=ByteSize(64 << 30));
        if memory.is_some() && huge_pages {
            eal.mistake(
                "memory",
                "hugepages are taken as they are needed",
                "leave it out, or set huge_pages = false",
            );
        }
        let frames = eal.optional_within("frames", 1023..=8_388_607);
        let file_prefix = eal.optional::<String>("file_prefix");
        if let Some(prefix) = &file_prefix {
            eal.allows_name("file_prefix", prefix, "a group of EAL processes");
        }
        let args = eal.or::<Vec<String>>("args", Vec::new());
        for argument in &args {
            let name = argument.split('=').next().unwrap_or_default();
            if let Some((_, key)) = SPOKEN_FOR.iter().find(|(names, _)| names.contains(&name)) {
                eal.mistake(
                    "args",
                    format!("{name} is set by the gateway itself"),
                    format!("use {key}"),
                );
            }
            if argument.contains('\0') {
                eal.mistake("args", "an argument holds a zero byte", "");
            }
        }
        EalSection {
            huge_pages,
            memory,
            frames,
            file_prefix,
            args,
        }
    }
}

/// `[workers]`: who forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkersSection {
    /// A worker each: the CPU it is pinned to, or none to let the kernel place it.
    pub cpus: Vec<Option<u32>>,
    /// How they wait for frames.
    pub poll: Poll,
    /// Flows each of them holds.
    pub flows: u32,
    /// Sources that all of them together remember: as many for limits as for persistence.
    pub sources: u32,
    /// A worker that has not turned its loop for so long is taken for dead.
    pub stall_limit: Duration,
}

/// Most workers of a node.
pub(super) const MOST_WORKERS: u16 = 64;

impl WorkersSection {
    /// How many workers there are; at least one.
    pub fn count(&self) -> u16 {
        self.cpus.len() as u16
    }

    pub(super) fn parse(root: &mut Table<'_>) -> WorkersSection {
        const LONGEST_SLEEP: Duration = Duration::from_millis(1);
        let defaults = WorkersSection {
            cpus: vec![None],
            poll: Poll::Busy,
            flows: dataplane::DEFAULT_FLOWS,
            sources: dataplane::DEFAULT_SOURCES,
            stall_limit: Duration::from_millis(100),
        };
        let Some(mut workers) = root.table("workers") else {
            return defaults;
        };
        let count = usize::from(workers.within("count", 1..=MOST_WORKERS, 1));
        let cores = workers.optional::<Vec<u32>>("cores");
        if let Some(cores) = &cores {
            if cores.is_empty() || cores.len() > MOST_WORKERS.into() {
                workers.mistake(
                    "cores",
                    format!("expected 1 to {MOST_WORKERS} CPUs, got {}", cores.len()),
                    "",
                );
            }
            if workers.has("count") && count != cores.len() {
                let message = format!("{} CPUs, but count = {count}", cores.len());
                workers.mistake(
                    "cores",
                    message,
                    "`cores` alone says how many workers there are",
                );
            }
            let names: Vec<String> = cores.iter().map(u32::to_string).collect();
            let path = "workers.cores".to_owned();
            workers.unique(
                "CPU",
                names.iter().map(|name| (path.clone(), name.as_str())),
            );
        }
        let sleep = Duration::from_micros(10)..=Duration::from_millis(10);
        let longest = workers.within("longest_sleep", sleep, LONGEST_SLEEP);
        let adaptive = Poll::Adaptive { longest };
        let poll = workers.one_of_or(
            "poll",
            &[("busy", Poll::Busy), ("adaptive", adaptive)],
            defaults.poll,
        );
        if poll == Poll::Busy && workers.has("longest_sleep") {
            workers.mistake(
                "longest_sleep",
                "busy workers never sleep",
                "set poll = \"adaptive\", or leave it out",
            );
        }
        let flows = workers.within("flows", 1024..=1 << 26, defaults.flows);
        let sources = workers.within("sources", 1024..=1 << 26, defaults.sources);
        let stall_limit = workers.within(
            "stall_limit",
            Duration::from_millis(20)..=Duration::from_secs(10),
            defaults.stall_limit,
        );
        let cpus = match cores {
            Some(cores) if !cores.is_empty() => cores.into_iter().map(Some).collect(),
            _ => vec![None; count],
        };
        WorkersSection {
            cpus,
            poll,
            flows,
            sources,
            stall_limit,
        }
    }
}

/// `[drain]`: how a node leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainSection {
    /// After SIGTERM, how long flows may take to finish.
    pub deadline: Duration,
    /// After a reload, how long flows may go on with services, VIPs and LocalIPs that are no longer configured.
    pub removed_addresses: Duration,
}

impl DrainSection {
    pub(super) fn parse(root: &mut Table<'_>) -> DrainSection {
        let mut section = DrainSection {
            deadline: Duration::from_secs(30),
            removed_addresses: Duration::from_secs(3600),
        };
        if let Some(mut drain) = root.live().table("drain") {
            let range = || Duration::ZERO..=Duration::from_secs(24 * 3600);
            let DrainSection {
                deadline,
                removed_addresses,
            } = &mut section;
            *deadline = drain.within("deadline", range(), *deadline);
            *removed_addresses = drain.within("removed_addresses", range(), *removed_addresses);
        }
        section
    }
}
