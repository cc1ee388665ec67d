package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// debianRelease is what Debian's packages are taken from, whatever this machine runs. The Dockerfiles name it too.
const debianRelease = "trixie"

// packages are packages of Debian with the shared libraries that they depend on, and nothing else that they depend on: what a
// package needs when it is installed, or for what the images do not do, stays away. Their scripts do not run.
type packages struct {
	names []string
	// tools are commands that busybox-static, which must be among the names, serves.
	tools []string
}

// always are the packages of every such image: the places of things, and what tells scanners that this is Debian.
var always = []string{"base-files"}

// mergedDirectories are links since Debian 12. Some packages name their files by the one side, some by the other.
var mergedDirectories = []string{"bin", "sbin", "lib", "lib64"}

// unwanted are folders of packages that no container uses: what is for people at a terminal, and for what starts services.
var unwanted = []string{
	"usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/", "usr/share/doc-base/",
	"usr/share/bash-completion/", "usr/share/base-files/", "usr/share/applications/", "usr/share/pixmaps/",
	"usr/lib/systemd/", "usr/lib/sysusers.d/", "usr/lib/tmpfiles.d/",
	"etc/init.d/", "etc/logrotate.d/", "etc/default/", "etc/ufw/", "etc/update-motd.d/", "etc/skel/", "etc/apparmor.d/",
	"boot/", "home/", "media/", "mnt/", "opt/", "srv/", "var/log/",
}

// isUnwanted tells whether a file of a package stays away. Of documentation the copyrights come along.
func isUnwanted(name string) bool {
	if rest, isDoc := strings.CutPrefix(name, "usr/share/doc/"); isDoc {
		return strings.Contains(rest, "/") && path.Base(rest) != "copyright"
	}
	return slices.ContainsFunc(unwanted, func(folder string) bool { return strings.HasPrefix(name+"/", folder) })
}

func (p packages) all() []string {
	return append(append([]string{}, always...), p.names...)
}

func (p packages) inputs(_ context.Context, b *builder, platform v1.Platform) (string, error) {
	return fmt.Sprint(debianRelease, mirrorFromEnvironment(), platform.Architecture, p.all(), p.tools), nil
}

func (p packages) add(ctx context.Context, b *builder, platform v1.Platform, t *tree) ([]component, error) {
	a, err := b.archive(ctx, platform.Architecture)
	if err != nil {
		return nil, err
	}
	found, err := a.resolve(ctx, p.all())
	if err != nil {
		return nil, err
	}
	for _, dir := range mergedDirectories {
		if err := errors.Join(t.addDirectory("usr/"+dir, 0o755), t.addLink(dir, "usr/"+dir)); err != nil {
			return nil, err
		}
	}
	files, err := a.download(ctx, found)
	if err != nil {
		return nil, err
	}
	var components []component
	for i, pkg := range found {
		if err := unpack(ctx, files[i], t); err != nil {
			return nil, fmt.Errorf("unpack Debian's package %s: %w", pkg.name, err)
		}
		// Scanners for vulnerabilities find packages here where there is no dpkg.
		if err := t.addFile("var/lib/dpkg/status.d/"+pkg.name, 0o644, []byte(pkg.status())); err != nil {
			return nil, err
		}
		components = append(components, pkg.component())
	}
	for _, tool := range p.tools {
		if err := t.addLink("usr/bin/"+tool, "busybox"); err != nil {
			return nil, err
		}
	}
	return components, nil
}

// unpack adds the files of a package.
func unpack(ctx context.Context, file string, t *tree) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = addTar(out, t)
	_, drained := io.Copy(io.Discard, out)
	if ended := cmd.Wait(); ended != nil {
		return fmt.Errorf("%w: %s", ended, strings.TrimSpace(problems.String()))
	}
	return errors.Join(err, drained)
}

// addTar adds what is in a package's tar stream and a container may use.
func addTar(in io.Reader, t *tree) error {
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := clean(header.Name)
		if name == "" || isUnwanted(name) {
			continue
		}
		switch header.Typeflag {
		case tar.TypeDir:
			err = t.addDirectory(name, header.Mode&0o1777)
		case tar.TypeSymlink:
			err = t.addLink(name, header.Linkname)
		case tar.TypeLink:
			err = t.addLink(name, path.Join("/", clean(header.Linkname)))
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				// Nothing in an image may give its caller another user: the bits for that go.
				err = t.addFile(name, header.Mode&0o777, content)
			}
		default:
			err = fmt.Errorf("/%s is neither file, directory nor link", name)
		}
		if err != nil {
			return err
		}
	}
}
