package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  `version prints which build this is, and what it was built with and for.`,
		Example: `  pillion version
  pillion version -o json`,
		Args: cobra.NoArgs,
	}
	out := addOutputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		build := thisBuild()
		if out.form != formText {
			return out.print(command.OutOrStdout(), build)
		}
		return writeLine(command.OutOrStdout(), fmt.Sprintf("pillion %s %s %s", build.Version, build.GoVersion, build.Platform))
	}
	return command
}

type build struct {
	printedKind
	Version   string `json:"version"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// thisBuild tells what this binary is. One that was built without a version has that of its module, if it has any.
func thisBuild() build {
	b := build{
		printedKind: kindOfOutput("Version"),
		Version:     version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok && b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

// printedKind begins what commands print for programs.
type printedKind struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

func kindOfOutput(kind string) printedKind { return printedKind{v1alpha1.GroupVersion.String(), kind} }
