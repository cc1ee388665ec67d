package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// RuntimeEvent is what containerd tells of a container: one of a Pod's, or the one that holds the Pod's namespaces. Its times are
// finer than those of a Pod's status, which are whole seconds.
type RuntimeEvent struct {
	Time time.Time

	// Topic is containerd's: /tasks/start, /tasks/exit, /tasks/exec-started.
	Topic string

	Container string

	// Exec is the id of a command that was run in the container, such as a probe or a hook. Empty: the container's own program.
	Exec string

	ExitStatus int
}

// WatchRuntime tells of containers until the context ends. What happens in the first moment may be missed.
func (n *Node) WatchRuntime(ctx context.Context, tell func(RuntimeEvent)) error {
	path, err := here().find("ctr")
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, path, "--address", socket, "--namespace", "k8s.io", "events")
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("watch containerd: %w", err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if event, ok := parseRuntimeEvent(lines.Text()); ok {
				tell(event)
			}
		}
		_ = command.Wait() // it ends with the context, or with containerd
	}()
	return nil
}

// runtimeTime is how ctr writes when an event was.
const runtimeTime = "2006-01-02 15:04:05.999999999 -0700 MST"

// parseRuntimeEvent reads a line of ctr: a time of four words, the namespace, the topic and a document.
func parseRuntimeEvent(line string) (RuntimeEvent, bool) {
	words := strings.SplitN(line, " ", 7)
	if len(words) < 7 {
		return RuntimeEvent{}, false
	}
	at, err := time.Parse(runtimeTime, strings.Join(words[:4], " "))
	if err != nil {
		return RuntimeEvent{}, false
	}
	var said struct {
		Container  string `json:"container_id"`
		Exec       string `json:"exec_id"`
		ID         string `json:"id"`
		ExitStatus int    `json:"exit_status"`
	}
	if err := json.Unmarshal([]byte(words[6]), &said); err != nil || said.Container == "" {
		return RuntimeEvent{}, false
	}
	event := RuntimeEvent{Time: at, Topic: words[5], Container: said.Container, Exec: said.Exec, ExitStatus: said.ExitStatus}
	if said.ID != said.Container && event.Exec == "" {
		event.Exec = said.ID
	}
	return event, true
}

// Sandbox returns the id of the container that holds the namespaces of a Pod.
func (n *Node) Sandbox(ctx context.Context, uid string) (string, error) {
	said, err := n.ctr(ctx, "containers", "ls", "--quiet",
		fmt.Sprintf(`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.uid"==%s`, uid))
	if err != nil {
		return "", fmt.Errorf("find the sandbox of Pod %s: %w", uid, err)
	}
	found := strings.Fields(said)
	if len(found) != 1 {
		return "", fmt.Errorf("find the sandbox of Pod %s: there are %d", uid, len(found))
	}
	return found[0], nil
}
