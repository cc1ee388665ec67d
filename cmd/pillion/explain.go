package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

func explainCommand() *cobra.Command {
	e := &explaining{}
	command := &cobra.Command{
		Use:   "explain (TYPE/NAME... | -f FILE...)",
		Short: "Say what becomes of a Pod, and why",
		Long: `explain tells of Pods, and of the Pods of workloads, which profiles Pillion adds to them and which it does not, each
with the reason; in which order they start; where the value of every setting comes from; and, as a diff, what is added.

It reads profiles and namespaces from the cluster, and decides as the webhook does. Of a Pod that runs it tells what it
carries, and whether a Pod that is created today would get the same. With --profiles it needs no cluster: profiles are
read from files, and Pods by -f.

Who may not read the cluster's profiles or the namespace is told what a dry run of creating such a Pod tells. --dry-run
makes one in any case: it shows whether the cluster does what was read. It stores nothing.

The cluster's Pillion may be configured otherwise than by default. Excluded namespaces are read from its webhook
configuration, if you may read that; give this command the other settings (--leading-containers, --pod-security-…,
--images-registry, --config).

Types are pods, deployments, statefulsets, daemonsets, replicasets, replicationcontrollers, jobs, cronjobs and
podtemplates, by the names that kubectl has for them.`,
		Example: `  # Why does the Pod have no sidecar? Or from where has it one?
  pillion explain pod/shop-6d4c-x2x7v
  pillion explain deploy/shop -n web

  # What would become of this file, here or without a cluster?
  pillion explain -f deployment.yaml -n web
  pillion explain -f deployment.yaml --profiles profiles/

  # For a program
  pillion explain deploy/shop -o json | jq '.items[].profiles[] | select(.considered)'`,
	}
	flags := command.Flags()
	flags.StringArrayVarP(&e.filenames, "filename", "f", nil,
		"manifest: a file, a directory (its .yaml, .yml and .json files) or - for stdin; may be repeated")
	flags.BoolVar(&e.showDiff, "diff", true, "show what is added as a unified diff")
	flags.BoolVar(&e.forceDryRun, "dry-run", false, "also have the API server try to create such a Pod, and compare")
	flags.BoolVar(&e.failOnDenial, "fail-on-denial", false, "exit with status 1 if a Pod is refused, by whomever")
	e.output = addOutputFlag(command)
	e.decisions = addDecisionFlags(command)
	e.cluster = addClusterFlags(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		e.stdout, e.stderr = command.OutOrStdout(), command.ErrOrStderr()
		return e.run(command.Context(), args, command.InOrStdin())
	}
	return command
}

// explaining is one run of the command.
type explaining struct {
	filenames                           []string
	showDiff, forceDryRun, failOnDenial bool

	output         *output
	decisions      *decisionFlags
	cluster        *clusterFlags
	stdout, stderr io.Writer

	namespace string           // of the objects that name none
	files     *decider         // without a cluster
	connected client.WithWatch // nil: without a cluster
	settings  config.Config    // of decisions, with a cluster
	webhooks  registered       // with a cluster
	given     manifest.Namespaces
	known     map[string]*knownNamespace // with a cluster, by name

	explanations []explanation
	podless      []string // what was given and has no Pods
	failed       int
}

// knownNamespace is what decides about the Pods of a namespace of the cluster.
type knownNamespace struct {
	*decider
	hidden []unreadable
	err    error
}

// explanationList is what programs get. Its fields are stable.
type explanationList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Items      []explanation `json:"items"`
}

// podVerdict is what becomes of a Pod, in a word.
type podVerdict string

const (
	verdictWoven     podVerdict = "Woven"
	verdictUnchanged podVerdict = "Unchanged"
	verdictRefused   podVerdict = "Refused"
	verdictUnknown   podVerdict = "Unknown"
)

