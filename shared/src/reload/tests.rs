//! A reload of a small tier, as its file changes.

use std::path::PathBuf;
use std::sync::Mutex as Shared;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::config::{NamedFile, Table};

#[derive(Debug, Clone, PartialEq)]
struct Toy {
    port: u16,
    weight: u16,
    /// Declared to be live, though nobody follows it.
    forgotten: u16,
    key: Option<NamedFile>,
    /// Read whenever it is needed, of a table that needs a restart.
    password: Option<PathBuf>,
}

impl Configuration for Toy {
    const TIER: &'static str = "toy";
    const ADMIN_PORT: u16 = 1;

    fn parse(root: &mut Table<'_>) -> Option<Self> {
        let mut live = root.live();
        if root.has("warns") {
            root.warning("warns", "is of no use", "");
        }
        Some(Self {
            port: root.or("port", 80),
            weight: live.within("weight", 0..=10, 1),
            forgotten: live.or("forgotten", 0),
            key: live.file("key"),
            password: root.reread_file("password"),
        })
    }

    fn feasible(&self) -> Result<Vec<Warning>, String> {
        match self.weight {
            7 => Err("7 is too heavy".into()),
            _ => Ok(Vec::new()),
        }
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        fn fixed(config: &Toy) -> impl PartialEq + '_ {
            let Toy {
                port,
                weight: _,
                forgotten,
                key: _,
                password,
            } = config;
            (port, forgotten, password)
        }
        fixed(self) == fixed(other)
    }
}

/// What runs: follows all but weight 9, which takes a while to be refused.
#[derive(Clone, Default)]
struct Running {
    followed: Arc<Shared<Vec<u16>>>,
    tried: Arc<AtomicUsize>,
}

impl Follow<Toy> for Running {
    fn follow(&self, step: Step<Toy>) -> BoxFuture<'static, Result<(), String>> {
        let followed = self.followed.clone();
        self.tried.fetch_add(1, Ordering::Relaxed);
        async move {
            if step.after.weight == 9 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Err("9 can't be carried".into());
            }
            followed.lock().unwrap().push(step.after.weight);
            Ok(())
        }
        .boxed()
    }

    fn notes(&self, step: Step<Toy>) -> BoxFuture<'static, Vec<String>> {
        let note = (step.after.weight == 3).then(|| "3 brings bad luck".to_owned());
        std::future::ready(note.into_iter().collect()).boxed()
    }

    fn would_end(&self, step: Step<Toy>) -> BoxFuture<'static, Vec<String>> {
        let lost = u16::saturating_sub(step.before.weight, step.after.weight);
        std::future::ready(vec![format!("{lost} flows: the weight falls")]).boxed()
    }
}

struct Node {
    directory: tempfile::TempDir,
    running: Running,
    reloader: Reloader<Toy>,
}

impl Node {
    fn start(text: &str) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("toy.toml");
        std::fs::write(&file, text).unwrap();
        let reloader = Reloader::new(Loaded::read(&file, Unusable::Warns).unwrap());
        let running = Running::default();
        reloader.followed_by(running.clone());
        Node {
            directory,
            running,
            reloader,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("toy.toml")
    }

    async fn reload(&self, text: &str) -> Result<Vec<String>, String> {
        std::fs::write(self.file(), text).unwrap();
        let reloaded = self.reloader.reload("test").await?;
        Ok(reloaded.changes.iter().map(ToString::to_string).collect())
    }

    async fn plan(&self, text: &str) -> Result<Plan, String> {
        let name = "new.toml".to_owned();
        self.reloader.would_do(name, text.to_owned()).await
    }

    fn followed(&self) -> Vec<u16> {
        self.running.followed.lock().unwrap().clone()
    }

