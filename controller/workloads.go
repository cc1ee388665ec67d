package controller

import (
	"cmp"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// The names of the entries for workloads.
const (
	workloadsEntry          = "workloads." + v1alpha1.Group
	workloadNamespacesEntry = "workload-namespaces." + v1alpha1.Group
)

func workloadMatchEntryName(id string) string { return "workload-match-" + id + "." + v1alpha1.Group }

// CEL over a workload of any kind. As none of that over Pods can it err: what a kind does not have is absent.
const (
	templateMetadata    = "object.?spec.?jobTemplate.?spec.?template.or(object.?spec.?template).?metadata"
	templateAnnotations = templateMetadata + ".?annotations.orValue({})"
	templateLabels      = templateMetadata + ".?labels.orValue({})"

	// Of a CronJob's Job template nothing is read, but people write there.
	jobMetadata    = "object.?spec.?jobTemplate.?metadata"
	jobAnnotations = jobMetadata + ".?annotations.orValue({})"
	jobLabels      = jobMetadata + ".?labels.orValue({})"

	injectKey = "'" + v1alpha1.InjectKey + "'"
	// few is true of what has so few elements that the API server looks at each in no time. That takes it long enough with tens of
	// thousands to give up the request, and nobody has as many who wants to be told.
	few             = ".size() <= 500 && "
	overrides       = ".exists(key, key.contains('." + v1alpha1.Group + "/'))"
	templateHasKey  = injectKey + " in " + templateAnnotations
	templateAsks    = templateAnnotations + "[" + injectKey + "].trim() != '" + v1alpha1.None + "'"
	templateNotSaid = "!(" + templateHasKey + ")"
	templateUnwoven = "!('" + v1alpha1.InjectedKey + "' in " + templateLabels + ")"
	// meansToAsk is true of what says something of profiles without the annotation that asks for them: in the wrong place, or of
	// fields of a profile that it does not ask for.
	meansToAsk = injectKey + " in " + annotations + " || " + injectKey + " in " + labels + " || " + injectKey + " in " + templateLabels +
		" || " + injectKey + " in " + jobAnnotations + " || " + injectKey + " in " + jobLabels +
		" || " + annotations + few + annotations + overrides + " || " + jobAnnotations + few + jobAnnotations + overrides +
		" || " + templateAnnotations + few + templateAnnotations + overrides
	workloadAsks = templateHasKey + " ? " + templateAsks + " : (" + meansToAsk + ")"

	// notControlled spares what a controller makes of another workload, as a ReplicaSet of a Deployment: nobody sees its warnings.
	notControlled = "!(" + owners + few + owners + ".exists(owner, owner.?controller.orValue(false)))"
	owners        = "object.metadata.?ownerReferences.orValue([])"
	// workloadChanged spares what changes nothing that Pods or warnings are made of.
	workloadChanged = specChanged + " || object.metadata.?annotations != oldObject.metadata.?annotations" +
		" || object.metadata.?labels != oldObject.metadata.?labels"
)

// compileWorkloads returns the entries by which whoever writes a workload is warned of what will become of its Pods: for the
// workloads that ask, for those in namespaces that ask for their Pods, and for those whose Pods the selections of the plan select by
// the labels of the template. A workload is sent by several of them only where no selector can tell; all answer the same, and the
// API server tells equal warnings once.
func compileWorkloads(p *profiles.Plan, to target, excluded []string) []admissionregistrationv1.ValidatingWebhook {
	outside := outsideOf(excluded)
	webhooks := []admissionregistrationv1.ValidatingWebhook{
		workloadEntry{
			name: workloadsEntry, path: profiles.WorkloadsPath(profiles.PathPods),
			namespaces: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{outside}},
			conditions: []admissionregistrationv1.MatchCondition{{Name: "asks", Expression: workloadAsks}},
		}.validating(to),
		workloadEntry{
			name: workloadNamespacesEntry, path: profiles.WorkloadsPath(profiles.PathNamespaces),
			namespaces: metav1.LabelSelector{MatchExpressions: askingNamespaces(outside)},
			conditions: asksForNothing(),
		}.validating(to),
	}
	var before []*profiles.Selection
	for _, s := range widestFirst(p.Selections) {
		if e, needed := workloadMatchEntry(s, before, outside); needed {
			webhooks = append(webhooks, e.validating(to))
		}
		before = append(before, s)
	}
	return webhooks
}

// asksForNothing are the conditions of what neither asks nor declines, nor means to.
func asksForNothing() []admissionregistrationv1.MatchCondition {
	return []admissionregistrationv1.MatchCondition{
		{Name: "has-no-annotation", Expression: templateNotSaid},
		{Name: "means-nothing", Expression: "!(" + meansToAsk + ")"},
	}
}

