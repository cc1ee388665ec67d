#!/usr/bin/env bash
# Runs every module's tests, with the race detector where it can be had, and says at the end which modules failed.
# TESTFLAGS is passed to go test, PACKAGES (default ./...) says which packages of each module.
set -euo pipefail
cd "$(dirname "$0")/.."
export KUBEBUILDER_ASSETS=${KUBEBUILDER_ASSETS:-$PWD/bin/k8s}

# The race detector is C++ and is linked by cgo. Go turns cgo off by itself where it finds no C compiler.
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ]; then
	race=
	cat >&2 <<-'NOTICE'

		*********************************************************************
		*  NO RACE DETECTOR: there is no C compiler here, or CGO_ENABLED=0.  *
		*  The tests run without -race. Data races will NOT be found.        *
		*  On Debian: apt-get install gcc libc6-dev                          *
		*********************************************************************

	NOTICE
fi

# Packages in which traffic runs while things fail. They want the machine for themselves, or they would find out how slow it is; so they
# run without the race detector, too, which would see nothing of Pillion's processes.
alone='/test/(availability|coldstart|certmanager)$'

# Packages that start a node of Kubernetes. They want root and some Debian packages: make test-node runs them.
nodes='/test/node(/|$)'

failed=()
modules=$(hack/modules.sh)
for module in $modules; do
	if ! all=$(go -C "$module" list ${PACKAGES:-./...}); then
		failed+=("$module")
		continue
	fi
	all=$(grep -vE "$nodes" <<<"$all" || true)
	together=$(grep -vE "$alone" <<<"$all" || true)
	by_themselves=$(grep -E "$alone" <<<"$all" || true)
	echo "== go test ${race:+$race }${PACKAGES:-./...}  (module $module)"
	# shellcheck disable=SC2086 # flags and patterns are meant to be split into words
	if [ -n "$together" ]; then
		go -C "$module" test $race -timeout 20m ${TESTFLAGS:-} $together || failed+=("$module")
	fi
	# shellcheck disable=SC2086
	if [ -n "$by_themselves" ]; then
		go -C "$module" test -p 1 -timeout 30m ${TESTFLAGS:-} $by_themselves || failed+=("$module")
	fi
done

if [ ${#failed[@]} -gt 0 ]; then
	echo "tests failed in: ${failed[*]}" >&2
	exit 1
fi
