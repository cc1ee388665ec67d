package admissiontest

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

// Option is a setting of New.
type Option func(*settings)

type settings struct {
	options    profiles.Options
	files      []manifest.File
	namespaces manifest.Namespaces
	errs       []error
}

// WithProfilesFrom adds the PatternProfiles, the ClusterPatternProfiles and the Namespaces, with their labels and annotations, in files
// and directories (their .yaml, .yml and .json files, without subdirectories). Other objects there are ignored.
func WithProfilesFrom(paths ...string) Option {
	return func(s *settings) {
		files, errs := manifest.ReadFiles(paths, strings.NewReader(""))
		s.files = append(s.files, files...)
		s.errs = append(s.errs, errs...)
	}
}

// WithYAML adds profiles and namespaces as WithProfilesFrom does, from a text.
func WithYAML(text string) Option {
	return func(s *settings) {
		s.files = append(s.files, manifest.Parse(fmt.Sprintf("text %d", len(s.files)+1), []byte(text)))
	}
}

// WithProfiles adds profiles.
func WithProfiles(added ...*v1alpha1.ClusterPatternProfile) Option {
	return func(s *settings) {
		for _, profile := range added {
			typed := *profile
			typed.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ClusterPatternProfile"))
			encoded, err := json.Marshal(&typed)
			if err != nil {
				s.errs = append(s.errs, fmt.Errorf("encode profile %s: %w", profile.Name, err))
				continue
			}
			s.files = append(s.files, manifest.Parse("ClusterPatternProfile "+profile.Name, encoded))
		}
	}
}

// WithNamespace adds a namespace with labels, ahead of one of that name in a file. A namespace that is not added exists, without
// annotations, and without labels but kubernetes.io/metadata.name, which every one has.
func WithNamespace(name string, labels map[string]string) Option {
	return func(s *settings) { s.namespaces.Set(name, labels, nil) }
}

// WithNamespaces adds namespaces with their labels and annotations, which set parameters of profiles for the Pods in them, ahead of
// those of the same names in files.
func WithNamespaces(added ...*corev1.Namespace) Option {
	return func(s *settings) {
		for _, namespace := range added {
			s.namespaces.Set(namespace.Name, namespace.Labels, namespace.Annotations)
		}
	}
}

// WithOptions replaces the settings of the installation: images, excluded namespaces, containers of meshes, Pod Security.
// Default: those of an installation that sets none.
func WithOptions(options profiles.Options) Option {
	return func(s *settings) { s.options = options }
}

// defaultOptions returns the settings of an installation that sets none.
func defaultOptions() profiles.Options {
	defaults, err := config.Load(nil, nil)
	if err != nil {
		panic(err) // the defaults are well, which a test of package config finds
	}
	return profiles.Options{
		Images:             injectors.DefaultImages(defaults.Images.Registry),
		ExcludedNamespaces: defaults.ExcludedNamespaces,
		Weave:              weave.Options{LeadingContainers: defaults.LeadingContainers},
		PodSecurity: profiles.PodSecurity{
			Mode: profiles.PodSecurityMode(defaults.PodSecurity.Mode), Enforce: defaults.PodSecurity.Enforce,
			EnforceVersion: defaults.PodSecurity.EnforceVersion,
		},
	}
}
