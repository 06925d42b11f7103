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
	printf '| Benchmark | Heddle | / bare veth | / routed | / routed, 1,000 rules | policy on / off |\n|---|--:|--:|--:|--:|--:|\n'
	jq -rs '
		def figure: if . >= 1000 then round else . * 10 | round / 10 end;
		def ratio: if . == null then "" else .ratio.median * 100 | round / 100 end;
		group_by(.name) | .[]
		| (map(select(.candidate.name == "heddle") | {(.baseline.name): .}) | add) as $by
		| (map(select(.candidate.name == "heddle+policy")) | first) as $policy
		| select($by != null)
		| "| \(.[0].name) | \($by["bare-veth"].candidate.median | figure) \(.[0].unit) | \($by["bare-veth"] | ratio) | \($by["routed"] | ratio) | \($by["routed+iptables-1000-rules"] | ratio) | \($policy | ratio) |"
	' "$lines"
} >"$HEDDLE_CACHE/figures.md"

awk -v table="$HEDDLE_CACHE/figures.md" '
	/<!-- figures:begin -->/ { print; while ((getline line < table) > 0) print line; skipping = 1 }
	/<!-- figures:end -->/ { skipping = 0 }
	!skipping
' README.md >"$HEDDLE_CACHE/README.new"
grep -q 'figures:end' "$HEDDLE_CACHE/README.new" || fail figures/markers "README.md has no figures markers" "put them back"
cat "$HEDDLE_CACHE/README.new" >README.md
