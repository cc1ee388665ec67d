#!/usr/bin/env bash
# Writes what is derived from the API types: deep copies beside the types, and the CRDs in CRD_DIR (default api/crds).
# API_PATHS (default ./api/...) says where the types are.
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
