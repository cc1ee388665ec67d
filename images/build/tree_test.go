package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestATreeFollowsTheLinksOfDirectories(t *testing.T) {
	tree := newTree()
	err := errors.Join(
		tree.addDirectory("usr/bin", 0o755), tree.addLink("bin", "usr/bin"),
		tree.addFile("bin/busybox", 0o755, []byte("busybox")),
		tree.addLink("usr/bin/sh", "busybox"),
		tree.addLink("usr/bin/ash", "/bin/sh"),
		tree.addLink("loop", "loop/x"),
		tree.addFile("../../etc/passwd", 0o644, []byte("root")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/bin/ash": "busybox", "/usr/bin/../../bin/sh": "busybox", "/etc/passwd": "root",
		"/bin/none": "", "/loop/x": "", "/usr/bin": "",
	} {
		if e, found := tree.lookUp(name); string(e.content) != want && found || found != (want != "") {
			t.Errorf("%s is %q (found: %v); want %q", name, e.content, found, want)
		}
	}
	want := []string{"bin", "etc", "etc/passwd", "loop", "usr", "usr/bin", "usr/bin/ash", "usr/bin/busybox", "usr/bin/sh"}
	if diff := cmp.Diff(want, tree.paths()); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	// An image must not depend on which of two parts came last.
	if err := tree.addFile("etc/passwd", 0o644, []byte("other")); err == nil || !strings.Contains(err.Error(), "different /etc/passwd") {
		t.Errorf("two files of one name: %v", err)
	}
	if err := tree.addFile("etc/passwd", 0o644, []byte("root")); err != nil {
		t.Errorf("the same file twice: %v", err)
	}
}

func TestALayerHoldsNoTimeAndNobodyButRoot(t *testing.T) {
	tree, at := newTree(), time.Unix(1700000000, 0).UTC()
	if err := errors.Join(tree.addFile("a/b", 0o644, []byte("x")), tree.addLink("a/c", "b"), tree.addDirectory("tmp", 0o1777)); err != nil {
		t.Fatal(err)
	}
	layer, err := tree.layer(at)
	if err != nil {
		t.Fatal(err)
	}
	in, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, header.FileInfo().Mode().String()+" "+header.Name)
		if !header.ModTime.Equal(at) || header.Uid != 0 || header.Gid != 0 || !header.AccessTime.IsZero() || !header.ChangeTime.IsZero() {
			t.Errorf("%s is of %s and belongs to %d:%d", header.Name, header.ModTime, header.Uid, header.Gid)
		}
	}
	want := []string{"drwxr-xr-x a/", "-rw-r--r-- a/b", "Lrwxrwxrwx a/c", "dtrwxrwxrwx tmp/"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func TestPackagesLoseWhatNoContainerUses(t *testing.T) {
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, header := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./usr/bin/su", Mode: 0o4755},
		{Typeflag: tar.TypeLink, Name: "./usr/bin/also", Linkname: "./usr/bin/su"},
		{Typeflag: tar.TypeReg, Name: "./usr/share/doc/su/copyright", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "./usr/share/doc/su/changelog.gz", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "./usr/share/doc/su/examples/copyright.txt", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "./usr/share/man/man1/su.1.gz", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "./etc/init.d/su", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "./etc/su.conf", Mode: 0o644},
	} {
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree := newTree()
	if err := addTar(&stream, tree); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"etc", "etc/su.conf", "usr", "usr/bin", "usr/bin/also", "usr/bin/su",
		"usr/share", "usr/share/doc", "usr/share/doc/su", "usr/share/doc/su/copyright",
	}
	if diff := cmp.Diff(want, tree.paths()); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if mode := tree.entries["usr/bin/su"].mode; mode != 0o755 {
		t.Errorf("su has mode %o: whoever runs it becomes another user", mode)
	}
	if at, err := tree.follow("usr/bin/also"); err != nil || at != "usr/bin/su" {
		t.Errorf("the hard link leads to %q (%v)", at, err)
	}
}