// widestFirst returns selections in an order in which those come late that others may cover.
func widestFirst(selections []profiles.Selection) []*profiles.Selection {
	ordered := make([]*profiles.Selection, len(selections))
	for i := range selections {
		ordered[i] = &selections[i]
	}
	narrowness := func(s *profiles.Selection) (n int) {
		if !s.Enforce {
			n += 8
		}
		if s.Inside {
			n += 4
		}
		if !isEmpty(&s.Namespaces) {
			n += 2
		}
		if !isEmpty(&s.Pods) {
			n++
		}
		return n
	}
	slices.SortStableFunc(ordered, func(a, b *profiles.Selection) int { return cmp.Compare(narrowness(a), narrowness(b)) })
	return ordered
}

func isEmpty(selector *metav1.LabelSelector) bool {
	return len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0
}

// workloadMatchEntry returns the entry of a selection, for workloads that none of the selections before it sends already, as far as
// their selectors tell. It is not needed if they send all.
func workloadMatchEntry(
	s *profiles.Selection, before []*profiles.Selection, outside metav1.LabelSelectorRequirement,
) (e workloadEntry, needed bool) {
	asked := *s
	var sent []string
	for _, other := range before {
		switch {
		case other.Inside && s.Inside:
			asked.In = slices.DeleteFunc(slices.Clone(asked.In), func(name string) bool { return slices.Contains(other.In, name) })
		case !sendsAllNamespacesOf(other, s):
		case isEmpty(&other.Pods):
			return e, false
		default:
			sent = append(sent, "!("+selectorCEL(templateLabels, &other.Pods)+")")
		}
	}
	if s.Inside && len(asked.In) == 0 {
		return e, false
	}
	e = workloadEntry{
		name: workloadMatchEntryName(s.ID()), path: profiles.WorkloadsPath(s.Path()),
		namespaces: matchEntry(&asked, outside).namespaces,
		conditions: []admissionregistrationv1.MatchCondition{{Name: "asks-for-nothing", Expression: "!(" + workloadAsks + ")"}},
	}
	if !s.Enforce {
		e.conditions = append(asksForNothing(), admissionregistrationv1.MatchCondition{Name: "not-woven", Expression: templateUnwoven})
	}
	if !isEmpty(&s.Pods) {
		e.conditions = append(e.conditions, admissionregistrationv1.MatchCondition{
			Name: "selected", Expression: selectorCEL(templateLabels, &s.Pods),
		})
	}
	if len(sent) > 0 {
		e.conditions = append(e.conditions, admissionregistrationv1.MatchCondition{
			Name: "not-sent-by-another", Expression: strings.Join(sent, " && "),
		})
	}
	return e, true
}

// sendsAllNamespacesOf tells whether the entry of one selection is for all namespaces and all workloads that the entry of another is
// for, but for the labels of templates.
func sendsAllNamespacesOf(one, another *profiles.Selection) bool {
	return !one.Inside && (one.Enforce || !another.Enforce) &&
		(isEmpty(&one.Namespaces) || !another.Inside && equality.Semantic.DeepEqual(one.Namespaces, another.Namespaces))
}

// workloadEntry is what one entry for workloads differs by from the others. None ever keeps anybody from anything.
type workloadEntry struct {
	name, path string
	namespaces metav1.LabelSelector
	conditions []admissionregistrationv1.MatchCondition
}

func (e workloadEntry) validating(to target) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name:                    e.name,
		ClientConfig:            to.clientConfig(e.path),
		Rules:                   workloadRules(),
		FailurePolicy:           new(admissionregistrationv1.Ignore),
		MatchPolicy:             new(admissionregistrationv1.Equivalent),
		NamespaceSelector:       &e.namespaces,
		ObjectSelector:          &metav1.LabelSelector{},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(ignoreTimeout)),
		AdmissionReviewVersions: []string{"v1"},
		MatchConditions: append([]admissionregistrationv1.MatchCondition{
			{Name: "not-controlled", Expression: notControlled},
			{Name: "changed", Expression: workloadChanged},
		}, e.conditions...),
	}
}

// workloadRules are of the workloads that people write. Their subresources, scale among them, are not.
func workloadRules() []admissionregistrationv1.RuleWithOperations {
	rule := func(group string, resources ...string) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources,
				Scope: new(admissionregistrationv1.NamespacedScope),
			},
		}
	}
	return []admissionregistrationv1.RuleWithOperations{
		rule(appsv1.GroupName, "deployments", "statefulsets", "daemonsets", "replicasets"),
		rule(batchv1.GroupName, "jobs", "cronjobs"),
	}
}
