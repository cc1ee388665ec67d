#!/usr/bin/env bash
# Runs every fuzz target of every module for FUZZTIME (default 5s) each. FUZZ is a regular expression that picks some.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-5s}
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$PWD/bin/k8s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Names the packages of a module that have a fuzz target, for go test -list has to build what it is asked about.
fuzzed_packages() {
	(cd "$1" && go list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}' ./...) | while read -r package file; do
		if [ -n "$package" ] && grep -q '^func Fuzz' "$file"; then
			echo "$package"
		fi
	done | sort -u
}

# Fuzzes one target: module, package, name.
fuzz() {
	go -C "$1" test -run '^$' -fuzz "^$3\$" -fuzztime "$time" "$2" 2>&1 | tee "$log"
}

ran=0
failed=()
modules=$(hack/modules.sh)
for module in $modules; do
	packages=$(fuzzed_packages "$module")
	for package in $packages; do
		list=$(go -C "$module" test -list "${FUZZ:-^Fuzz}" "$package")
		for target in $(grep '^Fuzz' <<<"$list" || true); do
			echo "== fuzz $target in $package for $time"
			ran=$((ran + 1))
			if fuzz "$module" "$package" "$target"; then
				continue
			fi
			# Before 1.27, Go's fuzzer at times takes its own deadline for a failure of the target (golang/go#75804). A
			# target that fails leaves the input that did it; where there is none, a second run decides.
			if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"; then
				echo "== fuzz $target again: its deadline ended the first run, not a failing input"
				if fuzz "$module" "$package" "$target"; then
					continue
				fi
			fi
			failed+=("$package: $target")
		done
	done
done

if [ ${#failed[@]} -gt 0 ]; then
	printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
	echo "fuzz: a failing input is kept in that package's testdata/fuzz: mend the code and commit the input as a test" >&2
	exit 1
fi
echo "fuzz: $ran targets, $time each, none failed"
