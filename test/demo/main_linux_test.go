package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/test/apiserver"
)

func TestTheDemonstrationShowsWhatPodsGain(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	out := &bytes.Buffer{}
	if err := run(t.Context(), out, false); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shown := sections(out.String())
	tests := map[string]struct {
		heading string
		want    []string
	}{
		"by annotation": {
			heading: "1. A Pod asks by annotation, and overrides one field",
			want: []string{
				"Pod shop/web", "annotation pillion.dev/inject: site-content", "annotation site-content.pillion.dev/ref: v2.1",
				"-> created, and gained:", "+ native sidecar pillion-site-content", "--ref=v2.1", "+ container web sees /srv/site, read-only",
				"starts in this order: pillion-site-content, web",
			},
		},
		"by the namespace's label": {
			heading: "2. A namespace's label asks for every Pod in it",
			want: []string{
				"label pillion.dev/inject: site-content.page-cache", "Pod blog/web", "-> created, and gained:",
				"+ native sidecar pillion-site-content", "--ref=main", "+ native sidecar pillion-page-cache",
				"+ container web sees /srv/site, read-only",
				"+ container web has CACHE_HOST=127.0.0.1 CACHE_PORT=11211 CACHE_ADDRESS=127.0.0.1:11211",
				"starts in this order: pillion-site-content, pillion-page-cache, web",
			},
		},
		"by policy": {
			heading: "3. Policy chooses a Pod that asks for nothing",
			want: []string{
				"label env: prod", "Pod production/web", "-> created, and gained:", "+ native sidecar pillion-page-metrics",
				"+ container web has STATSD_HOST=127.0.0.1 STATSD_PORT=9125", "starts in this order: pillion-page-metrics, web",
			},
		},
		"and not at all, with both problems": {
			heading: "4. A Pod asks for something wrong",
			want: []string{
				"-> shop/wrong was refused:", "- profile site-contnt is not available in namespace shop",
				"- annotation page-cache.pillion.dev/protocol: profile page-cache does not let Pods change protocol",
			},
		},
		"and whoever applies a workload is told, and may ask": {
			heading: "5. Whoever applies a workload is told at once, and may ask why",
			want: []string{
				"$ kubectl apply -f deployment.yaml Warning: profile site-contnt is not available in namespace shop; " +
					"did you mean site-content? (ProfileNotAvailable): Pods of",
				"will be refused deployment.apps/store created",
				"$ kubectl pillion explain deployment/store -n shop Deployment store in namespace shop",
				"Pillion refuses this Pod:", "site-contnt refused: asked for by the Pod",
				"page-metrics not applied", "SelectorNotMatched: spec.match.namespaceSelector wants env=prod",
				"Not asked for, and without match: cache-ambassador, git-sync, page-cache, prometheus-adapter, site-content, template-processor",
				"$ kubectl pillion profiles -n shop NAME PATTERN FROM READY APPLIED PODS MAY CHANGE",
				"page-cache CacheAmbassador cluster True if asked for nothing",
				"page-metrics PrometheusAdapter cluster True if asked for nothing",
				"site-content GitSync cluster True if asked for ref, period",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			section, found := shown[test.heading]
			if !found {
				t.Fatalf("no heading %q in:\n%s", test.heading, out)
			}
			at := 0
			for _, want := range test.want {
				next := strings.Index(section[at:], want)
				if next < 0 {
					t.Fatalf("it does not say, in its order, %q:\n%s", want, section)
				}
				at += next + len(want)
			}
		})
	}
	if told := strings.Count(out.String(), "Warning:"); told != 1 {
		t.Errorf("whoever applies the workload is warned %d times, and only Pillion's warning belongs there:\n%s", told, out)
	}
	checkNothingIsLeft(t, temporary)
}

func TestADemonstrationThatStaysUpLeavesNothingBehind(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watched{text: "Staying up until Ctrl-C", then: func() {
		// Or that nothing is left afterwards would say nothing.
		if running := processesIn(t, temporary); len(running) < 4 {
			t.Errorf("an API server, etcd, a webhook and a controller should run, but only these do: %v", running)
		}
		if directories := directoriesIn(t, temporary); len(directories) != 3 {
			t.Errorf("the demonstration, the installation and the API server should have a directory each: %v", directories)
		}
		cancel()
	}}
	if err := run(ctx, out, true); err != nil {
		t.Errorf("it ended with: %v", err)
	}
	if ctx.Err() == nil {
		t.Errorf("it did not stay up:\n%s", &out.Buffer)
	}
	if !strings.Contains(out.String(), "export KUBECONFIG="+temporary) {
		t.Errorf("it does not tell how to reach the API server:\n%s", &out.Buffer)
	}
	checkNothingIsLeft(t, temporary)
}

// sections returns what stands below each heading, by the heading, however its lines are wrapped.
func sections(text string) map[string]string {
	heading := regexp.MustCompile(`(?m)^\d+\. .*$`)
	bodies := map[string]string{}
	for at := heading.FindStringIndex(text); at != nil; at = heading.FindStringIndex(text) {
		title := text[at[0]:at[1]]
		text = text[at[1]:]
		body := text
		if next := heading.FindStringIndex(text); next != nil {
			body = text[:next[0]]
		}
		bodies[title] = strings.Join(strings.Fields(body), " ")
	}
	return bodies
}

// watched is a buffer that calls a function once it has a text.
type watched struct {
	bytes.Buffer
	text string
	then func()
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.then != nil && strings.Contains(w.String(), w.text) {
		w.then()
		w.then = nil
	}
	return n, err
}

// checkNothingIsLeft checks that no directory of the demonstration is left, and waits for its processes: those that watch over
// others end on their own.
func checkNothingIsLeft(t *testing.T, temporary string) {
	t.Helper()
	if left := directoriesIn(t, temporary); len(left) > 0 {
		t.Errorf("directories are left: %v", left)
	}
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		left := processesIn(t, temporary)
		return len(left) == 0, fmt.Errorf("processes are left: %q", left)
	})
	if err != nil {
		t.Error(err)
	}
}

func directoriesIn(t *testing.T, temporary string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(temporary, "pillion-*"))
	if err != nil {
		t.Error(err)
	}
	return left
}

// processesIn returns the commands of the processes that were started with this directory for temporary files.
func processesIn(t *testing.T, temporary string) []string {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Error(err)
	}
	var commands []string
	for _, path := range environments {
		environment, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(environment), "\x00"), "TMPDIR="+temporary) {
			continue // it is another's, or has ended
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		commands = append(commands, strings.ReplaceAll(string(command), "\x00", " "))
	}
	return commands
}
