package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// clusterFlags are those of commands that people run against a cluster: kubectl's own.
type clusterFlags struct {
	rules     *clientcmd.ClientConfigLoadingRules
	overrides *clientcmd.ConfigOverrides
}

// addClusterFlags adds them, --namespace among them.
func addClusterFlags(command *cobra.Command) *clusterFlags {
	flags := &clusterFlags{rules: clientcmd.NewDefaultClientConfigLoadingRules(), overrides: &clientcmd.ConfigOverrides{}}
	set := command.Flags()
	set.StringVar(&flags.rules.ExplicitPath, "kubeconfig", "", "kubeconfig file; default: $KUBECONFIG, or ~/.kube/config")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	kubectl := pflag.NewFlagSet("kubectl", pflag.ContinueOnError)
	clientcmd.BindOverrideFlags(flags.overrides, kubectl, names)
	for _, name := range []string{"context", "cluster", "user", "namespace", "as", "as-group", "server", "token", "request-timeout"} {
		if flag := kubectl.Lookup(name); flag != nil {
			set.AddFlag(flag)
		}
	}
	return flags
}

// connect returns a client and the namespace that is meant where none is named.
func (f *clusterFlags) connect() (client.WithWatch, string, error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(f.rules, f.overrides)
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	connected, _, err := f.connectRaw()
	return connected, namespace, err
}

// connectRaw returns a client, and how else to talk to the API server.
func (f *clusterFlags) connectRaw() (client.WithWatch, *rest.Config, error) {
	restConfig, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(f.rules, f.overrides).ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("find the API server: %w", err)
	}
	restConfig.QPS = -1 // the API server itself says when it is asked too much
	restConfig.UserAgent = "pillion-cli/" + thisBuild().Version
	restConfig.WarningHandlerWithContext = collectWarnings{}
	types := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(types), v1alpha1.AddToScheme(types)); err != nil {
		return nil, nil, fmt.Errorf("register API types: %w", err)
	}
	connected, err := client.NewWithWatch(restConfig, client.Options{Scheme: types})
	if err != nil {
		return nil, nil, fmt.Errorf("prepare to talk to the API server: %w", err)
	}
	return connected, restConfig, nil
}

// namespaceOr returns the namespace that is asked for, by the flag or by the kubeconfig. It needs no cluster, and no kubeconfig.
func (f *clusterFlags) namespaceOr(otherwise string) string {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(f.rules, f.overrides)
	if namespace, _, err := loader.Namespace(); err == nil && namespace != "" {
		return namespace
	}
	return otherwise
}

// errNoPillion says that a cluster does not know Pillion's kinds.
//
//nolint:staticcheck // Pillion is a name
var errNoPillion = errors.New("Pillion is not installed in this cluster: it does not know PatternProfiles and " +
	"ClusterPatternProfiles; give profiles as files by --profiles, or see deploy/ for how to install it")

// collectWarnings gives the warnings of the API server to whoever asked for them by withWarnings, and to nobody else: warnings
// about what Pillion reads say nothing to people.
type collectWarnings struct{}

type warningsKey struct{}

// withWarnings returns a context whose requests append the API server's warnings to a list.
func withWarnings(ctx context.Context, into *[]string) context.Context {
	return context.WithValue(ctx, warningsKey{}, into)
}

func (collectWarnings) HandleWarningHeaderWithContext(ctx context.Context, _ int, _, text string) {
	if into, ok := ctx.Value(warningsKey{}).(*[]string); ok && text != "" {
		*into = append(*into, text)
	}
}

// unreadable is what a cluster does not let its user read.
type unreadable struct {
	what string
	err  error
}

// readCluster returns what decides about Pods of a namespace by what the cluster has. What the user may not read is left out and
// told.
func readCluster(
	ctx context.Context, reader client.Reader, settings config.Config, namespace string,
) (*decider, []unreadable, error) {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return nil, nil, fmt.Errorf("prepare the compilation of profiles: %w", err)
	}
	var hidden []unreadable
	read := func(what string, get func() error) error {
		err := get()
		switch {
		case apierrors.IsForbidden(err):
			hidden = append(hidden, unreadable{what, err})
			return nil
		case meta.IsNoMatchError(err):
			return errNoPillion
		case err != nil:
			return fmt.Errorf("read %s: %w", what, err)
		default:
			return nil
		}
	}
	cluster, inside, in := &v1alpha1.ClusterPatternProfileList{}, &v1alpha1.PatternProfileList{}, &corev1.Namespace{}
	err = errors.Join(
		read("the ClusterPatternProfiles", func() error { return reader.List(ctx, cluster) }),
		read("the PatternProfiles of namespace "+namespace, func() error { return reader.List(ctx, inside, client.InNamespace(namespace)) }),
		read("namespace "+namespace, func() error { return reader.Get(ctx, client.ObjectKey{Name: namespace}, in) }),
	)
	if errors.Is(err, errNoPillion) {
		return nil, nil, errNoPillion // once
	}
	if err != nil {
		return nil, nil, err
	}
	var compiled []*profiles.Profile
	for i := range cluster.Items {
		compiled = append(compiled, compiler.Cluster(&cluster.Items[i]))
	}
	for i := range inside.Items {
		compiled = append(compiled, compiler.Namespaced(&inside.Items[i]))
	}
	delete(in.Annotations, corev1.LastAppliedConfigAnnotation) // as in the webhook's memory
	namespaces := manifest.Namespaces{}
	namespaces.Set(namespace, in.Labels, in.Annotations)
	options := decisionOptions(settings)
	return &decider{
		options: options, compiler: compiler, snapshot: profiles.NewSnapshot(options, compiled), namespaces: namespaces,
		since: creations(cluster, inside),
	}, hidden, nil
}

// creations returns when the profiles were created, by their scopes.
func creations(cluster *v1alpha1.ClusterPatternProfileList, inside *v1alpha1.PatternProfileList) map[string]time.Time {
	since := map[string]time.Time{}
	for i := range cluster.Items {
		since[(&profiles.Profile{Name: cluster.Items[i].Name}).Scope()] = cluster.Items[i].CreationTimestamp.Time
	}
	for i := range inside.Items {
		one := &inside.Items[i]
		since[(&profiles.Profile{Namespace: one.Namespace, Name: one.Name}).Scope()] = one.CreationTimestamp.Time
	}
	return since
}
