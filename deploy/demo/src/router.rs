//! The router's view: what BIRD says, and what its kernel does with the VIP.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::namespace::output;

/// BIRD's control socket. Not among the lab's files: a socket's path may have 107 bytes at most, a checkout's more.
pub fn socket(lab: &Lab) -> PathBuf {
    PathBuf::from(format!("/run/{}bird.ctl", lab.namespace_prefix()))
}

/// What BIRD answers to a command of its control language.
pub fn birdc(lab: &Lab, command: &str) -> Result<String> {
    let text = output(
        Command::new("birdc")
            .arg("-s")
            .arg(socket(lab))
            .args(command.split_whitespace()),
    )?;
    if text.contains("syntax error") {
        bail!("birdc {command}: {}", text.trim());
    }
    Ok(text)
}

/// The next hops of the host route of `vip` in the router's kernel, sorted; none when there is no such route.
pub fn next_hops(lab: &Lab, vip: Ipv4Addr) -> Result<Vec<Ipv4Addr>> {
    let router = lab.namespace("router");
    let text = output(Command::new("ip").args([
        "-n",
        router.name(),
        "-j",
        "route",
        "show",
        &format!("{vip}/32"),
    ]))?;
    parse(&text).with_context(|| format!("ip -j route says {text}"))
}

fn parse(text: &str) -> Result<Vec<Ipv4Addr>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let routes: Vec<serde_json::Value> = serde_json::from_str(text)?;
    let mut hops = Vec::new();
    for route in &routes {
        let several = route["nexthops"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for hop in several.iter().chain(std::iter::once(route)) {
            if let Some(gateway) = hop["gateway"].as_str() {
                hops.push(
                    gateway
                        .parse()
                        .with_context(|| format!("gateway {gateway}"))?,
                );
            }
        }
    }
    hops.sort();
    Ok(hops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_several_next_hops_are_read() {
        let one = r#"[{"dst":"10.0.0.100","gateway":"10.2.0.11","dev":"ext0","protocol":"bird","metric":32,"flags":[]}]"#;
        assert_eq!(parse(one).unwrap(), [Ipv4Addr::new(10, 2, 0, 11)]);
        let two = r#"[{"dst":"10.0.0.100","protocol":"bird","nexthops":[
            {"gateway":"10.2.0.12","dev":"ext0","weight":1,"flags":[]},{"gateway":"10.2.0.11","dev":"ext0","weight":1,"flags":[]}]}]"#;
        assert_eq!(
            parse(two).unwrap(),
            [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)]
        );
        assert_eq!(parse("[ ]").unwrap(), Vec::<Ipv4Addr>::new());
    }
}
