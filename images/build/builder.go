package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// builder holds what all images of one run share.
type builder struct {
	opts      options
	cache     string // folder of what was downloaded and compiled
	goVersion string
	self      string // changes when the builder does
	log       io.Writer
	archives  map[string]*archive // by architecture
}

// result is what became of an image. It is kept beside the tarball, in NAME.json.
type result struct {
	Name      string           `json:"name"`
	Ref       string           `json:"ref"`
	Digest    string           `json:"digest"`
	Platforms []platformResult `json:"platforms"`
	// Inputs is a hash of all that the image is made of: while it is the same, the tarball is kept.
	Inputs string `json:"inputs"`

	folder string
	kept   bool
}

type platformResult struct {
	Platform   string `json:"platform"`
	Digest     string `json:"digest"`
	Compressed int64  `json:"compressed"`         // bytes
	SBOM       string `json:"sbom,omitempty"`     // file
	SBOMOf     string `json:"sbomHash,omitempty"` // its SHA-256
}

func newBuilder(ctx context.Context, opts options, log io.Writer) (*builder, error) {
	b := &builder{opts: opts, cache: filepath.Join(opts.root, "bin", "images", "cache"), log: log, archives: map[string]*archive{}}
	for _, folder := range []string{opts.out, b.cache} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("make a folder: %w", err)
		}
	}
	version, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("ask go for its version: %w", err)
	}
	b.goVersion = strings.TrimSpace(string(version))
	b.self, err = b.hashSelf()
	return b, err
}

// hashSelf hashes the builder's own code: what it does decides about the bytes as much as what it reads.
func (b *builder) hashSelf() (string, error) {
	folder := filepath.Join(b.opts.root, "images", "build")
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return "", fmt.Errorf("list the builder's code: %w", err)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
	return hashFiles(append(files, filepath.Join(folder, "go.mod"), filepath.Join(folder, "go.sum"))...)
}

