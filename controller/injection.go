package controller

import (
	"bytes"
	"maps"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
)

// pendingEntry is the name of an entry for nothing. As long as cert-manager has injected no CA it stands alone, so that there is an entry
// to inject into: entries for something would have calls fail.
const pendingEntry = "pending." + v1alpha1.Group

// allowsInjection are the annotations of the serving certificate's Secret; without injection it has none of them.
func allowsInjection(injected bool) map[string]string {
	value := ""
	if injected {
		value = "true"
	}
	return map[string]string{certmanagerv1.AllowsInjectionFromSecretAnnotation: value}
}

// setInjection asks cert-manager to inject the CA bundle into a webhook configuration, or no longer, and tells whether that is news.
func setInjection(configuration client.Object, from string) bool {
	annotations := maps.Clone(configuration.GetAnnotations())
	if annotations[certmanagerv1.WantInjectFromSecretAnnotation] == from {
		return false
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	if annotations[certmanagerv1.WantInjectFromSecretAnnotation] = from; from == "" {
		delete(annotations, certmanagerv1.WantInjectFromSecretAnnotation)
	}
	configuration.SetAnnotations(annotations)
	return true
}

// carryOver gives entries the CA bundles that those of the same name hold. One that has none gets what another holds, so that its calls do
// not fail until cert-manager has injected; the one that covers most of what is to be trusted is the best of them. Where none holds any
// there is nothing but the pending entry, unless there are others, which are repaired by whoever injects.
func carryOver[E any](kind configurationKind[E], want, have []E, trusted []byte, to target, now time.Time) []E {
	held, best, others := map[string][]byte{}, []byte(nil), false
	for i := range have {
		bundle := kind.clientConfig(&have[i]).CABundle
		held[kind.nameOf(&have[i])] = bundle
		others = others || kind.nameOf(&have[i]) != pendingEntry
		if len(bundle) > 0 && (len(best) == 0 || !certs.Covers(best, trusted, now) && certs.Covers(bundle, trusted, now)) {
			best = bundle
		}
	}
	if len(best) == 0 && !others {
		return []E{kind.pending(to)}
	}
	for i := range want {
		bundle := held[kind.nameOf(&want[i])]
		if len(bundle) == 0 {
			bundle = best
		}
		kind.clientConfig(&want[i]).CABundle = bundle
	}
	return want
}

// holdsFor returns what it takes for an entry to hold a bundle: that very one if it is written here.
func holdsFor(injected bool, now time.Time) func(has, bundle []byte) bool {
	if injected {
		return func(has, bundle []byte) bool { return certs.Covers(has, bundle, now) }
	}
	return bytes.Equal
}

// pendingWebhook returns an entry that is for nothing, since it has no rules.
func pendingWebhook(to target) admissionregistrationv1.MutatingWebhook {
	return admissionregistrationv1.MutatingWebhook{
		Name:                    pendingEntry,
		ClientConfig:            to.clientConfig("/" + pendingEntry),
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &metav1.LabelSelector{},
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(ignoreTimeout)),
		AdmissionReviewVersions: []string{"v1"},
		ReinvocationPolicy:      new(admissionregistrationv1.NeverReinvocationPolicy),
	}
}

func pendingValidation(to target) admissionregistrationv1.ValidatingWebhook {
	mutating := pendingWebhook(to)
	return admissionregistrationv1.ValidatingWebhook{
		Name: mutating.Name, ClientConfig: mutating.ClientConfig, FailurePolicy: mutating.FailurePolicy, MatchPolicy: mutating.MatchPolicy,
		NamespaceSelector: mutating.NamespaceSelector, ObjectSelector: mutating.ObjectSelector, SideEffects: mutating.SideEffects,
		TimeoutSeconds: mutating.TimeoutSeconds, AdmissionReviewVersions: mutating.AdmissionReviewVersions,
	}
}
