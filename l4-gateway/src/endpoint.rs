//! Targets' addresses and services' ports as people read and write them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dataplane::PortRange;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a target listens. Port 0 stands for the port that each client sends to, and is shown as `10.3.0.21:*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr);

impl fmt::Display for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => PortRange::ALL.at(self.0.ip()).fmt(to),
            _ => self.0.fmt(to),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let of_ip = |ip: IpAddr| SocketAddr::new(ip, 0);
        let of_port = text.parse::<SocketAddr>().ok();
        let every_port = text.strip_suffix(":*").and_then(|ip| {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
            match bare {
                Some(ip) => ip.parse().map(IpAddr::V6).ok(),
                None => ip.parse().map(IpAddr::V4).ok(),
            }
        });
        of_port
            .filter(|address| address.port() != 0)
            .or(every_port.or(text.parse().ok()).map(of_ip))
            .map(Endpoint)
            .ok_or_else(|| {
                "expected an address with a port (10.0.0.1:80, [2001:db8::1]:80), or without one where the target has the ports of its service (10.0.0.1)"
                    .to_owned()
            })
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Endpoint, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A service's ports in JSON: a number where there is one, else a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports(pub PortRange);

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.single() {
            Some(port) => to.serialize_u16(port),
            None => to.collect_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_a_services_ports_is_written_with_a_star_or_without_a_port() {
        for (text, address, shown) in [
            ("10.3.0.21:80", "10.3.0.21:80", "10.3.0.21:80"),
            ("[fd00::21]:80", "[fd00::21]:80", "[fd00::21]:80"),
            ("10.3.0.21", "10.3.0.21:0", "10.3.0.21:*"),
            ("10.3.0.21:*", "10.3.0.21:0", "10.3.0.21:*"),
            ("fd00::21", "[fd00::21]:0", "[fd00::21]:*"),
            ("[fd00::21]:*", "[fd00::21]:0", "[fd00::21]:*"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.0, address.parse().unwrap());
            assert_eq!(endpoint.to_string(), shown);
            let json = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
        }
        for text in [
            "",
            "10.3.0.21:0",
            "10.3.0:*",
            "fd00::21:*",
            "[10.3.0.21]:*",
            "web:80",
            "*",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_a_number_where_there_is_one() {
        for (ports, json) in [
            (PortRange::from(80), "80"),
            (PortRange::new(8000, 8999).unwrap(), "\"8000-8999\""),
            (PortRange::ALL, "\"*\""),
        ] {
            assert_eq!(serde_json::to_string(&Ports(ports)).unwrap(), json);
        }
    }
}
