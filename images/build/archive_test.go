package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAStanzaOfTheIndex(t *testing.T) {
	pkg := parseStanza(`Package: git
Source: git-source (1:2.47.3-0+deb13u1)
Version: 1:2.47.3-0+deb13u1+b1
Architecture: amd64
Maintainer: Jonathan Nieder <jrnieder@gmail.com>
Pre-Depends: libpre1 (>= 1)
Depends: libc6 (>= 2.38), libcurl3t64-gnutls (>= 7.56.1) | libcurl4, zlib1g:any (>= 1:1.2), perl, liberror-perl, git-man (>> 1:2.47.3)
Description: fast, scalable
 distributed
SHA256: 32448034
`)
	if diff := cmp.Diff([]string{"libpre1", "libc6", "libcurl3t64-gnutls", "zlib1g"}, pkg.depends); diff != "" {
		t.Errorf("libraries (-want +got):\n%s", diff)
	}
	if pkg.name != "git" || pkg.sha256 != "32448034" || !strings.Contains(pkg.status(), "\nDescription: fast, scalable\n distributed\n") {
		t.Errorf("read as %+v", pkg)
	}
	want := component{
		name: "git", version: "1:2.47.3-0+deb13u1+b1", supplier: "Organization: Jonathan Nieder", sha256: "32448034",
		purl: "pkg:deb/debian/git@1%3A2.47.3-0%2Bdeb13u1%2Bb1?arch=amd64&distro=trixie&upstream=git-source%401%3A2.47.3-0%2Bdeb13u1",
	}
	if got := pkg.component(); got != want {
		t.Errorf("component\n%+v\nwant\n%+v", got, want)
	}
}

func TestUpstreamVersions(t *testing.T) {
	for version, want := range map[string]string{
		"0.5.0+dfsg-2+b2": "0.5.0", "3.0.9-1+b8": "3.0.9", "1:2.47.3-0+deb13u1": "2.47.3", "5:8.0.2-3+deb13u2": "8.0.2", "1.37.0": "1.37.0",
	} {
		if got := upstreamVersion(version); got != want {
			t.Errorf("of %s it is %q; want %q", version, got, want)
		}
	}
}

func TestTheImageIsCalledByThePackagesVersion(t *testing.T) {
	i := image{ref: "example.com/mtail:3.0.8", version: "3.0.8", upstream: "mtail"}
	err := i.wrongVersion([]component{{name: "libc6", version: "2.41-12"}, {name: "mtail", version: "3.0.9-1+b8"}})
	if err == nil || !strings.Contains(err.Error(), "the package mtail of Debian is of version 3.0.9 and the image is called example.com/mtail:3.0.8") {
		t.Errorf("got %v", err)
	}
	if err := i.wrongVersion([]component{{name: "mtail", version: "3.0.8-2"}}); err != nil {
		t.Errorf("the right version: %v", err)
	}
}

// A library that is missing is found before the image is in somebody's Pod.
func TestPackagesOfDebian(t *testing.T) {
	needDebian(t)
	b := realBuilder(t)
	unlock, err := lock(t.Context(), b.cache)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	for _, platform := range []string{"amd64", "arm64"} {
		t.Run(platform, func(t *testing.T) {
			tree, of := newTree(), amd64
			of.Architecture = platform
			components, err := packages{names: []string{"nutcracker", "busybox-static"}, tools: shell}.add(t.Context(), b, of, tree)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range components {
				names = append(names, c.name)
			}
			for _, want := range []string{"base-files", "busybox-static", "libc6", "libyaml-0-2", "nutcracker"} {
				if !slices.Contains(names, want) {
					t.Errorf("there is no %s among %v", want, names)
				}
			}
			for _, unwanted := range []string{"adduser", "perl-base", "init-system-helpers", "debconf"} {
				if slices.Contains(names, unwanted) {
					t.Errorf("%s came along, which no container needs", unwanted)
				}
			}
			if err := tree.missingLibraries(platform); err != nil {
				t.Errorf("libraries are missing: %v", err)
			}
			if e, found := tree.lookUp("/etc/os-release"); !found || !strings.Contains(string(e.content), "VERSION_CODENAME="+debianRelease) {
				t.Errorf("/etc/os-release is %q", e.content)
			}
			library, err := tree.follow("usr/lib/" + triplets[platform] + "/libyaml-0.so.2")
			if err != nil {
				t.Fatal(err)
			}
			delete(tree.entries, library)
			err = tree.missingLibraries(platform)
			if err == nil || !strings.Contains(err.Error(), "/usr/sbin/nutcracker needs libyaml-0.so.2, which is not in the image") {
				t.Errorf("without the library: %v", err)
			}
		})
	}
	_, err = packages{names: []string{"no-such-package"}}.add(t.Context(), b, amd64, newTree())
	if want := errors.New("the release trixie of Debian has no package no-such-package for amd64"); err == nil || err.Error() != want.Error() {
		t.Errorf("an unknown package: %v; want %v", err, want)
	}
}
