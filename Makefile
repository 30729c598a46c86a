# The commands of this repository; README.md says what one sees.

PEERS := $(abspath $(or $(CARGO_TARGET_DIR),target))/peers/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(PEERS):$(PATH):/usr/sbin:/sbin

BINARIES := saild sail-proxy sail-agent sailctl bookinfo mesh-echo
PACKAGES := $(foreach binary,$(BINARIES),--package $(binary))

.PHONY: demo demo-down build dist test lint unit e2e h2spec goldens bench

## Bookinfo in a mesh on this machine.
demo: need-demo build
	$(TARGET)/release/sailctl local up
	$(TARGET)/release/sailctl local label namespace default istio-injection=enabled --overwrite
	$(TARGET)/release/sailctl local apply -f examples/bookinfo/platform/bookinfo.yaml -f examples/bookinfo/networking/bookinfo-gateway.yaml --wait

demo-down:
	$(TARGET)/release/sailctl local down

build:
	cargo build --release $(PACKAGES)

## sail-proxy as it is shipped, optimized by what it does under load: half an hour on two cores.
dist: need-bench
	scripts/dist $(TARGET)

## Everything that must hold before a change lands.
test: need-test lint unit e2e

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy
	cargo xtask graph
	cargo deny --log-level error check licenses bans sources

unit:
	cargo build --workspace --bins
	cargo test --workspace --exclude e2e

e2e:
	cargo build --workspace --bins
	ln -f $(PEERS)/envoy $(TARGET)/debug/envoy
	cargo test --package e2e -- --test-threads=1

## h2spec's cases of HTTP/2, which want Go.
h2spec: need-h2spec
	cargo test --package sail-proxy --test h2spec -- --ignored

goldens:
	cargo xtask goldens

## sail-proxy beside Envoy, haproxy and a bare loop, under the same configuration and load.
bench: need-bench
	cargo build --profile dist --package bare-loop
	ours=$$(scripts/dist $(TARGET)) && \
	python3 bench/run.py --ours $$ours --envoy $(PEERS)/envoy --bare $(TARGET)/dist/bare-loop $(BENCH) && \
	python3 bench/footprint.py --ours $$ours --envoy $(PEERS)/envoy $(FOOTPRINT)

need-%:
	@scripts/need $*
