package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// In two folders, one with an environment that would have Go build something else.
func TestBuildingTwiceGivesTheSameBytes(t *testing.T) {
	one := newTestBuilder(t)
	first := mustBuild(t.Context(), t, one, helloImage(amd64, arm64))

	t.Setenv("GOFLAGS", "-tags=other")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("GOARM64", "v9.0")
	t.Setenv("TZ", "Asia/Tokyo")
	two := newTestBuilder(t)
	second := mustBuild(t.Context(), t, two, helloImage(amd64, arm64))

	for i, file := range first.files() {
		if readTestFile(t, file) != readTestFile(t, second.files()[i]) {
			t.Errorf("%s differs from that of the other folder", filepath.Base(file))
		}
	}
	second.folder, second.Inputs = first.folder, first.Inputs
	if diff := cmp.Diff(first, second, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("the results differ:\n%s", diff)
	}

	other := helloImage(amd64, arm64)
	other.revision = "def"
	if third := mustBuild(t.Context(), t, two, other); third.Digest == first.Digest {
		t.Error("an image of another revision has the same digest")
	}
}

func TestWhatHasNotChangedIsKept(t *testing.T) {
	b := newTestBuilder(t)
	hello := helloImage(amd64)
	before := mustBuild(t.Context(), t, b, hello)
	if before.kept {
		t.Fatal("the first build kept something")
	}
	if r := mustBuild(t.Context(), t, b, hello); !r.kept || r.Digest != before.Digest {
		t.Errorf("the second build made %+v", r)
	}

	for name, test := range map[string]struct {
		change func(*image)
		same   bool
	}{
		"code of the program": {change: func(*image) {
			writeTestFile(t, b.opts.root+"/hello/main.go", "package main\n\nvar greeting = \"\"\n\nfunc main() { println(greeting, 2) }\n")
		}},
		"a file":                {change: func(i *image) { i.parts = append(i.parts, files{"etc/other": "other"}) }},
		"the user":              {change: func(i *image) { i.user = "1:1" }},
		"the name":              {change: func(i *image) { i.ref = "registry.example.com/team/hello:v2" }},
		"a label":               {change: func(i *image) { i.description = "Says more" }},
		"the platform":          {change: func(i *image) { i.platforms = []v1.Platform{arm64} }},
		"the tarball is gone":   {change: func(*image) { removeTestFile(t, b.opts.out+"/hello.tar") }, same: true},
		"the bill is gone":      {change: func(*image) { removeTestFile(t, b.opts.out+"/hello-linux-amd64.spdx.json") }, same: true},
		"the record is damaged": {change: func(*image) { writeTestFile(t, b.opts.out+"/hello.json", "{") }, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			before := mustBuild(t.Context(), t, b, hello)
			changed := hello
			test.change(&changed)
			after := mustBuild(t.Context(), t, b, changed)
			isSame := after.Digest == before.Digest
			if name == "the name" { // it is no part of the image, but of the tarball
				isSame = false
			}
			if after.kept || isSame != test.same {
				t.Errorf("kept: %v, the same digest: %v", after.kept, isSame)
			}
		})
	}

	b.self = "another builder"
	if r := mustBuild(t.Context(), t, b, hello); r.kept {
		t.Error("a changed builder kept an image of before")
	}
}

func removeTestFile(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsWrongWithAnImageIsSaid(t *testing.T) {
	b := newTestBuilder(t)
	for name, test := range map[string]struct {
		change func(*image)
		want   string
	}{
		"too large":           {change: func(i *image) { i.limit = 1 << 10 }, want: "MiB compressed, and may have 0.0"},
		"a missing program":   {change: func(i *image) { i.programs = []string{"grep"} }, want: "it must hold the program grep"},
		"no such entrypoint":  {change: func(i *image) { i.entrypoint = []string{"/bin/hello"} }, want: "its entrypoint is /bin/hello"},
		"code that is broken": {change: func(i *image) { i.parts = []part{goProgram{module: "hello", pkg: "./nosuch", path: "x"}} }, want: "build ./nosuch"},
		"two files of a name": {change: func(i *image) {
			i.parts = append(i.parts, goProgram{module: "hello", pkg: ".", path: "etc/hello.conf"})
		}, want: "different /etc/hello.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			i := helloImage(amd64)
			test.change(&i)
			_, err := b.ensure(t.Context(), &i)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v; want %q", err, test.want)
			}
			if _, err := os.Stat(b.opts.out + "/hello.json"); !errors.Is(err, os.ErrNotExist) {
				t.Error("an image that is wrong was recorded as built")
			}
		})
	}
}

