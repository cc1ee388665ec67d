package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

// decisionFlags are those of commands that decide about Pods by themselves.
type decisionFlags struct {
	profiles []string
	// configuration has the flags of package config. The command has them too, but for --namespace, which means another
	// one here.
	configuration *pflag.FlagSet
}

// addDecisionFlags adds them: --profiles, and the settings that decisions depend on.
func addDecisionFlags(command *cobra.Command) *decisionFlags {
	flags := &decisionFlags{configuration: pflag.NewFlagSet("configuration", pflag.ContinueOnError)}
	command.Flags().StringArrayVarP(&flags.profiles, "profiles", "p", nil,
		"file or directory with PatternProfiles, ClusterPatternProfiles and Namespaces; may be repeated")
	config.AddFlags(flags.configuration, config.Decisions)
	flags.configuration.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "namespace" {
			command.Flags().AddFlag(flag)
		}
	})
	return flags
}

// addOfflineFlags adds them to a command that has no cluster to read profiles from.
func addOfflineFlags(command *cobra.Command) *decisionFlags {
	flags := addDecisionFlags(command)
	mustMark(command.MarkFlagRequired("profiles"))
	return flags
}

// settings returns the settings that decisions depend on.
func (f *decisionFlags) settings() (config.Config, error) {
	return config.Load(f.configuration, os.Environ())
}

// mustMark panics if a flag that is marked is not there: a mistake in the program.
func mustMark(err error) {
	if err != nil {
		panic(err)
	}
}

// decider is what decides about Pods on the command line: by what files say, or by what a cluster has.
type decider struct {
	options    profiles.Options
	compiler   *profiles.Compiler
	snapshot   *profiles.Snapshot
	namespaces manifest.Namespaces
	since      map[string]time.Time // when the profiles of a cluster were created, by their scopes
}

// load reads the configuration and the profiles. A PatternProfile that names no namespace is in the one given.
func (f *decisionFlags) load(namespace string) (*decider, error) {
	settings, err := f.settings()
	if err != nil {
		return nil, err
	}
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	loaded, namespaces, err := manifest.LoadProfiles(compiler, f.profiles, namespace)
	if err != nil {
		return nil, err
	}
	options := decisionOptions(settings)
	return &decider{
		options: options, compiler: compiler, snapshot: profiles.NewSnapshot(options, loaded), namespaces: namespaces,
	}, nil
}

// know adds namespaces, ahead of what the profiles' files say of them.
func (o *decider) know(namespaces manifest.Namespaces) { maps.Copy(o.namespaces, namespaces) }

// decisionOptions returns the settings that decisions depend on.
func decisionOptions(settings config.Config) profiles.Options {
	images := injectors.DefaultImages(settings.Images.Registry)
	images.Pillion = ofRelease(images.Pillion, thisBuild().Version)
	if settings.Images.Pillion != "" {
		images.Pillion = settings.Images.Pillion
	}
	return profiles.Options{
		Images:             images,
		ExcludedNamespaces: settings.ExcludedNamespaces,
		Weave:              weave.Options{LeadingContainers: settings.LeadingContainers},
		PodSecurity: profiles.PodSecurity{
			Mode:                 profiles.PodSecurityMode(settings.PodSecurity.Mode),
			Enforce:              settings.PodSecurity.Enforce,
			EnforceVersion:       settings.PodSecurity.EnforceVersion,
			ExemptUsernames:      settings.PodSecurity.ExemptUsernames,
			ExemptNamespaces:     settings.PodSecurity.ExemptNamespaces,
			ExemptRuntimeClasses: settings.PodSecurity.ExemptRuntimeClasses,
		},
	}
}

// ofRelease returns Pillion's image at the release that this build is of, or as it is if this is no release.
func ofRelease(image, version string) string {
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(version) {
		return image
	}
	return image[:strings.LastIndex(image, ":")+1] + version
}
