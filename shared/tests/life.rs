//! The life of a process, asked by signals: a test of its own, as signals are everybody's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::future::pending;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use shared::admin::{Admin, CommandError, client};
use shared::bus::Bus;
use shared::config::sections::LogSection;
use shared::config::{Configuration, Loaded, Table, Unusable};
use shared::lifecycle::{Service, Start, listen};

struct Config {
    log: LogSection,
}

impl Configuration for Config {
    const TIER: &'static str = "test";
    const ADMIN_PORT: u16 = 9;

    fn parse(root: &mut Table<'_>) -> Option<Self> {
        Some(Self {
            log: LogSection::parse(root),
        })
    }

    fn is_fixed_as(&self, other: &Self) -> bool {
        let Self { log } = self;
        *log == other.log
    }
}

struct Nothing;

impl Admin for Nothing {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn status(&self) -> Value {
        Value::Null
    }

    fn command(&self, _: &str, _: Value) -> BoxFuture<'static, Result<Value, CommandError>> {
        Box::pin(std::future::ready(Err(CommandError::Unknown)))
    }
}

/// Writes down what it is asked, and never finishes.
#[derive(Default)]
struct Busy(Mutex<Vec<String>>);

impl Busy {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    async fn noted(&self, what: &str) {
        let last = || self.0.lock().unwrap().last().cloned();
        while last().is_none_or(|last| last != what) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Service for Busy {
    async fn drain(&self, wanted: bool) {
        self.note(if wanted { "drain" } else { "undrain" });
    }

    async fn finish(&self) {
        self.note("finish");
        pending().await
    }

    async fn take_leave(&self, why: &str) {
        self.note(why);
        pending().await
    }
}

fn signal(name: &str) {
    let id = std::process::id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

#[actix::test]
async fn a_process_follows_signals_to_its_end_and_waits_for_nothing_it_is_asked_again_to_leave() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.toml");
    std::fs::write(&file, "").unwrap();
    let loaded = Loaded::<Config>::read(&file, Unusable::Warns).unwrap();
    let config = loaded.config.clone();
    let start = Start::new(loaded, &config.log, &[]).unwrap();
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let admin = listener.local_addr().unwrap();
    let taken = listen(admin).unwrap_err().to_string();
    assert!(
        taken.starts_with(&format!("cannot listen on {admin} (admin.listen): "))
            && taken.ends_with(", by this process"),
        "{taken}"
    );
    let serving = start
        .serve(listener, Nothing, Bus::local(), pending())
        .unwrap();

    let tier = Busy::default();
    let asking = async {
        assert_eq!(client::get(admin, "/status").await.unwrap(), "null\n");
        for (name, what) in [
            ("-USR1", "drain"),
            ("-USR2", "undrain"),
            ("-TERM", "finish"),
            ("-USR1", "drain"),
            ("-INT", "shutting down"),
        ] {
            signal(name);
            tier.noted(what).await;
        }
        assert_eq!(client::get(admin, "/status").await.unwrap(), "null\n");
        signal("-TERM");
    };
    let life = async { tokio::join!(serving.until_left(&tier, pending()), asking) };
    tokio::time::timeout(Duration::from_secs(20), life)
        .await
        .expect("it leaves in time");
    assert!(client::get(admin, "/status").await.is_err());
}
