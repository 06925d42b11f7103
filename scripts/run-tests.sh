#!/usr/bin/env bash
# Runs the test programs of a list (folder, program and name, by tabs; see test.sh), several at once: most wait more
# than they compute. Prints what each printed when it has ended, and at the end which failed.
#
#   scripts/run-tests.sh LIST [ARGUMENT FOR EACH...]
set -euo pipefail
source "$(dirname "$0")/env.sh"

list=$1
shift
jobs=${HEDDLE_TEST_JOBS:-$(nproc)}
# A test has deadlines of its own; this one is for a test program that hangs.
longest=1200

runner=()
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || fail setup/not-root "the tests with real packets need root" "run make as root, or install sudo"
	runner=(sudo -E env PATH="$PATH")
fi
export LD_LIBRARY_PATH=$CARGO_TARGET_DIR/debug/deps:$(rustc --print sysroot)/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

results=$(mktemp -d)
declare -A running=()
clean_up() {
	# A program that is asked to end leaves its namespaces to the next run's clean-up; its group goes with it.
	[ ${#running[@]} = 0 ] || kill -TERM "${!running[@]}" 2>/dev/null || true
	rm -rf "$results"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# one NUMBER FOLDER PROGRAM [ARGUMENT...]: as cargo runs a test program, in its package's folder.
one() {
	local number=$1 folder=$2 program=$3
	shift 3
	cd "$folder"
	CARGO_MANIFEST_DIR=$folder exec timeout --kill-after=10 "$longest" "${runner[@]}" "$program" "$@" \
		</dev/null >"$results/$number" 2>&1
}

total=$(wc -l <"$list")
ended=0
failed=()
# finish_one: waits for any of the running programs, and shows what it printed.
finish_one() {
	local pid code=0 number name started
	wait -n -p pid "${!running[@]}" || code=$?
	IFS=$'\t' read -r number started name <<<"${running[$pid]}"
	unset "running[$pid]"
	ended=$((ended + 1))
	[ "$code" != 124 ] || echo "not ended within $longest s" >>"$results/$number"
	# To the same stream as what follows, so that they stay together.
	say "$ended of $total, $((SECONDS - started)) s: $name" 2>&1
	cat "$results/$number"
	rm "$results/$number"
	[ "$code" = 0 ] || failed+=("$name (code $code)")
}

number=0
while IFS=$'\t' read -r folder program name; do
	[ ${#running[@]} -lt "$jobs" ] || finish_one
	number=$((number + 1))
	one "$number" "$folder" "$program" "$@" &
	running[$!]=$number$'\t'$SECONDS$'\t'$name
done <"$list"
while [ ${#running[@]} -gt 0 ]; do
	finish_one
done
[ "$total" -gt 0 ] || fail test/nothing "there is no test program to run" "cargo's lines above say why"
[ ${#failed[@]} = 0 ] || fail test/failed "${#failed[@]} of $total test programs failed: $(printf '%s; ' "${failed[@]}")" \
	"their output is above, each after its name"
