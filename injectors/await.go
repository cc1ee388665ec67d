package injectors

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// awaitMain runs a command, its arguments from the second on, until it succeeds, for as many seconds as the first says. Some
// sleeps know only whole seconds.
const awaitMain = `end=$(($(date +%s) + $1)); shift; until "$@" >/dev/null 2>&1; do ` +
	`if [ "$(date +%s)" -ge "$end" ]; then echo "gave up: $*"; exit 1; fi; sleep 0.05 2>/dev/null || sleep 1; done`

// awaited holds back what starts after the container until a command in it succeeds. If it does not in time, the container is
// started again, and its state says so. It is a hook and no startup probe, for the kubelet looks at probes once a second, and
// adds that to the start of every Pod (docs/decisions/0003-what-is-awaited.md). A hook's command is not expanded, so it has no
// need of literal.
func awaited(timeout time.Duration, command ...string) *corev1.Lifecycle {
	return hook(awaitMain, timeout, command...)
}

// hook runs shell lines, whose first argument is a number of seconds.
func hook(lines string, timeout time.Duration, args ...string) *corev1.Lifecycle {
	seconds := strconv.Itoa(int(timeout / time.Second))
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{
		Exec: &corev1.ExecAction{Command: append([]string{"sh", "-c", lines, "sh", seconds}, args...)},
	}}
}
