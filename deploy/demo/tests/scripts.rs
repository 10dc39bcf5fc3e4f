//! The k6 scripts against a deployment that is not the demo's: a lone application on loopback.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use demo::k6::repository;
use demo::ready;

/// An application on a free port, ended when dropped.
struct App {
    child: Child,
    port: u16,
}

impl App {
    fn start() -> Result<App> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listener = format!("shop=127.0.0.1:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["app", "--name", "app-1", "--http", &listener]);
        let child = command
            .stdout(Stdio::null())
            .spawn()
            .context("starting the application")?;
        let app = App { child, port };
        ready::until("the application", Duration::from_secs(5), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).context("connecting")
        })?;
        Ok(app)
    }

    fn k6(&self, script: &str, environment: &[(&str, &str)]) -> Result<Output> {
        let k6: PathBuf = repository().join("target/venv/bin/k6");
        ensure!(
            k6.exists(),
            "{} is missing: run deploy/install-deps.sh",
            k6.display()
        );
        let mut command = Command::new(k6);
        command
            .args([
                "run",
                "--no-usage-report",
                "--quiet",
                "--no-color",
                "--address",
                "",
            ])
            .arg(repository().join("loadtests/k6").join(script))
            .env("BASE_URL", format!("http://127.0.0.1:{}", self.port))
            .envs(environment.iter().copied());
        command.output().context("running k6")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn passes(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        said.contains("weir_request"),
        "no request was recorded: {said}"
    );
    Ok(())
}

#[test]
fn every_script_runs_against_any_deployment() -> Result<()> {
    let app = App::start()?;
    let wanted = [
        ("HOSTS", "a.example.net,b.example.net"),
        ("PATHS", "/,/cart"),
        ("NODES", "app-1"),
        ("RATE", "40"),
    ];
    // The limits of time are for real machines, not for one that compiles beside the test.
    let patient = [&wanted[..], &[("P95_MS", "2000"), ("P99_MS", "4000")]].concat();
    passes(&app.k6("smoke.js", &patient)?)?;
    passes(&app.k6("steady.js", &[&patient[..], &[("DURATION", "2s")]].concat())?)?;
    passes(&app.k6(
        "ramp.js",
        &[&patient[..], &[("STEPS", "2"), ("STEP", "1")]].concat(),
    )?)?;
    passes(&app.k6(
        "soak.js",
        &[&patient[..], &[("DURATION", "2s"), ("PERIOD", "0.02")]].concat(),
    )?)
}

#[test]
fn a_wrong_answer_crosses_the_threshold() -> Result<()> {
    let app = App::start()?;
    let good = r#"[{"host":"a.example.net","path":"/status?code=201","status":201,"expect":{"headers.x-one":"1"},"headers":{"X-One":"1"}}]"#;
    passes(&app.k6(
        "smoke.js",
        &[("ROUTES", good), ("P95_MS", "2000"), ("P99_MS", "4000")],
    )?)?;
    // An error that is wanted is no fault.
    let missing = r#"[{"host":"a.example.net","path":"/status?code=404","status":404}]"#;
    passes(&app.k6(
        "smoke.js",
        &[("ROUTES", missing), ("P95_MS", "2000"), ("P99_MS", "4000")],
    )?)?;
    let wrong = [
        (
            "ROUTES",
            r#"[{"host":"a.example.net","path":"/","status":404}]"#,
        ),
        (
            "ROUTES",
            r#"[{"host":"a.example.net","path":"/","contains":"no such text"}]"#,
        ),
        (
            "ROUTES",
            r#"[{"host":"a.example.net","path":"/","expect":{"service":"api"}}]"#,
        ),
        ("NODES", "app-2,app-3"),
        ("P99_MS", "0.000001"),
    ];
    for setting in wrong {
        let output = app.k6("smoke.js", &[setting])?;
        ensure!(
            output.status.code() == Some(99),
            "{setting:?} ended with {}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn a_setting_that_can_not_be_meant_is_explained() -> Result<()> {
    let app = App::start()?;
    for (name, value, wanted) in [
        ("RATE", "fast", "RATE must be a number"),
        ("BASE_URL", "10.0.0.1", "expected http(s)://address"),
        ("ROUTES", "[]", "at least one"),
    ] {
        let output = app.k6("steady.js", &[(name, value)])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        ensure!(
            !output.status.success() && said.contains(wanted),
            "{name}={value}: {said}"
        );
    }
    Ok(())
}
