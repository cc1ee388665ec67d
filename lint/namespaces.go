package lint

import (
	"encoding/json"
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

// toldNamespace is what a Namespace was told.
type toldNamespace struct {
	namespace string
	reason    weave.Reason
	message   string
}

// ofNamespaceItself are the reasons of outcomes that no Pod can help.
var ofNamespaceItself = []weave.Reason{
	profiles.ReasonInvalidRequest, profiles.ReasonProfileNotAvailable, profiles.ReasonProfileNotReady,
	profiles.ReasonFieldNotOverridable, profiles.ReasonInvalidOverride,
}

// checkNamespaces finds Namespaces that ask for what their Pods cannot get.
func (l *linter) checkNamespaces() {
	l.told = map[toldNamespace]bool{}
	for i := range l.objects {
		object := &l.objects[i]
		if name := object.Metadata("name"); object.IsNamespace() && name != "" {
			l.result.Namespaces++
			l.checkNamespace(object, name)
		}
	}
}

func (l *linter) checkNamespace(object *manifest.Object, name string) {
	const inject = "[" + v1alpha1.InjectKey + "]"
	l.checkKeys(object, "labels", ofNamespace)
	l.checkKeys(object, "annotations", ofNamespace)
	annotations, labels := object.Strings("annotations"), object.Strings("labels")
	_, asks := labels[v1alpha1.InjectKey]
	if _, there := annotations[v1alpha1.InjectKey]; there {
		l.find(object, object.At("metadata.annotations"+inject), report.Error, ReasonMisplaced,
			"Namespace %s: its annotation %s is not read: a Namespace asks by a label of that name, in which dots join names", name,
			v1alpha1.InjectKey)
	}
	for _, key := range object.Document.Keys(object.Pointer + "/metadata/labels") {
		if _, _, overrides := v1alpha1.ParseOverrideKey(key); overrides {
			l.find(object, object.At("metadata.labels["+key+"]"), report.Error, ReasonMisplaced,
				"Namespace %s: its label %s is not read: profiles are changed by annotations; write it in metadata.annotations", name,
				shown(key))
		}
	}
	if !asks {
		return
	}
	if _, ok := object.Value("metadata", "labels", v1alpha1.InjectKey).(string); !ok {
		l.find(object, object.At("metadata.labels"+inject), report.Error, ReasonInvalidManifest,
			"Namespace %s: its label %s is no string to YAML; write its value in quotes", name, v1alpha1.InjectKey)
		return
	}
	at := object.At("metadata.labels" + inject)
	if slices.Contains(l.options.Decisions.ExcludedNamespaces, name) {
		l.find(object, at, report.Warning, ReasonNamespaceExcluded,
			"Namespace %s: its label %s adds nothing: Pods of this namespace are never touched (--excluded-namespaces)", name, v1alpha1.InjectKey)
	}
	namespace := profiles.Namespace{Name: name, Labels: labels, Annotations: annotations}
	decision := profiles.Decide(l.snapshot, namespace, plainPod())
	for _, outcome := range decision.Denying() {
		if outcome.Source != profiles.SourceNamespace || !slices.Contains(ofNamespaceItself, outcome.Reason) {
			continue
		}
		l.told[toldNamespace{name, outcome.Reason, outcome.Message}] = true
		place := at
		for _, key := range object.Document.Keys(object.Pointer + "/metadata/annotations") {
			if mentions(outcome.Message, key) && key != v1alpha1.InjectKey {
				place = object.At("metadata.annotations[" + key + "]")
				break
			}
		}
		l.find(object, place, report.Error, outcome.Reason, "Namespace %s: %s", name, outcome.Message)
	}
}

// plainPod returns a Pod that asks for nothing itself.
func plainPod() *corev1.Pod {
	const text = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"app"},"spec":{"containers":[{"name":"app","image":"app"}]}}`
	pod := &corev1.Pod{}
	if err := json.Unmarshal([]byte(text), pod); err != nil {
		panic(fmt.Sprintf("decode a constant: %v", err))
	}
	return pod
}

// mentions tells whether a message has a key as a word of its own.
func mentions(message, key string) bool {
	for rest := message; ; {
		i := strings.Index(rest, key)
		if i < 0 || key == "" {
			return false
		}
		after := rest[i+len(key):]
		if (i == 0 || !isWord(rest[i-1])) && (after == "" || !isWord(after[0]) || after[0] == '.' && (len(after) == 1 || after[1] == ' ')) {
			return true
		}
		rest = after
	}
}

// isWord tells whether a byte may be part of an annotation's key or of a path.
func isWord(c byte) bool {
	return c == '-' || c == '_' || c == '.' || c == '/' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
