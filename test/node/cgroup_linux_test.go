package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files writes files into a directory, as a hierarchy of cgroups has them.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestACgroupOfVersionTwoNeedsTheControllersThatAKubeletNeeds(t *testing.T) {
	err := checkControllers(files(t, map[string]string{"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma\n"}))
	if err != nil {
		t.Error(err)
	}
	err = checkControllers(files(t, map[string]string{"cgroup.controllers": "cpu memory\n"}))
	for _, want := range []string{"lacks the controllers cpuset, pids,", "--cgroupns=host"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
}

func TestACgroupOfVersionOneGetsItsParentsCPUsIfItHasNone(t *testing.T) {
	tests := map[string]struct{ parent, own, want map[string]string }{
		"one that has none": {
			parent: map[string]string{"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"},
			own:    map[string]string{"cpuset.cpus": "\n", "cpuset.mems": "\n"},
			want:   map[string]string{"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"},
		},
		"one that has some": {
			parent: map[string]string{"cpuset.cpus": "0-1\n"},
			own:    map[string]string{"cpuset.cpus": "1\n"},
			want:   map[string]string{"cpuset.cpus": "1\n"},
		},
		"version two, where none means the parent's": {
			parent: map[string]string{"cpuset.cpus": "\n"},
			own:    map[string]string{"cpuset.cpus": "\n"},
			want:   map[string]string{"cpuset.cpus": "\n"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			own := files(t, tc.own)
			if err := inheritCPUs(files(t, tc.parent), own); err != nil {
				t.Fatal(err)
			}
			for file, want := range tc.want {
				if got, err := os.ReadFile(filepath.Join(own, file)); err != nil || string(got) != want {
					t.Errorf("%s is %q (%v), want %q", file, got, err, want)
				}
			}
		})
	}
}
