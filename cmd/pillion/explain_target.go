package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/profiles"
)

// target is an object of the cluster.
type target struct {
	kind *targetKind
	name string
}

// targetKind is a kind of objects that a command takes.
type targetKind struct {
	schema.GroupVersionKind
	names []string // kubectl's
}

func podKinds() []targetKind {
	apps, batch, core := appsv1.SchemeGroupVersion, batchv1.SchemeGroupVersion, corev1.SchemeGroupVersion
	return []targetKind{
		{core.WithKind("Pod"), []string{"pod", "pods", "po"}},
		{apps.WithKind("Deployment"), []string{"deployment", "deployments", "deploy"}},
		{apps.WithKind("StatefulSet"), []string{"statefulset", "statefulsets", "sts"}},
		{apps.WithKind("DaemonSet"), []string{"daemonset", "daemonsets", "ds"}},
		{apps.WithKind("ReplicaSet"), []string{"replicaset", "replicasets", "rs"}},
		{core.WithKind("ReplicationController"), []string{"replicationcontroller", "replicationcontrollers", "rc"}},
		{batch.WithKind("Job"), []string{"job", "jobs"}},
		{batch.WithKind("CronJob"), []string{"cronjob", "cronjobs", "cj"}},
		{core.WithKind("PodTemplate"), []string{"podtemplate", "podtemplates"}},
	}
}

// kindNames names the kinds for messages, by the shortest of their names.
func kindNames() string {
	var names []string
	for _, kind := range podKinds() {
		names = append(names, slices.MinFunc(kind.names, func(a, b string) int { return len(a) - len(b) }))
	}
	return strings.Join(names, ", ")
}

// parseTargets reads TYPE/NAME..., or TYPE NAME... as kubectl does.
func parseTargets(args []string) ([]target, error) {
	return parseTargetsOf(podKinds(), "deploy/shop", args, func(kind string) error {
		return fmt.Errorf("%q is no type with Pods that Pillion knows; write one of %s. Of another kind give the template as a Pod by -f",
			kind, kindNames())
	})
}

// parseTargetsOf reads the names of objects of some kinds. unknown says what is wrong with another kind.
func parseTargetsOf(kinds []targetKind, example string, args []string, unknown func(kind string) error) ([]target, error) {
	kindOf := func(name string) int {
		resource, _, _ := strings.Cut(strings.ToLower(name), ".") // deployments.apps
		return slices.IndexFunc(kinds, func(k targetKind) bool { return slices.Contains(k.names, resource) })
	}
	if len(args) > 0 && !strings.Contains(args[0], "/") {
		switch {
		case kindOf(args[0]) < 0 && len(args) > 1:
			return nil, unknown(args[0])
		case kindOf(args[0]) >= 0 && len(args) == 1:
			return nil, fmt.Errorf("%s is not enough: name the object too, as in %s/NAME", args[0], args[0])
		}
		rest := make([]string, 0, len(args)-1)
		for _, name := range args[1:] {
			rest = append(rest, args[0]+"/"+name)
		}
		if len(rest) > 0 {
			args = rest
		}
	}
	targets := make([]target, 0, len(args))
	for _, arg := range args {
		kind, name, _ := strings.Cut(arg, "/")
		if name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q names no object: write it as TYPE/NAME, for example %s", arg, example)
		}
		i := kindOf(kind)
		if i < 0 {
			return nil, unknown(kind)
		}
		targets = append(targets, target{&kinds[i], name})
	}
	return targets, nil
}

// explainTarget explains an object of the cluster.
func (e *explaining) explainTarget(ctx context.Context, t target) error {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(t.kind.GroupVersionKind)
	err := e.connected.Get(ctx, client.ObjectKey{Namespace: e.namespace, Name: t.name}, object)
	what := t.kind.Kind + " " + t.name
	switch {
	case apierrors.IsNotFound(err) && e.lacksNamespace(ctx):
		return fmt.Errorf("there is no namespace %s; name another one by --namespace", e.namespace)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no %s in namespace %s; name another namespace by --namespace", what, e.namespace)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not read %s in namespace %s (permission: get %s); give it as a file by -f: %w",
			what, e.namespace, t.kind.names[1], err)
	case err != nil:
		return fmt.Errorf("read %s in namespace %s: %w", what, e.namespace, err)
	}
	for _, noise := range [][]string{
		{"status"}, {"metadata", "managedFields"}, {"metadata", "annotations", corev1.LastAppliedConfigAnnotation},
	} {
		unstructured.RemoveNestedField(object.Object, noise...)
	}
	var explained *explanation
	if t.kind.Kind == "Pod" {
		explained, err = e.explainPod(ctx, object)
	} else {
		explained, err = e.explainWorkload(ctx, object)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	e.explanations = append(e.explanations, *explained)
	return nil
}

// lacksNamespace tells whether the user may know that the namespace is not there.
func (e *explaining) lacksNamespace(ctx context.Context) bool {
	return apierrors.IsNotFound(e.connected.Get(ctx, client.ObjectKey{Name: e.namespace}, &corev1.Namespace{}))
}

