# What a newcomer types: `make run`, `make test`. Both install what they need, or say what is missing.

# Where `make run` serves, which directory, and with which engine (wasm or native).
LISTEN ?= 127.0.0.1:8080
DATA ?= ./data
ENGINE ?= wasm

WASM_TARGETS := wasm32-wasip1 wasm32-unknown-unknown
# The crates that are compiled to wasm.
GUEST := --package proglog --package proglog-wasm

.PHONY: help run test setup setup-rust setup-node fmt lint types doc bench bench-browser bench-checksum bench-tail \
	instructions instructions-update public-api tsan
# The steps share cargo's target directory, and their output is to be read in order.
.NOTPARALLEL:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup-rust ## serve REST and the page on http://127.0.0.1:8080 from ./data (LISTEN=, DATA=, ENGINE=)
	@echo '==> Building the server and serving $(DATA) on http://$(LISTEN) with the $(ENGINE) engine'
	@exec cargo run --release --package proglog-host -- \
		serve --dir '$(DATA)' --listen '$(LISTEN)' --engine '$(ENGINE)'

test: setup lint types doc instructions ## set up, check and test everything
	@exec .ci/test

setup: setup-rust setup-node ## install what is missing: wasm targets, npm packages, Chromium

setup-rust:
	@.ci/setup rust $(WASM_TARGETS)

setup-node:
	@.ci/setup npm chromium

fmt: setup-rust ## format the Rust code
	@echo '==> Formatting'
	@cargo fmt --all

lint: setup-rust ## check format and clippy, natively, for wasm, macOS and Windows
	@echo '==> Checking the format'
	@cargo fmt --all --check
	@echo '==> Clippy'
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo clippy --package proglog --all-targets --all-features -- -D warnings
	@for target in $(WASM_TARGETS); do \
		echo "==> Clippy for $$target" && \
		cargo clippy $(GUEST) --target "$$target" -- -D warnings || exit; \
	done
	@.ci/elsewhere

types: setup-node ## check the types of the page's code
	@echo '==> Checking the types of www/'
	@cd www && npm run --silent check

doc: setup-rust ## build the documentation
	@echo '==> Documentation'
	@RUSTDOCFLAGS='-D warnings' cargo doc --workspace --lib --no-deps --features proglog/stream

instructions: setup-rust ## count instructions, and compare them with core/benches/instructions.txt
	@echo '==> Counting instructions'
	@exec .ci/instructions

instructions-update: setup-rust ## write what is counted into core/benches/instructions.txt
	@exec .ci/instructions update

public-api: setup-rust ## write the lists that the public API is compared with
	@PROGLOG_UPDATE_PUBLIC_API=1 cargo test --package proglog-tests --test public_api

# A nightly toolchain is never installed here: without one there is nothing to do.
tsan: setup-rust ## run the threads of core/tests/races.rs under ThreadSanitizer (PROGLOG_RACES_SECONDS=)
	@exec .ci/tsan

# The benchmark is a program of the test profile's: cargo says where it put it.
bench-checksum: setup-rust ## time the candidates for the checksum, natively and in node's V8
	@cargo bench --package proglog --bench checksum
	@CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS='-C target-feature=+simd128' \
		cargo build --release --package proglog --bench checksum --target wasm32-wasip1 \
		--message-format json-render-diagnostics \
		| node -p 'fs.readFileSync(0, "utf8").match(/"executable":"([^"]*checksum[^"]*)"/)[1]' \
		| xargs node --no-warnings core/benches/wasi.mjs

bench-tail: setup-rust ## time append to wake beside the wake of a condition variable and a futex
	@cargo bench --package proglog --bench tail --features stream

# Which rows (`make bench ROWS=scan,random_1`; all without), a short form of all, the rows of 10 GiB.
ROWS ?=
QUICK ?=
LONG ?= 1
ROUNDS ?=

bench-browser: setup-rust setup-node ## time it in Chromium beside IndexedDB and SQLite, on a quiet machine
	@npm --prefix www run --silent build
	@npm --prefix www run --silent bench

bench: setup-rust ## time it beside floors and peers, write BENCHMARKS.md (ROWS=, ROUNDS=, QUICK=1, LONG=)
	@echo '==> Benchmarks: built apart, for the peers are no part of a normal build'
	@cargo run --release --manifest-path tests/bench/Cargo.toml --features wasm -- --output . \
		$(if $(ROWS),--only '$(ROWS)') $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(QUICK),--quick,$(if $(LONG),--long))
