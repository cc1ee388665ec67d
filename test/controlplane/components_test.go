package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelectComponents(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
		err  string
	}{
		"no name means an API server and its storage": {want: "kube-apiserver, etcd"},
		"all means every component": {
			args: []string{"all"},
			want: "kube-apiserver, etcd, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl",
		},
		"names are put in the order that builds soonest": {
			args: []string{"kubectl", "kube-apiserver"},
			want: "kube-apiserver, kubectl",
		},
		"a name given twice is wanted once": {args: []string{"etcd", "etcd"}, want: "etcd"},
		"a name that is none is refused with those that are": {
			args: []string{"etcd", "cloud-controller-manager", "x"},
			err:  "unknown component cloud-controller-manager, x: want some of kube-apiserver, etcd,",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := selectComponents(tc.args)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Fatalf("got error %v, want one that begins %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, names(got)); diff != "" {
				t.Errorf("components (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePin(t *testing.T) {
	const header = "module example\n\ngo 1.26.0\n\n"
	tests := map[string]struct {
		mod  string
		want string
		err  string
	}{
		"the version of the required module is the pin": {
			mod:  header + "require k8s.io/kubernetes v1.37.1\n",
			want: "v1.37.1",
		},
		"a requirement marked indirect, as go mod tidy leaves it, counts": {
			mod:  header + "require (\n\tk8s.io/api v0.37.1\n\tk8s.io/kubernetes v1.37.1 // indirect\n)\n",
			want: "v1.37.1",
		},
		"a pre-release is refused: none is published prebuilt": {
			mod: header + "require k8s.io/kubernetes v1.38.0-alpha.1\n",
			err: "go.mod requires k8s.io/kubernetes v1.38.0-alpha.1: want a released version",
		},
		"a file without the module is refused": {
			mod: header + "require k8s.io/api v0.37.1\n",
			err: "go.mod does not require k8s.io/kubernetes",
		},
		"a file that is no go.mod is refused": {mod: "{}", err: "read the pinned version: go.mod:1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parsePin("go.mod", []byte(tc.mod), kubernetesModule)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Fatalf("got error %v, want one that begins %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.version != tc.want {
				t.Errorf("got version %s, want %s", got.version, tc.want)
			}
		})
	}
}

func TestFingerprintChangesWithTheModuleFile(t *testing.T) {
	pinOf := func(mod string) pin {
		t.Helper()
		p, err := parsePin("go.mod", []byte(mod), kubernetesModule)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const mod = "module example\n\nrequire k8s.io/kubernetes v1.37.1\n"
	if first, again := pinOf(mod), pinOf(mod); first != again {
		t.Errorf("the same file gave %+v, then %+v", first, again)
	}
	replaced := mod + "\nreplace k8s.io/api => k8s.io/api v0.37.1\n"
	if pinOf(mod).fingerprint == pinOf(replaced).fingerprint {
		t.Error("a replacement, which changes what is built, did not change the fingerprint")
	}
}

func TestPinsOfThisModule(t *testing.T) {
	pinned, err := readPins(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range allComponents() {
		if pinned.of(c).version == "" {
			t.Errorf("%s has no version", c.name)
		}
	}
}
