//! Who tells the routers: one trait, so that routing control doesn't know how its decisions travel.

mod embedded;

use std::net::Ipv4Addr;

use futures_util::future::BoxFuture;

pub use embedded::Embedded;

use crate::config::BgpSection;
use crate::route::Attributes;

/// Keeps what it is told and tells it to every router, now and whenever one (re)appears.
///
/// None of the calls waits for a router.
pub trait Speaker {
    /// The VIP shall be known to the routers, with these attributes.
    fn announce(&mut self, vip: Ipv4Addr, attributes: &Attributes);

    /// The VIP shall not be known to the routers.
    fn withdraw(&mut self, vip: Ipv4Addr);

    /// Goes on with these routers. Sessions to those that stay as they were are not touched; a new one is told all that is announced.
    fn reconfigure(&mut self, section: &BgpSection);

    /// Withdraws everything, takes leave of the routers with `text`, and completes when they have been told or can't be.
    fn shutdown(&mut self, text: &str) -> BoxFuture<'static, ()>;
}
