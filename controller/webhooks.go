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
// admitted without; one who writes a profile can wait.
const (
	failTimeout     = 5
	ignoreTimeout   = 2
	profilesTimeout = 5
)

// The names of the entries. Each has to be unique and a domain of three parts.
const (
	podsEntry       = "pods." + v1alpha1.Group
	namespacesEntry = "namespaces." + v1alpha1.Group
	profilesEntry   = "profiles." + v1alpha1.Group
)

// What the names of the two entries of a selection begin with; the rest is the same.
const (
	matchPrefix  = "match-"
	verifyPrefix = "verify-"
)

func matchEntryName(id string) string  { return matchPrefix + id + "." + v1alpha1.Group }
func verifyEntryName(id string) string { return verifyPrefix + id + "." + v1alpha1.Group }

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

// specChanged spares profiles of which only the metadata is written: whatever has become of the spec since, a finalizer can be
// taken off and an annotation set.
const specChanged = "request.operation == 'CREATE' || object.?spec != oldObject.?spec"

// target is where the API server reaches the webhook, and what it trusts there.
type target struct {
	// service is used unless url is set. Its path is left open.
	service admissionregistrationv1.ServiceReference
	// url is a base that the paths are appended to.
	url      string
	caBundle []byte
}

// compileWebhooks returns the entries that change Pods: for the Pods that ask, for the namespaces that ask for their Pods, and
// for each selection of the plan. They are disjoint but for Pods that several selections match, whose first call decides for
// all; only those that enforce are called again, if need be. Every field that the API server would default is set, so that what
// is read back is equal.
func compileWebhooks(p *profiles.Plan, to target, excluded []string) []admissionregistrationv1.MutatingWebhook {
	outside := outsideOf(excluded)
	webhooks := []admissionregistrationv1.MutatingWebhook{
		entry{
			name: podsEntry, path: profiles.PathPods, policy: v1alpha1.FailurePolicyFail,
			namespaces: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{outside}},
			conditions: []admissionregistrationv1.MatchCondition{{Name: "asks", Expression: asksForSome}},
		}.mutating(to),
		entry{
			name: namespacesEntry, path: profiles.PathNamespaces, policy: v1alpha1.FailurePolicyFail,
			namespaces: metav1.LabelSelector{MatchExpressions: askingNamespaces(outside)},
			conditions: []admissionregistrationv1.MatchCondition{{Name: "has-no-annotation", Expression: asksNothing}},
		}.mutating(to),
	}
	for i := range p.Selections {
		webhooks = append(webhooks, matchEntry(&p.Selections[i], outside).mutating(to))
	}
	return webhooks
}

// compileValidations returns the entries that check what is to be stored: profiles, for each selection that enforces the Pods that
// it selects, and the workloads that make Pods.
func compileValidations(p *profiles.Plan, to target, excluded []string) []admissionregistrationv1.ValidatingWebhook {
	webhooks := []admissionregistrationv1.ValidatingWebhook{profilesWebhook(to)}
	for i := range p.Selections {
		if s := &p.Selections[i]; s.Enforce {
			e := matchEntry(s, outsideOf(excluded))
			e.name, e.path = verifyEntryName(s.ID()), profiles.PathVerify+s.ID()
			webhooks = append(webhooks, e.validating(to))
		}
	}
	return append(webhooks, compileWorkloads(p, to, excluded)...)
}

// askingNamespaces are the requirements of namespaces whose label asks for something.
func askingNamespaces(outside metav1.LabelSelectorRequirement) []metav1.LabelSelectorRequirement {
	return []metav1.LabelSelectorRequirement{
		outside,
		{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpExists},
		{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpNotIn, Values: []string{v1alpha1.None}},
	}
}

func outsideOf(excluded []string) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: excluded,
	}
}

