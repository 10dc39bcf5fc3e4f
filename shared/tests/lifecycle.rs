//! Signals, sent to this very process: a test of its own, as signals are everybody's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::process::Command;
use std::time::Duration;

use shared::lifecycle::{Request, Signals};
use tokio::time::timeout;

fn send(name: &str) {
    let id = std::process::id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn signals_ask_for_what_the_reference_says() {
    let mut signals = Signals::new().unwrap();
    for (name, request) in [
        ("-USR1", Request::Drain),
        ("-USR2", Request::Undrain),
        ("-HUP", Request::Reload),
        ("-TERM", Request::Terminate),
        ("-INT", Request::Terminate),
    ] {
        send(name);
        assert_eq!(
            timeout(Duration::from_secs(5), signals.next())
                .await
                .unwrap(),
            request,
            "{name}"
        );
    }
}
