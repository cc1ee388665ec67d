package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildFlagsNameTheVersion(t *testing.T) {
	got := strings.Join(buildFlags("v1.37.1"), " ")
	for _, want := range []string{
		"k8s.io/component-base/version.gitVersion=v1.37.1",
		"k8s.io/component-base/version.gitMajor=1",
		"k8s.io/component-base/version.gitMinor=37",
	} {
		if !strings.Contains(got+" ", want+" ") {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

func TestFindVersion(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"kube-apiserver says Kubernetes":       {"Kubernetes v1.37.1\n", "v1.37.1"},
		"etcd leaves out the v":                {"etcd Version: 3.7.3\nGit SHA: Not provided\nGo Version: go1.26.8\n", "v3.7.3"},
		"kubectl names its own version first":  {"Client Version: v1.37.1\nKustomize Version: v5.8.1\n", "v1.37.1"},
		"a number of two parts is no version":  {"api 3.7\n", ""},
		"a version of Go's own is not a match": {"go1.26.8", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := findVersion(tc.text); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBuildLog(t *testing.T) {
	tests := map[string]struct {
		text   string
		status string
		errors string
	}{
		"nothing yet": {status: "reading packages"},
		"downloads come first": {
			text:   "go: downloading k8s.io/api v0.37.1\ngo: downloading go.uber.org/zap v1.27.1\n",
			status: "2 modules, downloading go.uber.org/zap v1.27.1",
		},
		"packages are counted, and the last one named": {
			text:   "go: downloading k8s.io/api v0.37.1\nk8s.io/api/core/v1\nencoding/json\n",
			status: "2 packages compiled, at encoding/json",
		},
		"what a compiler says is kept, with an unfinished last line": {
			text:   "k8s.io/api/core/v1\n# k8s.io/api/core/v1\ncore/v1/types.go:3:1: syntax error\ngo: no space left",
			status: "1 packages compiled, at k8s.io/api/core/v1",
			errors: "\n\t# k8s.io/api/core/v1\n\tcore/v1/types.go:3:1: syntax error\n\tgo: no space left",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			log := &buildLog{}
			// The pieces that arrive are not lines.
			for piece := range strings.SplitSeq(tc.text, "o") {
				if _, err := log.Write([]byte(piece + "o")); err != nil {
					t.Fatal(err)
				}
			}
			log.partial = strings.TrimSuffix(log.partial, "o")
			if diff := cmp.Diff(tc.status, log.status()); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.errors, log.errors()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}
