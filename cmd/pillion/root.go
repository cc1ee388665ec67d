package main

import "github.com/spf13/cobra"

// The groups of commands in the help.
const (
	groupManifests = "manifests"
	groupCluster   = "cluster"
	groupPod       = "pod"
)

// rootCommand returns the whole command line. Its commands return errors and print none of them.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pillion",
		Short: "Sidecars, adapters, ambassadors and init containers for Pods that ask for them",
		Long: `Pillion puts Kubernetes patterns on the seat behind your app: a Pod that asks for a profile by the annotation
pillion.dev/inject comes up with the containers of that profile.

The webhook and the controller run in the cluster. inject and review decide as the webhook does, without a cluster.`,
		Example: `  pillion inject -f deployment.yaml --profiles profiles/ --diff`,
		// main prints the error, and the usage would hide it.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupManifests, Title: "Without a cluster:"},
		&cobra.Group{ID: groupCluster, Title: "In a cluster:"},
		&cobra.Group{ID: groupPod, Title: "In Pods, added by Pillion:"},
	)
	addGroup(root, groupManifests, injectCommand(), reviewCommand())
	addGroup(root, groupCluster, webhookCommand(), controllerCommand())
	addGroup(root, groupPod, metricsProxyCommand())
	root.AddCommand(versionCommand())
	return root
}

func addGroup(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, command := range commands {
		command.GroupID = group
		root.AddCommand(command)
	}
}
