# fleetflame's commands. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo demo-gateway cost lab-cost agent test check lab record bench soak bless

export CARGO_TERM_COLOR ?= auto
# Long enough to notice a parser that broke, short enough to be run each time; `make soak` gives each target ten minutes.
FUZZ_SECONDS ?= 12

# step NAME COMMAND…: runs a step, remembers how long it took and whether it failed. All steps are always run.
define STEPS
failed=''; times=''; all_began=$$SECONDS
step() {
    local name=$$1 began=$$SECONDS code=0; shift
    printf '\n== %s: %s\n' "$$name" "$$*"
    "$$@" || code=$$?
    times+=$$(printf '%6d s  %s' $$((SECONDS - began)) "$$name")
    [ $$code = 0 ] || { failed+=" $$name"; times+="  FAILED ($$code)"; }
    times+=$$'\n'
}
finish() {
    printf '\n%s%6d s  in all\n' "$$times" $$((SECONDS - all_began))
    [ -z "$$failed" ] || printf 'failed:%s\n' "$$failed"
    counts
    [ -z "$$failed" ]
}
counts() { :; }
endef

help:  ## list what can be asked for
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 14

demo:  ## build, then capture and draw a real local fleet
	@cargo build --release --locked -p fleetflame -p fleetflame-agent
	exec "$${CARGO_TARGET_DIR:-target}/release/fleetflame" demo

demo-gateway:  ## three gateways (nginx with Lua) in networks of their own, one with a slow plugin, captured over the network; as root
	@deploy/test-packages
	cargo build --locked --workspace --bins
	exec "$${CARGO_TARGET_DIR:-target}/debug/gateway-demo" $(OUT)

cost:  ## what a capture costs a busy gateway: CPU per request with and without, the agent's own; ROUNDS=5; as root
	@deploy/test-packages
	cargo build --release --locked -p fleetflame -p fleetflame-agent
	cargo build --locked --workspace --bins
	target=$${CARGO_TARGET_DIR:-target}
	FLEETFLAME_BIN_DIR=$$target/release exec "$$target/debug/gateway-cost" $(ROUNDS)

lab-cost:  ## what each of SystemTap's probes costs, in instructions, in a guest that counts them; PROBES="vfs lock" for some
	@deploy/test-packages
	cargo build --locked --workspace --bins
	exec "$${CARGO_TARGET_DIR:-target}/debug/lab-cost" $(PROBES)

agent:  ## build the static agent that is sent over SSH, and check its size, its needs, and that it runs in an empty root
	@deploy/build-agent

test:  ## everything: packages, format, lints, all tests, doc tests, fuzzing
	@$(STEPS)
	# Built once and whole: what a compiler keeps to build parts again makes that a fifth dearer.
	export CARGO_INCREMENTAL=0
	# The runner's log, for the totals in the last line.
	log=$$(mktemp)
	trap 'rm -f "$$log"' EXIT
	nextest() { cargo nextest run --workspace --locked --no-fail-fast --color never "$$@" 2>&1 | tee "$$log"; }
	counts() {
	    local line; line=$$(grep -E '^ *Summary .* tests? run:' "$$log" | tail -n 1)
	    number() { grep -oE "[0-9]+ $$1" <<<"$$line" | grep -oE '[0-9]+' || echo 0; }
	    printf '%s passed, %s failed\n' "$$(number passed)" "$$(($$(number failed) + $$(number 'timed out')))"
	}
	step packages deploy/test-packages
	step format cargo fmt --all --check
	step lints cargo clippy --workspace --all-targets --locked -- -D warnings
	step programs cargo build --workspace --locked --bins
	step kernel "$${CARGO_TARGET_DIR:-target}/debug/lab-record"
	step tests nextest
	step doc-tests cargo test --workspace --locked --doc --quiet
	step fuzz tests/fuzz/run $(FUZZ_SECONDS)
	finish

check:  ## the quick part: format, lints, unit tests
	@$(STEPS)
	step format cargo fmt --all --check
	step lints cargo clippy --workspace --all-targets --locked -- -D warnings
	step unit-tests cargo nextest run --workspace --locked --lib --bins
	finish

lab:  ## real SystemTap in virtual machines, alone: the stories of tests/e2e/lab; STORIES=word for some of them
	@$(STEPS)
	step packages deploy/test-packages
	step programs cargo build --workspace --locked --bins
	step kernel "$${CARGO_TARGET_DIR:-target}/debug/lab-record"
	step lab cargo nextest run --locked --workspace --no-fail-fast --test lab $(STORIES)
	finish

record:  ## run CASE=name of tests/lab/cases in a virtual machine and write what came of it to OUT (target/recordings)
	@$(if $(CASE),,$(error give CASE=name; the cases are: $(notdir $(wildcard tests/lab/cases/*))))
	deploy/test-packages
	cargo build --locked --workspace --bins
	exec "$${CARGO_TARGET_DIR:-target}/debug/lab-record" "$(CASE)" "$(or $(OUT),$${CARGO_TARGET_DIR:-target}/recordings)"

bench:  ## measure against the tools of the field; PARTS="fold merge" for some parts, PARTS=--quick for small inputs
	@cargo build --release --locked -p fleetflame -p fleetflame-agent -p fleetflame-bench
	exec "$${CARGO_TARGET_DIR:-target}/release/fleetflame-bench" $(PARTS)

soak:  ## repeat and fuzz for long: 500 seeds, the fleet tests and all ends in the lab twenty times, ten minutes a fuzz target
	@$(STEPS)
	step packages deploy/test-packages
	step programs cargo build --workspace --locked --bins
	step seeds env FLEETFLAME_SEEDS=500 cargo nextest run --locked -p fleetflame-tests --test simulated_fleet
	repeat() { local i; for i in $$(seq 20); do cargo nextest run --locked -p fleetflame-tests --test fleet || return 1; done; }
	step fleet repeat
	step kernel "$${CARGO_TARGET_DIR:-target}/debug/lab-record"
	step lab-ends env FLEETFLAME_LAB_ENDS_ROUNDS=20 cargo nextest run --locked --workspace --profile soak --test lab -- stap_engine::
	step fuzz tests/fuzz/run 600
	finish

bless:  ## write the seeds of the fuzzers and other generated test data anew
	@cargo run --quiet --locked --manifest-path tests/fuzz/Cargo.toml \
	    --target-dir "$${CARGO_TARGET_DIR:-target}/fuzz" --release --example seeds
