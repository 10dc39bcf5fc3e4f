//! WebSocket through the chain (RFC 6455), spoken by tungstenite.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use demo::chain::Chain;
use demo::topology::VIP;
use tungstenite::{Message, WebSocket, client};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_websocket_echoes_text_binary_and_ping", echoes),
    ("a_websocket_stays_open_while_it_is_silent", stays_open),
    ("a_websocket_closes_with_the_handshake_of_its_ends", closes),
    ("a_refused_upgrade_is_an_ordinary_answer", refused),
];

fn connect(chain: &Chain, path: &str) -> Result<WebSocket<TcpStream>> {
    let stream = chain.lab().namespace("client").enter(|| {
        let stream = TcpStream::connect((VIP, 80)).context("connecting to the VIP")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    })?;
    let (socket, response) = client(format!("ws://shop.weir.test{path}"), stream)
        .map_err(|error| anyhow::anyhow!("the handshake failed: {error}"))?;
    ensure!(
        response.status().as_u16() == 101,
        "status {}",
        response.status()
    );
    Ok(socket)
}

fn echoes(chain: &mut Chain) -> Result<()> {
    let mut socket = connect(chain, "/ws")?;
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let text = "w".repeat(length);
        socket.send(Message::text(text.clone()))?;
        ensure!(
            socket.read()? == Message::text(text),
            "text of {length} bytes came back changed"
        );
        let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
        socket.send(Message::binary(bytes.clone()))?;
        ensure!(
            socket.read()? == Message::binary(bytes),
            "{length} bytes came back changed"
        );
    }
    socket.send(Message::Ping(b"beat".to_vec().into()))?;
    ensure!(
        socket.read()? == Message::Pong(b"beat".to_vec().into()),
        "no pong"
    );
    Ok(())
}

fn stays_open(chain: &mut Chain) -> Result<()> {
    let mut socket = connect(chain, "/ws")?;
    socket.send(Message::text("before"))?;
    ensure!(socket.read()? == Message::text("before"), "no echo");
    std::thread::sleep(Duration::from_secs(3));
    socket.send(Message::text("after"))?;
    ensure!(
        socket.read()? == Message::text("after"),
        "no echo after a silence"
    );
    Ok(())
}

fn closes(chain: &mut Chain) -> Result<()> {
    let mut socket = connect(chain, "/ws")?;
    socket.close(None)?;
    let ended = loop {
        match socket.read() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    ensure!(
        matches!(ended, tungstenite::Error::ConnectionClosed),
        "it ended with {ended}"
    );
    Ok(())
}

fn refused(chain: &mut Chain) -> Result<()> {
    // The application upgrades on /ws only.
    let error = connect(chain, "/elsewhere")
        .map(drop)
        .err()
        .context("the upgrade was accepted")?;
    ensure!(error.to_string().contains("200"), "{error:#}");
    Ok(())
}
