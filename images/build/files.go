package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// files are small files of ours, by path.
type files map[string]string

func (f files) inputs(context.Context, *builder, v1.Platform) (string, error) {
	return fmt.Sprint(map[string]string(f)), nil // printed in the order of keys
}

func (f files) add(_ context.Context, _ *builder, _ v1.Platform, t *tree) ([]component, error) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		// A package's own default gives way.
		if at, err := t.place(name); err == nil && t.entries[at].kind == tar.TypeReg {
			delete(t.entries, at)
		}
		if err := t.addFile(name, 0o644, []byte(f[name])); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// directories are empty directories that everybody may write to.
type directories []string

func (d directories) inputs(context.Context, *builder, v1.Platform) (string, error) {
	return fmt.Sprint([]string(d)), nil
}

func (d directories) add(_ context.Context, _ *builder, _ v1.Platform, t *tree) ([]component, error) {
	for _, name := range d {
		if err := t.addDirectory(name, 0o1777); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// bundle joins the certificates of Debian's package ca-certificates into one file, as the script of that package would.
type bundle struct{}

func (bundle) inputs(context.Context, *builder, v1.Platform) (string, error) { return "", nil }

func (bundle) add(_ context.Context, _ *builder, _ v1.Platform, t *tree) ([]component, error) {
	const from, to = "usr/share/ca-certificates/", "etc/ssl/certs/ca-certificates.crt"
	var joined bytes.Buffer
	for _, name := range t.paths() {
		if strings.HasPrefix(name, from) && strings.HasSuffix(name, ".crt") {
			joined.Write(bytes.TrimSpace(t.entries[name].content))
			joined.WriteByte('\n')
		}
	}
	if joined.Len() == 0 {
		return nil, errors.New("there is no certificate to join; name the package ca-certificates before")
	}
	return nil, t.addFile(to, 0o644, joined.Bytes())
}

// users returns the files that name the users of an image: root, and the one that injected containers run as, without whose
// entry ssh refuses to run.
func users(name string) files {
	return files{
		"etc/passwd": fmt.Sprintf("root:x:0:0:root:/root:/sbin/nologin\n%s:x:%d:%d:%s:/tmp:/sbin/nologin\n",
			name, injectedUser, injectedUser, name),
		"etc/group": fmt.Sprintf("root:x:0:\n%s:x:%d:\n", name, injectedUser),
	}
}
