//! The server's side of a handshake. The client's hello is looked at first: rustls ends a handshake for which there is no certificate with access_denied,
//! and lets nobody choose another alert.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// A fatal alert, unrecognized_name (RFC 6066 section 3), in the clear, as all is that answers a first hello. A hello without a name gets the same, as
/// from nginx: missing_extension (RFC 8446 section 9.2) is none of TLS 1.2.
const UNRECOGNIZED_NAME: &[u8] = b"\x15\x03\x03\x00\x02\x02\x70";

/// Makes the handshake. A client that names a server there is no certificate for, or none where there is no default, is told that the name is what is
/// wrong.
///
/// # Errors
/// Why there is no session. The client was told with an alert where it may still listen; an unexpected end is a client that left before it said anything.
pub(crate) async fn accept<S>(config: &Arc<ServerConfig>, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let name = hello.server_name().map(str::to_owned);
    if config.cert_resolver.resolve(hello).is_some() {
        return start.into_stream(config.clone()).await;
    }
    start.io.write_all(UNRECOGNIZED_NAME).await?;
    start.io.shutdown().await?;
    let why = match name {
        Some(name) => format!("no certificate for {name:?}, and no default"),
        None => "the client names no server, and there is no default certificate".to_owned(),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}
