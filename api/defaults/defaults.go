// Package defaults holds the default profiles: one of each built-in pattern, for Pods whose annotations say the rest.
package defaults

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"

	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

//go:embed *.yaml
var files embed.FS

// Profiles returns the default profiles, by their names, each as its file has it: without the defaults of the schema.
func Profiles() ([]v1alpha1.ClusterPatternProfile, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("find the default profiles: %w", err)
	}
	profiles := make([]v1alpha1.ClusterPatternProfile, len(names))
	for i, name := range names {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read a default profile: %w", err)
		}
		if err := yaml.UnmarshalStrict(bytes.TrimSpace(content), &profiles[i]); err != nil {
			return nil, fmt.Errorf("decode the default profile %s: %w", name, err)
		}
	}
	return profiles, nil
}
