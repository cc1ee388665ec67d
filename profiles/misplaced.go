package profiles

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// Misplaced tells of what asks for profiles where nothing reads it: annotations of a workload itself, or of a CronJob's Job template,
// and not of its Pod template, and labels that were meant as annotations. template is the path of the Pod template in the workload; a
// Pod is its own, with "" and no other metadata.
func Misplaced(own, job, pod *metav1.ObjectMeta, template string) []string {
	var told []string
	field := strings.TrimPrefix(template+".metadata.annotations", ".")
	for _, place := range []struct {
		name string
		meta *metav1.ObjectMeta
	}{{"its own metadata.annotations have", own}, {"the metadata.annotations of its Job template have", job}} {
		if keys := unread(place.meta, pod); len(keys) > 0 {
			told = append(told, fmt.Sprintf("%s %s, which is read from Pods only; move it to %s", place.name, strings.Join(keys, ", "), field))
		}
	}
	for _, meta := range []*metav1.ObjectMeta{own, job, pod} {
		if meta == nil {
			continue
		}
		_, labeled := meta.Labels[v1alpha1.InjectKey]
		if _, asks := pod.Annotations[v1alpha1.InjectKey]; labeled && !asks {
			told = append(told, fmt.Sprintf("its label %s is not read: only Namespaces ask by a label; write an annotation in %s, "+
				"where commas join names", v1alpha1.InjectKey, field))
			break
		}
	}
	return told
}

// unread returns the keys of the annotations that would mean something on the Pod, which does not have them.
func unread(meta, pod *metav1.ObjectMeta) (keys []string) {
	if meta == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(meta.Annotations)) {
		_, _, overrides := v1alpha1.ParseOverrideKey(key)
		if _, there := pod.Annotations[key]; !there && (overrides || key == v1alpha1.InjectKey) {
			keys = append(keys, shown(key))
		}
	}
	return keys
}
