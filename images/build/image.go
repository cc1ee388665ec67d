package main

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image says what to build. Its parts are put into one layer, in order.
type image struct {
	// name is that of its files in bin/images.
	name string
	// ref is the repository and tag that it is known by.
	ref         string
	title       string
	description string
	version     string
	revision    string
	licenses    string // an SPDX expression
	created     time.Time
	platforms   []v1.Platform

	entrypoint []string
	user       string
	env        []string // beside PATH
	parts      []part
	// programs must be found in PATH, by the names that injected containers and their probes use.
	programs []string

	// limit is the most bytes, compressed, that the image may have for a platform. 0 is none.
	limit int64
	// upstream is the package whose upstream version must be the version above, if there is one.
	upstream string
	// hasSBOM says that a software bill of materials is written beside the tarball.
	hasSBOM bool
}

// part is something that an image holds.
type part interface {
	// inputs tells in a few words what the part is made of: while it says the same, the part stays the same.
	inputs(ctx context.Context, b *builder, platform v1.Platform) (string, error)
	// add puts the part into the tree and returns the software that it is.
	add(ctx context.Context, b *builder, platform v1.Platform, t *tree) ([]component, error)
}

// searchPath is the PATH of every image, as Debian's own have it.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// labels are the annotations that the OCI image specification predefines. They are in the configuration, where `docker
// inspect` shows them, and on manifests, where registries do.
func (i *image) labels() map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       i.title,
		"org.opencontainers.image.description": i.description,
		"org.opencontainers.image.version":     i.version,
		"org.opencontainers.image.revision":    i.revision,
		"org.opencontainers.image.licenses":    i.licenses,
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.created":     i.created.Format(time.RFC3339),
	}
	for key, value := range labels {
		if value == "" {
			delete(labels, key)
		}
	}
	return labels
}

// assemble makes the image of one platform of a tree.
func (i *image) assemble(t *tree, platform v1.Platform) (v1.Image, error) {
	layer, err := t.layer(i.created)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: i.created}, CreatedBy: source + "/tree/main/images/build"},
	})
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = platform.OS, platform.Architecture, platform.Variant
	file.Created = v1.Time{Time: i.created}
	file.Config = v1.Config{
		Entrypoint: i.entrypoint,
		User:       i.user,
		WorkingDir: "/",
		Env:        append([]string{"PATH=" + searchPath}, i.env...),
		Labels:     i.labels(),
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("set the configuration: %w", err)
	}
	return mutate.Annotations(img, i.labels()).(v1.Image), nil
}

// index joins the images of the platforms.
func (i *image) index(images []v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for n := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        images[n],
			Descriptor: v1.Descriptor{Platform: &i.platforms[n]},
		})
	}
	return mutate.Annotations(index, i.labels()).(v1.ImageIndex)
}

// compressedSize returns the bytes that a node pulls for an image: its layers.
func compressedSize(img v1.Image) (int64, error) {
	layers, err := img.Layers()
	if err != nil {
		return 0, fmt.Errorf("list the layers: %w", err)
	}
	var sum int64
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, fmt.Errorf("measure a layer: %w", err)
		}
		sum += size
	}
	return sum, nil
}
