//! Finds libdpdk by pkg-config, compiles the C shim and generates the bindings.
//!
//! Supported releases: 22.11 to 24.11, the LTS lines from Debian 12 on. The ABI differs between them, which is why the
//! bindings are generated on the building machine instead of being kept in the repository.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to a build script through the environment"
)]

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

/// First and last supported release, as (year, month).
const OLDEST: (u32, u32) = (22, 11);
const NEWEST: (u32, u32) = (24, 11);

/// The libraries whose symbols the bindings and the shim use. Drivers are plugins that EAL loads at run time.
const LIBRARIES: [&str; 6] = [
    "rte_eal",
    "rte_ethdev",
    "rte_mbuf",
    "rte_mempool",
    "rte_net_bond",
    "rte_ring",
];

const FUNCTIONS: [&str; 44] = [
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eal_get_lcore_state",
    "rte_eal_get_runtime_dir",
    "rte_get_next_lcore",
    "rte_get_tsc_hz",
    "rte_log_set_global_level",
    "rte_openlog_stream",
    "rte_strerror",
    "rte_version",
    "rte_dev_probe",
    "rte_eth_dev_is_valid_port",
    "rte_eth_bond_primary_get",
    "rte_eth_bond_primary_set",
    "rte_eth_dev_callback_register",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_count_avail",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
    "rte_ring_create",
    "rte_ring_free",
    "rte_socket_id",
    "rte_lcore_count",
    "rte_lcore_index",
    "weir_.*",
];

/// Opaque where only a pointer is passed on: their layouts change between releases and nothing here may depend on them.
/// `rte_mbuf` is read through the offsets in `shim.h`, as its fields moved into unions in 24.03.
const OPAQUE: [&str; 4] = ["rte_mbuf", "rte_mempool", "rte_ring", "rte_device"];

fn main() {
    for input in ["build.rs", "shim.c", "shim.h"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let library = match pkg_config::Config::new()
        .cargo_metadata(false)
        .probe("libdpdk")
    {
        Ok(library) => library,
        Err(error) => fail(&format!(
            "libdpdk was not found by pkg-config: install the Debian package `libdpdk-dev` \
             (and `libclang-dev` for the bindings), or set PKG_CONFIG_PATH to where libdpdk.pc is.\n{error}"
        )),
    };
    match release(&library.version) {
        Some(found) if (OLDEST..=NEWEST).contains(&found) => {}
        _ => fail(&format!(
            "libdpdk {} is not supported: {}.{:02} to {}.{:02} is (Debian packages `libdpdk-dev`, `dpdk`)",
            library.version, OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1
        )),
    }
    let flags = compiler_flags();

    let mut shim = cc::Build::new();
    shim.file("shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("weir_dpdk_shim");

    for path in &library.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    generate(&flags);
}

/// "22.11.11" -> (22, 11)
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// All of pkg-config's compiler flags: the `pkg-config` crate keeps include paths only, but DPDK's headers also need
/// `-include rte_config.h` and the instruction set that the library was built for.
fn compiler_flags() -> Vec<String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = match Command::new(&program)
        .args(["--cflags", "libdpdk"])
        .output()
    {
        Ok(output) if output.status.success() => output,
        Ok(output) => fail(&format!(
            "{program} --cflags libdpdk: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => fail(&format!("{program} --cflags libdpdk: {error}")),
    };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn generate(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .rust_target(bindgen::RustTarget::stable(85, 0).unwrap_or_default())
        .allowlist_var(
            "RTE_MAX_LCORE|RTE_PKTMBUF_HEADROOM|RTE_LOG_(ERR|WARNING|NOTICE|INFO|DEBUG)|WEIR_.*",
        )
        .allowlist_var("RTE_ETH_MQ_RX_.*|RTE_ETH_EVENT_INTR_LSC|RING_F_.*")
        .allowlist_type("weir_.*")
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!(
            "bindgen could not read DPDK's headers (Debian package `libclang-dev`?): {error}"
        )),
    };
    let Some(out) = env::var_os("OUT_DIR") else {
        fail("OUT_DIR is not set: run through cargo")
    };
    if let Err(error) = bindings.write_to_file(PathBuf::from(out).join("bindings.rs")) {
        fail(&format!("the bindings could not be written: {error}"));
    }
}

fn fail(message: &str) -> ! {
    println!("cargo:warning={}", message.replace('\n', " "));
    eprintln!("dpdk-sys: {message}");
    exit(1)
}
