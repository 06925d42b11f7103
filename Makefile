# What people type. The work is in scripts/; CONTRIBUTING.md says what each step does and why.
#
# Variables:
#   HEDDLE_CACHE      where tools and build results are kept, outside the clone (~/.cache/heddle)
#   CARGO_TARGET_DIR  build results only ($HEDDLE_CACHE/target)
#   LAB               name of the lab that `make lab` makes and `make down` removes (default)
#   PREFIX            where `make install` installs (/usr/local)
#   BENCH, OUT        which benchmarks to run (all), and where their JSON lines go (bench.jsonl)
#   SETS              policy sets of test-policy-live (100)
#   FUZZ_SECONDS      how long each fuzz target runs (60)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lab down test test-policy-live fuzz bench build install fmt lint deny

PREFIX ?= /usr/local
OUT ?= bench.jsonl
SETS ?= 100

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

setup: ## Install what is missing to build and test, and nothing else
	@scripts/setup.sh test

lab: ## Install what is missing, build, bring up a two-node cluster and show it working (root)
	@scripts/setup.sh lab
	@scripts/build.sh
	@scripts/lab.sh

down: ## Remove the lab that `make lab` made
	@scripts/down.sh

test: ## Everything CI runs (root for the tests with real packets)
	@scripts/setup.sh test
	@scripts/test.sh

test-policy-live: ## Real connections against policy sets drawn by seed: 100 of them, or SETS=number (root)
	@scripts/setup.sh test
	@HEDDLE_POLICY_SETS="$(SETS)" scripts/test.sh policy-live

fuzz: ## Fuzz the parsers of policies, manifests and selectors, FUZZ_SECONDS each (60)
	@scripts/setup.sh build
	@fuzz/run.sh

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

lint: ## Formatting and clippy, as `make test` checks them
	@scripts/setup.sh build
	@scripts/test.sh lint

deny: ## Licences, duplicate and banned crates, sources (builds cargo-deny the first time)
	@scripts/setup.sh deny
	@scripts/test.sh deny
