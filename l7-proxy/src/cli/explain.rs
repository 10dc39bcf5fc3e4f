//! `l7-proxy explain`: the question, and the answer as a page.

use std::fmt::Write;
use std::net::IpAddr;

use clap::Args;
use serde_json::{Value, json};
use shared::cli::{Shown, cell, table};

/// The request that is asked about.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Its method
    method: String,
    /// Its URL, such as `https://shop.example.com/cart?id=1`
    url: String,
    /// A field of it
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(String, String)>,
    /// Who sends it (default: 192.0.2.1)
    #[arg(long, value_name = "ADDR")]
    client: Option<IpAddr>,
    /// The listener it comes in on (default: the one that speaks the URL's scheme at its port, else the first that speaks the scheme)
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    pub(super) shown: Shown,
}

impl Explain {
    /// As the admin command takes it.
    pub(super) fn arguments(&self) -> Value {
        json!({
            "method": self.method, "url": self.url, "headers": self.headers,
            "client": self.client, "listener": self.listener,
        })
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("expected a field such as \"Accept: text/html\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

const BACKENDS: [&str; 5] = ["address", "state", "weight", "active", "reason"];

/// The answer, a line a step.
pub(super) fn text(question: &Explain, answer: &Value) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: String| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{what:<12}{said}");
    };
    line("request", format!("{} {}", question.method, question.url));
    line(
        "listener",
        format!(
            "{} ({})",
            cell(&answer["listener"]),
            cell(&answer["address"])
        ),
    );
    let certificate = &answer["certificate"];
    if !certificate.is_null() {
        line(
            "certificate",
            format!(
                "{} ({}, expires {})",
                cell(&certificate["certificate"]),
                cell(&certificate["subject"]),
                cell(&certificate["expires"])
            ),
        );
    } else if !answer["server_name"].is_null() {
        let none = "none: the handshake fails; the rest holds on a connection that was opened for another name";
        line("certificate", none.into());
    }
    for (what, key) in [("client", "client"), ("host", "host"), ("path", "path")] {
        if !answer[key].is_null() {
            line(what, cell(&answer[key]));
        }
    }
    let route = &answer["route"];
    if !route.is_null() {
        line(
            "route",
            format!(
                "{}: host {}, path {}",
                cell(&route["name"]),
                cell(&route["host"]),
                cell(&route["path"])
            ),
        );
    }
    let near = answer["near"].as_array().map(Vec::as_slice);
    for near in near.unwrap_or_default() {
        line(
            "  not",
            format!("{}: {}", cell(&near["route"]), cell(&near["why"])),
        );
    }
    let refused = &answer["refused"];
    if !refused.is_null() {
        line(
            "answered",
            format!(
                "{} ({})",
                cell(&refused["status"]),
                cell(&refused["reason"])
            ),
        );
    }
    let upstream = &answer["upstream"];
    if !upstream.is_null() {
        line(
            "upstream",
            format!(
                "{} ({})",
                cell(&upstream["name"]),
                cell(&upstream["balance"])
            ),
        );
        let backends = upstream["backends"].as_array().map(Vec::as_slice);
        let rows: Vec<Vec<String>> = backends
            .unwrap_or_default()
            .iter()
            .map(|backend| BACKENDS.map(|column| cell(&backend[column])).to_vec())
            .collect();
        for row in table(&BACKENDS, &rows).lines() {
            line("", row.to_owned());
        }
    }
    let sent = answer["sent"].as_array().map(Vec::as_slice);
    for (number, field) in sent.unwrap_or_default().iter().enumerate() {
        line(if number == 0 { "sent" } else { "" }, cell(field));
    }
    text
}
