//! The chain itself: every process with its configuration, started in order and awaited.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::admin;
use crate::certificates;
use crate::k6::repository;
use crate::lab::Lab;
use crate::namespace;
use crate::process::{Processes, Program, predecessor};
use crate::ready;
use crate::render::render;
use crate::router;
use crate::topology::{self, APPS, L4, L7, Network};

/// How long one process may take until it is ready.
const STARTUP: Duration = Duration::from_secs(20);
/// How long the chain may take to be whole again after a node returned.
const HEALING: Duration = Duration::from_secs(20);
/// Ports of the services every application plays, with their names.
pub const SERVICES: [(&str, u16); 3] = [("shop", 8080), ("api", 8081), ("static", 8082)];
/// What a reload of the demo's configurations changes: a backend's weight, timeouts and limits of an L7 node; a scheduler and a target's weight of
/// an L4 node.
const CHANGES: [(&str, &str); 4] = [
    (
        "backends = [{ address = \"10.4.0.31:8080\" }",
        "backends = [{ address = \"10.4.0.31:8080\", weight = 2 }",
    ),
    ("retries = 2", "retries = 3"),
    ("scheduler = \"rr\"", "scheduler = \"wlc\" # was rr"),
    (
        "{ address = \"10.3.0.31:7000\", weight = 2 }",
        "{ address = \"10.3.0.31:7000\", weight = 3 }",
    ),
];
/// Port of the application that L4 reaches without L7, TCP and UDP.
pub const DIRECT_PORT: u16 = 7000;

/// A lab with the chain running in it.
#[derive(Debug)]
pub struct Chain {
    lab: Lab,
    binaries: PathBuf,
    /// Its processes.
    pub processes: Processes,
}

impl Chain {
    /// Builds the lab anew and starts everything; `binaries` is the directory with `l4-gateway`, `l7-proxy` and
    /// `demo`. `say` gets a line for each thing done.
    pub fn up(lab: &Lab, binaries: &Path, say: &dyn Fn(&str)) -> Result<Chain> {
        let mut chain = Chain::clean(lab, binaries)?;
        say("network namespaces, links and bridges");
        namespace::build(lab)?;
        say("certificates and configuration files");
        certificates::issue(&lab.certs())?;
        chain.configure()?;
        for group in [&["nats"][..], &["router"], &APPS, &L7, &L4] {
            say(&format!("starting {}", group.join(", ")));
            for name in group {
                chain.start(name)?;
            }
            for name in group {
                chain.wait_ready(name)?;
            }
        }
        say("waiting until the router has both L4 nodes as next hops and all targets are healthy");
        chain.wait_whole()?;
        Ok(chain)
    }

    /// The chain that an earlier run left up, perhaps with a node missing.
    pub fn attach_part(lab: &Lab, binaries: &Path) -> Result<Chain> {
        if namespace::existing(lab)?.is_empty() {
            bail!("the chain is not up");
        }
        Ok(Chain {
            lab: lab.clone(),
            binaries: binaries.to_owned(),
            processes: Processes::load(lab)?,
        })
    }

    /// The whole chain that an earlier run left up.
    pub fn attach(lab: &Lab, binaries: &Path) -> Result<Chain> {
        let mut chain = Chain::attach_part(lab, binaries)?;
        for name in names() {
            chain
                .processes
                .check_alive(name)
                .context("the chain is not up")?;
        }
        Ok(chain)
    }

    /// Ends every process, removes every namespace. Logs, configuration and results stay.
    pub fn down(lab: &Lab) -> Result<()> {
        let mut processes = Processes::load(lab)?;
        processes.end_all()?;
        namespace::remove(lab)
    }

