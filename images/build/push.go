package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// push puts an image and its bills of materials into a registry, which takes the place of the host of its name: so the setting
// images.registry finds it there.
func push(ctx context.Context, r result, registry string, out io.Writer) error {
	_, repository, _ := strings.Cut(r.Ref, "/")
	ref, err := name.NewTag(strings.TrimSuffix(registry, "/") + "/" + repository)
	if err != nil {
		return fmt.Errorf("%w; write a registry with or without a path, such as registry.example.com/x", err)
	}
	folder, err := os.MkdirTemp("", "pillion-image-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(folder) //nolint:errcheck // a temporary folder
	opened, err := openTarball(r.tarball(), folder)
	if err != nil {
		return err
	}
	index, err := opened.ImageIndex()
	if err != nil {
		return fmt.Errorf("read the tarball: %w", err)
	}
	digest, err := v1.NewHash(r.Digest)
	if err != nil {
		return fmt.Errorf("read the record: %w", err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if len(r.Platforms) > 1 {
		whole, err := index.ImageIndex(digest)
		if err != nil {
			return fmt.Errorf("read the tarball: %w", err)
		}
		if err := remote.WriteIndex(ref, whole, options...); err != nil {
			return err
		}
	} else {
		img, err := index.Image(digest)
		if err != nil {
			return fmt.Errorf("read the tarball: %w", err)
		}
		if err := remote.Write(ref, img, options...); err != nil {
			return err
		}
	}
	for _, of := range r.Platforms {
		if of.SBOM != "" {
			if err := pushSBOM(ref.Repository, filepath.Join(r.folder, of.SBOM), of, options); err != nil {
				return fmt.Errorf("attach %s: %w", of.SBOM, err)
			}
		}
	}
	fmt.Fprintf(out, "pushed %s@%s\n", ref, r.Digest)
	return nil
}

// pushSBOM attaches a bill of materials to the image of a platform, as a referrer: an artifact of its own, whose subject is
// that image.
func pushSBOM(repository name.Repository, file string, of platformResult, options []remote.Option) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the bill of materials: %w", err)
	}
	if hash(content) != of.SBOMOf {
		return fmt.Errorf("%s is not what was built; remove it and build again", file)
	}
	subject, err := remote.Head(repository.Digest(of.Digest), options...)
	if err != nil {
		return fmt.Errorf("find the image: %w", err)
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), spdxMediaType)
	artifact, err = mutate.AppendLayers(artifact, static.NewLayer(content, spdxMediaType))
	if err != nil {
		return fmt.Errorf("make the artifact: %w", err)
	}
	artifact = mutate.Subject(artifact, *subject).(v1.Image)
	digest, err := artifact.Digest()
	if err != nil {
		return fmt.Errorf("hash the artifact: %w", err)
	}
	return remote.Write(repository.Digest(digest.String()), artifact, options...)
}
