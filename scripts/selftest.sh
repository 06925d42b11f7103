#!/usr/bin/env bash
# Tests of the scripts themselves, with small programs in place of what takes long; some seconds, as root.
set -euo pipefail
source "$(dirname "$0")/env.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
wrong() { fail scripts/selftest "$1" "${2:-see scripts/selftest.sh}"; }

# program NAME LINE: a test program that runs LINE, in the list of what is to run.
program() {
	printf '#!/usr/bin/env bash\n%s\n' "$2" >"$scratch/$1"
	chmod 0755 "$scratch/$1"
	printf '%s\t%s\t%s\n' "$scratch" "$scratch/$1" "fake test $1" >>"$scratch/list"
}
chmod 0755 "$scratch"

# However a program ends and whatever the runner does just then, its name, its output and its code are shown.
for number in {1..40}; do
	program "killed-$number" 'echo "printed by $0"; kill -KILL $$'
	program "passed-$number" 'echo "printed by $0"'
done
program hangs 'echo "printed by $0"; sleep 60'
program fails 'echo "printed by $0 in $PWD with $1"; exit 7'
code=0
HEDDLE_TEST_JOBS=8 HEDDLE_TEST_LIMIT=6 scripts/run-tests.sh "$scratch/list" argument >"$scratch/output" 2>&1 || code=$?
[ "$code" = 1 ] || wrong "run-tests.sh ended with $code" "$(tail -n 3 "$scratch/output")"
for expected in ' s: fake test =82' 'printed by =82' 'ended by signal KILL=40' "fails in $scratch with argument=1"; do
	seen=$(grep -cE "${expected%=*}" "$scratch/output") || true
	[ "$seen" = "${expected##*=}" ] || wrong "run-tests.sh printed '${expected%=*}' $seen times, not ${expected##*=}" "$(tail -n 3 "$scratch/output")"
done
for expected in 'error.test/failed.: 42 of 82' 'not ended within 6 s' 'fails (code 7)' 'hangs (code 124)' 'killed-40 (code 137)'; do
	grep -q "$expected" "$scratch/output" || wrong "run-tests.sh does not say '$expected'" "$(tail -n 3 "$scratch/output")"
done

# Programs are chosen by their whole names.
program chosen true
sed -i 's,fake test chosen,tests/netns test chosen,' "$scratch/list"
eval "$(grep '^choose()' scripts/test.sh)"
list=$scratch/list choose '(node/datapath|tests/netns) test .*'
[ "$(cut -f 3 "$scratch/list")" = 'tests/netns test chosen' ] || wrong "choose keeps $(cut -f 3 "$scratch/list")"

# A script finds the declared programs from wherever it is called, and nothing else.
if command -v dpkg-query >/dev/null; then
	mkdir -p "$scratch/clone/scripts" "$scratch/undeclared"
	cp scripts/{env,path,packages}.sh "$scratch/clone/scripts/"
	printf '#!/usr/bin/env bash\nset -euo pipefail\nsource "$(dirname "$0")/env.sh"\n[ -n "$caller_path" ]\n! command -v undeclared\n' >"$scratch/clone/scripts/asks.sh"
	printf '#!/bin/sh\n' >"$scratch/undeclared/undeclared"
	chmod 0755 "$scratch/clone/scripts/asks.sh" "$scratch/undeclared/undeclared"
	for call in . ./scripts /; do
		(
			cd "$scratch/clone/${call#/}"
			name=asks.sh
			[ "$call" != . ] || name=scripts/asks.sh
			[ "$call" != / ] || name=$scratch/clone/scripts/asks.sh
			env -u HEDDLE_PATH PATH="$scratch/undeclared:$PATH" bash "$name"
		) || wrong "a script called from $call does not have the declared path"
	done

	# Links that could not all be made are not kept.
	printf '#!/bin/bash\n%s "${@:1:6}"\nexit 1\n' "$(command -v ln)" >"$scratch/undeclared/ln"
	chmod 0755 "$scratch/undeclared/ln"
	code=0
	env -u HEDDLE_PATH HEDDLE_CACHE="$scratch/cache" PATH="$scratch/undeclared:$PATH" bash "$scratch/clone/scripts/asks.sh" 2>/dev/null || code=$?
	[ "$code" != 0 ] && [ -z "$(ls "$scratch/cache")" ] || wrong "links that were made in part are kept: $(ls "$scratch/cache")"
fi
say "the scripts passed their own tests"
