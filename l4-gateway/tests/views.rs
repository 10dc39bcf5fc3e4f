//! What an operator is shown of services and targets under traffic.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

mod lab;

use std::io::{BufRead, BufReader};

use serde_json::Value;

use lab::{Echo, Gateway, Lab, pattern};

/// The cells of the first row of a table, by its headings.
fn first_row(text: &str) -> Vec<(String, String)> {
    let [heading, row] = [0, 1].map(|line| text.lines().nth(line).unwrap_or_default());
    let words = |line: &str| {
        let words = line.split("  ").map(str::trim);
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    words(heading).into_iter().zip(words(row)).collect()
}

fn number(row: &[(String, String)], heading: &str) -> f64 {
    let found = row.iter().find(|(name, _)| name == heading);
    let (_, cell) = found.unwrap_or_else(|| panic!("{heading} is not in {row:?}"));
    cell.parse().unwrap()
}

#[test]
fn totals_and_rates_of_services_and_targets_follow_the_traffic() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let quiet = first_row(&gateway.subcommand(&["services", "--rate"]));
    for heading in [
        "CONNECTIONS/S",
        "PACKETS_IN/S",
        "PACKETS_OUT/S",
        "BYTES_IN/S",
        "BYTES_OUT/S",
    ] {
        assert_eq!(number(&quiet, heading), 0.0, "{quiet:?}");
    }
    let client = lab.client();
    let mut connections = 0_u64;
    for view in ["services", "targets"] {
        gateway.wait("rates in every column", || {
            client.run(|| {
                let mut echo = Echo::connect(80).unwrap();
                echo.exchange(&pattern(10_000, 3));
            });
            connections += 1;
            let row = first_row(&gateway.subcommand(&[view, "--rate"]));
            let mut rates = row.iter().filter(|(heading, _)| heading.ends_with("/S"));
            rates.all(|(_, rate)| rate.parse::<f64>().unwrap() > 0.0)
        });
    }
    let totals = first_row(&gateway.subcommand(&["services", "--stats", "--service", "tcp"]));
    assert_eq!(number(&totals, "FLOWS_CREATED"), connections as f64);
    for heading in ["BYTES_IN", "BYTES_OUT"] {
        let least = (connections * 10_000) as f64;
        assert!(number(&totals, heading) > least, "{totals:?}");
    }
    let service = first_row(&gateway.subcommand(&["services"]));
    for (heading, cell) in [("SCHEDULER", "rr"), ("MODE", "fullnat"), ("TARGETS", "2")] {
        assert!(
            service.contains(&(heading.into(), cell.into())),
            "{service:?}"
        );
    }

    let ports = gateway.subcommand(&["ports"]);
    assert_eq!(
        ports.lines().filter(|line| line.contains("  up  ")).count(),
        2,
        "{ports}"
    );
    let workers = first_row(&gateway.subcommand(&["workers"]));
    assert!(
        number(&workers, "FLOWS_CREATED") >= connections as f64,
        "{workers:?}"
    );
    assert!(gateway.subcommand(&["drops"]).starts_with("REASON"));

    let shown: Value =
        serde_json::from_str(&gateway.subcommand(&["targets", "--json", "--service", "tcp"]))
            .unwrap();
    let of = |key: &str| -> u64 {
        let targets = shown.as_array().unwrap().iter();
        targets.map(|target| target[key].as_u64().unwrap()).sum()
    };
    assert_eq!(of("flows_created"), connections);
    assert!(of("bytes_out") > connections * 10_000);
    assert!(shown[0]["rates"]["bytes_out"].as_f64().unwrap() > 0.0);
}

#[test]
fn active_flows_are_those_whose_handshake_is_complete_and_that_nobody_closed() {
    let lab = Lab::new();
    lab.target().usual_targets();
    let gateway = Gateway::start(&lab, &lab.usual());
    let flows = |view: &str| {
        let row = first_row(&gateway.subcommand(&[view]));
        [number(&row, "ACTIVE"), number(&row, "INACTIVE")]
    };
    assert_eq!(flows("services"), [0.0, 0.0]);
    let open = lab
        .client()
        .run(|| [(); 2].map(|()| Echo::connect(80).unwrap()));
    // The last ACK of a handshake may still be on its way.
    gateway.wait("both active", || flows("services") == [2.0, 0.0]);
    assert_eq!(flows("targets"), [1.0, 0.0]);
    let active = gateway.metric("weir_l4_service_active_flows{service=\"tcp\"}");
    assert_eq!(active, 2);
    drop(open);
    gateway.wait("both inactive", || flows("services") == [0.0, 2.0]);
    assert_eq!(flows("targets"), [0.0, 1.0]);
}

#[test]
fn a_view_is_shown_anew_while_it_is_watched() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &lab.usual());
    for (arguments, first) in [
        (&["services", "--json", "--watch", "1"][..], "["),
        (&["status", "--watch", "1"], "{"),
        (&["status", "--json", "--watch", "1"], "{\"bgp\":"),
    ] {
        let mut watching = gateway.begin(arguments);
        let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        let shown = lines.map(|line| line.unwrap());
        let times = shown.filter(|line| line.starts_with(first)).take(2).count();
        assert_eq!(times, 2);
        watching.kill().unwrap();
        watching.wait().unwrap();
    }
}
