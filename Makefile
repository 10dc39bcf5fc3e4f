# Weir: what there is to run. `make` alone lists it.

CARGO ?= cargo
# What the demo runs; the applications are part of the demo's own binary.
CHAIN := -p l4-gateway -p l7-proxy -p demo

.DEFAULT_GOAL := help
.PHONY: help deps root build demo demo-build demo-up demo-prove demo-down test test-units test-chain bench-l4 bench-l4-profile bench-l4-build bench-l7 bench-l7-build bench-page fmt fmt-check clippy doc fuzz manual

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing: Debian packages, k6
	@deploy/install-deps.sh

build: deps ## build everything, optimised
	$(CARGO) build --release --workspace --bins

manual: deps ## man pages and shell completions, to target/manual
	$(CARGO) run --release -p manual

demo: demo-build ## the whole chain: bring it up, prove it with k6 while nodes are killed, take it down
	@target/release/demo run

demo-build: root deps
	$(CARGO) build --release $(CHAIN) --bins

demo-up: demo-build ## bring the chain up and leave it running
	@target/release/demo up

demo-prove: ## prove the chain that is up
	@target/release/demo prove

demo-down: ## take the chain down
	@target/release/demo down

# Said before anything is built for minutes.
root:
	@[ "$$(id -u)" = 0 ] || { echo 'network namespaces need root: run it as root, or sudo env "PATH=$$PATH" make ...' >&2; exit 1; }

# For how long garbage goes through a live port of the L4 gateway (l4-gateway/tests/hostile); a plain `cargo test` takes 5 s.
export WEIR_GARBAGE_SECONDS ?= 60

test: test-units test-chain ## every test: unit, property, interop, and the chain end to end

# Integration tests run the binaries of their own package, the chain's those of all: so they are built first.
test-units: root deps
	$(CARGO) test --workspace --exclude e2e --no-fail-fast

test-chain: root deps
	$(CARGO) build --workspace --bins
	$(CARGO) test -p e2e --no-fail-fast -- --test-threads=1

bench-l4: bench-l4-build ## the L4 gateway against dpdk-testpmd: minutes (BENCH_SECONDS a row: 6; BENCH_ARGS: "--help" lists them)
	@loadtests/l4/run.sh

bench-l4-profile: bench-l4-build ## the same, and where the gateway's time goes for each row, not only for those that fall short
	@loadtests/l4/run.sh --profile all

bench-l4-build: root deps
	$(CARGO) build --release -p l4-gateway -p bench-l4 --bins
	$(CARGO) build --release -p dataplane --example cycles

bench-l7: bench-l7-build ## what a request through l7-proxy costs, beside nginx and HAProxy: ten minutes (BENCH_SECONDS a row: 10; BENCH_ARGS: "--help" lists them)
	@eval "set -- $$BENCH_ARGS"; target/release/bench-l7 --seconds "$${BENCH_SECONDS:-10}" "$$@"

bench-l7-build: deps
	$(CARGO) build --release -p l7-proxy -p bench-l7 --bins

bench-page: ## put the rows of the last whole run of each bench into loadtests/RESULTS.md
	@for bench in l4 l7; do $(CARGO) run -q -p bench-report -- loadtests/results/$$bench.json loadtests/RESULTS.md || exit 1; done

fmt: ## format
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

clippy: deps ## lint, warnings are errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: deps ## API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

fuzz: ## fuzz every parser for a short while (FUZZ_SECONDS each)
	@loadtests/fuzz/run.sh
