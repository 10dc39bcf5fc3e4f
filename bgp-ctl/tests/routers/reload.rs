//! A new configuration for the running binary, as routers notice it. Needs nats-server besides.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use shared::bus::Bus;
use shared::config::Document;
use shared::config::sections::BusSection;

use crate::bird::Bird;
use crate::lab::{ROUTER, SPEAKER, in_lab, ip};
use crate::running::{VIP, node, wait_for};
use crate::{PREFIX, SOON};

/// A second router.
const OTHER: &str = "10.2.0.2";
/// In a namespace of the test's own.
const NATS: u16 = 4222;

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary, a nats-server, and a node whose VIP it announces.
struct Rig {
    _bgp_ctl: Process,
    _nats: Process,
    config: PathBuf,
    directory: tempfile::TempDir,
    leaving: Arc<AtomicBool>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

impl Rig {
    fn start(bgp: &str) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let nats = Command::new("/usr/sbin/nats-server")
            .args(["--addr", "127.0.0.1", "--port", &NATS.to_string()])
            .args(["--jetstream", "--store_dir"])
            .arg(directory.path().join("nats"))
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian package nats-server");
        let nats = Process(nats);
        wait_for("nats-server", SOON, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, NATS)).is_ok()
        });
        let config = directory.path().join("bgp.toml");
        std::fs::write(&config, whole(bgp)).unwrap();
        let bgp_ctl = Command::new(env!("CARGO_BIN_EXE_bgp-ctl"))
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let leaving = Arc::new(AtomicBool::new(false));
        let gone = leaving.clone();
        let document = Document::from_toml("bus", &whole(bgp)).unwrap();
        let bus = BusSection::parse(&mut document.root());
        std::thread::spawn(move || {
            let bus = Bus::start(&bus, "l4-1");
            while !gone.load(Ordering::Relaxed) {
                bus.put(node(2));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Rig {
            _bgp_ctl: Process(bgp_ctl),
            _nats: nats,
            config,
            directory,
            leaving,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ask(&self, action: &str, bgp: &str) -> (bool, String) {
        std::fs::write(&self.config, whole(bgp)).unwrap();
        asked(action, &self.config)
    }

    fn reload(&self, bgp: &str, changes: &[&str]) {
        let (done, printed) = self.ask("reload", bgp);
        let lines: Vec<&str> = printed.lines().collect();
        assert!(done, "{printed}");
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(lines, changes);
        assert_eq!(*last, format!("reloaded {}", self.config.display()));
    }

    fn status(&self) -> Value {
        serde_json::from_str(&asked("status", &self.config).1).unwrap()
    }
}

fn asked(action: &str, config: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bgp-ctl"))
        .args([action, "--config"])
        .arg(config)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

fn whole(bgp: &str) -> String {
    format!(
        "node.id = \"bgp-1\"\nfollow.node = \"l4-1\"\nadmin.listen = \"127.0.0.1:9404\"\n\
         [bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"127.0.0.1:{NATS}\"]\n{bgp}"
    )
}

/// `[bgp]` with these lines and the usual router, and perhaps another.
fn bgp(lines: &str, other: Option<&str>) -> String {
    let neighbour = |address: &str, keys: &str| {
        format!("[[bgp.neighbours]]\naddress = \"{address}\"\nremote_as = 65001\n{keys}\n")
    };
    format!(
        "[bgp]\nlocal_as = 65010\nrouter_id = \"{SPEAKER}\"\nhold_time = \"9s\"\nlisten = \"{SPEAKER}:179\"\n\
         connect_retry = \"200ms\"\nconnect_retry_max = \"1s\"\nannounce_after = \"0ms\"\n{lines}\n{}{}",
        other.map_or_else(String::new, |keys| neighbour(OTHER, keys)),
        neighbour(ROUTER, "")
    )
}

/// How often the session came up, as the router has it.
fn came_up(bird: &Bird) -> usize {
    bird.log().matches("weir: State changed to up").count()
}

#[test]
fn sessions_come_go_and_change_one_by_one() {
    in_lab(
        "reload::sessions_come_go_and_change_one_by_one",
        |namespace| {
            ip(&[
                "-n",
                namespace,
                "address",
                "add",
                &format!("{OTHER}/24"),
                "dev",
                "up0",
            ]);
            let untouched = Bird::start(namespace, 65001, 65010, "");
            let rig = Rig::start(&bgp("", None));
            wait_for("the router learns the VIP", SOON, || {
                untouched.knows(PREFIX)
            });

            // A router that comes.
            let other = Bird::start_at(OTHER, namespace, 65001, 65010, "");
            rig.reload(
                &bgp("", Some("med = 5")),
                &["bgp.neighbours.10.2.0.2: added (address \"10.2.0.2\", med 5, remote_as 65001)"],
            );
            wait_for("the other learns the VIP", SOON, || other.knows(PREFIX));
            let med = |bird: &Bird, med: &str| {
                bird.ask(&format!("show route all {PREFIX}")).contains(med)
            };
            assert!(med(&other, "BGP.med: 5"));

            // Other attributes, of one router and of all, without a session that ends.
            rig.reload(
                &bgp("", Some("med = 6\ncommunities = [\"65010:6\"]")),
                &[
                    "bgp.neighbours.10.2.0.2.med: 5 -> 6",
                    "bgp.neighbours.10.2.0.2.communities: (default) -> [\"65010:6\"]",
                ],
            );
            wait_for("another MED", SOON, || med(&other, "BGP.med: 6"));
            assert!(med(&other, "(65010,6)"));
            let vip = format!("vips = [{{ address = \"{VIP}\", med = 7 }}]");
            rig.reload(
                &bgp(&vip, Some("med = 6\ncommunities = [\"65010:6\"]")),
                &["bgp.vips.10.0.0.100: added (address \"10.0.0.100\", med 7)"],
            );
            wait_for("the VIP's MED", SOON, || {
                med(&other, "BGP.med: 7") && med(&untouched, "BGP.med: 7")
            });
            assert_eq!(came_up(&other), 1);

            // What a running session can't change: it ends, and begins anew.
            let plan = rig.ask("plan", &bgp(&vip, Some("hold_time = \"30s\"")));
            assert!(plan.0, "{}", plan.1);
            let end = "would end: the BGP session to 10.2.0.2: it begins anew, as hold_time can't change in a running one\n";
            assert!(plan.1.contains(end), "{}", plan.1);
            assert_eq!(came_up(&other), 1);
            let (done, printed) = rig.ask("reload", &bgp(&vip, Some("hold_time = \"30s\"")));
            assert!(done, "{printed}");
            wait_for("a new session", SOON, || {
                came_up(&other) == 2 && other.knows(PREFIX)
            });
            let hold_time = || rig.status()["neighbours"][OTHER]["hold_time"].clone();
            wait_for("the new hold time", SOON, || hold_time() == 30);

            // A password from a file, and another one in it.
            let password = rig.path("password");
            let keys = format!("password_file = {password:?}");
            let (done, why) = rig.ask("reload", &bgp(&vip, Some(&keys)));
            assert!(
                !done && why.contains("password: can't be read: No such file"),
                "{why}"
            );
            assert_eq!(hold_time(), 30);
            let mut other = other;
            for (secret, change) in [("first", "(default) -> "), ("second", "the content of ")] {
                other.kill();
                std::fs::write(&password, secret).unwrap();
                other = Bird::start_at(
                    OTHER,
                    namespace,
                    65001,
                    65010,
                    &format!("password \"{secret}\";"),
                );
                let (done, printed) = rig.ask("reload", &bgp(&vip, Some(&keys)));
                assert!(done, "{printed}");
                assert!(
                    printed.contains(&format!(".password_file: {change}")),
                    "{printed}"
                );
                assert!(!printed.contains(secret), "{printed}");
                wait_for("a session with the new password", SOON, || {
                    other.knows(PREFIX)
                });
            }

            // A router that goes, and what needs a restart.
            rig.reload(&bgp(&vip, None), &["bgp.neighbours.10.2.0.2: removed"]);
            wait_for("the other forgets the VIP", SOON, || !other.knows(PREFIX));
            assert!(rig.status()["neighbours"][OTHER].is_null());
            let (done, why) = rig.ask("reload", &bgp(&vip, None).replace("65010", "65011"));
            assert!(!done);
            assert!(
                why.contains(": bgp.local_as: takes effect by a restart only\n"),
                "{why}"
            );
            assert_eq!(
                rig.status()["configuration"]["refused"]
                    .as_str()
                    .unwrap()
                    .lines()
                    .count(),
                1
            );

            assert!(untouched.knows(PREFIX));
            assert_eq!(came_up(&untouched), 1, "{}", untouched.log());
            assert!(
                !untouched.log().contains("changed to down"),
                "{}",
                untouched.log()
            );
        },
    );
}
