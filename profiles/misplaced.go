package profiles

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// Misplaced tells of what asks for profiles where nothing reads it: annotations of a workload itself, and not of its Pod template, and
// labels that were meant as annotations. template is the path of the template in the workload; a Pod is its own, with "" and no own
// metadata.
func Misplaced(own, pod *metav1.ObjectMeta, template string) []string {
	var told []string
	field := strings.TrimPrefix(template+".metadata.annotations", ".")
	if own != nil {
		var keys []string
		for _, key := range slices.Sorted(maps.Keys(own.Annotations)) {
			_, _, overrides := v1alpha1.ParseOverrideKey(key)
			if _, there := pod.Annotations[key]; !there && (overrides || key == v1alpha1.InjectKey) {
				keys = append(keys, shown(key))
			}
		}
		if len(keys) > 0 {
			told = append(told, fmt.Sprintf("its own metadata.annotations have %s, which is read from Pods only; move it to %s",
				strings.Join(keys, ", "), field))
		}
	}
	for _, meta := range []*metav1.ObjectMeta{own, pod} {
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
