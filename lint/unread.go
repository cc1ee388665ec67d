package lint

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Unread tells of a Pod's annotations and labels that look like Pillion's and that nothing reads, each in a sentence.
func Unread(pod *metav1.ObjectMeta) []string {
	var told []string
	for _, of := range []struct {
		what string
		keys map[string]string
	}{{"annotation", pod.Annotations}, {"label", pod.Labels}} {
		for _, key := range slices.Sorted(maps.Keys(of.keys)) {
			if advice := adviceOn(key, ofPod); advice != "" {
				told = append(told, fmt.Sprintf("nothing reads the %s %s%s", of.what, shown(key), advice))
			}
		}
	}
	return told
}
