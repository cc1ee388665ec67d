#!/usr/bin/env bash
# Runs every fuzz target of every module for FUZZTIME (default 5s) each. FUZZ is a regular expression that picks some. A target
# that has hardly run is a failure too: what is not tried is not tested.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-5s}
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$PWD/bin/k8s}
log=$(mktemp)
fresh=$(mktemp -d)
trap 'rm -rf "$log" "$fresh"' EXIT

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

# How many inputs a target has to try beside those that it begins with, and how long it gets to do so if it did not at first: few,
# and long, enough for a slow machine. A short run begins with the seeds alone, for it would end before all that Go keeps of earlier
# runs has been tried again.
least=100
longer=$time
corpus=()
case $time in
*x) least=0 ;;
[1-9]s) least=20 longer=30s corpus=(-args "-test.fuzzcachedir=$fresh") ;;
esac

# Fuzzes one target: module, package, name, time. Inputs are not made smaller, for which Go would take up to a minute of the run
# each time.
fuzz() {
	go -C "$1" test -run '^$' -fuzz "^$3\$" -fuzztime "$4" -fuzzminimizetime 1x "$2" "${corpus[@]}" 2>&1 | tee "$log"
}

# Says what is wrong if the last run tried too few inputs beside those that it began with, which Go counts too.
too_few() {
	local all seeds
	all=$(sed -n 's/.*execs: \([0-9]*\) .*/\1/p' "$log" | tail -1)
	seeds=$(sed -n 's|.*gathering baseline coverage: [0-9]*/\([0-9]*\) completed.*|\1|p' "$log" | tail -1)
	all=$((${all:-0} - ${seeds:-0}))
	if [ "$all" -lt "$least" ]; then
		echo "tried only $((all > 0 ? all : 0)) inputs of at least $least"
	fi
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
			if fuzz "$module" "$package" "$target" "$time"; then
				few=$(too_few)
				if [ -z "$few" ]; then
					continue
				fi
				echo "== fuzz $target again, for $longer: it $few"
				if fuzz "$module" "$package" "$target" "$longer"; then
					few=$(too_few)
					[ -z "$few" ] || failed+=("$package: $target $few")
					continue
				fi
			fi
			# Before 1.27, Go's fuzzer at times takes its own deadline for a failure of the target (golang/go#75804). A
			# target that fails leaves the input that did it; where there is none, a second run decides.
			if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"; then
				echo "== fuzz $target again: its deadline ended the first run, not a failing input"
				if fuzz "$module" "$package" "$target" "$time"; then
					continue
				fi
			fi
			failed+=("$package: $target")
		done
	done
done

if [ ${#failed[@]} -gt 0 ]; then
	printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
	echo "fuzz: a failing input is kept in that package's testdata/fuzz: mend the code and commit the input as a test;" \
		"a target that tried few has seeds that take too long" >&2
	exit 1
fi
echo "fuzz: $ran targets, $time each, none failed"
