package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func releaseCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "release [TYPE/NAME...] [--all]",
		Short: "Let profiles be deleted where no controller is left to do so",
		Long: `release takes the finalizer pillion.dev/in-use off profiles: those that are named, or with --all every profile of the
cluster; --all and --namespace together are the PatternProfiles of that namespace. Finalizers of others stay. Nothing else of
a profile is changed, and none is deleted that nobody has deleted before.

The controller takes the finalizer off by itself, so that release is for when it is gone: deletions of profiles, of their
namespaces and of the CustomResourceDefinitions would wait for ever. While a controller runs it refuses, for that would put the
finalizer on again. It waits for one that is ending. Whether one runs is seen by its Pods and its Lease, which has to be
readable in all namespaces; --force does not look.`,
		Example: `  pillion release --all --dry-run
  pillion release --all
  pillion release --all --namespace web
  pillion release clusterpatternprofile/site
  pillion release patternprofile/cache --namespace web`,
	}
	r := &releasing{}
	flags := command.Flags()
	flags.BoolVar(&r.all, "all", false, "release every profile of the cluster, or of the namespace that --namespace names")
	flags.BoolVar(&r.dryRun, "dry-run", false, "have the API server try it, and change nothing")
	flags.BoolVar(&r.force, "force", false, "do not look whether a controller runs")
	r.cluster, r.out = addClusterFlags(command), addOutputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error { return r.run(command, args) }
	return command
}

// releasing is one call of release.
type releasing struct {
	cluster            *clusterFlags
	out                *output
	all, dryRun, force bool

	connected client.WithWatch
	namespace string
}

// released is what became of a profile.
type released struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Released tells whether the finalizer was taken off. One that has none is as it was.
	Released bool `json:"released"`
	// Deleted tells whether somebody has deleted it, so that it is gone when it has no finalizers.
	Deleted bool `json:"deleted"`
	// Finalizers are those that it has still, of others.
	Finalizers []string `json:"finalizers,omitempty"`
}

func (r *releasing) run(command *cobra.Command, args []string) error {
	if err := r.out.check(); err != nil {
		return err
	}
	switch {
	case r.all && len(args) > 0:
		return errors.New("--all is every profile: leave out either --all or the names")
	case !r.all && len(args) == 0:
		return errors.New("nothing is named: write TYPE/NAME, for example clusterpatternprofile/site, or --all for every profile")
	}
	named, err := parseProfiles(args)
	if err != nil {
		return err
	}
	if r.connected, r.namespace, err = r.cluster.connect(); err != nil {
		return err
	}
	ctx := command.Context()
	if err := r.refuseBesideController(ctx, command.ErrOrStderr()); err != nil {
		return err
	}
	found, problems := r.find(ctx, named)
	done := make([]released, 0, len(found))
	for i := range found {
		one, err := r.release(ctx, &found[i])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if one != nil {
			done = append(done, *one)
		}
	}
	return errors.Join(append([]error{r.tell(command.OutOrStdout(), done, len(problems) == 0)}, problems...)...)
}

// refuseBesideController returns an error where a controller runs. A dry run does no harm beside one, and only tells.
func (r *releasing) refuseBesideController(ctx context.Context, w io.Writer) error {
	if r.force {
		return nil
	}
	look := &controllerLook{reader: r.connected, waits: !r.dryRun, tell: w}
	err := look.noneRuns(ctx)
	if err != nil && r.dryRun {
		return writeLine(w, "warning: without --dry-run this is refused: "+err.Error())
	}
	return err
}

// profileKinds are the kinds of profiles with kubectl's names of them.
func profileKinds() []targetKind {
	version := v1alpha1.GroupVersion
	return []targetKind{
		{version.WithKind("ClusterPatternProfile"), []string{"clusterpatternprofile", "clusterpatternprofiles", "cpp"}},
		{version.WithKind("PatternProfile"), []string{"patternprofile", "patternprofiles", "pp"}},
	}
}

// parseProfiles reads TYPE/NAME..., or TYPE NAME..., as kubectl does.
func parseProfiles(args []string) ([]target, error) {
	return parseTargetsOf(profileKinds(), "clusterpatternprofile/site", args, func(kind string) error {
		return fmt.Errorf("%q is no type of profiles: write clusterpatternprofile or patternprofile", kind)
	})
}

