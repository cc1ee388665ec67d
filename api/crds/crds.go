// Package crds carries the CustomResourceDefinitions that controller-gen makes from the types in api/v1alpha1.
package crds

import _ "embed"

// PatternProfiles is the CustomResourceDefinition of PatternProfile, as YAML.
//
//go:embed pillion.dev_patternprofiles.yaml
var PatternProfiles []byte

// ClusterPatternProfiles is the CustomResourceDefinition of ClusterPatternProfile, as YAML.
//
//go:embed pillion.dev_clusterpatternprofiles.yaml
var ClusterPatternProfiles []byte
