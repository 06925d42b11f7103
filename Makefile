# What people type. The work is in scripts/; CONTRIBUTING.md says what each step does and why.
#
# Variables:
#   HEDDLE_CACHE      where tools and build results are kept, outside the clone (~/.cache/heddle)
#   CARGO_TARGET_DIR  build results only ($HEDDLE_CACHE/target)
#   LAB               name of the lab that `make lab` makes and `make down` removes (default)
#   PREFIX            where `make install` installs (/usr/local)
#   BENCH, OUT        which benchmarks to run (all), and where their JSON lines go (bench.jsonl)
#   HEDDLE_TEST_JOBS  how many test programs run at once (one per core)
#   HEDDLE_TEST_LIMIT seconds after which a test program that has not ended fails (1200; test-policy-live: 60 more per set)
#   SETS              policy sets of test-policy-live (100)
#   SUITE, STEPS      the Debian release that `make fresh` plays (bookworm), and the commands it runs (lab test)
#   N                 how often `make test-repeat` runs the packet tests (20)
#   FUZZ_SECONDS      how long each fuzz target runs (60)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lab down test test-policy-live fuzz kernels bench bench-growth build install fmt lint deny fresh test-repeat

# For the times that progress is shown with.
export HEDDLE_STARTED := $(shell date +%s)

PREFIX ?= /usr/local
OUT ?= bench.jsonl
SETS ?= 100
SUITE ?= bookworm
STEPS ?= lab test
N ?= 20

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing to build and test, and nothing else
	@scripts/setup.sh test

lab: ## Install what is missing, build, bring up a two-node cluster and show it working (root)
	@STEP="step 1 of 3: " scripts/setup.sh lab
	@STEP="step 2 of 3: " scripts/build.sh lab
	@STEP="step 3 of 3: " scripts/lab.sh

down: ## Remove the lab that `make lab` made
	@scripts/down.sh

bench-growth: ## What one change costs an agent in a small and in a large cluster, in turns
	@scripts/setup.sh test
	@scripts/test.sh growth

test: ## Everything CI runs (root for the tests with real packets)
	@STEP="step 1 of 6: " scripts/setup.sh test
	@scripts/test.sh

test-policy-live: ## Real connections against policy sets drawn by seed: 100 of them, or SETS=number (root)
	@scripts/setup.sh test
	@HEDDLE_POLICY_SETS="$(SETS)" scripts/test.sh policy-live

fuzz: ## Fuzz the parsers of policies, manifests and selectors, FUZZ_SECONDS each (60)
	@scripts/setup.sh fuzz
	@fuzz/run.sh

kernels: ## The datapath's tests on Debian's kernel of this release, in QEMU (x86_64)
	@scripts/setup.sh kernels
	@scripts/kernels.sh

bench: ## Paired, interleaved benchmarks; BENCH=name chooses, OUT=file.jsonl keeps the results (root)
	@scripts/setup.sh bench
	@scripts/build.sh bench
	@scripts/bench.sh --out "$(OUT)" $(if $(BENCH),--bench "$(BENCH)")

build: ## Release binaries into bin/
	@scripts/setup.sh build
	@scripts/build.sh

install: build ## Install the binaries under PREFIX (default /usr/local)
	install -D -m 0755 bin/heddle "$(DESTDIR)$(PREFIX)/bin/heddle"
	install -D -m 0755 bin/heddle-cni "$(DESTDIR)$(PREFIX)/bin/heddle-cni"

fmt: ## Format the code
	@source scripts/env.sh && cargo fmt --all

lint: ## Formatting, clippy, and whether the fuzz targets compile, as `make test` checks them
	@scripts/setup.sh build
	@scripts/test.sh lint

deny: ## Licences, duplicate and banned crates, sources (builds cargo-deny the first time)
	@scripts/setup.sh deny
	@scripts/test.sh deny

fresh: ## A new machine: both commands of README in a Debian that has make, git and a network; SUITE=trixie (root)
	@scripts/fresh.sh "$(SUITE)" $(STEPS)

test-repeat: ## The packet tests N times in a row (20) beside a busy core (root)
	@scripts/setup.sh test
	@scripts/repeat.sh "$(N)"
