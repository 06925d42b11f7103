#!/usr/bin/env bash
# Removes the lab that `make lab` made.
set -euo pipefail
source "$(dirname "$0")/env.sh"

heddle=$root/bin/heddle
[ -x "$heddle" ] || heddle=$(command -v heddle) ||
	fail setup/not-built "there is no bin/heddle to remove a lab with" "run 'make build' first"
as_root "$heddle" lab down --lab "${LAB:-default}"
