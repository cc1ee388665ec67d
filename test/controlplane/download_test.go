package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/tools/setup-envtest/versions"
)

func TestNearest(t *testing.T) {
	linux := versions.Platform{OS: "linux", Arch: "amd64"}
	tests := map[string]struct {
		published []string
		platform  versions.Platform
		want      string
	}{
		"the very version is taken":                              {published: []string{"1.37.0", "1.37.1", "1.37.2"}, want: "1.37.1"},
		"a patch release apart will do":                          {published: []string{"1.38.0", "1.37.0", "1.36.9"}, want: "1.37.0"},
		"the nearest patch release is taken":                     {published: []string{"1.37.9", "1.37.3", "1.37.5"}, want: "1.37.3"},
		"the newer of two that are equally near is taken":        {published: []string{"1.37.0", "1.37.2"}, want: "1.37.2"},
		"another minor release will not do":                      {published: []string{"1.38.1", "1.36.1"}},
		"another major release will not do":                      {published: []string{"2.37.1"}},
		"another platform will not do":                           {published: []string{"1.37.1"}, platform: versions.Platform{OS: "plan9", Arch: "mips"}},
		"an empty list, as of a mirror that lags, gives nothing": {},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.platform == (versions.Platform{}) {
				tc.platform = linux
			}
			var published []versions.Set
			for _, v := range tc.published {
				spec, err := versions.FromExpr(v)
				if err != nil {
					t.Fatal(err)
				}
				published = append(published, versions.Set{
					Version:   *spec.AsConcrete(),
					Platforms: []versions.PlatformItem{{Platform: linux}, {Platform: versions.Platform{OS: "darwin", Arch: "arm64"}}},
				})
			}
			got, ok := nearest(published, "v1.37.1", tc.platform)
			if !ok {
				if tc.want != "" {
					t.Fatalf("found nothing, want %s", tc.want)
				}
				return
			}
			if got.version.String() != tc.want || got.platform.Platform != tc.platform {
				t.Errorf("got %s for %s, want %q for %s", got.version, got.platform.Platform, tc.want, tc.platform)
			}
		})
	}
}

func TestUnpack(t *testing.T) {
	apiserver, err := selectComponents([]string{"kube-apiserver"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		files map[string]string
		want  map[string]string
		err   string
	}{
		"only what is wanted is written": {
			files: map[string]string{"controller-tools/envtest/kube-apiserver": "a", "controller-tools/envtest/kubectl": "k"},
			want:  map[string]string{"kube-apiserver": "a"},
		},
		"a path that leads outside is written inside": {
			files: map[string]string{"../../../kube-apiserver": "a"},
			want:  map[string]string{"kube-apiserver": "a"},
		},
		"an archive without it is refused": {
			files: map[string]string{"controller-tools/envtest/etcd": "e"},
			want:  map[string]string{},
			err:   "the archive holds no kube-apiserver",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := unpack(gzipped(t, tc.files), apiserver, func(name string) string { return filepath.Join(dir, name) })
			if tc.err == "" && err != nil {
				t.Fatal(err)
			}
			if tc.err != "" && (err == nil || err.Error() != tc.err) {
				t.Errorf("got error %v, want %q", err, tc.err)
			}
			got := map[string]string{}
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				data, err := os.ReadFile(filepath.Join(dir, f.Name()))
				if err != nil {
					t.Fatal(err)
				}
				got[f.Name()] = string(data)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnpackRefusesWhatIsNoArchive(t *testing.T) {
	if _, err := unpack(strings.NewReader("<html>"), nil, nil); err == nil {
		t.Error("a page of HTML was taken for an archive")
	}
}

// publish serves a list of one archive, as setup-envtest publishes it, and gives the list's address.
func publish(t *testing.T, version, checksum string, data []byte) string {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "releases:\n  v%[1]s:\n    envtest-v%[1]s-%[2]s-%[3]s.tar.gz:\n      hash: %[4]s\n      selfLink: %[5]s/archive\n",
			version, runtime.GOOS, runtime.GOARCH, checksum, server.URL)
	})
	mux.HandleFunc("/archive", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write(data); err != nil {
			t.Errorf("serve the archive: %v", err)
		}
	})
	return server.URL + "/index.yaml"
}

