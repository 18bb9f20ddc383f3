# One verb per habit; CI runs `make test`. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help deps build demo test fmt lint bench soak profile fuzz doc

PROFILE_BINS := ringmesh ringmesh-proxy ringmesh-control bookinfo ringmesh-bench

help: ## Show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what the system lacks (Debian; needs root only if something is missing)
	@scripts/deps

# By profile (docs/decisions/0020-built-by-profile.md); a plain `cargo build --release` works too, and is slower at run time.
build: export CARGO_ENCODED_RUSTFLAGS := -Cprofile-use=$(CURDIR)/profile/ringmesh.profdata
build: deps ## Build the release binaries into target/release
	cargo build --locked --release --workspace --bins

demo: build ## Run the whole mesh on this machine, rule by rule, and check every row
	target/release/ringmesh demo --bin-dir target/release

test: deps ## What CI runs: format, lints, every test; ends with run and skipped counts
	@scripts/test

fmt: ## Format the code
	cargo fmt --all

lint: ## Format check and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# The second build counts allocations, in target/debug, as `make test` builds it: one row is taken from it.
bench: build ## Beside HAProxy, nginx and Envoy: CPU, latency, memory; target/bench/report.html (40 minutes)
	@scripts/deps-bench
	cargo build --locked --workspace --features ringmesh-tests/count-allocations --bins
	target/release/ringmesh-bench suite

SOAK_SECONDS ?= 600
soak: deps ## Rough traffic for SOAK_SECONDS (600): nothing may grow, all counts must agree
	cargo build --locked --workspace --bins
	RINGMESH_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --locked -p ringmesh-tests --test e2e soak -- --nocapture

profile: deps ## Watch the sidecar under the loads of `make bench`, for `make build` to compile by (10 minutes)
	@scripts/profile

fuzz: ## Fuzz every decoder for FUZZ_SECONDS (60) each; needs cargo-fuzz
	@scripts/fuzz

doc: ## Build the API documentation
	cargo doc --locked --workspace --no-deps
