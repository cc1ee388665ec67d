//go:build unix

package main

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Twice, in folders that share nothing but Go's cache of packages and what was downloaded.
func TestTheImagesOfAReleaseAreReproducible(t *testing.T) {
	local := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if _, known := triplets[local.Architecture]; !known {
		t.Skipf("images are made for amd64 and arm64; what is on %s could not be run", local.Architecture)
	}
	for n, i := range releaseImages(testStamp, []v1.Platform{local}) {
		t.Run(i.name, func(t *testing.T) {
			if i.upstream != "" {
				needDebian(t)
			}
			first := mustBuild(t.Context(), t, realBuilder(t), i)
			b := realBuilder(t)
			if i.upstream == "" {
				b.cache = t.TempDir() // so that Go links it again
			}
			again := releaseImages(testStamp, []v1.Platform{local})[n]
			second := mustBuild(t.Context(), t, b, again)
			if second.kept || first.Digest != second.Digest {
				t.Fatalf("the digests are %s and %s", first.Digest, second.Digest)
			}
			for k, file := range first.files() {
				if readTestFile(t, file) != readTestFile(t, second.files()[k]) {
					t.Errorf("%s differs", filepath.Base(file))
				}
			}
			t.Logf("%s has %.1f MiB compressed", i.name, mebibytes(first.Platforms[0].Compressed))
			root := unpackImage(t, first)
			if i.name == "pillion" {
				holdsPillionAlone(t, root, first)
				return
			}
			runsThere(t, root, i)
		})
	}
}

// holdsPillionAlone checks that the image is the binary, small, and that the binary runs.
func holdsPillionAlone(t *testing.T, root string, r result) {
	t.Helper()
	if size := r.Platforms[0].Compressed; size >= 40<<20 {
		t.Errorf("the image has %.1f MiB compressed; it must stay under 40", mebibytes(size))
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "pillion" {
		t.Errorf("the image holds %v (%v); want pillion alone", entries, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	out, err := exec.Command(filepath.Join(root, "pillion"), "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), testStamp.version) {
		t.Errorf("pillion version: %v\n%s", err, out)
	}
}

// runsThere runs the image's programs with nothing but the image, as the user of injected containers.
func runsThere(t *testing.T, root string, i image) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Log("only root on Linux can make a folder the root of a program: the image's programs were not run")
		return
	}
	commands := map[string][][]string{
		"twemproxy": {
			{"/usr/sbin/nutcracker", "--version"},
			{"/usr/bin/grep", "-qE", "^(root|none):x:0+:0:", "/etc/passwd"},
			{"/bin/sh", "-c", `trap 'kill "$pid"' TERM; "$@" & pid=$!; wait "$pid"`, "sh", "nutcracker", "--version"},
		},
		"mtail": {{"/usr/bin/mtail", "--version"}},
	}
	if len(commands[i.name]) == 0 {
		t.Fatalf("this test knows no command of %s", i.name)
	}
	// A runtime gives every container one; the shell reads a background job's input from it.
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "dev"), 0o755), os.WriteFile(filepath.Join(root, "dev", "null"), nil, 0o444)); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands[i.name] {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Path = command[0] // in the new root
		cmd.Dir, cmd.Env = "/", []string{"PATH=" + searchPath}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: injectedUser, Gid: injectedUser}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
		if slices.Contains(command, "--version") && !strings.Contains(string(out), i.version) {
			t.Errorf("%s does not say that it is of version %s:\n%s", strings.Join(command, " "), i.version, out)
		}
	}
}

// unpackImage unpacks the image of a docker-archive into a folder.
func unpackImage(t *testing.T, r result) string {
	t.Helper()
	ref, err := name.NewTag(r.Ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(r.tarball(), &ref)
	if err != nil {
		t.Fatal(err)
	}
	in := mutate.Extract(img)
	defer in.Close() //nolint:errcheck // it is only read
	root, dirs := t.TempDir(), map[string]int64{}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(root, header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			dirs[target], err = header.Mode, os.MkdirAll(target, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, target)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(target, content, os.FileMode(header.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := os.Chmod(dir, os.FileMode(dirs[dir]&0o777)); err != nil {
			t.Fatal(err)
		}
	}
	// The test's folders are root's alone; the injected user must get through them to its new root.
	for dir := filepath.Dir(root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
