package node

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Image is a small image for tests, of files of this machine and nothing else: a static program, say.
type Image struct {
	// Name has a tag that is not latest, or a kubelet would try to pull it: localhost/app:1.
	Name string

	// Files are the image's by their path in it. Each is readable, and executable if it is so here.
	Files map[string]string

	// Entrypoint is the program and its arguments. Env is NAME=VALUE.
	Entrypoint, Env []string

	// User is a numeric uid or uid:gid. Empty: root.
	User string
}

// The documents of a docker-archive.
type (
	imageConfig struct {
		Architecture string        `json:"architecture"`
		OS           string        `json:"os"`
		Config       processConfig `json:"config"`
		RootFS       rootFS        `json:"rootfs"`
	}
	processConfig struct {
		Entrypoint []string `json:"Entrypoint,omitempty"`
		Env        []string `json:"Env,omitempty"`
		User       string   `json:"User,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	archiveManifest struct {
		Config   string   `json:"Config"`
		RepoTags []string `json:"RepoTags"`
		Layers   []string `json:"Layers"`
	}
)

// WriteImage writes an image as a docker-archive, which Import takes.
func WriteImage(file string, image Image) error {
	layer, err := image.layer()
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	config, err := json.Marshal(imageConfig{
		Architecture: runtime.GOARCH, OS: "linux",
		Config: processConfig{Entrypoint: image.Entrypoint, Env: image.Env, User: image.User},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	manifest, err := json.Marshal([]archiveManifest{{
		Config: digest(config) + ".json", RepoTags: []string{image.Name}, Layers: []string{digest(layer) + ".tar"},
	}})
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	var archive bytes.Buffer
	err = writeTar(&archive, []entry{
		{path: digest(layer) + ".tar", mode: 0o644, content: layer},
		{path: digest(config) + ".json", mode: 0o644, content: config},
		{path: "manifest.json", mode: 0o644, content: manifest},
	})
	if err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	if err := os.WriteFile(file, archive.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write image %s: %w", image.Name, err)
	}
	return nil
}

// layer returns the files as a tarball, with the directories that they are in.
func (i Image) layer() ([]byte, error) {
	var entries []entry
	made := map[string]bool{".": true}
	for _, at := range slices.Sorted(maps.Keys(i.Files)) {
		content, err := os.ReadFile(i.Files[at])
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(i.Files[at])
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(path.Clean(at), "/")
		entries = append(entries, directories(path.Dir(name), made)...)
		entries = append(entries, entry{path: name, mode: 0o444 | int64(info.Mode().Perm()&0o111), content: content})
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, entries); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

// directories returns a directory and those above it, from the top, which were not made yet.
func directories(dir string, made map[string]bool) []entry {
	if made[dir] {
		return nil
	}
	above := directories(path.Dir(dir), made)
	made[dir] = true
	return append(above, entry{path: dir + "/", mode: 0o755})
}

// entry is a file of a tarball, or, where its path ends in a slash, a directory.
type entry struct {
	path    string
	mode    int64
	content []byte
}

func writeTar(to io.Writer, entries []entry) error {
	out := tar.NewWriter(to)
	for _, e := range entries {
		header := &tar.Header{Name: e.path, Mode: e.mode, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.path, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := out.Write(e.content); err != nil {
			return err
		}
	}
	return out.Close()
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
