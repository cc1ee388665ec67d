#!/usr/bin/env bash
# Lints every module that holds packages, and says at the end which have findings.
set -euo pipefail
cd "$(dirname "$0")/.."
lint=$PWD/bin/tools/golangci-lint

failed=()
modules=$(hack/modules.sh)
for module in $modules; do
	echo "== golangci-lint run ./...  (module $module)"
	(cd "$module" && "$lint" run ./...) || failed+=("$module")
done

if [ ${#failed[@]} -gt 0 ]; then
	echo "lint: findings in: ${failed[*]}" >&2
	exit 1
fi