// hashFiles returns a hash of the contents of files, in order.
func hashFiles(files ...string) (string, error) {
	sum := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("hash what an image is made of: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n", filepath.Base(file), len(content))
		sum.Write(content)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// ensure builds an image unless it is there already, of the same inputs.
func (b *builder) ensure(ctx context.Context, i *image) (result, error) {
	unlock, err := lock(ctx, b.cache)
	if err != nil {
		return result{}, err
	}
	defer unlock()
	inputs, err := b.inputs(ctx, i)
	if err != nil {
		return result{}, err
	}
	if kept, ok := b.kept(i, inputs); ok {
		return kept, nil
	}
	return b.build(ctx, i, inputs)
}

// inputs hashes all that an image is made of.
func (b *builder) inputs(ctx context.Context, i *image) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, b.self, b.goVersion, i.ref, i.labels(), i.platforms, i.entrypoint, i.user, i.env, i.programs, i.limit,
		i.upstream)
	for _, platform := range i.platforms {
		for _, part := range i.parts {
			words, err := part.inputs(ctx, b, platform)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%T %s\n", part, words)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// kept returns the result of an earlier run, if it was of these inputs and nobody touched its files since.
func (b *builder) kept(i *image, inputs string) (result, bool) {
	content, err := os.ReadFile(filepath.Join(b.opts.out, i.name+".json"))
	if err != nil {
		return result{}, false
	}
	r := result{}
	if json.Unmarshal(content, &r) != nil || r.Inputs != inputs {
		return result{}, false
	}
	r.folder, r.kept = b.opts.out, true
	for _, file := range r.files() {
		if _, err := os.Stat(file); err != nil {
			return result{}, false
		}
	}
	return r, true
}

// build makes an image and writes its files.
func (b *builder) build(ctx context.Context, i *image, inputs string) (result, error) {
	r := result{Name: i.name, Ref: i.ref, Inputs: inputs, folder: b.opts.out}
	// The record goes first and comes last, so that a build that was interrupted is no result.
	if err := os.Remove(r.record()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return result{}, fmt.Errorf("forget the image before: %w", err)
	}
	var images []v1.Image
	for _, platform := range i.platforms {
		img, of, err := b.buildPlatform(ctx, i, platform)
		if err != nil {
			return result{}, fmt.Errorf("for %s: %w", platform, err)
		}
		images, r.Platforms = append(images, img), append(r.Platforms, of)
	}
	digest, err := writeTarball(r.tarball(), i, images)
	if err != nil {
		return result{}, err
	}
	r.Digest = digest.String()
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return result{}, fmt.Errorf("write the record: %w", err)
	}
	return r, writeFile(r.record(), append(content, '\n'))
}

// buildPlatform makes the image of one platform, looks whether all is there that it needs, and writes its bill of materials.
func (b *builder) buildPlatform(ctx context.Context, i *image, platform v1.Platform) (v1.Image, platformResult, error) {
	t := newTree()
	var components []component
	for _, part := range i.parts {
		added, err := part.add(ctx, b, platform, t)
		if err != nil {
			return nil, platformResult{}, err
		}
		components = append(components, added...)
	}
	if err := errors.Join(t.missingLibraries(platform.Architecture), i.missingPrograms(t), i.wrongVersion(components)); err != nil {
		return nil, platformResult{}, err
	}
	img, err := i.assemble(t, platform)
	if err != nil {
		return nil, platformResult{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, platformResult{}, fmt.Errorf("hash the image: %w", err)
	}
	size, err := compressedSize(img)
	if err != nil {
		return nil, platformResult{}, err
	}
	if i.limit > 0 && size > i.limit {
		return nil, platformResult{}, fmt.Errorf(
			"it has %.1f MiB compressed, and may have %.1f; look at what was linked into it, by go version -m", mebibytes(size), mebibytes(i.limit))
	}
	of := platformResult{Platform: platform.String(), Digest: digest.String(), Compressed: size}
	if i.hasSBOM {
		of.SBOM = fmt.Sprintf("%s-%s-%s.spdx.json", i.name, platform.OS, platform.Architecture)
		document, err := i.sbom(platform, digest, components)
		if err != nil {
			return nil, platformResult{}, err
		}
		of.SBOMOf = hash(document)
		if err := writeFile(filepath.Join(b.opts.out, of.SBOM), document); err != nil {
			return nil, platformResult{}, err
		}
	}
	return img, of, nil
}

// missingPrograms returns an error that names the programs which the image must have in its PATH, and its entrypoint, and has
// not.
func (i *image) missingPrograms(t *tree) error {
	var errs []error
	isProgram := func(name string) bool {
		e, found := t.lookUp(name)
		return found && e.mode&0o111 == 0o111
	}
	for _, program := range i.programs {
		if !slices.ContainsFunc(filepath.SplitList(searchPath), func(dir string) bool { return isProgram(path.Join(dir, program)) }) {
			errs = append(errs, fmt.Errorf("it must hold the program %s, and has none in its PATH", program))
		}
	}
	if len(i.entrypoint) > 0 && !isProgram(i.entrypoint[0]) {
		errs = append(errs, fmt.Errorf("its entrypoint is %s, and there is no such program", i.entrypoint[0]))
	}
	return errors.Join(errs...)
}

// wrongVersion returns an error if the image would call itself another version than the package in it.
func (i *image) wrongVersion(components []component) error {
	at := slices.IndexFunc(components, func(c component) bool { return i.upstream != "" && c.name == i.upstream })
	if at < 0 || upstreamVersion(components[at].version) == i.version {
		return nil
	}
	return fmt.Errorf(
		"the package %s of Debian is of version %s and the image is called %s; name the package's version in injectors/images.go",
		i.upstream, upstreamVersion(components[at].version), i.ref)
}

// conclude writes the digests of all images of a release for people and scripts, or removes what is no image of the tests any
// more, so that whoever imports the whole folder gets what the catalog says.
func (b *builder) conclude(results []result) error {
	if !b.opts.test {
		var lines strings.Builder
		for i := range results {
			fmt.Fprintf(&lines, "%s@%s\n", results[i].Ref, results[i].Digest)
		}
		return writeFile(filepath.Join(b.opts.out, "digests.txt"), []byte(lines.String()))
	}
	present, err := filepath.Glob(filepath.Join(b.opts.out, "*.tar"))
	if err != nil {
		return fmt.Errorf("list the tarballs: %w", err)
	}
	for _, file := range present {
		name := strings.TrimSuffix(filepath.Base(file), ".tar")
		if slices.ContainsFunc(results, func(r result) bool { return r.Name == name }) {
			continue
		}
		// Only what this program wrote has a record. Others may keep tarballs here too.
		record := strings.TrimSuffix(file, ".tar") + ".json"
		if _, err := os.Stat(record); err != nil {
			continue
		}
		if err := errors.Join(os.Remove(file), os.Remove(record)); err != nil {
			return fmt.Errorf("remove an image that is none any more: %w", err)
		}
	}
	return nil
}

func (r *result) tarball() string { return filepath.Join(r.folder, r.Name+".tar") }
func (r *result) record() string  { return filepath.Join(r.folder, r.Name+".json") }

// files returns the paths of all that belongs to the result, but for the record.
func (r *result) files() []string {
	files := []string{r.tarball()}
	for _, of := range r.Platforms {
		if of.SBOM != "" {
			files = append(files, filepath.Join(r.folder, of.SBOM))
		}
	}
	return files
}

// describe says what came out, for a terminal.
func (r *result) describe() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n  %s\n", r.Ref, r.Digest)
	for _, of := range r.Platforms {
		fmt.Fprintf(&text, "  %-12s %6.1f MiB compressed\n", of.Platform, mebibytes(of.Compressed))
	}
	state := ""
	if r.kept {
		state = " (unchanged)"
	}
	fmt.Fprintf(&text, "  %s%s\n", r.tarball(), state)
	return text.String()
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// writeFile replaces a file at once, so that nobody reads half of it.
func writeFile(name string, content []byte) error {
	if err := os.WriteFile(name+".unfinished", content, 0o644); err != nil { //nolint:gosec // files for everybody
		return fmt.Errorf("write a file: %w", err)
	}
	if err := os.Rename(name+".unfinished", name); err != nil {
		return fmt.Errorf("write a file: %w", err)
	}
	return nil
}
