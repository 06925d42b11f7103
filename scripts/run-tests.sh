#!/usr/bin/env bash
# Runs the test programs of a list (folder, program and name, by tabs; see test.sh) as root, several at once: most wait
# more than they compute. Prints what each printed when it has ended, and at the end which failed.
#
#   scripts/run-tests.sh LIST [ARGUMENT FOR EACH...]
set -euo pipefail
source "$(dirname "$0")/env.sh"

# All of it runs as root, not the programs alone: what ends them must have the rights to, and a sudo that is started by
# a process in the background could not ask for the password.
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || fail setup/not-root "the tests with real packets need root" "run make as root, or install sudo"
	exec sudo -E env PATH="$PATH" HEDDLE_TEST_STARTER="$PPID" "$root/scripts/run-tests.sh" "$@"
fi

list=$1
shift
jobs=${HEDDLE_TEST_JOBS:-$(nproc)}
# A test has deadlines of its own; this one is for a test program that hangs.
longest=${HEDDLE_TEST_LIMIT:-1200}
[[ $longest =~ ^[1-9][0-9]*$ ]] || fail setup/usage "HEDDLE_TEST_LIMIT is '$longest', which is no number of seconds" "HEDDLE_TEST_LIMIT=1200"

results=$(mktemp -d)
declare -A running=()
# Who starts this may be ended by a signal that does not come here, or may not come here for want of rights.
starter=${HEDDLE_TEST_STARTER:-$PPID}
(
	while kill -0 "$starter"; do
		sleep 1
		kill -0 $$ || exit
	done
	kill -TERM $$
) </dev/null >/dev/null 2>&1 &
watcher=$!
clean_up() {
	kill "$watcher" 2>/dev/null || true
	# A program that is asked to end leaves its namespaces to the next run's clean-up; its group goes with it.
	if [ ${#running[@]} -gt 0 ]; then
		kill -TERM "${!running[@]}" 2>/dev/null || true
		wait "${!running[@]}" 2>/dev/null || true
	fi
	rm -rf "$results"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# one NUMBER FOLDER PROGRAM [ARGUMENT...]: as cargo runs a test program, in its package's folder. Ends with a code and
# never by a signal, whatever the program does: `wait -n` misses a job that a signal ended while the shell did something else.
one() {
	local number=$1 folder=$2 program=$3 code=0 asked='' pid=''
	shift 3
	trap 'asked=1; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true' TERM HUP INT
	cd "$folder"
	CARGO_MANIFEST_DIR=$folder timeout --kill-after=10 "$longest" "$program" "$@" &
	pid=$!
	[ -z "$asked" ] || kill -TERM "$pid" 2>/dev/null || true
	# The trap interrupts a wait. What the shell says of a program that a signal ended, is said below in fewer words.
	{ wait "$pid" || code=$?; } 2>/dev/null
	while [ -n "$asked" ] && kill -0 "$pid" 2>/dev/null; do
		{ wait "$pid" || code=$?; } 2>/dev/null
	done
	[ "$code" -le 128 ] || echo "ended by signal $(kill -l "$code" 2>/dev/null || echo "$code")"
	exit "$code"
}

total=$(wc -l <"$list")
ended=0
failed=()
# finish_one: waits for any of the running programs, and shows what it printed.
finish_one() {
	local pid='' code=0 number name started took
	wait -n -p pid "${!running[@]}" || code=$?
	if [ -z "${pid:-}" ]; then
		# The shell counts none of them among its jobs any more, but keeps their codes.
		for pid in "${!running[@]}"; do
			kill -0 "$pid" 2>/dev/null || break
		done
		code=0
		wait "$pid" || code=$?
	fi
	IFS=$'\t' read -r number started name <<<"${running[$pid]}"
	unset "running[$pid]"
	ended=$((ended + 1))
	took=$((SECONDS - started))
	[ "$code" = 0 ] || [ "$took" -lt "$longest" ] || echo "not ended within $longest s (HEDDLE_TEST_LIMIT)" >>"$results/$number"
	# To the same stream as what follows, so that they stay together.
	say "$ended of $total, $took s: $name" 2>&1
	cat "$results/$number"
	rm "$results/$number"
	[ "$code" = 0 ] || failed+=("$name (code $code)")
}

number=0
while IFS=$'\t' read -r folder program name; do
	[ ${#running[@]} -lt "$jobs" ] || finish_one
	number=$((number + 1))
	one "$number" "$folder" "$program" "$@" </dev/null >"$results/$number" 2>&1 &
	running[$!]=$number$'\t'$SECONDS$'\t'$name
done <"$list"
while [ ${#running[@]} -gt 0 ]; do
	finish_one
done
[ "$total" -gt 0 ] || fail test/nothing "there is no test program to run" "cargo's lines above say why"
[ ${#failed[@]} = 0 ] || fail test/failed "${#failed[@]} of $total test programs failed: $(printf '%s; ' "${failed[@]}")" \
	"their output is above, each after its name"
