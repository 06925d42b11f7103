#!/usr/bin/env bash
# The packet tests many times in a row, beside a process that keeps one core busy: what is right only by luck shows.
# Stops at the first run that fails, and shows that run whole.
#
#   scripts/repeat.sh [RUNS (20)]
set -euo pipefail
source "$(dirname "$0")/env.sh"

runs=${1:-20}
[[ $runs =~ ^[1-9][0-9]{0,3}$ ]] || fail setup/usage "'$runs' is no number of runs" "make test-repeat N=20"
output=$(mktemp)
busy= running=
clean_up() {
	# Its programs end with it: see run-tests.sh.
	[ -z "$running" ] || kill "$running" 2>/dev/null || true
	[ -z "$busy" ] || kill "$busy" 2>/dev/null || true
	rm -f "$output"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

scripts/test.sh packets-build
last=$(($(nproc) - 1))
say "core $last is kept busy"
taskset --cpu-list "$last" bash -c 'while :; do :; done' &
busy=$!
for ((run = 1; run <= runs; run++)); do
	started=$SECONDS
	# In the background: a trap waits for what runs in the foreground.
	scripts/test.sh packets </dev/null >"$output" 2>&1 &
	running=$! code=0
	wait "$running" || code=$?
	running=
	if [ "$code" != 0 ]; then
		cat "$output"
		fail test/repeat "run $run of $runs failed after $((SECONDS - started)) s" "its output is above"
	fi
	say "run $run of $runs: $(grep -c '^test result: ok' "$output") test programs, $(grep -c '^test .* ok$' "$output") tests passed in $((SECONDS - started)) s"
done
