package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mattbaird/jsonpatch"
	difference "github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

func injectCommand() *cobra.Command {
	var filenames []string
	var namespace string
	var diff bool
	command := &cobra.Command{
		Use:   "inject -f FILE... --profiles DIR...",
		Short: "Weave profiles into manifests, as the webhook would into their Pods",
		Long: `inject prints manifests with what the webhook would add to their Pods. It needs no cluster.

It weaves into Pods and into the Pod templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers,
Jobs, CronJobs and PodTemplates, Lists of them included. Everything else passes through as it is; so do the comments, the order
and the formatting of what it weaves into. YAML with aliases is the exception: they are replaced by what they stand for.

The decision is the webhook's own. A Pod asks by its annotation pillion.dev/inject, which stands on the Pod template and not on
the workload, or by the label of that name on its Namespace, if that is among the files; and a profile's match chooses it.
What the webhook would refuse is told on stderr, left out of the output, and makes the exit status 1. To inject twice is to inject
once, and the webhook finds nothing left to do.`,
		Example: `  # What would come of this Deployment?
  pillion inject -f deployment.yaml --profiles profiles/ --diff

  # Inject while applying
  kubectl kustomize overlays/prod | pillion inject -f - --profiles profiles/ | kubectl apply -f -

  # Several files and directories, with the Namespace whose label asks
  pillion inject -f namespace.yaml -f apps/ --profiles profiles/ --namespace web`,
		Args: cobra.NoArgs,
	}
	flags := command.Flags()
	flags.StringArrayVarP(&filenames, "filename", "f", nil,
		"manifest: a file, a directory (its .yaml, .yml and .json files) or - for stdin; may be repeated")
	flags.StringVarP(&namespace, "namespace", "n", corev1.NamespaceDefault, "namespace of the objects that name none")
	flags.BoolVar(&diff, "diff", false, "print a unified diff instead of the manifests")
	mustMark(command.MarkFlagRequired("filename"))
	offline := addOfflineFlags(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		decider, err := offline.load(namespace)
		if err != nil {
			return err
		}
		i := &injection{decider: decider, namespace: namespace, stderr: command.ErrOrStderr()}
		files, errs := manifest.ReadFiles(filenames, command.InOrStdin())
		i.refuse(errs...)
		i.know(manifest.NamespacesIn(files))
		out := i.inject(files, diff)
		if _, err := command.OutOrStdout().Write(out); err != nil {
			return fmt.Errorf("write the manifests: %w", err)
		}
		return i.result()
	}
	return command
}

// injection is one run of the command.
type injection struct {
	*decider
	namespace string // of the objects that name none
	stderr    io.Writer
	refused   int
}

// inject returns the files with what is added, or the difference.
func (i *injection) inject(files []manifest.File, diff bool) []byte {
	out := &bytes.Buffer{}
	allJSON := !slices.ContainsFunc(files, func(file manifest.File) bool {
		return slices.ContainsFunc(file.Documents, func(d *manifest.Document) bool { return !d.IsJSON() })
	})
	for _, file := range files {
		if file.Empty() {
			i.refuse(&manifest.Error{File: file.Name, Line: 1, Err: errors.New("the file holds no object")})
			continue
		}
		before, after := &bytes.Buffer{}, &bytes.Buffer{}
		for _, document := range file.Documents {
			before.Write(document.Raw)
			woven, err := i.document(document)
			switch {
			case err == nil && diff:
				after.Write(woven)
			case err == nil:
				appendDocument(out, woven, allJSON)
			case diff: // what is refused is not a difference
				i.refuse(err)
				after.Write(document.Raw)
			default:
				i.refuse(err)
			}
		}
		if diff {
			out.Write(difference.Diff(file.Name, before.Bytes(), file.Name, after.Bytes()))
		}
	}
	return out.Bytes()
}

// appendDocument keeps documents apart: those of one file are so already, those of several may not be.
func appendDocument(out *bytes.Buffer, document []byte, allJSON bool) {
	if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		out.WriteByte('\n')
	}
	if out.Len() > 0 && !allJSON && !manifest.StartsDocument(document) {
		out.WriteString("---\n")
	}
	out.Write(document)
}

// document returns a document with what is added to all of its Pod templates.
func (i *injection) document(document *manifest.Document) ([]byte, error) {
	if document.Err != nil {
		return nil, document.Err
	}
	templates, err := document.Templates()
	if err != nil {
		return nil, err
	}
	var operations []jsonpatch.JsonPatchOperation
	var errs []error
	for n := range templates {
		patch, err := i.decide(&templates[n])
		operations = append(operations, templates[n].Operations(patch)...)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return document.Patch(operations)
}

// decide returns what is added to a Pod template, or why it is refused.
func (i *injection) decide(template *manifest.Template) ([]jsonpatch.JsonPatchOperation, error) {
	pod, err := template.Pod()
	if err != nil {
		return nil, err
	}
	namespace := template.Namespace
	if namespace == "" {
		namespace = i.namespace
	}
	decision := profiles.Request{
		Namespace: i.namespaces.Get(namespace), Pod: pod, User: profiles.ControllerUser(template.Kind),
		ClaimVolumes: template.ClaimVolumes,
	}.Decide(i.snapshot)
	for _, warning := range slices.Concat(
		template.Misplaced(pod), i.excluded(namespace, pod), suppressed(pod, &decision), decision.Warnings,
	) {
		fmt.Fprintln(i.stderr, "warning:", template.ErrorAt(template.Position, "%s", warning))
	}
	if !decision.Allowed {
		return nil, template.ErrorAt(template.Position, "%s", decision.Denial())
	}
	return decision.Patch, nil
}

// suppressed tells of pull secrets that the Pod would have had without those that are added. In the cluster the webhook is called
// after the ServiceAccount's have been.
func suppressed(pod *corev1.Pod, decision *profiles.Decision) []string {
	if len(pod.Spec.ImagePullSecrets) > 0 || len(decision.Patch) == 0 || len(decision.Pod().Spec.ImagePullSecrets) == 0 {
		return nil
	}
	return []string{"imagePullSecrets are added where the Pod has none: the API server will not add those of the Pod's " +
		"ServiceAccount, as it does where the list is empty; list them in the manifest too, if images need them"}
}

// excluded tells of a Pod that asks in vain because its namespace is never touched.
func (i *injection) excluded(namespace string, pod *corev1.Pod) []string {
	if _, asks := pod.Annotations[v1alpha1.InjectKey]; asks && slices.Contains(i.options.ExcludedNamespaces, namespace) {
		return []string{fmt.Sprintf("nothing is added: Pods of namespace %s are never touched (--excluded-namespaces)", namespace)}
	}
	return nil
}

// refuse tells what is wrong, each thing on a line.
func (i *injection) refuse(errs ...error) {
	for _, err := range errs {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			i.refuse(joined.Unwrap()...)
			continue
		}
		i.refused++
		fmt.Fprintln(i.stderr, "error:", err)
	}
}

func (i *injection) result() error {
	switch i.refused {
	case 0:
		return nil
	case 1:
		return errors.New("what the error above is about was left out")
	default:
		return fmt.Errorf("what the %d errors above are about was left out", i.refused)
	}
}