// explainWorkload explains the template of a workload of the cluster, as if it were a file.
func (e *explaining) explainWorkload(ctx context.Context, object *unstructured.Unstructured) (*explanation, error) {
	template, err := templateOf(object)
	if err != nil {
		return nil, err
	}
	owner := e.ownerOf(ctx, object)
	if owner != nil { // its own metadata is the owner's, who is told
		template.Annotations, template.Labels = nil, nil
	}
	explained, err := e.explainTemplate(ctx, template, 0)
	if err == nil {
		explained.Notes = append(misplacedInOwner(owner), explained.Notes...)
	}
	return explained, bare(err)
}

// explainPod explains a Pod that was created.
func (e *explaining) explainPod(ctx context.Context, object *unstructured.Unstructured) (*explanation, error) {
	encoded, err := json.Marshal(object.Object)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(encoded, pod); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	known, err := e.in(ctx, pod.Namespace)
	if err != nil {
		return nil, err
	}
	owner := e.ownerOf(ctx, object)
	explained := &explanation{
		Kind: "Pod", Name: pod.Name, Namespace: pod.Namespace, Unreadable: whats(known.hidden), created: true,
		Notes: append(notesOfPod(pod, owner), e.webhooks.notes...), Carries: profiles.CarriedBy(pod), Skipped: profiles.SkippedIn(pod),
	}
	namespace := known.namespaces.Get(pod.Namespace)
	without := known.snapshot.Without(namespace, pod)
	if len(known.hidden) > 0 {
		raw, err := creatable(without)
		if err != nil {
			return nil, err
		}
		if err := e.explainByDryRun(ctx, explained, known, raw); err != nil {
			return nil, err
		}
		e.compareCarried(explained)
	} else {
		request := profiles.Request{Namespace: namespace, Pod: without, User: profiles.ControllerUser(controllerOf(pod))}
		explained.Explanation = new(request.ExplainToReader(known.snapshot))
		explained.Carries = explained.Compare(explained.Carries)
		if lacks, differs := explained.judgePod(); differs {
			explained.Advice = explained.adviseOn(pod, owner, known, lacks)
		}
		explained.Notes = append(explained.Notes, e.doubts(explained)...)
		if e.forceDryRun {
			raw, err := creatable(without)
			if err != nil {
				return nil, err
			}
			explained.DryRun = e.tryOut(ctx, pod.Namespace, raw)
			explained.DryRun.compare(explained.Explanation)
		}
	}
	explained.Diff = ""
	if e.showDiff && len(explained.Carries) > 0 {
		explained.Diff, err = podDiff("pod/"+pod.Name, without, pod)
	}
	return explained, err
}

// controllerOf returns the kind of the workload that owns a Pod.
func controllerOf(pod *corev1.Pod) string {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.Kind
	}
	return ""
}

// judgePod says of a Pod that was created what it carries, and what would become of it today. It returns the profiles that the Pod
// would get and lacks, and whether it would come to be otherwise at all.
func (x *explanation) judgePod() (lacks []string, differs bool) {
	today := *x
	today.judge()
	x.Verdict = today.Verdict
	var carried, outdated, gone []string
	for i := range x.Carries {
		carried = append(carried, x.Carries[i].Profile)
		switch x.Carries[i].State {
		case profiles.CarriedOutdated:
			outdated = append(outdated, x.Carries[i].Profile)
		case profiles.CarriedNoMore:
			gone = append(gone, x.Carries[i].Profile)
		case profiles.CarriedCurrent, profiles.CarriedUnknown:
		}
	}
	for _, name := range x.Names() {
		if !slices.Contains(carried, name) {
			lacks = append(lacks, name)
		}
	}
	say := func(format string, names []string) string {
		if len(names) == 0 {
			return ""
		}
		return fmt.Sprintf(format, enumerate(names))
	}
	x.Summary = "The Pod carries nothing of Pillion's."
	if len(carried) > 0 {
		x.Summary = "The Pod carries " + enumerate(carried) + "."
	}
	switch {
	case !x.Allowed:
		x.Summary += " Created today it would be refused. " + x.Denial
	case len(carried) == 0 && len(lacks) == 0:
		x.Summary += " " + strings.Replace(today.Summary, "Nothing is added", "Created today it would get nothing either", 1)
	case len(outdated)+len(gone)+len(lacks) == 0:
		x.Summary += " Created today it would get the same."
	default:
		x.Summary += say(" Created today it would get another revision of %s.", outdated) + say(" Created today it would not get %s.", gone)
		if x.Summary += say(" Created today it would get %s", lacks); len(lacks) > 0 {
			x.Summary += map[bool]string{true: ".", false: ", too."}[len(carried) == 0]
		}
		return lacks, true
	}
	return nil, false
}

// objectName names an object for messages.
func objectName(object map[string]any) string {
	u := unstructured.Unstructured{Object: object}
	return strings.TrimSpace(u.GetKind() + " " + u.GetName())
}
