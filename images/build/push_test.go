package main

import (
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestPush(t *testing.T) {
	web := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	defer web.Close()
	host := strings.TrimPrefix(web.URL, "http://") + "/mirror/"
	b := newTestBuilder(t)
	many := mustBuild(t.Context(), t, b, helloImage(amd64, arm64))
	single := helloImage(amd64)
	single.name, single.ref = "single", "registry.example.com/team/single:v1"
	one := mustBuild(t.Context(), t, b, single)

	for _, r := range []result{many, one, many} { // again is no harm
		if err := push(t.Context(), r, host, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	for path, r := range map[string]result{"team/hello:v1.2.3": many, "team/single:v1": one} {
		ref, err := name.ParseReference(host + path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := remote.Head(ref); err != nil || got.Digest.String() != r.Digest {
			t.Errorf("%s has digest %v (%v); want %s", path, got, err, r.Digest)
		}
		for _, of := range r.Platforms {
			index, err := remote.Referrers(ref.Context().Digest(of.Digest))
			if err != nil {
				t.Fatal(err)
			}
			referrers, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(referrers.Manifests) != 1 || referrers.Manifests[0].ArtifactType != spdxMediaType {
				t.Fatalf("%s for %s has the referrers %+v", path, of.Platform, referrers.Manifests)
			}
			artifact, err := remote.Image(ref.Context().Digest(referrers.Manifests[0].Digest.String()))
			if err != nil {
				t.Fatal(err)
			}
			layers, err := artifact.Layers()
			if err != nil || len(layers) != 1 {
				t.Fatalf("the artifact has layers %v (%v)", layers, err)
			}
			in, err := layers[0].Compressed()
			if err != nil {
				t.Fatal(err)
			}
			if content, err := io.ReadAll(in); err != nil || string(content) != readTestFile(t, filepath.Join(r.folder, of.SBOM)) {
				t.Errorf("what is attached to %s is not the bill of materials (%v)", path, err)
			}
		}
	}

	writeTestFile(t, filepath.Join(many.folder, many.Platforms[0].SBOM), "{}")
	if err := push(t.Context(), many, host, io.Discard); err == nil || !strings.Contains(err.Error(), "is not what was built") {
		t.Errorf("a bill of materials that was changed: %v", err)
	}
	if err := push(t.Context(), one, "Not a registry", io.Discard); err == nil || !strings.Contains(err.Error(), "such as registry.example.com/x") {
		t.Errorf("a registry that is none: %v", err)
	}
}
