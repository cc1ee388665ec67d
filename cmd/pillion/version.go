package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  pillion version
  pillion version -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			build := thisBuild()
			switch output {
			case "":
				fmt.Fprintf(command.OutOrStdout(), "pillion %s %s %s\n", build.Version, build.GoVersion, build.Platform)
			case "json":
				encoded, err := json.MarshalIndent(build, "", "  ")
				if err != nil {
					return fmt.Errorf("encode the version: %w", err)
				}
				fmt.Fprintln(command.OutOrStdout(), string(encoded))
			default:
				return fmt.Errorf("--output %q is unknown; write json, or leave it out for one line of text", output)
			}
			return nil
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "form of the output: json; default: one line of text")
	return command
}

type build struct {
	Version   string `json:"version"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// thisBuild tells what this binary is. One that was built without a version has that of its module, if it has any.
func thisBuild() build {
	b := build{Version: version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}
