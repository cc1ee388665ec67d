package controller

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// Bounds of what is told of one Pod. Whoever may create Pods may write what tells that something was left out.
const (
	maxToldProfiles = 16
	maxNote         = 1024 // bytes, as in the API (NoteLengthLimit in k8s.io/kubernetes/pkg/apis/core/validation)
	maxOwnerUID     = 128  // bytes
)

// skip is a profile that was left out of a Pod, and why: REASON: MESSAGE.
type skip struct{ profile, why string }

// skipsOf returns what a Pod's annotation tells, as far as it can be read and shown.
func skipsOf(pod *metav1.PartialObjectMetadata) []skip {
	value := pod.Annotations[v1alpha1.SkippedKey]
	if len(value) > profiles.MaxMarkBytes {
		return nil
	}
	told := map[string]string{}
	if json.Unmarshal([]byte(value), &told) != nil {
		return nil
	}
	var skips []skip
	for _, profile := range slices.Sorted(maps.Keys(told)) {
		if !isProfileName(profile) || len(skips) == maxToldProfiles {
			continue
		}
		if why := printable(told[profile]); why != "" {
			skips = append(skips, skip{profile, shorten(why, maxNote)})
		}
	}
	return skips
}

// printable returns a text in one line, without what a terminal would not show as it is.
func printable(text string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, text)), " ")
}

// shorten cuts a text to a number of bytes, between characters, and shows that it did.
func shorten(text string, length int) string {
	const more = "…"
	if len(text) <= length {
		return text
	}
	return cut(text, length-len(more)) + more
}

// key is what the Pods have in common that one Event tells of.
func (s *skip) key(namespace string, owner *corev1.ObjectReference) eventKey {
	return hashOf(namespace, string(owner.UID), s.profile, s.why)
}

// note is what an Event says.
func (s *skip) note(pod string) string {
	return shorten(fmt.Sprintf("Pillion left profile %s out of Pod %s: %s", s.profile, pod, s.why), maxNote)
}

// eventName returns the name of the Event that tells of the profile on an object. It is the same whichever Pod and whichever
// controller tells of it, so that an Event that is there is not made a second time.
func (s *skip) eventName(regarding *corev1.ObjectReference) string {
	hash := hashOf(string(regarding.UID), s.profile, s.why)
	const suffix = 16
	name := strings.TrimRight(cut(regarding.Name, validation.DNS1123SubdomainMaxLength-suffix-1), ".-")
	return name + "." + hex.EncodeToString(hash[:suffix/2])
}

// eventKey is a hash.
type eventKey [sha256.Size]byte

func hashOf(texts ...string) eventKey {
	hash := sha256.New()
	for _, text := range texts {
		_, _ = fmt.Fprintf(hash, "%d %s", len(text), text)
	}
	return eventKey(hash.Sum(nil))
}

// referenceTo returns a reference to a Pod.
func referenceTo(pod *metav1.PartialObjectMetadata) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// controllerOf returns a reference to what controls an object; false if nothing does, or nothing that can be.
func controllerOf(object metav1.Object) (corev1.ObjectReference, bool) {
	owner := metav1.GetControllerOf(object)
	if owner == nil || len(owner.UID) > maxOwnerUID || len(owner.Kind) > maxOwnerKind ||
		len(validation.IsDNS1035Label(strings.ToLower(owner.Kind))) > 0 || len(validation.IsDNS1123Subdomain(owner.Name)) > 0 {
		return corev1.ObjectReference{}, false
	}
	of, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil || len(validation.IsDNS1035Label(of.Version)) > 0 ||
		(of.Group != "" && len(validation.IsDNS1123Subdomain(of.Group)) > 0) {
		return corev1.ObjectReference{}, false
	}
	return corev1.ObjectReference{
		APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: object.GetNamespace(), Name: owner.Name, UID: owner.UID,
	}, true
}

// controlledResource returns the resource of a kind whose objects are, as a rule, made by another: of a ReplicaSet or a Job.
func controlledResource(owner *corev1.ObjectReference) (schema.GroupVersionResource, bool) {
	switch owner.GroupVersionKind().GroupKind() {
	case appsv1.SchemeGroupVersion.WithKind("ReplicaSet").GroupKind():
		return appsv1.SchemeGroupVersion.WithResource("replicasets"), true
	case batchv1.SchemeGroupVersion.WithKind("Job").GroupKind():
		return batchv1.SchemeGroupVersion.WithResource("jobs"), true
	default:
		return schema.GroupVersionResource{}, false
	}
}
