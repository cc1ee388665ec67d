package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxLinks ends the search for a file behind symbolic links that lead in a circle.
const maxLinks = 40

// entry is a file, a directory or a symbolic link of an image. All belong to root.
type entry struct {
	kind    byte // tar.TypeReg, TypeDir or TypeSymlink
	mode    int64
	link    string
	content []byte
}

// tree is what an image holds, by path without the leading slash.
type tree struct {
	entries map[string]entry
}

func newTree() *tree {
	return &tree{entries: map[string]entry{}}
}

// add puts an entry where its path leads, through the symbolic links of directories that are there already. A directory may be
// added twice; anything else only if it is the same.
func (t *tree) add(name string, e entry) error {
	name, err := t.place(name)
	if err != nil || name == "" {
		return err
	}
	if old, taken := t.entries[name]; taken {
		switch {
		case e.kind == tar.TypeDir && (old.kind == tar.TypeDir || old.kind == tar.TypeSymlink):
			return nil
		case old.kind == e.kind && old.link == e.link && bytes.Equal(old.content, e.content):
			return nil
		}
		return fmt.Errorf("two parts of the image hold different /%s", name)
	}
	t.addParents(name)
	t.entries[name] = e
	return nil
}

func (t *tree) addFile(name string, mode int64, content []byte) error {
	return t.add(name, entry{kind: tar.TypeReg, mode: mode, content: content})
}

func (t *tree) addLink(name, target string) error {
	return t.add(name, entry{kind: tar.TypeSymlink, mode: 0o777, link: target})
}

func (t *tree) addDirectory(name string, mode int64) error {
	return t.add(name, entry{kind: tar.TypeDir, mode: mode})
}

// addParents adds the directories above a path that are not there.
func (t *tree) addParents(name string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, there := t.entries[dir]; there {
			return
		}
		t.entries[dir] = entry{kind: tar.TypeDir, mode: 0o755}
	}
}

// place returns where a path leads if its directories are symbolic links; its last element is not followed.
func (t *tree) place(name string) (string, error) {
	name = clean(name)
	dir, base := path.Split(name)
	if dir == "" {
		return name, nil
	}
	dir, err := t.follow(dir)
	if err != nil {
		return "", err
	}
	return path.Join(dir, base), nil
}

// follow returns where a path leads if all its elements may be symbolic links. What is at the end need not be there.
func (t *tree) follow(name string) (string, error) {
	rest, at := strings.Split(clean(name), "/"), ""
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		e, there := t.entries[next]
		if !there || e.kind != tar.TypeSymlink {
			at = next
			continue
		}
		links++
		if links > maxLinks {
			return "", fmt.Errorf("the symbolic links at /%s lead in a circle", next)
		}
		target := e.link
		if !path.IsAbs(target) {
			target = path.Join("/", at, target)
		}
		rest, at = append(strings.Split(clean(target), "/"), rest...), ""
	}
	return at, nil
}

// lookUp returns the file that a path leads to.
func (t *tree) lookUp(name string) (entry, bool) {
	at, err := t.follow(name)
	if err != nil {
		return entry{}, false
	}
	e, there := t.entries[at]
	return e, there && e.kind == tar.TypeReg
}

// paths returns all paths, sorted, so that a directory comes before what it holds.
func (t *tree) paths() []string {
	return slices.Sorted(maps.Keys(t.entries))
}

// clean returns a path from the root without the leading slash. Nothing leads above the root.
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// layer packs the tree. Every time in it is the given one.
func (t *tree) layer(created time.Time) (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, name := range t.paths() {
		e := t.entries[name]
		header := tar.Header{
			Typeflag: e.kind, Name: name, Linkname: e.link, Mode: e.mode, Size: int64(len(e.content)), ModTime: created,
			Uname: "root", Gname: "root",
		}
		if e.kind == tar.TypeDir {
			header.Name += "/"
		}
		if err := w.WriteHeader(&header); err != nil {
			return nil, fmt.Errorf("pack /%s: %w", name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("pack /%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
