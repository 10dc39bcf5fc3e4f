//! Configuration files: mistakes of all kinds. Right ones are in `deploy/examples`.

use std::collections::BTreeSet;
use std::path::Path;

use shared::config::Document;

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "",
        "[node]\nid = \"a\"\n",
        "node.id = \"\"\nnode.id = 5",
        "[node]\nid = 1\n[admin]\nlisten = \":80\"\n[bus]\ntransport = \"nats\"\nnats = []\n[log]\nlevel = \"?=\"",
        "services = 5\nupstreams = \"x\"\nlisteners = [1, {}]\nports = [[]]",
        "[[services]]\n[[services]]\nname = \"a\"\n[[services.targets]]\naddress = \"1.2.3.4\"",
        "a = 1979-05-27T07:32:00Z\nb = 0xffff_ffff_ffff_ffff\nc = -inf\nd = '''x\ny'''\n\"e.f\".\"\" = nan",
        "x = [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        "[bgp]\nasn = 0\nneighbours = [{ address = \"::\", as = 4294967296 }]",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The keys that the parser asks for in the tier's example, and values of each kind.
pub(super) fn words(target: &str) -> Vec<String> {
    let mut words: BTreeSet<String> = [
        "\"2s\"",
        "\"250ms\"",
        "\"10MiB\"",
        "\"10.0.0.0/24\"",
        "\"10.0.0.1:80\"",
        "\"[::1]:80\"",
        "\"tcp\"",
        "\"udp\"",
        "\"http\"",
        "true",
        "false",
        "0.5",
        "-1",
        "[[",
        "]]",
        "[",
        "]\n",
        "{",
        "}",
        " = ",
        "\n",
        ".",
        "\"",
    ]
    .map(str::to_owned)
    .into();
    let file = match target {
        "config_l4" => "l4-gateway.toml",
        "config_l7" => "l7-proxy.toml",
        "config_bgp" => "bgp-ctl.toml",
        _ => "health.toml",
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/examples")
        .join(file);
    if let Ok(document) = Document::load(&example) {
        // Whether it is without mistakes does not matter here.
        let _ = match target {
            "config_l4" => document.parse(|root| l4_gateway::config::Config::parse(root).map(drop)),
            "config_l7" => document.parse(|root| l7_proxy::config::Config::parse(root).map(drop)),
            "config_bgp" => document.parse(|root| bgp_ctl::config::Config::parse(root).map(drop)),
            _ => document.parse(|root| health::config::Config::parse(root).map(drop)),
        };
        for path in document.asked() {
            words.extend(
                path.split('.')
                    .map(|key| key.trim_end_matches("[]").to_owned())
                    .filter(|key| key != "*"),
            );
        }
    }
    words.into_iter().collect()
}