// explanation is that of one Pod or Pod template.
type explanation struct {
	Kind      string `json:"kind"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace"`
	// File and Line say where it stands, if it is from a file.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`

	Verdict podVerdict `json:"verdict"`
	Summary string     `json:"summary"`
	// Advice is how a Pod that runs comes to what it would get today, and since when that may be.
	Advice string `json:"advice,omitempty"`
	// Notes are sentences about what people may not expect.
	Notes []string `json:"notes,omitempty"`
	// Carries and Skipped are what a Pod that runs says was woven into it, and why profiles were left out.
	Carries []profiles.Carried `json:"carries,omitempty"`
	Skipped map[string]string  `json:"skipped,omitempty"`

	// Explanation is nil if what it takes may not be read.
	*profiles.Explanation
	// Unreadable is what the user may not read.
	Unreadable []string `json:"unreadable,omitempty"`
	DryRun     *dryRun  `json:"dryRun,omitempty"`
	Diff       string   `json:"diff,omitempty"`

	created bool // it is of a Pod of the cluster
}

func (e *explaining) run(ctx context.Context, args []string, stdin io.Reader) error {
	if err := e.output.check(); err != nil {
		return err
	}
	targets, err := parseTargets(args)
	if err != nil {
		return err
	}
	switch {
	case len(targets) == 0 && len(e.filenames) == 0:
		return errors.New("say what to explain: a workload such as deploy/shop or pod/shop-0, or a file by -f")
	case len(targets) > 0 && len(e.filenames) > 0:
		return errors.New("give either workloads of the cluster or files by -f, not both")
	case len(targets) > 0 && len(e.decisions.profiles) > 0:
		return errors.New("with --profiles no cluster is read: give the workload as a file by -f; " +
			"kubectl get -o yaml writes one of what is in a cluster")
	case e.forceDryRun && len(e.decisions.profiles) > 0:
		return errors.New("with --profiles no cluster is read, so that there is nothing to try: leave out --dry-run or --profiles")
	}
	if err := e.prepare(ctx); err != nil {
		return err
	}
	for _, target := range targets {
		e.note(e.explainTarget(ctx, target))
	}
	e.explainFiles(ctx, stdin)
	return e.finish()
}

// prepare reads the profiles' files, or finds the cluster.
func (e *explaining) prepare(ctx context.Context) (err error) {
	if len(e.decisions.profiles) > 0 {
		e.namespace = e.cluster.namespaceOr(corev1.NamespaceDefault)
		e.files, err = e.decisions.load(e.namespace)
		return err
	}
	if e.settings, err = e.decisions.settings(); err != nil {
		return err
	}
	e.known = map[string]*knownNamespace{}
	if e.connected, e.namespace, err = e.cluster.connect(); err != nil {
		return fmt.Errorf("%w; or give profiles as files by --profiles, which needs no cluster", err)
	}
	e.webhooks = e.readWebhooks(ctx)
	return nil
}

// finish prints what was explained. What could not be makes the exit status 1.
func (e *explaining) finish() error {
	if len(e.explanations) == 0 && e.failed == 0 {
		return fmt.Errorf("there is nothing to explain: %s; Pods come from %s",
			cmp.Or(enumerate(few(e.podless)), "no object")+" is given, which has no Pod template", kindNames())
	}
	if err := e.print(); err != nil {
		return err
	}
	switch {
	case e.failed == 1:
		return errors.New("what the error above is about is not explained")
	case e.failed > 1:
		return fmt.Errorf("what the %d errors above are about is not explained", e.failed)
	}
	if refused := e.refused(); e.failOnDenial && len(refused) > 0 {
		return fmt.Errorf("refused: %s", strings.Join(refused, ", "))
	}
	return nil
}

func (e *explaining) print() error {
	if e.output.form != formText {
		items := append([]explanation{}, e.explanations...)
		return e.output.print(e.stdout, explanationList{v1alpha1.GroupVersion.String(), "ExplanationList", items})
	}
	text := explanationText{style: styleFor(e.stdout)}
	for i := range e.explanations {
		text.explanation(&e.explanations[i])
	}
	if len(e.podless) > 0 && len(e.explanations) > 0 {
		text.paragraph(text.faint("Without Pods, and so left out: " + enumerate(few(e.podless)) + "."))
	}
	if _, err := io.WriteString(e.stdout, text.String()); err != nil {
		return fmt.Errorf("write the explanation: %w", err)
	}
	return nil
}

