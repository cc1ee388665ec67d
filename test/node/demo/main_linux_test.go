//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pillion-dev/pillion/test/node/outside"
)

// program is what is tested.
var program string

func TestMain(m *testing.M) { os.Exit(outside.Main(m, func(path string) { program = path })) }

// begins is the first line of the demonstration, behind the time.
const begins = "0.0s starting a node"

func TestTheDemonstrationShowsAPageThatFollowsItsRepository(t *testing.T) {
	demo := outside.Start(t, program, outside.Directory(t), "KEEP=")
	demo.AwaitLine(t, begins)
	name := filepath.Base(demo.NodeDirectory(t))
	if err := demo.AwaitEnd(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	demo.CheckNothingIsLeft(t, name)

	rest := demo.Output()
	for _, want := range []string{
		`the node is Ready`,
		`1\. Install Pillion by its chart`,
		`\$ helm install pillion charts/pillion .*\n(?:.*\n)*?     STATUS: deployed`,
		`\$ kubectl get pods,clusterpatternprofiles .*\n(?:.*\n)*?     pod/pillion-webhook-\S+ +1/1 +Running`,
		`clusterpatternprofile.pillion.dev/git-sync +GitSync +True +Ready`,
		`2\. Who runs a namespace`,
		`Not a word of git`,
		`\$ kubectl pillion explain .*\n     Deployment web in namespace handbook .*\n     The Pod gets git-sync\.`,
		`repo +"http://\S+/handbook.git" +annotation of namespace handbook`,
		`     deployment "web" successfully rolled out`,
		`     web-\S+ +Running +pillion-git-sync +nginx`,
		`     the Deployment is as it was written`,
		`\$ curl -s http://\S+\n     <h1>The handbook, first edition</h1>`,
		`3\. A push changes the page`,
		`a client asks http://\S+ without pause: [1-9]\d+ old, 0 new, 0 broken`,
		`git push\n(?:.*\n)*?.* main -> main`,
		`s after the push: [1-9]\d+ old, [1-9]\d+ new, 0 broken`,
		`each of the answers was the old page or the new one`,
		`4\. The same Deployment`,
		`web-\S+ +Running +(pillion-(git-sync|template-processor|cache-ambassador|prometheus-adapter),?){4} +nginx`,
		`# template-processor\n     production`,
		`# git-sync\n     <h1>The handbook, second edition</h1>`,
		`# cache-ambassador\n     two for one, says memcached`,
		`# prometheus-adapter\n     nginx_http_requests_total [1-9]`,
		`5\. Pillion goes`,
		`     release "pillion" uninstalled`,
		`     handbook +web-\S+ +2/2 +Running(?:.*\n)*?     shop +web-\S+ +4/4 +Running`,
		`\$ curl -s http://\S+\n     <h1>The handbook, third edition</h1>`,
		`That is all`,
		`ending everything`,
	} {
		at := regexp.MustCompile(want).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("it does not say, in its order, %q, but goes on with:\n%s", want, rest)
		}
		rest = rest[at[1]:]
	}
}

func TestADemonstrationThatIsInterruptedLeavesNothing(t *testing.T) {
	for _, moment := range []string{begins, "$ helm install"} {
		t.Run("at "+moment, func(t *testing.T) {
			demo := outside.Start(t, program, outside.Directory(t), "KEEP=")
			demo.AwaitLine(t, moment)
			interrupt(t, demo)
		})
	}
}

func TestADemonstrationThatStaysUpIsUsedFromOutside(t *testing.T) {
	demo := outside.Start(t, program, outside.Directory(t), "KEEP=1")
	demo.AwaitLine(t, "Staying up until Ctrl-C")
	kubeconfig := demo.AwaitLine(t, "export KUBECONFIG=")
	path := demo.AwaitLine(t, "export PATH=")
	get, _, _ := strings.Cut(demo.AwaitLine(t, "kubectl get --raw "), " ")
	repository, _, _ := strings.Cut(demo.AwaitLine(t, "git clone "), " ")

	// What it prints is for another terminal, with another environment.
	enter := func(command string) (string, error) {
		bash := exec.CommandContext(t.Context(), "bash", "-c", command)
		bash.Dir = t.TempDir()
		bash.Env = []string{
			"KUBECONFIG=" + kubeconfig, "PATH=" + strings.TrimSuffix(path, "$PATH") + os.Getenv("PATH"), "HOME=" + bash.Dir,
			"GIT_AUTHOR_NAME=Reader", "GIT_AUTHOR_EMAIL=reader@example.com",
			"GIT_COMMITTER_NAME=Reader", "GIT_COMMITTER_EMAIL=reader@example.com",
		}
		said, err := bash.CombinedOutput()
		return string(said), err
	}
	for command, want := range map[string]string{
		"kubectl get --raw " + get: page("second"),
		"kubectl pillion profiles": "cache-ambassador",
		"kubectl get deployment pillion-webhook --namespace pillion-system": "2/2",
	} {
		if said, err := enter(command); err != nil || !strings.Contains(said, want) {
			t.Errorf("%s: %v, and it says %q, want %q", command, err, said, want)
		}
	}
	const mine = "<h1>Mine</h1>"
	if said, err := enter("git clone --quiet " + repository + " site && cd site && echo '" + mine + "' > " + index +
		" && git commit --quiet --all --message=Mine && git push --quiet"); err != nil {
		t.Errorf("push a page: %v\n%s", err, said)
	}
	outside.Await(t, "the page to be mine", func(context.Context) error {
		said, err := enter("kubectl get --raw " + get)
		if err == nil && said != mine+"\n" {
			err = fmt.Errorf("it is %q", said)
		}
		return err
	})
	interrupt(t, demo)
}

// interrupt does what Ctrl-C does, and checks that the demonstration ends well and leaves nothing.
func interrupt(t *testing.T, demo *outside.Program) {
	t.Helper()
	name := filepath.Base(demo.NodeDirectory(t))
	if found := demo.Processes(t); len(found) == 0 {
		t.Error("there are no processes of the node to end")
	}
	if err := demo.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := demo.AwaitEnd(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
	demo.CheckNothingIsLeft(t, name)
}

func TestWhereItCannotRunItSaysWhatToDo(t *testing.T) {
	tests := map[string]struct {
		environment string
		user        uint32
		want        string
	}{
		"nothing is built": {environment: "KUBEBUILDER_ASSETS=" + t.TempDir(), want: "run make node"},
		"not as root":      {user: 65534, want: "this is not root"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), program)
			command.Env = append(os.Environ(), tc.environment)
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.user, Gid: tc.user}}
			said, err := command.CombinedOutput()
			if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) || !strings.Contains(string(said), tc.want) {
				t.Errorf("it ends with %v and says %q, want %q", err, said, tc.want)
			}
			if strings.Contains(string(said), begins) {
				t.Errorf("it began all the same: %s", said)
			}
		})
	}
}