func TestFetchPrebuilt(t *testing.T) {
	// Scripts that say a version stand for the programs.
	complete := gzipped(t, map[string]string{
		"x/kube-apiserver": "#!/bin/sh\necho Kubernetes v1.37.0\n",
		"x/etcd":           "#!/bin/sh\necho etcd Version: 3.7.0\n",
		"x/kubectl":        "#!/bin/sh\necho Client Version: v1.37.0\n",
	}).Bytes()
	broken := gzipped(t, map[string]string{
		"x/kube-apiserver": "#!/bin/sh\necho this machine has no such loader >&2\nexit 1\n",
		"x/etcd":           "#!/bin/sh\necho etcd Version: 3.7.0\n",
	}).Bytes()
	checksum := func(data []byte) string { return fmt.Sprintf("%x", sha512.Sum512(data)) }

	tests := map[string]struct {
		index   func(t *testing.T) string
		wanted  []string
		toBuild string
		got     string
	}{
		"what is published near the pin is installed": {
			index: func(t *testing.T) string { return publish(t, "1.37.0", checksum(complete), complete) },
			got:   "kube-apiserver v1.37.0, etcd v3.7.0",
		},
		"what is never published is left to build": {
			index:   func(t *testing.T) string { return publish(t, "1.37.0", checksum(complete), complete) },
			wanted:  []string{"kubectl", "kubelet"},
			toBuild: "kubelet",
			got:     "kubelet , kubectl v1.37.0",
		},
		"an archive with another checksum is not used": {
			index:   func(t *testing.T) string { return publish(t, "1.37.0", checksum([]byte("other")), complete) },
			toBuild: "kube-apiserver, etcd",
			got:     "kube-apiserver , etcd ",
		},
		"a program that does not run here is not used": {
			index:   func(t *testing.T) string { return publish(t, "1.37.0", checksum(broken), broken) },
			toBuild: "kube-apiserver, etcd",
			got:     "kube-apiserver , etcd ",
		},
		"another minor release is not used": {
			index:   func(t *testing.T) string { return publish(t, "1.36.0", checksum(complete), complete) },
			toBuild: "kube-apiserver, etcd",
			got:     "kube-apiserver , etcd ",
		},
		"a list that does not come is not waited for": {
			index: func(t *testing.T) string {
				server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
				t.Cleanup(server.Close)
				return server.URL
			},
			toBuild: "kube-apiserver, etcd",
			got:     "kube-apiserver , etcd ",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inv, err := readInventory(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			wanted, err := selectComponents(tc.wanted)
			if err != nil {
				t.Fatal(err)
			}
			opts := options{index: tc.index(t), indexTimeout: time.Second, source: sourceAuto}
			toBuild, err := fetchPrebuilt(t.Context(), opts, testPins, inv, wanted, &screen{out: t.Output(), tick: logTick})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.toBuild, names(toBuild)); diff != "" {
				t.Errorf("left to build (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.got, inv.describe(wanted)); diff != "" {
				t.Errorf("installed (-want +got):\n%s", diff)
			}
			if left, _ := filepath.Glob(filepath.Join(inv.dest, tempPrefix+"*")); len(left) > 0 {
				t.Errorf("left unfinished: %s", left)
			}
		})
	}
}

// gzipped packs files as setup-envtest's archives are packed.
func gzipped(t *testing.T, files map[string]string) *bytes.Buffer {
	t.Helper()
	var data bytes.Buffer
	zipped := gzip.NewWriter(&data)
	packed := tar.NewWriter(zipped)
	for name, text := range files {
		must(t, packed.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		if _, err := packed.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, packed.Close())
	must(t, zipped.Close())
	return &data
}
