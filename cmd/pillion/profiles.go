package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/controller"
	"github.com/pillion-dev/pillion/profiles"
)

func profilesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "profiles [NAME]",
		Short: "List the profiles that a namespace may use, and what Pods may change of them",
		Long: `profiles lists what there is for the Pods of a namespace: what they may ask for, and what they get without asking.
With the name of a profile it tells what the profile does, which of its parameters Pods may change, within what bounds, and
which annotations to paste into a Pod template.

It reads the cluster, as the user of the kubeconfig. With --profiles it reads files instead, and needs no cluster; labels of
the namespace come from the Namespaces among them. What the namespace may not use is not listed.`,
		Example: `  pillion profiles
  pillion profiles --namespace web
  pillion profiles site-content --namespace web
  pillion profiles site-content --profiles profiles/
  pillion profiles -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	flags, cluster, out := addDecisionFlags(command), addClusterFlags(command), addOutputFlag(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		shown, err := loadShelf(command.Context(), flags, cluster)
		if err != nil {
			return err
		}
		for _, hidden := range shown.hidden {
			fmt.Fprintln(command.ErrOrStderr(), "warning:", shown.missing(&hidden))
		}
		if lacking := shown.lacking(); lacking != "" {
			fmt.Fprintln(command.ErrOrStderr(), "warning:", lacking)
		}
		if len(args) == 0 {
			return shown.list(command.OutOrStdout(), out)
		}
		return shown.describe(command.OutOrStdout(), out, args[0])
	}
	return command
}

// shelf is what there is for the Pods of a namespace.
type shelf struct {
	decider   *decider
	namespace profiles.Namespace
	available []profiles.Available
	hidden    []unreadable
	statuses  map[string]*v1alpha1.ProfileStatus // by the profile's scope; nil: there is no cluster
}

// loadShelf reads files if there are any to read, and else the cluster.
func loadShelf(ctx context.Context, flags *decisionFlags, cluster *clusterFlags) (*shelf, error) {
	s := &shelf{}
	var name string
	if len(flags.profiles) > 0 {
		name = cluster.namespaceOr(metav1.NamespaceDefault)
		var err error
		if s.decider, err = flags.load(name); err != nil {
			return nil, err
		}
	} else {
		settings, err := flags.settings()
		if err != nil {
			return nil, err
		}
		connected, namespace, err := cluster.connect()
		if err != nil {
			return nil, fmt.Errorf("%w; or name files with --profiles, which need no cluster", err)
		}
		reader := &statusReader{Reader: connected, statuses: map[string]*v1alpha1.ProfileStatus{}}
		if s.decider, s.hidden, err = readCluster(ctx, reader, settings, namespace); err != nil {
			return nil, err
		}
		name, s.statuses = namespace, reader.statuses
	}
	s.namespace = s.decider.namespaces.Get(name)
	s.available = s.decider.snapshot.Available(s.namespace)
	return s, nil
}

// missing says what is not shown because the user may not read something.
func (s *shelf) missing(hidden *unreadable) string {
	what := "they are not shown"
	if hidden.what == "namespace "+s.namespace.Name {
		what = "what only namespaces with certain labels may use or get is not shown"
	}
	return fmt.Sprintf("you may not read %s; %s: %v", hidden.what, what, hidden.err)
}

// lacking says that the files do not have the Namespace, if that may be why profiles in them are not shown.
func (s *shelf) lacking() string {
	_, known := s.decider.namespaces[s.namespace.Name]
	if known || s.statuses != nil || s.decider.snapshot.Excludes(s.namespace.Name) || s.decider.snapshot.Len() <= len(s.available) {
		return ""
	}
	return fmt.Sprintf("the files have no Namespace %s, which therefore has no labels here: what only namespaces with certain labels "+
		"may use or get is not shown", s.namespace.Name)
}

// statusReader keeps the statuses of the profiles that are read through it.
type statusReader struct {
	client.Reader
	statuses map[string]*v1alpha1.ProfileStatus
}

// List reads a list.
func (r *statusReader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if err := r.Reader.List(ctx, list, options...); err != nil {
		return err //nolint:wrapcheck // it only looks on
	}
	switch list := list.(type) {
	case *v1alpha1.ClusterPatternProfileList:
		for i := range list.Items {
			r.statuses[(&profiles.Profile{Name: list.Items[i].Name}).Scope()] = &list.Items[i].Status
		}
	case *v1alpha1.PatternProfileList:
		for i := range list.Items {
			item := &list.Items[i]
			r.statuses[(&profiles.Profile{Name: item.Name, Namespace: item.Namespace}).Scope()] = &item.Status
		}
	}
	return nil
}

// shownProfile is a profile as it is printed.
type shownProfile struct {
	Name    string               `json:"name"`
	Kind    string               `json:"kind"`
	Pattern v1alpha1.PatternKind `json:"pattern,omitempty"`
	// Revision is that of what Pods get.
	Revision string     `json:"revision,omitempty"`
	Ready    readiness  `json:"ready"`
	MayAsk   bool       `json:"mayAsk"`
	Chosen   *chosen    `json:"chosen,omitempty"`
	May      []string   `json:"overridable,omitempty"`
	Does     string     `json:"description,omitempty"`
	Adds     []addition `json:"adds,omitempty"`

	Parameters  []profiles.Parameter `json:"parameters,omitempty"`
	Annotations string               `json:"annotations,omitempty"`
}

type chosen = profiles.Chosen

// readiness is the condition Ready.
type readiness struct {
	Status  metav1.ConditionStatus `json:"status"`
	Reason  string                 `json:"reason,omitempty"`
	Message string                 `json:"message,omitempty"`
}

// readinessOf returns what the controller says of a profile; without a cluster, what is wrong with its spec.
func (s *shelf) readinessOf(profile *profiles.Profile) readiness {
	if s.statuses == nil {
		if len(profile.Problems) > 0 {
			problems := strings.Join(profiles.FirstProblems(profile.Problems, 10), "; ")
			return readiness{metav1.ConditionFalse, controller.ReasonInvalidSpec, problems}
		}
		return readiness{Status: metav1.ConditionTrue, Reason: controller.ReasonReady}
	}
	status := s.statuses[profile.Scope()]
	if status == nil {
		return readiness{Status: metav1.ConditionUnknown}
	}
	condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	if condition == nil {
		return readiness{Status: metav1.ConditionUnknown, Message: "the controller has not looked at it yet"}
	}
	return readiness{condition.Status, condition.Reason, condition.Message}
}

func (s *shelf) shown(available *profiles.Available) shownProfile {
	kind := "ClusterPatternProfile"
	if available.Namespace != "" {
		kind = "PatternProfile"
	}
	return shownProfile{
		Name: available.Name, Kind: kind, Pattern: available.Kind, Revision: available.Revision,
		Ready: s.readinessOf(available.Profile), MayAsk: available.MayAsk, Chosen: available.Chosen, May: available.Overridable(),
	}
}

// list prints all of them.
func (s *shelf) list(w io.Writer, out *output) error {
	all := make([]shownProfile, len(s.available))
	for i := range s.available {
		all[i] = s.shown(&s.available[i])
	}
	if out.form != formText {
		return out.print(w, struct {
			printedKind
			Namespace string         `json:"namespace"`
			Profiles  []shownProfile `json:"profiles"`
		}{kindOfOutput("ProfileList"), s.namespace.Name, all})
	}
	if len(all) == 0 {
		return writeLine(w, s.none())
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tPATTERN\tFROM\tREADY\tAPPLIED\tPODS MAY CHANGE")
	for i := range all {
		p := &all[i]
		from := "cluster"
		if p.Kind == "PatternProfile" {
			from = "namespace"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, cmp.Or(string(p.Pattern), "?"), from, p.Ready, p.applied(),
			cmp.Or(strings.Join(p.May, ", "), "nothing"))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// none says why there is nothing to list.
func (s *shelf) none() string {
	switch {
	case s.decider.snapshot.Excludes(s.namespace.Name):
		return fmt.Sprintf("Pillion never touches Pods in namespace %s: it is excluded.", s.namespace.Name)
	case len(s.hidden) > 0:
		return fmt.Sprintf("No profile that you may read is available in namespace %s.", s.namespace.Name)
	default:
		return fmt.Sprintf("No profile is available in namespace %s.", s.namespace.Name)
	}
}

// String is the condition for a table.
func (r readiness) String() string {
	if r.Status == metav1.ConditionTrue || r.Reason == "" {
		return string(r.Status)
	}
	return fmt.Sprintf("%s (%s)", r.Status, r.Reason)
}

// applied says which Pods get the profile.
func (p *shownProfile) applied() string {
	if p.Chosen == nil {
		return "if asked for"
	}
	to := "to all Pods"
	if p.Chosen.Pods != "" {
		to = "to Pods with " + p.Chosen.Pods
	}
	if len(p.Chosen.Conditions) > 0 {
		to += " that meet " + strings.Join(p.Chosen.Conditions, ", ")
	}
	switch {
	case p.Chosen.Enforced:
		return to + ", enforced"
	case p.MayAsk:
		return to + ", or if asked for"
	default:
		return to
	}
}

// find returns the profile that a Pod of the namespace means by a name, or else that it gets.
func (s *shelf) find(name string) (*profiles.Available, error) {
	var found *profiles.Available
	names := make([]string, len(s.available))
	for i := range s.available {
		candidate := &s.available[i]
		names[i] = candidate.Name
		if candidate.Name == name && (found == nil || candidate.MayAsk) {
			found = candidate
		}
	}
	if found != nil {
		return found, nil
	}
	if s.decider.snapshot.Excludes(s.namespace.Name) {
		return nil, errors.New(s.none())
	}
	// As admission says it: of a name that is unknown and one that is not allowed here the same.
	hint := profiles.Suggest(name, names)
	if hint == "" && len(names) > 0 && len(names) <= 10 {
		hint = "; there are " + strings.Join(slices.Compact(names), ", ")
	}
	return nil, fmt.Errorf("profile %s is not available in namespace %s%s (%s)", name, s.namespace.Name, hint,
		profiles.ReasonProfileNotAvailable)
}
