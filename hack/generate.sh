#!/usr/bin/env bash
# Writes what is derived from the API types: deep copies beside the types, the CRDs in CRD_DIR (default api/crds), and
# docs/reference.md. API_PATHS (default ./api/...) says where the types are. Writes docs/commands.md from the commands, what the chart
# repeats of the CRDs and of docs/configuration.md, and deploy/ from the chart.
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

mkdir -p charts/pillion/files/crds
rm -f charts/pillion/files/crds/*.yaml
cp "$crds"/*.yaml charts/pillion/files/crds/
go test ./charts -count=1 -run '^TestTheSchemaHasTheKeysOfTheConfiguration$' -update >"$fresh/test.log" || { cat "$fresh/test.log" >&2; exit 1; }

# render FILE ARGUMENT... writes a file of deploy/: what helm renders, without what only helm reads.
render() {
	local file=$1
	shift
	bin/tools/helm template pillion charts/pillion --namespace pillion-system --set createNamespace=true --skip-tests "$@" >"$fresh/rendered"
	{
		echo "# Written by make generate from charts/pillion."
		grep -v -e '^# Source: ' -e '^ *helm.sh/resource-policy: ' "$fresh/rendered" | cat -s | awk '
			# An empty line ahead of a separator says nothing.
			/^$/ { held = 1; next }
			{ if (held && $0 != "---") print ""; held = 0; print }'
	} >"$fresh/deploy.yaml"
	cp "$fresh/deploy.yaml" "deploy/$file"
}
render pillion.yaml
for part in namespace rbac selfcheck webhookconfiguration; do
	render "$part.yaml" --show-only "templates/$part.yaml"
done
render monitoring.yaml --show-only templates/monitoring.yaml \
	--set serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true
