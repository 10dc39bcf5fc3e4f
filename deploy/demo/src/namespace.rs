//! Network namespaces: built from the [`crate::topology`] with `ip`, entered by a thread, removed whole.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::Lab;
use crate::topology::{self, Network, Node};

/// Name of the namespace that holds the bridges.
const FABRIC: &str = "fabric";
/// Offloads that leave a frame without a checksum or larger than the MTU on veth; a user-space forwarder
/// behind AF_PACKET would pass such frames on as they are.
const OFFLOADS: [&str; 8] = ["rx", "tx", "sg", "tso", "gso", "gro", "rxvlan", "txvlan"];

/// A named network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace `name`; it need not exist yet.
    pub fn named(name: String) -> Namespace {
        Namespace { name }
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// A command that runs `program` inside. `ip netns exec` replaces itself by the program, so the pid of
    /// the spawned child is the program's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` on a thread that has entered the namespace; sockets it opens belong to the namespace, also
    /// after it returned them.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let file = std::fs::File::open(&path).with_context(|| {
            format!(
                "opening {}: is the lab up, and are you root?",
                path.display()
            )
        })?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    use std::os::fd::AsFd;
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                        .with_context(|| format!("entering {}", self.name))?;
                    work()
                })
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread inside {} panicked", self.name)))
        })
    }

    /// Runs several `ip` commands inside, one a line.
    fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("running ip (package iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(lines.as_bytes())
                .context("writing to ip -batch")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "ip -n {} failed: {}\n{lines}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Writes a sysctl of this namespace: `net.ipv4.ip_forward`, `1`.
    fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value)
                    .with_context(|| format!("writing {value} to {path}"))?;
            }
            Ok(())
        })
    }
}

/// Builds every namespace of `lab`, its bridges, links, addresses, sysctls and offload settings. What a crashed
/// run left behind under the same prefix is removed first.
pub fn build(lab: &Lab) -> Result<()> {
    remove(lab)?;
    let fabric = lab.namespace(FABRIC);
    add(&fabric)?;
    fabric.sysctl(&[
        ("net.ipv6.conf.all.disable_ipv6", "1"),
        ("net.ipv6.conf.default.disable_ipv6", "1"),
    ])?;
    let bridges: String = Network::ALL
        .iter()
        .map(|network| {
            let name = network.interface();
            // No spanning tree and no snooping: a port forwards the moment it is up.
            format!("link add br-{name} type bridge stp_state 0 mcast_snooping 0\nlink set br-{name} up\n")
        })
        .collect();
    fabric.ip(&bridges)?;
    for node in topology::nodes() {
        connect(lab, &fabric, &node)?;
    }
    Ok(())
}

/// Removes every namespace whose name begins with the lab's prefix, and with them all links and addresses.
/// Processes inside are not touched: [`crate::process::Processes`] ends those it started.
pub fn remove(lab: &Lab) -> Result<()> {
    for namespace in existing(lab)? {
        run(Command::new("ip").args(["netns", "delete", namespace.name()]))?;
    }
    Ok(())
}

/// The namespaces of `lab` that exist now.
pub fn existing(lab: &Lab) -> Result<Vec<Namespace>> {
    let prefix = lab.namespace_prefix();
    let entries = match std::fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("listing /run/netns"),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            found.push(Namespace::named(name));
        }
    }
    Ok(found)
}

fn add(namespace: &Namespace) -> Result<()> {
    run(Command::new("ip").args(["netns", "add", namespace.name()]))?;
    namespace.ip("link set lo up\n")
}

fn connect(lab: &Lab, fabric: &Namespace, node: &Node) -> Result<()> {
    let namespace = lab.namespace(node.name);
    add(&namespace)?;
    namespace.sysctl(&[
        ("net.ipv6.conf.all.disable_ipv6", "1"),
        ("net.ipv6.conf.default.disable_ipv6", "1"),
        ("net.ipv4.ip_forward", if node.forwards { "1" } else { "0" }),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // A namespace answers ARP only for addresses of the interface that was asked.
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_announce", "2"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ])?;
    if node.forwards {
        // Flows, not packets, are spread over equal next hops: addresses and ports are hashed.
        namespace.sysctl(&[("net.ipv4.fib_multipath_hash_policy", "1")])?;
    }
    let mut inside = String::new();
    let mut outside = String::new();
    for network in &node.networks {
        let interface = network.interface();
        let port = format!("{}-{interface}", node.name);
        inside += &format!(
            "link add {interface} type veth peer name {port} netns {}\n",
            fabric.name()
        );
        inside += &format!(
            "address add {}/24 dev {interface}\nlink set {interface} up\n",
            node.address(*network)
        );
        outside += &format!("link set {port} master br-{interface}\nlink set {port} up\n");
    }
    if let Some(gateway) = node.gateway {
        inside += &format!("route add default via {gateway}\n");
    }
    namespace.ip(&inside)?;
    fabric.ip(&outside)?;
    for network in &node.networks {
        let interface = network.interface();
        offloads_off(&namespace, interface)?;
        offloads_off(fabric, &format!("{}-{interface}", node.name))?;
    }
    Ok(())
}

fn offloads_off(namespace: &Namespace, interface: &str) -> Result<()> {
    let mut command = namespace.command("ethtool");
    command.args(["-K", interface]);
    for offload in OFFLOADS {
        command.args([offload, "off"]);
    }
    run(&mut command).context("switching offloads off (package ethtool)")
}

/// Runs a command to its end; its error output becomes the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
