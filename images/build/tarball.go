package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// blobs is where a tarball keeps manifests, configurations and layers, by hash.
const blobs = "blobs/sha256/"

// dockerImage is an item of manifest.json, by which `docker load` and others find an image.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeTarball writes images as one file that is both an OCI image layout and a docker-archive, and returns the digest that a
// registry will know the image by. containerd, podman and skopeo read all platforms by index.json; a docker-archive has one
// image of a name, so manifest.json names that of this machine's platform, or the first.
func writeTarball(name string, i *image, images []v1.Image) (v1.Hash, error) {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	for _, img := range images {
		if err := addImage(files, img); err != nil {
			return v1.Hash{}, err
		}
	}
	top, err := i.top(files, images)
	if err != nil {
		return v1.Hash{}, err
	}
	digest := top.Digest
	top.Annotations = map[string]string{
		"io.containerd.image.name":          i.ref,
		"org.opencontainers.image.ref.name": i.ref[strings.LastIndex(i.ref, ":")+1:],
	}
	err = addJSON(files, "index.json", v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{top},
	})
	if err != nil {
		return v1.Hash{}, err
	}
	local := max(0, slices.IndexFunc(i.platforms, func(p v1.Platform) bool { return p.Architecture == runtime.GOARCH }))
	manifest, err := images[local].Manifest()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read the manifest: %w", err)
	}
	docker := dockerImage{Config: blobs + manifest.Config.Digest.Hex, RepoTags: []string{i.ref}}
	for _, layer := range manifest.Layers {
		docker.Layers = append(docker.Layers, blobs+layer.Digest.Hex)
	}
	if err := addJSON(files, "manifest.json", []dockerImage{docker}); err != nil {
		return v1.Hash{}, err
	}
	return digest, packFiles(name, files, i)
}

// top returns the descriptor that stands for the whole image: of the index, if there are more platforms than one.
func (i *image) top(files map[string][]byte, images []v1.Image) (v1.Descriptor, error) {
	var manifest interface {
		RawManifest() ([]byte, error)
		Digest() (v1.Hash, error)
		MediaType() (types.MediaType, error)
	} = images[0]
	var platform *v1.Platform
	if len(images) > 1 {
		manifest = i.index(images)
	} else {
		platform = &i.platforms[0]
	}
	content, err := manifest.RawManifest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("write the manifest: %w", err)
	}
	digest, err := manifest.Digest()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("hash the manifest: %w", err)
	}
	media, err := manifest.MediaType()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read the manifest's type: %w", err)
	}
	files[blobs+digest.Hex] = content
	return v1.Descriptor{MediaType: media, Digest: digest, Size: int64(len(content)), Platform: platform}, nil
}

// addImage adds the blobs of one platform.
func addImage(files map[string][]byte, img v1.Image) error {
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("hash the manifest: %w", err)
	}
	if files[blobs+digest.Hex], err = img.RawManifest(); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	config, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("hash the configuration: %w", err)
	}
	if files[blobs+config.Hex], err = img.RawConfigFile(); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("list the layers: %w", err)
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return fmt.Errorf("hash a layer: %w", err)
		}
		packed, err := layer.Compressed()
		if err != nil {
			return fmt.Errorf("compress a layer: %w", err)
		}
		files[blobs+digest.Hex], err = io.ReadAll(packed)
		if err = errors.Join(err, packed.Close()); err != nil {
			return fmt.Errorf("compress a layer: %w", err)
		}
	}
	return nil
}

func addJSON(files map[string][]byte, name string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	files[name] = content
	return nil
}

// packFiles writes files as a tarball: those of the format first, as readers that stream want it, then the blobs by hash.
func packFiles(name string, files map[string][]byte, i *image) (err error) {
	out, err := os.Create(name + ".unfinished")
	if err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err == nil {
			err = os.Rename(name+".unfinished", name)
		}
	}()
	formats := []string{"oci-layout", "index.json", "manifest.json"}
	rest := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(file string) bool { return slices.Contains(formats, file) })
	w := tar.NewWriter(out)
	for _, dir := range []string{"blobs/", blobs} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: i.created}); err != nil {
			return fmt.Errorf("write the tarball: %w", err)
		}
	}
	for _, file := range append(formats, rest...) {
		header := tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o644, Size: int64(len(files[file])), ModTime: i.created}
		if err := w.WriteHeader(&header); err != nil {
			return fmt.Errorf("write the tarball: %w", err)
		}
		if _, err := w.Write(files[file]); err != nil {
			return fmt.Errorf("write the tarball: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	return nil
}

// openTarball unpacks a tarball that writeTarball wrote into a folder, and returns it as an image layout.
func openTarball(name, folder string) (layout.Path, error) {
	in, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("open the tarball: %w", err)
	}
	defer in.Close() //nolint:errcheck // it is only read
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return layout.FromPath(folder)
		}
		if err != nil {
			return "", fmt.Errorf("read the tarball: %w", err)
		}
		if header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return "", fmt.Errorf("read the tarball: %w", err)
		}
		target := filepath.Join(folder, header.Name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return "", fmt.Errorf("unpack the tarball: %w", err)
		}
		if err := os.WriteFile(target, content, 0o644); err != nil { //nolint:gosec // what registries show to everybody
			return "", fmt.Errorf("unpack the tarball: %w", err)
		}
	}
}
