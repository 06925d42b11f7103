#!/usr/bin/env bash
# Runs the benchmarks as root, in namespaces of their own.
set -euo pipefail
source "$(dirname "$0")/env.sh"

export HEDDLE=$root/bin/heddle HEDDLE_CNI=$root/bin/heddle-cni
as_root env HEDDLE="$HEDDLE" HEDDLE_CNI="$HEDDLE_CNI" "$root/bin/heddle-bench" run "$@"
