package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
	"github.com/pillion-dev/pillion/weave"
)

// checkWorkloads finds what the webhook would say of the Pods that workloads make.
func (l *linter) checkWorkloads() {
	found := make([][]report.Finding, len(l.objects))
	isWorkload := make([]bool, len(l.objects))
	inParallel(len(l.objects), func(i int) { found[i], isWorkload[i] = l.checkWorkload(&l.objects[i]) })
	for i := range found {
		l.add(found[i]...)
		if isWorkload[i] {
			l.result.Workloads++
		}
	}
}

// checkWorkload changes nothing of the linter: several run at a time.
func (l *linter) checkWorkload(object *manifest.Object) ([]report.Finding, bool) {
	template, err := object.Template()
	if err != nil {
		return []report.Finding{l.findingOf(err, ReasonInvalidWorkload)}, true
	}
	if template == nil {
		return nil, false
	}
	pod, err := template.Pod()
	if err != nil {
		return []report.Finding{l.findingOf(err, ReasonInvalidWorkload)}, true
	}
	w := &workload{linter: l, Template: template, pod: pod, namespace: template.Namespace}
	if w.namespace == "" {
		w.namespace = l.options.Namespace
	}
	w.checkKeys()
	w.checkMisplaced()
	w.checkExcluded()
	w.decide()
	return w.found, true
}

// workload is a workload that is checked.
type workload struct {
	*manifest.Template
	linter    *linter
	pod       *corev1.Pod
	namespace string
	found     []report.Finding
}

func (w *workload) find(at manifest.Position, severity report.Severity, reason weave.Reason, message string) {
	w.found = append(w.found, finding(w.Document, at, severity, reason, w.Workload()+": "+message))
}

// checkKeys tells of keys that nothing reads, of the template and of the workload itself.
func (w *workload) checkKeys() {
	for _, field := range []string{"annotations", "labels"} {
		w.found = append(w.found, unknownKeys(w.Document, w.Path, field, ofPod)...)
		if w.Own != w.Path {
			w.found = append(w.found, unknownKeys(w.Document, w.Own, field, ofPod)...)
		}
	}
}

// checkMisplaced tells of what asks where nothing reads it.
func (w *workload) checkMisplaced() {
	for _, message := range w.Misplaced(w.pod) {
		w.find(w.misplacedAt(message), report.Error, ReasonMisplaced, message)
	}
}

// misplacedAt returns where the key stands of which a message tells.
func (w *workload) misplacedAt(message string) manifest.Position {
	for _, pointer := range []string{w.Own, w.Own + "/spec/jobTemplate", w.Path} {
		for _, field := range []string{"annotations", "labels"} {
			for _, key := range w.Document.Keys(pointer + "/metadata/" + field) {
				isRead := pointer == w.Path && field == "annotations"
				if !isRead && mentions(message, key) {
					return w.Document.FieldPosition(pointer, "metadata."+field+"["+key+"]")
				}
			}
		}
	}
	return w.Position
}

// checkExcluded tells of a Pod that asks in vain because its namespace is never touched.
func (w *workload) checkExcluded() {
	if _, asks := w.pod.Annotations[v1alpha1.InjectKey]; asks && slices.Contains(w.linter.options.Decisions.ExcludedNamespaces, w.namespace) {
		w.find(w.annotationAt(v1alpha1.InjectKey), report.Warning, ReasonNamespaceExcluded, fmt.Sprintf(
			"nothing is added: Pods of namespace %s are never touched (--excluded-namespaces)", w.namespace))
	}
}

func (w *workload) annotationAt(key string) manifest.Position {
	return w.At("metadata.annotations[" + key + "]")
}

// decide tells what the webhook would refuse, leave out and warn of.
func (w *workload) decide() {
	decision := profiles.Request{
		Namespace: w.linter.namespaces.Get(w.namespace), Pod: w.pod, User: profiles.ControllerUser(w.Kind), ClaimVolumes: w.ClaimVolumes,
	}.Decide(w.linter.snapshot)
	denying := decision.Denying()
	for i := range denying {
		outcome := &denying[i]
		if w.linter.told[toldNamespace{w.namespace, outcome.Reason, outcome.Message}] {
			continue
		}
		w.find(w.placeOf(outcome), report.Error, outcome.Reason, outcome.Message)
	}
	var told []string
	for i := range decision.Outcomes {
		outcome := &decision.Outcomes[i]
		if outcome.Result == profiles.Rejected {
			denies := slices.ContainsFunc(denying, func(o profiles.Outcome) bool { return o.Message == outcome.Message && o.Reason == outcome.Reason })
			if !denies {
				w.find(w.placeOf(outcome), report.Warning, outcome.Reason, "profile "+outcome.Profile+" would be left out: "+outcome.Message)
			}
			continue
		}
		if outcome.Warning != "" {
			told = append(told, outcome.Warning)
			w.find(w.placeOf(outcome), report.Warning, ReasonAppliedWithWarning, outcome.Warning)
		}
	}
	for _, warning := range decision.Warnings {
		key, mentioned := w.annotationIn(warning)
		if mentioned && !slices.Contains(told, warning) && !strings.HasPrefix(warning, "Pillion left out profile ") {
			w.find(w.annotationAt(key), report.Warning, ReasonOverrideWithoutEffect, warning)
		}
	}
}

// annotationIn returns the first annotation of the template that overrides something and that a message mentions.
func (w *workload) annotationIn(message string) (key string, found bool) {
	for _, key := range w.Document.Keys(w.Path + "/metadata/annotations") {
		if profile, _, overrides := v1alpha1.ParseOverrideKey(key); overrides && profile != "" && mentions(message, key) {
			return key, true
		}
	}
	return "", false
}

// placeOf returns what has to be mended for an outcome to be another, as well as its message tells: the annotation that overrides a
// field, the container, or what asks.
func (w *workload) placeOf(outcome *profiles.Outcome) manifest.Position {
	if key, ok := w.annotationIn(outcome.Message); ok {
		return w.annotationAt(key)
	}
	if path := w.containerIn(outcome); path != "" {
		return w.At(path)
	}
	if outcome.Source == profiles.SourceAnnotation {
		return w.annotationAt(v1alpha1.InjectKey)
	}
	return w.Position
}

// containerIn returns the path of the container that an outcome is about, or of what in it collides; "" if its message names none.
func (w *workload) containerIn(outcome *profiles.Outcome) string {
	in := func(list string, containers []corev1.Container) string {
		for i := range containers {
			if mentions(outcome.Message, "container "+containers[i].Name) {
				return fmt.Sprintf("%s[%d]", list, i) + partIn(outcome, &containers[i])
			}
		}
		return ""
	}
	return cmp.Or(in("spec.initContainers", w.pod.Spec.InitContainers), in("spec.containers", w.pod.Spec.Containers))
}

// partIn returns the path in a container of what collides.
func partIn(outcome *profiles.Outcome, container *corev1.Container) string {
	switch outcome.Reason {
	case weave.ReasonMountPathCollision:
		for i := range container.VolumeMounts {
			if mentions(outcome.Message, container.VolumeMounts[i].MountPath) {
				return fmt.Sprintf(".volumeMounts[%d]", i)
			}
		}
	case weave.ReasonPortCollision:
		for i := range container.Ports {
			if mentions(outcome.Message, fmt.Sprint(container.Ports[i].ContainerPort)) {
				return fmt.Sprintf(".ports[%d]", i)
			}
		}
	}
	return ""
}
