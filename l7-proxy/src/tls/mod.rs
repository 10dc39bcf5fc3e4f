//! TLS towards clients: certificates by server name, one set of session tickets for all workers.

mod certificates;
mod resolver;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, version};

use crate::config::Certificate;

pub use certificates::CertificateError;
pub use resolver::Resolver;

/// The protocols offered by ALPN, in our order of preference.
const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// What the https listeners of a node share.
#[derive(Debug)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
}

impl Identity {
    /// Reads every certificate and key. All that is wrong is reported at once.
    pub fn load(certificates: &[Certificate]) -> Result<Identity, Vec<CertificateError>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let resolver = Arc::new(certificates::load(certificates, &provider)?);
        let ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| vec![CertificateError::Tickets(error)])?;
        Ok(Identity {
            provider,
            resolver,
            ticketer,
        })
    }

    /// The TLS settings of a listener: TLS 1.2 and 1.3, resumption by tickets alone (a session cache would be a lock between
    /// workers), no early data (it could be replayed).
    pub fn server(&self, http2: bool) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.resolver.clone());
        server.alpn_protocols = if http2 {
            vec![H2.to_vec(), HTTP11.to_vec()]
        } else {
            vec![HTTP11.to_vec()]
        };
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = self.ticketer.clone();
        Ok(Arc::new(server))
    }
}

/// True when the client chose HTTP/2.
pub(crate) fn chose_h2(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(H2)
}