    fn clean(lab: &Lab, binaries: &Path) -> Result<Chain> {
        Chain::down(lab).context("removing what an earlier run left behind")?;
        for entry in fs::read_dir(lab.directory().join("logs"))? {
            let path = entry?.path();
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(Chain {
            lab: lab.clone(),
            binaries: binaries.to_owned(),
            processes: Processes::load(lab)?,
        })
    }

    /// The lab it runs in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Writes every configuration file and has each binary check its own.
    fn configure(&self) -> Result<()> {
        let write = |file: &str, text: String| {
            let path = self.lab.config(file);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        let store = self.lab.directory().join("nats");
        if store.exists() {
            fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))?;
        }
        write(
            "nats.conf",
            render(
                include_str!("../config/nats.conf"),
                &[("store", store.display().to_string())],
            )?,
        )?;
        let systems = [
            ("router_as", topology::ROUTER_AS.to_string()),
            ("l4_as", topology::L4_AS.to_string()),
        ];
        write(
            "bird.conf",
            render(include_str!("../config/bird.conf"), &systems)?,
        )?;
        let certs = self.lab.certs().display().to_string();
        for (index, id) in L7.into_iter().enumerate() {
            let values = [
                ("id", id.to_owned()),
                ("host", (21 + index).to_string()),
                ("certs", certs.clone()),
                (
                    "log",
                    self.lab.log(&format!("{id}-access")).display().to_string(),
                ),
            ];
            write(
                &format!("{id}.toml"),
                render(include_str!("../config/l7.toml"), &values)?,
            )?;
            self.check("l7-proxy", id)?;
        }
        for (index, id) in L4.into_iter().enumerate() {
            let local = 100 + 10 * index;
            let values = [
                ("id", id.to_owned()),
                ("host", (11 + index).to_string()),
                ("lab", self.lab.namespace_prefix()),
                (
                    "local_ips",
                    format!("\"10.3.0.{local}\", \"10.3.0.{}\"", local + 1),
                ),
                ("router_as", topology::ROUTER_AS.to_string()),
                ("l4_as", topology::L4_AS.to_string()),
            ];
            write(
                &format!("{id}.toml"),
                render(include_str!("../config/l4.toml"), &values)?,
            )?;
            self.check("l4-gateway", id)?;
        }
        Ok(())
    }

