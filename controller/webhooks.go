package controller

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// How long the API server waits for an answer, in seconds. A Pod that is refused without one waits longer than a Pod that is
// admitted without.
const (
	failTimeout   = 5
	ignoreTimeout = 2
)

// The names of the entries. Each has to be unique and a domain of three parts.
const (
	podsEntry       = "pods." + v1alpha1.Group
	namespacesEntry = "namespaces." + v1alpha1.Group
)

func matchEntryName(id string) string { return "match-" + id + "." + v1alpha1.Group }

// CEL over the Pod as it is when the entry's turn comes, after earlier entries and other webhooks. None of it can err, which
// would refuse the Pod: annotations and labels may be absent.
const (
	annotations = "object.metadata.?annotations.orValue({})"
	labels      = "object.metadata.?labels.orValue({})"

	notMirror   = "!('" + corev1.MirrorPodAnnotationKey + "' in " + annotations + ")"
	asks        = "'" + v1alpha1.InjectKey + "' in " + annotations
	asksForSome = asks + " && " + annotations + "['" + v1alpha1.InjectKey + "'].trim() != '" + v1alpha1.None + "'"
	asksNothing = "!(" + asks + ")"
	notWoven    = "!('" + v1alpha1.InjectedKey + "' in " + labels + ")"
)

// target is where the API server reaches the webhook, and what it trusts there.
type target struct {
	// service is used unless url is set. Its path is left open.
	service admissionregistrationv1.ServiceReference
	// url is a base that the paths are appended to.
	url      string
	caBundle []byte
}

// compileWebhooks returns the entries of the webhook configuration: for the Pods that ask, for the namespaces that ask for their
// Pods, and for each selection of the plan. They are disjoint but for Pods that several selections match, whose first call
// decides for all. Every field that the API server would default is set, so that what is read back is equal.
func compileWebhooks(p plan, to target, excluded []string) []admissionregistrationv1.MutatingWebhook {
	outside := metav1.LabelSelectorRequirement{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: excluded,
	}
	asking := []metav1.LabelSelectorRequirement{
		outside,
		{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpExists},
		{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpNotIn, Values: []string{v1alpha1.None}},
	}
	webhooks := []admissionregistrationv1.MutatingWebhook{
		entry{
			name: podsEntry, path: profiles.PathPods, policy: v1alpha1.FailurePolicyFail,
			namespaces: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{outside}},
			conditions: []admissionregistrationv1.MatchCondition{{Name: "asks", Expression: asksForSome}},
		}.webhook(to),
		entry{
			name: namespacesEntry, path: profiles.PathNamespaces, policy: v1alpha1.FailurePolicyFail,
			namespaces: metav1.LabelSelector{MatchExpressions: asking},
			conditions: []admissionregistrationv1.MatchCondition{{Name: "has-no-annotation", Expression: asksNothing}},
		}.webhook(to),
	}
	for i := range p.selections {
		webhooks = append(webhooks, matchEntry(&p.selections[i], outside).webhook(to))
	}
	return webhooks
}

// matchEntry returns the entry of a selection: for Pods that neither ask nor decline, themselves or by their namespace.
func matchEntry(s *selection, outside metav1.LabelSelectorRequirement) entry {
	namespaces := *s.Namespaces.DeepCopy()
	namespaces.MatchExpressions = append(namespaces.MatchExpressions, outside,
		metav1.LabelSelectorRequirement{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpDoesNotExist})
	if s.Inside {
		namespaces.MatchExpressions = append(namespaces.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: s.in,
		})
	}
	return entry{
		name: matchEntryName(s.id()), path: s.path(), policy: s.Policy,
		namespaces: namespaces,
		pods:       *s.Pods.DeepCopy(),
		conditions: []admissionregistrationv1.MatchCondition{
			{Name: "has-no-annotation", Expression: asksNothing},
			{Name: "not-woven", Expression: notWoven},
		},
	}
}

// entry is what one entry differs by from the others.
type entry struct {
	name, path       string
	policy           v1alpha1.FailurePolicy
	namespaces, pods metav1.LabelSelector
	conditions       []admissionregistrationv1.MatchCondition
}

func (e entry) webhook(to target) admissionregistrationv1.MutatingWebhook {
	failurePolicy, timeout := admissionregistrationv1.Fail, int32(failTimeout)
	if e.policy == v1alpha1.FailurePolicyIgnore {
		failurePolicy, timeout = admissionregistrationv1.Ignore, ignoreTimeout
	}
	mirror := admissionregistrationv1.MatchCondition{Name: "not-mirror", Expression: notMirror}
	return admissionregistrationv1.MutatingWebhook{
		Name:         e.name,
		ClientConfig: to.clientConfig(e.path),
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{
				APIGroups:   []string{corev1.GroupName},
				APIVersions: []string{"v1"},
				Resources:   []string{"pods"},
				Scope:       new(admissionregistrationv1.NamespacedScope),
			},
		}},
		FailurePolicy:           &failurePolicy,
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &e.namespaces,
		ObjectSelector:          &e.pods,
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          &timeout,
		AdmissionReviewVersions: []string{"v1"},
		ReinvocationPolicy:      new(admissionregistrationv1.NeverReinvocationPolicy),
		MatchConditions:         slices.Concat([]admissionregistrationv1.MatchCondition{mirror}, e.conditions),
	}
}

func (to target) clientConfig(path string) admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{CABundle: to.caBundle}
	if to.url != "" {
		config.URL = new(strings.TrimSuffix(to.url, "/") + path)
		return config
	}
	config.Service = to.service.DeepCopy()
	config.Service.Path = &path
	return config
}
