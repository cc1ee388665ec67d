#!/usr/bin/env bash
# Writes what is derived from the API types: deep copies beside the types, the CRDs in CRD_DIR (default api/crds), and
# docs/reference.md. API_PATHS (default ./api/...) says where the types are. Writes docs/commands.md from the commands.
set -euo pipefail
cd "$(dirname "$0")/.."
gen=bin/tools/controller-gen
paths=${API_PATHS:-./api/...}
crds=${CRD_DIR:-api/crds}

$gen object "paths=$paths"

# Into a folder apart first: a CRD whose type is gone must go too, and a run that fails must not leave half of them.
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
$gen crd "paths=$paths" "output:crd:dir=$fresh"
mkdir -p "$crds"
rm -f "$crds"/*.yaml
find "$fresh" -name '*.yaml' -exec cp {} "$crds" \;

go run ./hack/reference "$crds" api/v1alpha1 >"$fresh/reference.md"
cp "$fresh/reference.md" docs/reference.md

go test ./cmd/pillion -count=1 -run '^TestCommandReference$' -update >"$fresh/test.log" || { cat "$fresh/test.log" >&2; exit 1; }
