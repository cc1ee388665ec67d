package main

import (
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pillion-dev/pillion/injectors"
)

var testStamp = stamp{version: "v0.1.0-test", revision: "abc", created: time.Unix(1700000000, 0).UTC()}

// defaults returns the default images of the patterns.
func defaults() []string {
	var refs []string
	images := reflect.ValueOf(injectors.DefaultImages(""))
	for i := range images.NumField() {
		refs = append(refs, images.Field(i).String())
	}
	return refs
}

func TestEveryDefaultImageHasOneForTestsOrAReasonWhyNot(t *testing.T) {
	tested := map[string]bool{}
	for _, image := range testImages(testStamp) {
		if tested[image.ref] {
			t.Errorf("%s is built twice", image.ref)
		}
		tested[image.ref] = true
		if !slices.Contains(defaults(), image.ref) && image.ref != testWebServer {
			t.Errorf("%s is no default image", image.ref)
		}
	}
	for _, ref := range defaults() {
		if reason, isNamed := untested()[ref]; tested[ref] == isNamed || isNamed && reason == "" {
			t.Errorf("%s: built for tests: %v; the reason why not: %q", ref, tested[ref], reason)
		}
	}
	for ref := range untested() {
		if !slices.Contains(defaults(), ref) {
			t.Errorf("%s is no default image any more", ref)
		}
	}
}

func TestTheImagesOfAReleaseAreTheDefaultsThatWePublish(t *testing.T) {
	const ours = "ghcr.io/pillion-dev/"
	var want []string
	for _, ref := range defaults() {
		if strings.HasPrefix(ref, ours) {
			want = append(want, ref[:strings.LastIndex(ref, ":")])
		}
	}
	var got []string
	for _, image := range releaseImages(testStamp, []v1.Platform{amd64, arm64}) {
		got = append(got, image.ref[:strings.LastIndex(image.ref, ":")])
		if tag := tagOf(image.ref); image.name == "pillion" && tag != testStamp.version || image.version != tag {
			t.Errorf("%s is of version %s and tagged %s", image.name, image.version, tag)
		}
		if !image.hasSBOM || image.revision != "abc" || !image.created.Equal(testStamp.created) {
			t.Errorf("%s does not say where it comes from: %+v", image.name, image)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("a release has %v; the defaults name %v", got, want)
	}
}

// The columns of docs/images.md that say what an image must hold name programs; we build no image without them.
func TestTheImagesHoldWhatTheDocumentSaysTheyMust(t *testing.T) {
	programs := map[string][]string{}
	for _, image := range append(testImages(testStamp), releaseImages(testStamp, []v1.Platform{amd64})...) {
		programs[image.ref] = append(image.programs, filepath.Base(image.entrypoint[0]))
	}
	word, checked := regexp.MustCompile("`([^`]+)`"), 0
	for line := range strings.Lines(readTestFile(t, "../../docs/images.md")) {
		columns := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(columns) < 4 {
			continue
		}
		ref := strings.Trim(columns[0], "| `")
		held, isBuilt := programs[ref]
		if !isBuilt {
			continue
		}
		checked++
		for _, match := range word.FindAllStringSubmatch(columns[2]+columns[3], -1) {
			if !slices.Contains(held, match[1]) {
				t.Errorf("docs/images.md says that %s must hold %s, and we would build it without (it has %v)", ref, match[1], held)
			}
		}
	}
	if want := len(defaults()) - len(untested()); checked != want {
		t.Errorf("docs/images.md has %d of the images that we build; want %d", checked, want)
	}
}

// Who builds by Docker gets an image that runs as ours does.
func TestTheDockerfilesAgreeWithTheCatalog(t *testing.T) {
	for _, image := range releaseImages(testStamp, []v1.Platform{amd64}) {
		t.Run(image.name, func(t *testing.T) {
			dockerfile := readTestFile(t, filepath.Join("..", image.name, "Dockerfile"))
			want := []string{
				"\nUSER " + image.user + "\n",
				"\nENTRYPOINT [\"" + image.entrypoint[0] + "\"]\n",
				"org.opencontainers.image.title=\"" + image.title + "\"",
				"org.opencontainers.image.source=\"" + source + "\"",
				"org.opencontainers.image.licenses=\"" + image.licenses + "\"",
			}
			if image.name == "pillion" {
				version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(readTestFile(t, "../../go.mod"))[1]
				want = append(want, "golang:"+version+" AS build\n", "\nFROM scratch\n", "-s -w -X main.version=$VERSION", "-trimpath -buildvcs=false",
					"CGO_ENABLED=0", "./cmd/pillion\n")
			} else {
				want = append(want, "\nFROM debian:"+debianRelease+"-slim\n", " "+image.upstream+" \\\n",
					"org.opencontainers.image.version=\""+image.version+"\"")
			}
			for _, part := range want {
				if !strings.Contains(dockerfile, part) {
					t.Errorf("the Dockerfile has no %q", part)
				}
			}
		})
	}
}
