//! Routers between the laboratory and a host, with a link between them that takes less than all others.

use super::direct::join;
use super::{Lab, Place};

impl Lab {
    /// Makes `router` one, and puts a second router and a host behind it, which is returned: 10.`network`.2.1, fd00:`network`:2::1.
    /// Between the routers is a link that takes packets of `mtu` bytes.
    ///
    /// ```text
    ///   router 10.5.1.1 ──── mtu ──── 10.5.1.2 ──── 10.5.2.1 host
    /// ```
    pub(crate) fn behind_narrow_link(&mut self, router: &Place, network: u8, mtu: u16) -> Place {
        let far = self.add(&format!("r{network}"));
        let host = self.add(&format!("h{network}"));
        let narrow = format!("n{network}");
        for place in [router, &far, &host] {
            place.routed_anyhow();
        }
        for place in [router, &far] {
            place.sysctl("net.ipv4.ip_forward=1");
            place.sysctl("net.ipv6.conf.all.forwarding=1");
        }
        join(router, &narrow, &far, &narrow);
        join(&far, "far", &host, "host");
        // Both families' addresses of an end of a link, with the length of its prefix or without.
        let ends = |link: u8, end: u8, lengths: [&str; 2]| {
            [
                format!("10.{network}.{link}.{end}{}", lengths[0]),
                format!("fd00:{network}:{link}::{end}{}", lengths[1]),
            ]
        };
        for (place, device, link, end) in [
            (router, narrow.as_str(), 1, 1),
            (&far, &narrow, 1, 2),
            (&far, "far", 2, 2),
            (&host, "host", 2, 1),
        ] {
            let own = ends(link, end, ["/24", "/64"]);
            place.interface(device, &own.each_ref().map(String::as_str));
        }
        for place in [router, &far] {
            place.ip(&["link", "set", &narrow, "mtu", &mtu.to_string()]);
        }
        let beyond = [
            format!("10.{network}.0.0/16"),
            format!("fd00:{network}::/32"),
        ];
        let everywhere = ["default"; 2].map(str::to_owned);
        for (place, destinations, link, end) in [
            (router, &beyond, 1, 2),
            (&far, &everywhere, 1, 1),
            (&host, &everywhere, 2, 2),
        ] {
            for (to, via) in destinations.iter().zip(&ends(link, end, ["", ""])) {
                place.ip(&["route", "add", to, "via", via]);
            }
        }
        host
    }
}