    /// How many reloads came as far as to be followed or refused by what runs.
    fn tried(&self) -> usize {
        self.running.tried.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_live_key_is_followed_and_nothing_is_where_nothing_has_changed() {
    let node = Node::start("weight = 2");
    let change = node.reload("weight = 3").await.unwrap();
    assert_eq!(change, ["weight: 2 -> 3"]);
    assert_eq!(node.reloader.current().weight, 3);
    assert_eq!(
        node.reload("weight = 3 # still").await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(node.followed(), [3]);
    let standing = node.reloader.standing();
    assert_eq!(standing.refused, None);
    let last = standing.last_change.unwrap();
    assert_eq!((last.by.as_str(), last.left_out), ("test", 0));
    assert_eq!(last.changes, ["weight: 2 -> 3"]);
}

#[tokio::test]
async fn whatever_stands_in_the_way_changes_nothing_and_is_told_in_the_status() {
    let node = Node::start("weight = 2");
    let file = node.file().display().to_string();
    for (text, why) in [
        (
            "weight = 99",
            format!("{file}:1: weight: expected an integer from 0 to 10, got 99"),
        ),
        (
            "wieght = 3",
            format!("{file}:1: wieght: unknown key — did you mean `weight`?"),
        ),
        ("weight = 7", "7 is too heavy".to_owned()),
        ("weight = 9", "9 can't be carried".to_owned()),
        (
            "weight = 3\nport = 81",
            format!(
                "{file}:2: port: takes effect by a restart only\nput them back to have the other changes (1) without one"
            ),
        ),
        (
            "port = 81\nweight = 2",
            format!("{file}:1: port: takes effect by a restart only"),
        ),
        (
            "weight = 2\nkey = \"/nonexistent\"",
            format!(
                "{file}:2: key: /nonexistent: can't be read: No such file or directory (os error 2)"
            ),
        ),
        (
            "weight = 99\nkey = \"/nonexistent\"\nprot = 81",
            format!(
                "{file}:1: weight: expected an integer from 0 to 10, got 99\n\
                 {file}:2: key: /nonexistent: can't be read: No such file or directory (os error 2)\n\
                 {file}:3: prot: unknown key — did you mean `port`?"
            ),
        ),
    ] {
        assert_eq!(node.reload(text).await, Err(why.clone()), "{text}");
        assert_eq!(node.reloader.current().weight, 2);
        let standing = node.reloader.standing();
        assert_eq!(standing.refused.as_ref(), Some(&why));
        assert_eq!(standing.last_refusal.unwrap().why, why);
    }
    assert_eq!(node.followed(), [0; 0]);
    node.reload("weight = 3").await.unwrap();
    let standing = node.reloader.standing();
    assert_eq!(standing.refused, None);
    assert!(standing.last_refusal.is_some());
}

#[test]
fn a_refusal_is_one_line_of_the_log_however_many_mistakes_there_are() {
    assert_eq!(in_short("7 is too heavy"), "7 is too heavy");
    assert_eq!(
        in_short("a:1: x\na:2: y\na:3: z"),
        "a:1: x (and 2 more, see status)"
    );
}

#[tokio::test]
async fn a_key_that_is_declared_live_and_followed_by_nobody_refuses_the_reload() {
    let node = Node::start("");
    let why = node.reload("weight = 2\nforgotten = 1").await.unwrap_err();
    assert!(
        why.ends_with("(please report it): forgotten, weight"),
        "{why}"
    );
    assert_eq!(node.followed(), [0; 0]);
    let plan = node.plan("forgotten = 1").await.unwrap();
    assert!(plan.refused.unwrap().contains("forgotten"));
}

#[tokio::test]
async fn the_content_of_a_named_file_is_a_change() {
    let node = Node::start("");
    let key = node.directory.path().join("key");
    let text = format!("key = {:?}", key.to_str().unwrap());
    std::fs::write(&key, "old").unwrap();
    node.reload(&text).await.unwrap();
    let before = node.reloader.current();
    assert_eq!(node.reload(&text).await.unwrap(), Vec::<String>::new());
    std::fs::write(&key, "new").unwrap();
    assert_eq!(
        node.reload(&text).await.unwrap(),
        [format!("key: the content of {key:?} has changed")]
    );
    assert_ne!(before.key, node.reloader.current().key);
    assert_eq!(node.followed().len(), 2);
}

#[tokio::test]
async fn other_content_of_a_file_that_is_read_whenever_it_is_needed_takes_effect_and_another_file_by_a_restart()
 {
    let text = |path: &PathBuf| format!("password = {:?}", path.to_str().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    for file in [&one, &two] {
        std::fs::write(file, "old").unwrap();
    }
    let node = Node::start(&text(&one));
    std::fs::write(&one, "new").unwrap();
    let changed = format!("password: the content of {one:?} has changed");
    let plan = node.plan(&text(&one)).await.unwrap();
    assert_eq!(plan.refused, None);
    assert_eq!(node.reload(&text(&one)).await.unwrap(), [changed]);

    let why = node.reload(&text(&two)).await.unwrap_err();
    let file = node.file().display().to_string();
    assert_eq!(
        why,
        format!("{file}:1: password: takes effect by a restart only")
    );
    // Nothing is refused for want of it: it may be there when it is needed.
    std::fs::remove_file(&one).unwrap();
    std::fs::write(node.file(), text(&one)).unwrap();
    let reloaded = node.reloader.reload("test").await.unwrap();
    let warned: Vec<String> = reloaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warned.len() == 1
            && warned[0].contains("toy.toml:1: password: ")
            && warned[0].contains("can't be read"),
        "{warned:?}"
    );
}

#[tokio::test]
async fn a_plan_says_what_would_change_and_end_and_changes_nothing() {
    let node = Node::start("weight = 5");
    let plan = node.plan("weight = 2\nwarns = true").await.unwrap();
    assert_eq!(
        serde_json::to_value(&plan).unwrap(),
        json!({
            "changes": [
                { "change": "weight: 5 -> 2", "needs_restart": false },
                { "change": "warns: (default) -> true", "needs_restart": true },
            ],
            "ends": [],
            "warnings": ["new.toml:2: warns: is of no use"],
            "refused": "one of these takes effect by a restart only",
        })
    );
    let plan = node.plan("weight = 2").await.unwrap();
    assert_eq!(plan.refused, None);
    assert_eq!(plan.ends, ["3 flows: the weight falls"]);
    assert_eq!(plan.warnings, [""; 0]);
    let plan = node.plan("weight = 3").await.unwrap();
    assert_eq!(plan.warnings, ["3 brings bad luck"]);
    assert_eq!(node.plan("weight = 5").await.unwrap().changes, []);
    assert_eq!(
        node.plan("weight = x").await.unwrap_err().lines().count(),
        1
    );
    assert_eq!(node.followed(), [0; 0]);
    assert_eq!(node.reloader.current().weight, 5);
    assert_eq!(node.reloader.standing().last_refusal, None);
}

#[tokio::test]
async fn a_reload_hands_over_what_the_tier_notes() {
    let node = Node::start("weight = 5");
    std::fs::write(node.file(), "weight = 3").unwrap();
    let args = json!({ "by": "test" });
    let answer = node.reloader.command("reload", &args).unwrap().await;
    let answer = answer.unwrap();
    assert_eq!(answer["warnings"], json!(["3 brings bad luck"]));
    let again = node.reloader.command("reload", &args).unwrap().await;
    assert_eq!(again.unwrap()["warnings"], json!([]));
}

#[tokio::test]
async fn a_plan_opens_no_files_but_beside_those_that_are_read_already() {
    let node = Node::start("");
    let elsewhere = tempfile::tempdir().unwrap();
    let (far, near) = (
        elsewhere.path().join("key"),
        node.directory.path().join("key"),
    );
    for file in [&far, &near] {
        std::fs::write(file, "x").unwrap();
    }
    let text = |file: &PathBuf| format!("key = {:?}", file.to_str().unwrap());
    let why = node.plan(&text(&far)).await.unwrap_err();
    assert!(
        why.contains("is not beside a file that is read already"),
        "{why}"
    );
    assert_eq!(node.plan(&text(&near)).await.unwrap().changes.len(), 1);
    let around = node
        .directory
        .path()
        .join("..")
        .join(far.strip_prefix(far.ancestors().nth(2).unwrap()).unwrap());
    assert!(around.exists());
    node.plan(&text(&around)).await.unwrap_err();
    // What a reload would read now, a plan may read as well.
    std::fs::write(node.file(), text(&far)).unwrap();
    assert_eq!(node.plan(&text(&far)).await.unwrap().changes.len(), 1);
}

#[tokio::test]
async fn reloads_take_turns_and_end_with_the_process() {
    let node = Node::start("weight = 1");
    std::fs::write(node.file(), "weight = 9").unwrap();
    let slow = node.reloader.clone();
    let slow = tokio::spawn(async move { slow.reload("slow").await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(node.reload("weight = 2").await.unwrap(), ["weight: 1 -> 2"]);
    assert_eq!(slow.await.unwrap(), Err("9 can't be carried".to_owned()));
    node.reloader.close().await;
    let leaving = "the process is leaving".to_owned();
    assert_eq!(node.reload("weight = 3").await, Err(leaving.clone()));
    assert_eq!(node.plan("weight = 3").await, Err(leaving));
    assert_eq!(node.followed(), [2]);
}

#[tokio::test]
async fn signals_that_come_while_a_reload_runs_are_one_reload_after_it() {
    let node = Node::start("weight = 1");
    std::fs::write(node.file(), "weight = 9").unwrap();
    node.reloader.reload_on_signal();
    while node.tried() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..5 {
        node.reloader.reload_on_signal();
    }
    // Turns are taken in order: whatever the signals asked for is done when this one has its own.
    node.reloader.reload("test").await.unwrap_err();
    assert_eq!(node.tried(), 3);
    // None is lost that comes later.
    node.reloader.reload_on_signal();
    node.reloader.reload("test").await.unwrap_err();
    assert_eq!(node.tried(), 5);
}

#[tokio::test]
async fn a_process_that_has_not_started_refuses() {
    let node = Node::start("");
    let loaded = Loaded::<Toy>::read(&node.file(), Unusable::Warns).unwrap();
    let reloader = Reloader::new(loaded);
    assert_eq!(
        reloader.reload("test").await,
        Err("the process is still starting".to_owned())
    );
}
