package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatContainerdTellsIsRead(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC)
	for name, test := range map[string]struct {
		line string
		want RuntimeEvent
		none bool
	}{
		"a container starts": {
			line: `2026-01-02 03:04:05.06 +0000 UTC k8s.io /tasks/start {"container_id":"a1","pid":7}`,
			want: RuntimeEvent{Time: at, Topic: "/tasks/start", Container: "a1"},
		},
		"a container ends": {
			line: `2026-01-02 03:04:05.06 +0000 UTC k8s.io /tasks/exit {"container_id":"a1","id":"a1","pid":7,"exit_status":1}`,
			want: RuntimeEvent{Time: at, Topic: "/tasks/exit", Container: "a1", ExitStatus: 1},
		},
		"a command in a container starts": {
			line: `2026-01-02 03:04:05.06 +0000 UTC k8s.io /tasks/exec-started {"container_id":"a1","exec_id":"e1","pid":7}`,
			want: RuntimeEvent{Time: at, Topic: "/tasks/exec-started", Container: "a1", Exec: "e1"},
		},
		"a command in a container ends": {
			line: `2026-01-02 03:04:05.06 +0000 UTC k8s.io /tasks/exit {"container_id":"a1","id":"e1","pid":7}`,
			want: RuntimeEvent{Time: at, Topic: "/tasks/exit", Container: "a1", Exec: "e1"},
		},
		"an event of something else": {
			line: `2026-01-02 03:04:05.06 +0000 UTC k8s.io /snapshot/prepare {"key":"a1"}`,
			none: true,
		},
		"no event": {line: `ctr: cannot`, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			event, ok := parseRuntimeEvent(test.line)
			if ok == test.none {
				t.Fatalf("read: %t", ok)
			}
			event.Time = event.Time.UTC()
			if diff := cmp.Diff(test.want, event); !test.none && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
