#!/usr/bin/env bash
# Writes the results of `make bench` (JSON lines) into README.md, between its markers, with the machine
# they were measured on: `scripts/figures.sh bench.jsonl`.
set -euo pipefail
source "$(dirname "$0")/env.sh"

lines=${1:?usage: scripts/figures.sh FILE.jsonl}
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | paste -sd, -)
memory=$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)
{
	printf '%s: %s × %s, %s GiB, Linux %s.\n\n' "$(date -u +%F)" "$(nproc)" "${cpu:-unknown CPU}" "$memory" "$(uname -r | cut -d- -f1)"
	printf '| Benchmark | Against | Baseline | Heddle | Unit | Ratio (min to max) |\n|---|---|--:|--:|---|--:|\n'
	jq -r '
		def figure: if . >= 1000 then round elif . >= 10 then . * 10 | round / 10 else . * 100 | round / 100 end;
		def ratio: . * 1000 | round / 1000;
		select(.candidate.name | startswith("heddle"))
		| "| \(.name)\(if .candidate.name == "heddle+policy" then ", policy on" else "" end) | \(.baseline.name) | \(.baseline.median | figure) | \(.candidate.median | figure) | \(.unit) | \(.ratio.median | ratio) (\(.ratio.min | ratio) to \(.ratio.max | ratio)) |"
	' "$lines"
} >"$HEDDLE_CACHE/figures.md"

awk -v table="$HEDDLE_CACHE/figures.md" '
	/<!-- figures:begin -->/ { print; while ((getline line < table) > 0) print line; skipping = 1 }
	/<!-- figures:end -->/ { skipping = 0 }
	!skipping
' README.md >"$HEDDLE_CACHE/README.new"
grep -q 'figures:end' "$HEDDLE_CACHE/README.new" || fail figures/markers "README.md has no figures markers" "put them back"
cat "$HEDDLE_CACHE/README.new" >README.md
