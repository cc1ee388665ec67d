package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help.
const (
	groupManifests = "manifests"
	groupCluster   = "cluster"
	groupPod       = "pod"
	groupPeople    = "people"
	groupCleanUp   = "clean-up"
)

// rootCommand returns the whole command line. Its commands return errors and print none of them.
func rootCommand() *cobra.Command { return commandLine(os.Args[0]) }

// commandLine returns the whole command line of a program of a name. kubectl runs kubectl-pillion for "kubectl pillion".
func commandLine(program string) *cobra.Command {
	root := &cobra.Command{
		Use:   "pillion",
		Short: "Sidecars, adapters, ambassadors and init containers for Pods that ask for them",
		Long: `Pillion puts Kubernetes patterns on the seat behind your app: a Pod that asks for a profile by the annotation
pillion.dev/inject comes up with the containers of that profile.

The webhook and the controller run in the cluster. Everything else is for people, and for their pipelines: it decides as the
webhook does.`,
		Example: `  pillion profiles --namespace web
  pillion explain deploy/web
  pillion docs ProfileNotAvailable
  pillion inject -f deployment.yaml --profiles profiles/ --diff`,
		// main prints the error, and the usage would hide it.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupPeople, Title: "Ask why:"},
		&cobra.Group{ID: groupManifests, Title: "Without a cluster:"},
		&cobra.Group{ID: groupCleanUp, Title: "Clean up a cluster:"},
		&cobra.Group{ID: groupCluster, Title: "In a cluster:"},
		&cobra.Group{ID: groupPod, Title: "In Pods, added by Pillion:"},
	)
	addGroup(root, groupPeople, explainCommand(), profilesCommand(), certsCommand(), docsCommand())
	addGroup(root, groupManifests, lintCommand(), testCommand(), injectCommand(), reviewCommand())
	addGroup(root, groupCleanUp, releaseCommand())
	addGroup(root, groupCluster, webhookCommand(), controllerCommand())
	addGroup(root, groupPod, metricsProxyCommand())
	root.AddCommand(versionCommand())
	if strings.HasPrefix(filepath.Base(program), "kubectl-pillion") {
		showAs(root, "kubectl pillion")
	}
	return root
}

func addGroup(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, command := range commands {
		command.GroupID = group
		root.AddCommand(command)
	}
}

// showAs gives the program another name in usages and examples.
func showAs(root *cobra.Command, name string) {
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	commands := append(root.Commands(), root)
	for _, command := range root.Commands() {
		commands = append(commands, command.Commands()...)
	}
	for _, command := range commands {
		lines := strings.Split(command.Example, "\n")
		for i, line := range lines {
			if rest, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "pillion "); ok {
				lines[i] = line[:len(line)-len(rest)-len("pillion ")] + name + " " + rest
			}
			lines[i] = strings.ReplaceAll(lines[i], "| pillion ", "| "+name+" ")
		}
		command.Example = strings.Join(lines, "\n")
	}
}
