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
	namespace := profiles.Namespace{Name: name, Labels: labels, Annotations: annotations}
	l.checkOverridesOf(object, namespace)
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
	decision := profiles.Decide(l.snapshot, namespace, plainPod(""))
	for _, outcome := range decision.Denying() {
		told := toldNamespace{name, outcome.Reason, outcome.Message}
		if outcome.Source != profiles.SourceNamespace || !slices.Contains(ofNamespaceItself, outcome.Reason) || l.told[told] {
			continue
		}
		l.told[told] = true
		l.find(object, at, report.Error, outcome.Reason, "Namespace %s: %s", name, outcome.Message)
	}
}

// checkOverridesOf finds annotations of a Namespace that change what profiles do not let be changed, or to what cannot be: every Pod
// there that gets the profile is refused for them.
func (l *linter) checkOverridesOf(object *manifest.Object, namespace profiles.Namespace) {
	var keys, names []string
	for _, key := range object.Document.Keys(object.Pointer + "/metadata/annotations") {
		if profile, _, overrides := v1alpha1.ParseOverrideKey(key); overrides {
			keys = append(keys, key)
			if !slices.Contains(names, profile) {
				names = append(names, profile)
			}
		}
	}
	for _, profile := range names {
		decision := profiles.Decide(l.snapshot, namespace, plainPod(profile))
		for _, outcome := range decision.Denying() {
			told := toldNamespace{namespace.Name, outcome.Reason, outcome.Message}
			isOverride := outcome.Reason == profiles.ReasonFieldNotOverridable || outcome.Reason == profiles.ReasonInvalidOverride
			if !isOverride || outcome.Profile != profile || l.told[told] {
				continue
			}
			l.told[told] = true
			place := object.At("metadata.annotations")
			if i := slices.IndexFunc(keys, func(key string) bool { return mentions(outcome.Message, key) }); i >= 0 {
				place = object.At("metadata.annotations[" + keys[i] + "]")
			}
			l.find(object, place, report.Error, outcome.Reason, "Namespace %s: %s", namespace.Name,
				strings.ReplaceAll(outcome.Message, " of namespace "+namespace.Name, ""))
		}
	}
}

// plainPod returns a Pod that asks for a profile; empty: for nothing itself.
func plainPod(profile string) *corev1.Pod {
	const text = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"app"},"spec":{"containers":[{"name":"app","image":"app"}]}}`
	pod := &corev1.Pod{}
	if err := json.Unmarshal([]byte(text), pod); err != nil {
		panic(fmt.Sprintf("decode a constant: %v", err))
	}
	if profile != "" {
		pod.Annotations = map[string]string{v1alpha1.InjectKey: profile}
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
