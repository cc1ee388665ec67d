#!/usr/bin/env bash
# Lists the folders of this repository's Go modules, one a line, the root first.
#
#   hack/modules.sh        those that hold packages of their own, to test and to lint
#   hack/modules.sh --all  also those that only pin programs of others, to keep tidy
set -euo pipefail
cd "$(dirname "$0")/.."

find . \( -name bin -o -name .git -o -name testdata -o -name node_modules \) -prune -o -name go.mod -exec dirname {} \; |
	LC_ALL=C sort | while read -r dir; do
		# A module that cannot even be listed is named too: whoever tests it then sees why.
		if [ "${1:-}" = --all ] || ! packages=$(GOWORK=off go -C "$dir" list ./... 2>/dev/null) || [ -n "$packages" ]; then
			echo "$dir"
		fi
	done
