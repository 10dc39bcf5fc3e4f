//! Broken and hostile input through the chain: refused and counted, while others are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use demo::admin;
use demo::chain::Chain;
use demo::ready;
use demo::topology::{L7, VIP};
use e2e::Curl;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    (
        "malformed_requests_are_refused_and_never_reach_an_application",
        malformed,
    ),
    ("what_is_not_tls_costs_its_own_connection_only", not_tls),
    ("clients_that_vanish_leave_nothing_behind", vanishing),
];

/// What comes back for `bytes` until the server closes or says nothing for a second.
fn exchange(chain: &Chain, port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    chain.lab().namespace("client").enter(|| {
        let mut stream = TcpStream::connect((VIP, port)).context("connecting to the VIP")?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        // A reset or a silence ends the answer as well as a close.
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    })
}

fn serves(chain: &Chain) -> Result<()> {
    for url in ["http://shop.weir.test/", "https://shop.weir.test/"] {
        let answer = Curl::new(chain.lab()).get(url)?;
        ensure!(answer.status == 200, "{url}: {answer:?}");
    }
    for node in L7 {
        admin::ready(chain.lab(), node)?;
    }
    Ok(())
}

fn malformed(chain: &mut Chain) -> Result<()> {
    let requests: [(&str, &[u8]); 9] = [
        // L4 has put the true one in front.
        ("a PROXY header of the client's own", b"PROXY TCP4 192.0.2.66 10.0.0.100 4711 80\r\nGET / HTTP/1.1\r\nHost: shop.weir.test\r\n\r\n"),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", b"GET / HTTP/1.1\r\nHost: shop.weir.test\r\nHost: api.weir.test\r\n\r\n"),
        (
            "Content-Length and Transfer-Encoding",
            b"POST / HTTP/1.1\r\nHost: shop.weir.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two Content-Lengths",
            b"POST / HTTP/1.1\r\nHost: shop.weir.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        ),
        ("a blank before the colon", b"GET / HTTP/1.1\r\nHost : shop.weir.test\r\n\r\n"),
        ("an obsolete line fold", b"GET / HTTP/1.1\r\nHost: shop.weir.test\r\nX-A: 1\r\n 2\r\n\r\n"),
        ("a zero byte", b"GET / HTTP/1.1\r\nHost: shop.weir.test\r\nX-A: \0\r\n\r\n"),
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ];
    for (what, bytes) in requests {
        let answer = exchange(chain, 80, bytes)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(text.starts_with("HTTP/1.1 400 "), "{what}: {text:?}");
        ensure!(
            !text.contains("\"app\""),
            "{what} reached an application: {text:?}"
        );
    }
    serves(chain)
}

fn not_tls(chain: &mut Chain) -> Result<()> {
    let mut noise = Vec::new();
    let mut state = 0x9e37_79b9_u32;
    for _ in 0..2048 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    // A record that promises more than may come, a truncated hello, plain HTTP, noise.
    let inputs: [&[u8]; 4] = [
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x40\x03",
        b"GET / HTTP/1.1\r\nHost: shop.weir.test\r\n\r\n",
        &noise,
    ];
    for input in inputs {
        let answer = exchange(chain, 443, input)?;
        // At most an alert: a record of type 21.
        ensure!(
            answer.first().is_none_or(|kind| *kind == 21),
            "answered with {answer:?}"
        );
    }
    serves(chain)
}

/// Client connections open on both L7 nodes.
fn open_connections(chain: &Chain) -> Result<u64> {
    let mut sum = 0;
    for node in L7 {
        sum += admin::status(chain.lab(), node)?["connections"]
            .as_u64()
            .context("no connections in /status")?;
    }
    Ok(sum)
}

fn vanishing(chain: &mut Chain) -> Result<()> {
    // Probes of the L4 nodes come and go all the time.
    const PROBES: u64 = 4;
    for round in 0..40 {
        chain.lab().namespace("client").enter(|| {
            let mut stream = TcpStream::connect((VIP, 80)).context("connecting to the VIP")?;
            let request = "GET /bytes?n=50000000 HTTP/1.1\r\nHost: shop.weir.test\r\n\r\n";
            // Some leave in the middle of the request, some in the middle of the answer.
            let part = if round % 2 == 0 { request.len() } else { round };
            stream.write_all(&request.as_bytes()[..part])?;
            if round % 2 == 0 {
                stream.read_exact(&mut [0; 512])?;
            }
            Ok(())
        })?;
    }
    ready::until("L7 to have dropped them", Duration::from_secs(5), || {
        let open = open_connections(chain)?;
        ensure!(open <= PROBES, "{open} connections are open");
        Ok(())
    })?;
    serves(chain)
}
