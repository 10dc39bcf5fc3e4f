//! TLS towards clients: certificates by server name, one set of session tickets for all workers.

mod certificates;
mod expiry;
mod handshake;
mod key;
mod resolver;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, version};
use shared::config::{Mistake, Mistakes};

use crate::config::{Certificate, Listener, Protocol};

pub use certificates::Served;
pub use expiry::Expiry;
pub(crate) use handshake::accept;
pub use resolver::Resolver;

/// The protocols offered by ALPN, in our order of preference.
const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// What https listeners share for the life of the process: tickets given out before a reload are good after it.
#[derive(Clone, Debug)]
pub struct Tickets {
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
}

impl Tickets {
    /// Makes the first ticket key; later ones follow by themselves.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn new() -> Result<Tickets, rustls::Error> {
        Ok(Tickets {
            provider: Arc::new(aws_lc_rs::default_provider()),
            ticketer: aws_lc_rs::Ticketer::new()?,
        })
    }
}

/// The certificates of a generation of the configuration.
#[derive(Debug)]
pub struct Identity {
    tickets: Tickets,
    resolver: Arc<Resolver>,
    served: Arc<[Served]>,
}

impl Identity {
    /// Reads every certificate and key.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn load(certificates: &[Certificate], tickets: &Tickets) -> Result<Identity, Mistakes> {
        let loaded = certificates::load(certificates, &tickets.provider)?;
        Ok(Identity {
            tickets: tickets.clone(),
            resolver: Arc::new(loaded.resolver),
            served: loaded.served.into(),
        })
    }

    /// The certificates, in the order of the configuration.
    pub fn served(&self) -> &Arc<[Served]> {
        &self.served
    }

    /// What a client that names this server is shown first: of several for one name, a client that can't verify its key is shown another.
    pub fn chosen(&self, server_name: &str) -> Option<&Served> {
        let key = self.resolver.candidates(Some(server_name)).first()?;
        let mut served = self.served.iter();
        served.find(|served| Arc::ptr_eq(&served.key, key))
    }

    /// What clients may object to now: expired, out of order, for other names.
    pub fn doubts(&self, now: SystemTime) -> Vec<Mistake> {
        let served = self.served.iter();
        served.flat_map(|served| served.doubts(now)).collect()
    }

    /// The TLS settings of listeners, in their order; none for those that speak plain HTTP.
    ///
    /// # Errors
    /// If rustls refuses them.
    pub fn servers(
        &self,
        listeners: &[Listener],
    ) -> Result<Vec<Option<Arc<ServerConfig>>>, rustls::Error> {
        let server = |listener: &Listener| match listener.protocol {
            Protocol::Http => Ok(None),
            Protocol::Https => self.server(listener.http2).map(Some),
        };
        listeners.iter().map(server).collect()
    }

    /// The TLS settings of a listener: TLS 1.2 and 1.3, resumption by tickets alone (a session cache would be a lock between
    /// workers), no early data (it could be replayed).
    fn server(&self, http2: bool) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut server = ServerConfig::builder_with_provider(self.tickets.provider.clone())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.resolver.clone());
        server.alpn_protocols = if http2 {
            vec![H2.to_vec(), HTTP11.to_vec()]
        } else {
            vec![HTTP11.to_vec()]
        };
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = self.tickets.ticketer.clone();
        Ok(Arc::new(server))
    }
}

/// True when the client chose HTTP/2.
pub(crate) fn chose_h2(connection: &rustls::ServerConnection) -> bool {
    connection.alpn_protocol() == Some(H2)
}