    /// Changes the node's configuration file, or changes it back, and has the node reload it. Returns how many changes that was.
    pub fn reload(&self, node: &str, changed: bool) -> Result<usize> {
        let path = self.lab.config(&format!("{node}.toml"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut next = text.clone();
        for (before, after) in CHANGES {
            let (from, to) = if changed {
                (before, after)
            } else {
                (after, before)
            };
            next = next.replace(from, to);
        }
        if next == text {
            bail!("{}: there is nothing to change", path.display());
        }
        fs::write(&path, next).with_context(|| format!("writing {}", path.display()))?;
        let answer = self.command(node, "reload")?;
        let changes = answer["changes"].as_array().map_or(0, Vec::len);
        if changes == 0 {
            bail!("{node} reloaded nothing: {answer}");
        }
        Ok(changes)
    }

    /// Has another process take over from the node's; its process id.
    pub fn upgrade(&mut self, node: &str) -> Result<i32> {
        let answer = self.command(node, "upgrade")?;
        let process = answer["process"].as_i64();
        let process = process.and_then(|process| i32::try_from(process).ok());
        let process = process.with_context(|| format!("{node} answers {answer}"))?;
        self.processes.succeeded(node, process)?;
        Ok(process)
    }

    /// Waits for the process that was taken over from to end by itself.
    pub fn wait_taken_over(&mut self, node: &str, say: &dyn Fn(&str)) -> Result<()> {
        let begin = std::time::Instant::now();
        self.processes
            .wait_gone(&predecessor(node), Duration::from_secs(15))?;
        say(&format!(
            "the old process of {node} ended by itself, {:.1} s later",
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn command(&self, node: &str, name: &str) -> Result<serde_json::Value> {
        let by = serde_json::json!({ "by": "demo" });
        let answer = admin::command(&self.lab, node, name, &by)?;
        if answer.status != 200 {
            bail!(
                "{node} answers {name} with {}: {}",
                answer.status,
                answer.body.trim()
            );
        }
        serde_json::from_str(&answer.body)
            .with_context(|| format!("{node} answers {name} with: {}", answer.body.trim()))
    }

    /// How many flows the L4 node has created for the services behind the VIP since it started.
    pub fn flows_created(&self, node: &str) -> Result<u64> {
        let status = admin::status(&self.lab, node)?;
        let services = status["services"].as_array().context("no services")?;
        let of_vip = services
            .iter()
            .filter(|service| service["vip"] == topology::VIP.to_string());
        of_vip
            .map(|service| {
                let created = service["flows_created"].as_u64();
                created.with_context(|| format!("{node} does not count flows_created: {service}"))
            })
            .sum()
    }

    /// `<binary> check --config <node>.toml`.
    fn check(&self, binary: &str, node: &str) -> Result<()> {
        let executable = self.binary(binary)?;
        let config = self.lab.config(&format!("{node}.toml"));
        let mut command = std::process::Command::new(&executable);
        command.arg("check").arg("--config").arg(&config);
        let output = command
            .output()
            .with_context(|| format!("running {}", executable.display()))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!(
                "{binary} check refuses {}:\n{}",
                config.display(),
                String::from_utf8_lossy(&said)
            );
        }
        Ok(())
    }

    /// The path of one of our binaries.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.binaries.join(name);
        if !path.exists() {
            bail!("{} is missing: build it first (make build)", path.display());
        }
        Ok(path)
    }

    /// Starts the node `name` (again).
    pub fn start(&mut self, name: &str) -> Result<()> {
        let program = self.program(name)?;
        self.processes
            .start(&program)
            .with_context(|| format!("starting {name}"))?;
        Ok(())
    }

    fn program(&self, name: &str) -> Result<Program> {
        let node = topology::node(name).with_context(|| format!("no node is called {name}"))?;
        let config = |file: &str| self.lab.config(file).display().to_string();
        let (executable, arguments) = match name {
            "nats" => (
                PathBuf::from("nats-server"),
                vec!["--config".to_owned(), config("nats.conf")],
            ),
            "router" => {
                let socket = router::socket(&self.lab).display().to_string();
                // In the foreground, with a control socket of its own: a BIRD of the host is not touched.
                (
                    "bird".into(),
                    vec![
                        "-f".into(),
                        "-c".into(),
                        config("bird.conf"),
                        "-s".into(),
                        socket,
                    ],
                )
            }
            _ if L7.contains(&name) => (
                self.binary("l7-proxy")?,
                vec![
                    "run".into(),
                    "--config".into(),
                    config(&format!("{name}.toml")),
                ],
            ),
            _ if L4.contains(&name) => (
                self.binary("l4-gateway")?,
                vec![
                    "run".into(),
                    "--config".into(),
                    config(&format!("{name}.toml")),
                ],
            ),
            _ if APPS.contains(&name) => {
                let mut arguments = vec!["app".to_owned(), "--name".into(), name.into()];
                for (service, port) in SERVICES {
                    arguments.push("--http".into());
                    arguments.push(format!(
                        "{service}={}:{port}",
                        node.address(Network::Business)
                    ));
                }
                let direct = format!("{}:{DIRECT_PORT}", node.address(Network::Internal));
                arguments.extend([
                    "--http".into(),
                    format!("direct={direct}"),
                    "--udp".into(),
                    direct,
                ]);
                (self.binary("demo")?, arguments)
            }
            _ => bail!("{name} runs no process"),
        };
        Ok(Program {
            name: name.into(),
            node: name.into(),
            executable,
            arguments,
            environment: Vec::new(),
        })
    }

    /// Waits until `name` does its work; an error at once when its process ends meanwhile.
    pub fn wait_ready(&mut self, name: &str) -> Result<Duration> {
        let lab = self.lab.clone();
        let processes = &mut self.processes;
        let mut dead = None;
        let ((), took) = ready::until(&format!("{name} to be ready"), STARTUP, || {
            if let Err(reason) = processes.check_alive(name) {
                dead = Some(reason);
                return Ok(());
            }
            is_ready(&lab, name)
        })
        .with_context(|| format!("its log is {}", self.lab.log(name).display()))?;
        match dead {
            Some(reason) => Err(reason),
            None => Ok(took),
        }
    }

    /// Starts what has died, takes back every drain, and waits until the chain is whole.
    pub fn mend(&mut self) -> Result<()> {
        for name in names() {
            if self.processes.check_alive(name).is_err() {
                self.start(name)?;
            }
        }
        for name in L4.into_iter().chain(L7) {
            if admin::ready(&self.lab, name).is_err() {
                // It may as well be starting, and not listen yet; what is wrong then shows below.
                let _ = admin::command(&self.lab, name, "undrain", &serde_json::json!({}));
            }
        }
        self.wait_whole()
    }

    /// Waits until every node is ready and heard by the others, the router spreads over both L4 nodes, and every target is healthy.
    pub fn wait_whole(&mut self) -> Result<()> {
        for name in names() {
            self.wait_ready(name)?;
        }
        let lab = self.lab.clone();
        for node in L4.into_iter().chain(L7) {
            ready::until(&format!("{node} to be heard on the bus"), HEALING, || {
                is_heard(&lab, node)
            })?;
        }
        ready::until(
            "the router to have both L4 nodes as next hops",
            HEALING,
            || {
                let hops = router::next_hops(&lab, topology::VIP)?;
                if hops.len() != L4.len() {
                    bail!("the VIP's next hops are {hops:?}");
                }
                Ok(())
            },
        )?;
        for node in L4 {
            ready::until(
                &format!("{node} to see every target healthy"),
                HEALING,
                || all_targets_up(&lab, node),
            )?;
        }
        Ok(())
    }
}

/// Every process of the chain, in the order it is started.
pub fn names() -> impl Iterator<Item = &'static str> {
    ["nats", "router"]
        .into_iter()
        .chain(APPS)
        .chain(L7)
        .chain(L4)
}

/// The directory that holds this program, where its siblings are built too.
pub fn sibling_binaries() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program's own path")?;
    let directory = me
        .parent()
        .context("this program's path has no directory")?;
    // A test binary lives one level deeper, in deps/.
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    Ok(directory.to_owned())
}

/// The lab of `make demo`: namespaces `weir-*`, files in target/demo.
pub fn demo_lab() -> Result<Lab> {
    Lab::new("weir", &repository().join("target/demo"))
}

fn is_ready(lab: &Lab, name: &str) -> Result<()> {
    let node = topology::node(name).with_context(|| format!("no node is called {name}"))?;
    let connects = |address, port: u16| {
        lab.namespace(name).enter(|| {
            std::net::TcpStream::connect_timeout(
                &(address, port).into(),
                Duration::from_millis(500),
            )
            .map(drop)
            .with_context(|| format!("connecting to {address}:{port}"))
        })
    };
    match name {
        "nats" => connects(node.address(Network::Management), 4222),
        "router" => router::birdc(lab, "show status").map(drop),
        _ if APPS.contains(&name) => connects(node.address(Network::Internal), DIRECT_PORT),
        _ => admin::ready(lab, name),
    }
}

/// An error with the reason while nobody hears what the node says on the bus, such as that it drains.
fn is_heard(lab: &Lab, node: &str) -> Result<()> {
    let status = admin::status(lab, node)?;
    match status["bus"].get("silent") {
        Some(serde_json::Value::Null) => Ok(()),
        Some(why) => bail!("it is silent: {why}"),
        None => bail!("it does not say whether it is silent"),
    }
}

fn all_targets_up(lab: &Lab, node: &str) -> Result<()> {
    let status = admin::status(lab, node)?;
    let down = targets_not_up(&status);
    if !down.is_empty() {
        bail!("not up: {}", down.join(", "));
    }
    Ok(())
}

/// Services of `config/l4.toml` and how many targets each must have up.
const TARGETS: [(&str, usize); 4] = [
    ("http", 2),
    ("https", 2),
    ("direct-tcp", 3),
    ("direct-udp", 3),
];

/// What is missing from the targets in an L4 node's `/status`.
fn targets_not_up(status: &serde_json::Value) -> Vec<String> {
    let services = status["services"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut missing = Vec::new();
    for (name, wanted) in TARGETS {
        let targets = services
            .iter()
            .find(|service| service["name"] == name)
            .and_then(|service| service["targets"].as_array());
        let up = targets.map_or(0, |targets| {
            targets.iter().filter(|target| target["up"] == true).count()
        });
        if up < wanted {
            missing.push(format!("{name} has {up} of {wanted} targets"));
        }
    }
    missing
}
