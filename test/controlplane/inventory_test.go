package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testPins = pins{
	kubernetes: pin{version: "v1.37.1", fingerprint: "k8s"},
	etcd:       pin{version: "v3.7.3", fingerprint: "etcd"},
}

// installed makes a destination that holds the default components as pinned.
func installed(t *testing.T) *inventory {
	t.Helper()
	inv, err := readInventory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range defaultComponents() {
		tmp := inv.tempName(c.name)
		if err := os.WriteFile(tmp, []byte("program"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := testPins.of(c)
		if err := inv.install(c, tmp, entry{Version: p.version, Source: sourceBuild, Fingerprint: p.fingerprint}); err != nil {
			t.Fatal(err)
		}
	}
	return inv
}

func TestMissing(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, dest string)
		pins   pins
		source string
		want   string
	}{
		"nothing is missing after an install": {},
		"a removed program is missing": {
			change: func(t *testing.T, dest string) { must(t, os.Remove(filepath.Join(dest, "etcd"))) },
			want:   "etcd",
		},
		"a program that was cut short is missing": {
			change: func(t *testing.T, dest string) { must(t, os.Truncate(filepath.Join(dest, "etcd"), 3)) },
			want:   "etcd",
		},
		"a program that cannot be run is missing": {
			change: func(t *testing.T, dest string) { must(t, os.Chmod(filepath.Join(dest, "etcd"), 0o644)) },
			want:   "etcd",
		},
		"a program of another pin is missing": {
			pins: pins{kubernetes: pin{fingerprint: "newer"}, etcd: testPins.etcd},
			want: "kube-apiserver",
		},
		"without the list everything is missing": {
			change: func(t *testing.T, dest string) { must(t, os.Remove(filepath.Join(dest, inventoryFile))) },
			want:   "kube-apiserver, etcd",
		},
		"a list that is not one is no list": {
			change: func(t *testing.T, dest string) {
				must(t, os.WriteFile(filepath.Join(dest, inventoryFile), []byte("null"), 0o644))
			},
			want: "kube-apiserver, etcd",
		},
		"what was built will do where builds are asked for":        {source: sourceBuild},
		"what was built will not do where downloads are asked for": {source: sourceDownload, want: "kube-apiserver, etcd"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dest := installed(t).dest
			if tc.change != nil {
				tc.change(t, dest)
			}
			if tc.pins == (pins{}) {
				tc.pins = testPins
			}
			if tc.source == "" {
				tc.source = sourceAuto
			}
			inv, err := readInventory(dest)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, names(inv.missing(defaultComponents(), tc.pins, tc.source))); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInstallLeavesNothingUnfinished(t *testing.T) {
	inv := installed(t)
	if got, want := inv.describe(defaultComponents()), "kube-apiserver v1.37.1, etcd v3.7.3"; got != want {
		t.Errorf("describe: got %q, want %q", got, want)
	}
	must(t, os.WriteFile(inv.tempName("kubectl"), nil, 0o755))
	removeLeftovers(inv.dest)
	files, err := os.ReadDir(inv.dest)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Name())
	}
	if diff := cmp.Diff([]string{"etcd", "kube-apiserver", inventoryFile}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