// matchEntry returns the entry of a selection: for Pods that neither ask nor decline, themselves or by their namespace, unless
// the selection enforces.
func matchEntry(s *profiles.Selection, outside metav1.LabelSelectorRequirement) entry {
	e := entry{
		name: matchEntryName(s.ID()), path: s.Path(), policy: s.Policy, reinvoked: s.Enforce,
		namespaces: *s.Namespaces.DeepCopy(),
		pods:       *s.Pods.DeepCopy(),
	}
	require := func(requirement metav1.LabelSelectorRequirement) {
		e.namespaces.MatchExpressions = append(e.namespaces.MatchExpressions, requirement)
	}
	require(outside)
	if !s.Enforce {
		require(metav1.LabelSelectorRequirement{Key: v1alpha1.InjectKey, Operator: metav1.LabelSelectorOpDoesNotExist})
		e.conditions = []admissionregistrationv1.MatchCondition{
			{Name: "has-no-annotation", Expression: asksNothing},
			{Name: "not-woven", Expression: notWoven},
		}
	}
	if s.Inside {
		require(metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: s.In})
	}
	return e
}

// entry is what one entry for Pods differs by from the others.
type entry struct {
	name, path       string
	policy           v1alpha1.FailurePolicy
	namespaces, pods metav1.LabelSelector
	conditions       []admissionregistrationv1.MatchCondition
	reinvoked        bool
}

func (e entry) mutating(to target) admissionregistrationv1.MutatingWebhook {
	failurePolicy, timeout := e.failure()
	reinvocation := admissionregistrationv1.NeverReinvocationPolicy
	if e.reinvoked {
		reinvocation = admissionregistrationv1.IfNeededReinvocationPolicy
	}
	return admissionregistrationv1.MutatingWebhook{
		Name:                    e.name,
		ClientConfig:            to.clientConfig(e.path),
		Rules:                   podRules(),
		FailurePolicy:           &failurePolicy,
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &e.namespaces,
		ObjectSelector:          &e.pods,
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          &timeout,
		AdmissionReviewVersions: []string{"v1"},
		ReinvocationPolicy:      &reinvocation,
		MatchConditions:         e.allConditions(),
	}
}

func (e entry) validating(to target) admissionregistrationv1.ValidatingWebhook {
	failurePolicy, timeout := e.failure()
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    e.name,
		ClientConfig:            to.clientConfig(e.path),
		Rules:                   podRules(),
		FailurePolicy:           &failurePolicy,
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &e.namespaces,
		ObjectSelector:          &e.pods,
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          &timeout,
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         e.allConditions(),
	}
}

// failure returns what becomes of a Pod when the webhook cannot answer, and how long it is waited for.
func (e entry) failure() (admissionregistrationv1.FailurePolicyType, int32) {
	if e.policy == v1alpha1.FailurePolicyIgnore {
		return admissionregistrationv1.Ignore, ignoreTimeout
	}
	return admissionregistrationv1.Fail, failTimeout
}

func (e entry) allConditions() []admissionregistrationv1.MatchCondition {
	mirror := admissionregistrationv1.MatchCondition{Name: "not-mirror", Expression: notMirror}
	return slices.Concat([]admissionregistrationv1.MatchCondition{mirror}, e.conditions)
}

// podRules are of the creation of Pods, and of nothing else.
func podRules() []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule: admissionregistrationv1.Rule{
			APIGroups:   []string{corev1.GroupName},
			APIVersions: []string{"v1"},
			Resources:   []string{"pods"},
			Scope:       new(admissionregistrationv1.NamespacedScope),
		},
	}}
}

// profilesWebhook is the entry that answers whoever writes a profile. An outage keeps nobody from it: the profile's conditions
// tell the same.
func profilesWebhook(to target) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:         profilesEntry,
		ClientConfig: to.clientConfig(profiles.PathProfiles),
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups:   []string{v1alpha1.Group},
				APIVersions: []string{v1alpha1.GroupVersion.Version},
				Resources:   []string{"patternprofiles", "clusterpatternprofiles"},
				Scope:       new(admissionregistrationv1.AllScopes),
			},
		}},
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &metav1.LabelSelector{},
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(profilesTimeout)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions:         []admissionregistrationv1.MatchCondition{{Name: "spec-changed", Expression: specChanged}},
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