// find returns the metadata of the profiles that are meant. It is all that is read: what is wrong in a spec has no say here.
func (r *releasing) find(ctx context.Context, named []target) (found []metav1.PartialObjectMetadata, problems []error) {
	for _, profile := range named {
		one, err := r.get(ctx, profile)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		found = append(found, *one)
	}
	if !r.all {
		return found, problems
	}
	only := r.cluster.overrides.Context.Namespace
	for _, kind := range profileKinds() {
		if only != "" && kind.Kind == "ClusterPatternProfile" {
			continue
		}
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		err := r.connected.List(ctx, list, client.InNamespace(only))
		if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) { // its definition is gone, and so are they
			problems = append(problems, fmt.Errorf("list the %s: %w", kind.names[1], err))
		}
		for i := range list.Items {
			list.Items[i].SetGroupVersionKind(kind.GroupVersionKind)
		}
		found = append(found, list.Items...)
	}
	return found, problems
}

func (r *releasing) get(ctx context.Context, profile target) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(profile.kind.GroupVersionKind)
	key, what := client.ObjectKey{Name: profile.name}, profile.kind.Kind+" "+profile.name
	where, hint := "", ""
	if profile.kind.Kind == "PatternProfile" {
		key.Namespace, where, hint = r.namespace, " in namespace "+r.namespace, "; name another namespace by --namespace"
	}
	err := r.connected.Get(ctx, key, object)
	switch {
	case meta.IsNoMatchError(err):
		return nil, fmt.Errorf("there is no %s%s: this cluster does not know Pillion's kinds", what, where)
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no %s%s%s", what, where, hint)
	case err != nil:
		return nil, fmt.Errorf("read %s%s: %w", what, where, err)
	}
	return object, nil
}

// release takes the finalizer off one profile. It returns nil for one that went by itself meanwhile.
func (r *releasing) release(ctx context.Context, object *metav1.PartialObjectMetadata) (*released, error) {
	key, kind := client.ObjectKeyFromObject(object), object.GroupVersionKind()
	one := &released{Kind: kind.Kind, Namespace: key.Namespace, Name: key.Name}
	var options []client.PatchOption
	if r.dryRun {
		options = append(options, client.DryRunAll)
	}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		before := object.DeepCopy()
		one.Released = controllerutil.RemoveFinalizer(object, v1alpha1.InUseFinalizer)
		one.Deleted, one.Finalizers = object.DeletionTimestamp != nil, object.Finalizers
		if !one.Released {
			return nil
		}
		err := r.connected.Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), options...)
		if apierrors.IsConflict(err) { // somebody has changed it since
			object = &metav1.PartialObjectMetadata{}
			object.SetGroupVersionKind(kind)
			if err := r.connected.Get(ctx, key, object); err != nil {
				return err //nolint:wrapcheck // it is below
			}
		}
		return err //nolint:wrapcheck // it is below
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // there is nothing to tell, and nothing wrong
	case err != nil:
		return nil, fmt.Errorf("release %s: %w", one, err)
	}
	return one, nil
}

// tell prints what was done. Where something went wrong an empty list does not mean that there is nothing.
func (r *releasing) tell(w io.Writer, done []released, all bool) error {
	if r.out.form != formText {
		return r.out.print(w, struct {
			printedKind
			DryRun   bool       `json:"dryRun"`
			Profiles []released `json:"profiles"`
		}{kindOfOutput("ReleaseList"), r.dryRun, done})
	}
	if len(done) == 0 && all {
		return writeLine(w, "There are no profiles.")
	}
	for i := range done {
		if err := writeLine(w, done[i].String()+": "+done[i].outcome(r.dryRun)); err != nil {
			return err
		}
	}
	return nil
}

func (p *released) String() string {
	if p.Namespace == "" {
		return p.Kind + " " + p.Name
	}
	return p.Kind + " " + p.Namespace + "/" + p.Name
}

// outcome says what became of it, or would.
func (p *released) outcome(dryRun bool) string {
	said := "released"
	switch {
	case !p.Released && len(p.Finalizers) == 0:
		return "has no finalizer"
	case !p.Released:
		return "has only finalizers of others: " + strings.Join(p.Finalizers, ", ")
	case dryRun:
		said = "would be released"
	}
	switch {
	case p.Deleted && len(p.Finalizers) > 0:
		slices.Sort(p.Finalizers)
		return said + "; it was deleted, and waits for finalizers of others: " + strings.Join(p.Finalizers, ", ")
	case p.Deleted && dryRun:
		return said + "; it was deleted, and would be gone"
	case p.Deleted:
		return said + "; it was deleted, and is gone"
	}
	return said
}
