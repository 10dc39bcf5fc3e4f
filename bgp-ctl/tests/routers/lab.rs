//! Two network namespaces joined by a veth pair: the test runs in one, the router in the other.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Our address.
pub(crate) const SPEAKER: &str = "10.2.0.11";
/// The router's.
pub(crate) const ROUTER: &str = "10.2.0.1";

const INSIDE: &str = "WEIR_BGP_TEST_ROUTER_NAMESPACE";

/// Runs `body`, which is the test called `name`, inside a lab of its own. `body` gets the name of the router's namespace.
///
/// The test binary calls itself through `ip netns exec` for that: a thread can't change its namespace without unsafe code.
pub(crate) fn in_lab(name: &str, body: impl FnOnce(&str)) {
    if let Ok(router) = std::env::var(INSIDE) {
        return body(&router);
    }
    let lab = Lab::build();
    let this = std::env::current_exe().unwrap();
    let output = Command::new("ip")
        .args(["netns", "exec", &lab.speaker])
        .arg(this)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &lab.router)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in the lab:\n{text}"
    );
}

struct Lab {
    speaker: String,
    router: String,
}

impl Lab {
    fn build() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{}",
            std::process::id(),
            LABS.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            speaker: format!("weir-bgp-s{unique}"),
            router: format!("weir-bgp-r{unique}"),
        };
        for namespace in [&lab.speaker, &lab.router] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&[
            "link",
            "add",
            "up0",
            "netns",
            &lab.speaker,
            "type",
            "veth",
            "peer",
            "name",
            "up0",
            "netns",
            &lab.router,
        ]);
        for (namespace, address) in [(&lab.speaker, SPEAKER), (&lab.router, ROUTER)] {
            ip(&[
                "-n",
                namespace,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                "up0",
            ]);
            ip(&["-n", namespace, "link", "set", "up0", "up"]);
        }
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.speaker, &self.router] {
            // What can't be deleted was never made.
            let _ = Command::new("ip")
                .args(["netns", "delete", namespace])
                .output();
        }
    }
}

pub(crate) fn ip(arguments: &[&str]) -> Output {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