// refused are the Pods that are, by Pillion or, as a dry run tells, by somebody else.
func (e *explaining) refused() []string {
	var refused []string
	for i := range e.explanations {
		explained := &e.explanations[i]
		tried := explained.DryRun
		if explained.Verdict == verdictRefused || tried != nil && (tried.Answer == dryRunDenied || tried.Answer == dryRunDeniedBy) {
			refused = append(refused, explained.title())
		}
	}
	return refused
}

// note tells of errors, each on a line.
func (e *explaining) note(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			e.note(one)
		}
		return
	}
	e.failed++
	fmt.Fprintln(e.stderr, "error:", err)
}

// in returns what decides about the Pods of a namespace.
func (e *explaining) in(ctx context.Context, name string) (*knownNamespace, error) {
	if e.files != nil {
		return &knownNamespace{decider: e.files}, nil
	}
	known, ok := e.known[name]
	if !ok {
		known = &knownNamespace{}
		_, isGiven := e.given[name]
		known.decider, known.hidden, known.err = readCluster(ctx, e.connected, e.settings, name)
		if isGiven && apierrors.IsNotFound(known.err) { // it comes with its workloads
			known.decider, known.hidden, known.err = readCluster(ctx, withoutNamespaces{e.connected}, e.settings, name)
		}
		if apierrors.IsNotFound(known.err) {
			known.err = fmt.Errorf("there is no namespace %s; name another one by --namespace", name)
		}
		if known.decider != nil {
			known.know(e.given)
		}
		e.known[name] = known
	}
	return known, known.err
}

// withoutNamespaces reads no namespace: those that are not there yet have no labels but what files give them.
type withoutNamespaces struct{ client.Reader }

func (r withoutNamespaces) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if _, is := object.(*corev1.Namespace); is {
		return nil
	}
	return r.Reader.Get(ctx, key, object, options...)
}

// explainFiles explains the Pod templates of the files.
func (e *explaining) explainFiles(ctx context.Context, stdin io.Reader) {
	if len(e.filenames) == 0 {
		return
	}
	files, errs := manifest.ReadFiles(e.filenames, stdin)
	e.note(errors.Join(errs...))
	e.given = manifest.NamespacesIn(files)
	if e.files != nil {
		e.files.know(e.given)
	}
	for i := range files {
		if files[i].Empty() {
			e.note(&manifest.Error{File: files[i].Name, Line: 1, Err: errors.New("the file holds no object")})
		}
		line := 0
		for _, document := range files[i].Documents {
			e.note(e.explainDocument(ctx, document, line))
			line += strings.Count(string(document.Raw), "\n")
		}
	}
}

// explainDocument explains the Pod templates of a document that stands behind some lines of its file.
func (e *explaining) explainDocument(ctx context.Context, document *manifest.Document, line int) error {
	if document.Err != nil {
		return document.Err
	}
	templates, err := document.Templates()
	if err != nil {
		return err
	}
	errs := e.leaveOut(document)
	for i := range templates {
		explained, err := e.explainTemplate(ctx, &templates[i], line)
		if err != nil {
			if !errors.As(err, new(*manifest.Error)) {
				err = document.Errorf(templates[i].Line, "%s: %w", templates[i].Workload(), err)
			}
			errs = append(errs, err)
			continue
		}
		explained.File, explained.Line = document.File, templates[i].Line
		e.explanations = append(e.explanations, *explained)
	}
	return errors.Join(errs...)
}

// leaveOut keeps in mind the objects of a document that have no Pods. Those whose kind is of another of Kubernetes'
// own API groups are errors: who wrote one meant a workload.
func (e *explaining) leaveOut(document *manifest.Document) []error {
	var errs []error
	for _, object := range document.Objects() {
		if object.IsWorkload() {
			continue
		}
		group, kind := object.GroupKind()
		kinds := podKinds()
		i := slices.IndexFunc(kinds, func(k targetKind) bool { return k.Kind == kind })
		if i >= 0 && slices.Contains([]string{"", "apps", "batch", "extensions"}, group) {
			errs = append(errs, document.ErrorAt(object.At("apiVersion"), "%s: apiVersion %v has no kind %s; write %s",
				objectName(object.Fields), object.Value("apiVersion"), kind, kinds[i].GroupVersion()))
			continue
		}
		e.podless = append(e.podless, objectName(object.Fields))
	}
	return errs
}