// The tarball is read by what reads docker-archives and by what reads OCI layouts.
func TestTheTarballIsADockerArchiveAndAnOCILayout(t *testing.T) {
	b := newTestBuilder(t)
	hello := helloImage(arm64, amd64)
	r := mustBuild(t.Context(), t, b, hello)

	ref, err := name.NewTag(hello.ref)
	if err != nil {
		t.Fatal(err)
	}
	docker, err := tarball.ImageFromPath(r.tarball(), &ref)
	if err != nil {
		t.Fatalf("read as a docker-archive: %v", err)
	}
	if err := validate.Image(docker); err != nil {
		t.Errorf("as a docker-archive: %v", err)
	}
	opened, err := openTarball(r.tarball(), t.TempDir())
	if err != nil {
		t.Fatalf("read as an OCI layout: %v", err)
	}
	top, err := opened.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Errorf("as an OCI layout: %v", err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest.String() != r.Digest ||
		manifest.Manifests[0].Annotations["io.containerd.image.name"] != hello.ref {
		t.Fatalf("the layout has %+v", manifest.Manifests)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	platforms, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for n, descriptor := range platforms.Manifests {
		if !descriptor.Platform.Equals(hello.platforms[n]) || descriptor.Digest.String() != r.Platforms[n].Digest {
			t.Errorf("image %d is for %s, of digest %s", n, descriptor.Platform, descriptor.Digest)
		}
		img, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		want := v1.Config{
			Entrypoint: []string{"/hello"}, User: "65533:65533", WorkingDir: "/", Env: []string{"PATH=" + searchPath}, Labels: map[string]string{
				"org.opencontainers.image.title": "Hello", "org.opencontainers.image.description": "Says hello",
				"org.opencontainers.image.version": "v1.2.3", "org.opencontainers.image.revision": "abc",
				"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.source": source,
				"org.opencontainers.image.created": "2023-11-14T22:13:20Z",
			},
		}
		if diff := cmp.Diff(want, config.Config); diff != "" || config.Architecture != hello.platforms[n].Architecture {
			t.Errorf("the configuration for %s (-want +got):\n%s", config.Architecture, diff)
		}
	}
}

func TestTheBillOfMaterials(t *testing.T) {
	b := newTestBuilder(t)
	r := mustBuild(t.Context(), t, b, helloImage(amd64))
	document := spdxDocument{}
	if err := json.Unmarshal([]byte(readTestFile(t, filepath.Join(b.opts.out, r.Platforms[0].SBOM))), &document); err != nil {
		t.Fatal(err)
	}
	hex := strings.TrimPrefix(r.Platforms[0].Digest, "sha256:")
	toolchain := strings.TrimPrefix(b.goVersion, "go")
	want := []string{
		"pkg:oci/hello@sha256%3A" + hex + "?arch=amd64&repository_url=registry.example.com%2Fteam%2Fhello",
		"pkg:golang/example.com/hello@v1.2.3", "pkg:golang/stdlib@" + toolchain,
	}
	var got []string
	ids := map[string]bool{document.ID: true}
	for _, p := range document.Packages {
		got = append(got, p.ExternalRefs[0].Locator)
		if ids[p.ID] {
			t.Errorf("%s is the ID of two packages", p.ID)
		}
		ids[p.ID] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	for _, relationship := range document.Relationships {
		if !ids[relationship.Element] || !ids[relationship.Related] {
			t.Errorf("a relationship of what is not there: %+v", relationship)
		}
	}
	if document.CreationInfo.Created != "2023-11-14T22:13:20Z" || !strings.HasSuffix(document.DocumentNamespace, hex) {
		t.Errorf("it is of %s and called %s", document.CreationInfo.Created, document.DocumentNamespace)
	}
}

func TestTheFolderOfTestImagesHoldsWhatTheCatalogSays(t *testing.T) {
	b := newTestBuilder(t)
	b.opts.test = true
	old := helloImage(amd64)
	old.name = "old"
	mustBuild(t.Context(), t, b, old)
	writeTestFile(t, b.opts.out+"/pause.tar", "of others")
	r := mustBuild(t.Context(), t, b, helloImage(amd64))
	if err := b.conclude([]result{r}); err != nil {
		t.Fatal(err)
	}
	present, err := filepath.Glob(b.opts.out + "/*.tar")
	if err != nil {
		t.Fatal(err)
	}
	for i := range present {
		present[i] = filepath.Base(present[i])
	}
	if want := []string{"hello.tar", "pause.tar"}; !slices.Equal(present, want) {
		t.Errorf("it holds %v; want %v", present, want)
	}
}

func TestThePlatformsAndNamesOfACommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"--platforms=windows/amd64":            `platform "windows/amd64": images are made for linux/amd64 and linux/arm64`,
		"--platforms=linux/amd64,linux/amd64":  "named twice",
		"--platforms=":                         "no platform is named",
		"--test --push=registry.example.com/x": "images of the tests are not pushed",
		"--version=v1.0.0+build twemproxy":     `the version "v1.0.0+build" cannot be an image's tag`,
		"--version=v1 pilion":                  `there is no image "pilion"; there are pillion, twemproxy, mtail`,
		"--nosuch":                             "flag provided but not defined",
	} {
		err := run(t.Context(), strings.Fields(line), os.Stdout)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want %q", line, err, want)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if err := run(t.Context(), []string{"--version=v1"}, os.Stdout); err == nil || !strings.Contains(err.Error(), `SOURCE_DATE_EPOCH is "yesterday"`) {
		t.Errorf("a wrong SOURCE_DATE_EPOCH: %v", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if s, err := readStamp(t.Context(), options{root: "../..", version: "v1"}); err != nil || s.created.Unix() != 1700000000 {
		t.Errorf("the time is %v (%v)", s.created, err)
	}
}
