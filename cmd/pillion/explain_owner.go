package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/lint"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
)

// templateOf returns the Pod template of a workload of the cluster, as if it were a file.
func templateOf(object *unstructured.Unstructured) (*manifest.Template, error) {
	encoded, err := yaml.Marshal(object.Object)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	file := manifest.Parse(strings.ToLower(object.GetKind())+"/"+object.GetName(), encoded)
	if len(file.Documents) != 1 || file.Documents[0].Err != nil {
		return nil, fmt.Errorf("cannot be read back: %w", file.Documents[0].Err)
	}
	templates, err := file.Documents[0].Templates()
	if err != nil {
		return nil, bare(err)
	}
	return &templates[0], nil
}

// ownerOf climbs from an object of the cluster to the workload that people write: from a Pod by its ReplicaSet to its Deployment. It
// returns nil where there is none of a known kind, or none that the user may read.
func (e *explaining) ownerOf(ctx context.Context, object *unstructured.Unstructured) *manifest.Template {
	var top *unstructured.Unstructured
	const most = 3 // Pod, Job, CronJob
	for range most {
		ref := metav1.GetControllerOf(object)
		if ref == nil {
			break
		}
		kinds := podKinds()
		i := slices.IndexFunc(kinds, func(k targetKind) bool {
			return k.GroupKind() == schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
		})
		if i < 0 {
			break
		}
		next := &unstructured.Unstructured{}
		next.SetGroupVersionKind(kinds[i].GroupVersionKind)
		err := e.connected.Get(ctx, client.ObjectKey{Namespace: object.GetNamespace(), Name: ref.Name}, next)
		if err != nil || next.GetUID() != ref.UID {
			break
		}
		top, object = next, next
	}
	if top == nil {
		return nil
	}
	template, err := templateOf(top)
	if err != nil {
		return nil
	}
	return template
}

// misplacedInOwner tells of what asks where nothing reads it in the workload that people write.
func misplacedInOwner(owner *manifest.Template) []string {
	if owner == nil {
		return nil
	}
	pod, err := owner.Pod()
	if err != nil {
		return nil
	}
	var told []string
	for _, note := range owner.Misplaced(pod) {
		told = append(told, owner.Workload()+": "+note)
	}
	return told
}

// notesOfPod tells what people may not expect of a Pod that was created, and of the workload that it is of.
func notesOfPod(pod *corev1.Pod, owner *manifest.Template) []string {
	notes := misplacedInOwner(owner)
	if len(notes) == 0 {
		notes = profiles.Misplaced(nil, nil, &pod.ObjectMeta, "")
	}
	notes = append(notes, lint.Unread(&pod.ObjectMeta)...)
	if owner == nil {
		return notes
	}
	template, err := owner.Pod()
	if err != nil {
		return notes
	}
	if keys := asksOtherwise(template.Annotations, pod.Annotations); len(keys) > 0 {
		notes = append(notes, fmt.Sprintf("the template of %s differs from this Pod in %s: the Pod is of another revision of it, or was changed; "+
			"what becomes of new Pods is told by: pillion explain %s/%s -n %s",
			owner.Workload(), strings.Join(keys, ", "), strings.ToLower(owner.Kind), owner.Name, pod.Namespace))
	}
	return notes
}

// asksOtherwise returns the keys of the annotations by which a Pod asks that differ between two.
func asksOtherwise(template, pod map[string]string) []string {
	keys := map[string]bool{}
	for _, of := range []map[string]string{template, pod} {
		for key := range of {
			_, _, overrides := v1alpha1.ParseOverrideKey(key)
			inTemplate, there := template[key]
			inPod, here := pod[key]
			if (overrides || key == v1alpha1.InjectKey) && (there != here || inTemplate != inPod) {
				keys[key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// adviseOn says how a Pod that was created comes to what it would get today, and, of what it lacks, since when that may be.
func (x *explanation) adviseOn(pod *corev1.Pod, owner *manifest.Template, known *knownNamespace, lacks []string) string {
	var later []string
	for i := range x.Profiles {
		entry := &x.Profiles[i]
		if slices.Contains(lacks, entry.Profile) && entry.Order > 0 && known.since[entry.Scope()].After(pod.CreationTimestamp.Time) {
			later = append(later, entry.Scope())
		}
	}
	since := ""
	switch {
	case len(later) > 0:
		since = fmt.Sprintf("The Pod was created before %s. ", enumerate(later))
	case len(lacks) > 0:
		since = "What brings that may be newer than the Pod: its match, a label or an annotation. Or the API server did not reach Pillion then. "
	}
	return since + "A Pod that runs stays as it is; " + renewal(pod, owner)
}

// renewal says how people have a Pod created anew.
func renewal(pod *corev1.Pod, owner *manifest.Template) string {
	if owner != nil {
		switch owner.Kind {
		case "Deployment", "StatefulSet", "DaemonSet":
			return fmt.Sprintf("to create it anew: kubectl rollout restart %s/%s -n %s", strings.ToLower(owner.Kind), owner.Name, pod.Namespace)
		case "CronJob":
			return "the next run of " + owner.Workload() + " creates another."
		case "Job":
			return "to create it anew, replace " + owner.Workload() + "."
		}
	}
	if metav1.GetControllerOf(pod) != nil {
		return fmt.Sprintf("what controls it creates it anew after: kubectl delete pod/%s -n %s", pod.Name, pod.Namespace)
	}
	return "delete it, and create it anew."
}