// explainTemplate explains the Pods that a template makes.
func (e *explaining) explainTemplate(ctx context.Context, template *manifest.Template, line int) (*explanation, error) {
	pod, err := template.Pod()
	if err != nil {
		return nil, err
	}
	namespace := cmp.Or(template.Namespace, e.namespace)
	known, err := e.in(ctx, namespace)
	if err != nil {
		return nil, err
	}
	explained := &explanation{
		Kind: template.Kind, Name: template.Name, Namespace: namespace, Unreadable: whats(known.hidden),
		Notes: slices.Concat(template.Misplaced(pod), lint.Unread(&pod.ObjectMeta), e.webhooks.notes),
	}
	if len(known.hidden) > 0 {
		raw, err := template.Raw()
		if err != nil {
			return nil, err
		}
		return explained, e.explainByDryRun(ctx, explained, known, raw)
	}
	request := profiles.Request{
		Namespace: known.namespaces.Get(namespace), Pod: pod, User: profiles.ControllerUser(template.Kind),
		ClaimVolumes: template.ClaimVolumes,
	}
	explained.Explanation = new(request.ExplainToReader(known.snapshot))
	explained.judge()
	explained.Notes = append(explained.Notes, e.doubts(explained)...)
	explained.Notes = append(explained.Notes, suppressed(pod, &explained.Decision)...)
	if e.showDiff && explained.Allowed {
		if explained.Diff, err = templateDiff(template, &explained.Decision, line); err != nil {
			return nil, err
		}
	}
	if e.forceDryRun {
		raw, err := template.Raw()
		if err != nil {
			return nil, err
		}
		explained.DryRun = e.tryOut(ctx, namespace, raw)
		explained.DryRun.compare(explained.Explanation)
	}
	return explained, nil
}

// bare takes the place off an error, for those who say it.
func bare(err error) error {
	if placed := (*manifest.Error)(nil); errors.As(err, &placed) {
		return placed.Err
	}
	return err
}

// judge says in a sentence what becomes of the Pod.
func (x *explanation) judge() {
	names := x.Names()
	switch {
	case !x.Allowed:
		x.Verdict, x.Summary = verdictRefused, x.Denial
	case x.Exempt != nil:
		x.Verdict, x.Summary = verdictUnchanged, "Nothing is added: "+x.Exempt.Message+"."
	case len(x.Decision.Patch) > 0 && len(names) > 0:
		x.Verdict, x.Summary = verdictWoven, "The Pod gets "+enumerate(names)+"."
	case len(names) > 0:
		x.Verdict, x.Summary = verdictUnchanged, "Nothing is added: the Pod has "+enumerate(names)+" already."
	default:
		x.Verdict, x.Summary = verdictUnchanged, "Nothing is added: "+x.whyNothing()
	}
}

func (x *explanation) whyNothing() string {
	left := slices.ContainsFunc(x.Profiles, func(p profiles.Explained) bool { return p.Result == profiles.Rejected })
	switch {
	case left:
		return "what policy chose was left out."
	case x.Asks == nil:
		return "nothing asks for profiles, and no policy chooses this Pod."
	case x.Asks.Declined:
		return fmt.Sprintf("%s declines (%s: %s).", x.Asks.Where(x.Namespace), x.Asks.Key, v1alpha1.None)
	default:
		return "what is asked for adds nothing."
	}
}

// title names what is explained for people.
func (x *explanation) title() string {
	return strings.TrimSpace(x.Kind+" "+x.Name) + " in namespace " + x.Namespace
}

func whats(hidden []unreadable) []string {
	var all []string
	for _, one := range hidden {
		all = append(all, one.what)
	}
	return all
}

// few returns names, of many the first and how many more there are.
func few(names []string) []string {
	const most = 10
	if len(names) <= most+1 {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("%d others", len(names)-most))
}

// enumerate joins names as people do: "a, b and c".
func enumerate(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
