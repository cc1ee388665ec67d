#!/usr/bin/env bash
# Fails, with the difference on screen, if a generated file is not what generating it gives, if a go.mod or go.sum is not tidy, or
# if the chart does not lint or render with one of the sets of values in charts/pillion/ci. It leaves the tree as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
crds=${CRD_DIR:-api/crds}
work=$(mktemp -d)
failed=0

# The generated files, by path: those in the tree that are not ignored, committed or not.
generated() {
	find . \( -name bin -o -name .git \) -prune -o -name 'zz_generated.*.go' -print
	find "./$crds" -maxdepth 1 -name '*.yaml' -print 2>/dev/null || true
	find ./docs -maxdepth 1 \( -name 'reference.md' -o -name 'commands.md' \) -print
	find ./charts/pillion \( -path '*/files/crds/*.yaml' -o -name 'values.schema.json' \) -print
	find ./deploy -maxdepth 1 -name '*.yaml' ! -name 'kustomization.yaml' -print
}

# Copies the generated files to a folder, with their times, so that putting them back does not look like a change.
save() {
	mkdir -p "$1"
	generated | while read -r file; do
		mkdir -p "$1/$(dirname "$file")"
		cp -p "$file" "$1/$file"
	done
}

# Puts the tree back: what was there comes back, and what was not there goes.
restore() {
	generated | while read -r file; do
		[ -e "$work/current/$file" ] || rm -f "$file"
	done
	cp -pR "$work/current/." .
	rm -rf "$work"
}

save "$work/current"
trap restore EXIT
if hack/generate.sh; then
	save "$work/generated"
	if ! (cd "$work" && diff -ruN current generated); then
		echo "verify: generated files differ: run 'make generate' and commit what it changes" >&2
		failed=1
	fi
else
	echo "verify: generating failed" >&2
	failed=1
fi

modules=$(hack/modules.sh --all)
for module in $modules; do
	if ! go -C "$module" mod tidy -diff; then
		echo "verify: module $module is not tidy: run 'go -C $module mod tidy' and commit what it changes" >&2
		failed=1
	fi
done

for values in charts/pillion/ci/*-values.yaml; do
	if ! bin/tools/helm lint --strict --quiet --values "$values" charts/pillion ||
		! bin/tools/helm template pillion charts/pillion --namespace pillion-system --values "$values" >/dev/null; then
		echo "verify: the chart fails with the values of $values" >&2
		failed=1
	fi
done

[ $failed = 0 ] && echo "verify: generated files, modules and the chart are as they should be"
exit $failed
