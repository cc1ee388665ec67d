package profiles

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// PodSecurityMode says what becomes of a profile that adds what the namespace's Pod Security Standard does not allow.
type PodSecurityMode string

// The modes.
const (
	// PodSecurityDeny refuses the profile.
	PodSecurityDeny PodSecurityMode = "Deny"
	// PodSecurityWarn weaves it, and tells whoever creates the Pod.
	PodSecurityWarn PodSecurityMode = "Warn"
)

// PodSecurity is how what is added is held to the Pod Security Standards. The zero value is what a cluster without a
// configuration of its own does: namespaces enforce what their labels say, and nothing without them.
type PodSecurity struct {
	// Mode is PodSecurityDeny where it is empty.
	Mode PodSecurityMode

	// Enforce and EnforceVersion are what the API server enforces in namespaces without labels of their own. Empty: "privileged"
	// and "latest". What is neither a level nor a version counts as "restricted" and "latest", as in a namespace's label.
	Enforce, EnforceVersion string

	// ExemptUsernames, ExemptNamespaces and ExemptRuntimeClasses are those for whom the API server enforces nothing.
	ExemptUsernames, ExemptNamespaces, ExemptRuntimeClasses []string
}

// podSecurity finds what Fragments add that Pod Security does not allow.
type podSecurity struct {
	options  PodSecurity
	defaults api.Policy
}

func newPodSecurity(options PodSecurity) *podSecurity {
	s := &podSecurity{options: options}
	// An error comes with the strictest of levels and versions.
	s.defaults.Enforce.Level, _ = api.ParseLevel(cmp.Or(options.Enforce, string(api.LevelPrivileged)))
	s.defaults.Enforce.Version, _ = api.ParseVersion(cmp.Or(options.EnforceVersion, api.VersionLatest))
	return s
}

// securityChecks are the checks that the API server makes. They are the same for all, and take a while to sort by version.
var securityChecks = sync.OnceValues(func() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks(), nil)
})

// evaluate returns what each of the level's checks says of a Pod, always in the same order.
func evaluate(level api.LevelVersion, pod *corev1.Pod) []policy.CheckResult {
	checks, err := securityChecks()
	if err != nil { // a test finds it: the checks are part of the library
		return []policy.CheckResult{{ForbiddenReason: "the checks cannot be made", ForbiddenDetail: err.Error()}}
	}
	return checks.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec)
}

// level returns the level and version that are enforced on a Pod; false if nothing is. A label that cannot be read enforces the
// strictest, as it does for the API server.
func (s *podSecurity) level(namespace Namespace, username string, pod *corev1.Pod) (api.LevelVersion, bool) {
	enforced, _ := api.PolicyToEvaluate(namespace.Labels, s.defaults)
	level := enforced.Enforce
	if level.Level == api.LevelPrivileged || slices.Contains(s.options.ExemptNamespaces, namespace.Name) ||
		slices.Contains(s.options.ExemptUsernames, username) {
		return level, false
	}
	class := pod.Spec.RuntimeClassName
	return level, class == nil || !slices.Contains(s.options.ExemptRuntimeClasses, *class)
}

// fragmentViolations returns what a Fragment would violate in a Pod that settles nothing for its containers, in the words of the
// checks. It depends on no Pod and can be remembered. Weaving can add no other violations than these: the checks look at
// containers, volumes and annotations one by one, and at settings of the Pod itself, which no Fragment changes. Where there are
// some, violations tells which of them a Pod's own settings (runAsNonRoot, seccompProfile, hostUsers) allow.
func (s *podSecurity) fragmentViolations(level api.LevelVersion, fragment *weave.Fragment) []string {
	var found []string
	for _, result := range evaluate(level, withFragment(&corev1.Pod{}, fragment)) {
		if !result.Allowed {
			found = append(found, inWords(&result))
		}
	}
	return found
}

// violations returns what weaving a Fragment into a Pod adds that the namespace does not allow: what is wrong with the woven Pod,
// less what is wrong with the Pod itself. A check that the Pod fails already counts if the Fragment adds to it.
func (s *podSecurity) violations(namespace Namespace, username string, pod *corev1.Pod, fragment *weave.Fragment) []string {
	level, applies := s.level(namespace, username, pod)
	if !applies {
		return nil
	}
	alone := evaluate(level, withFragment(&corev1.Pod{}, fragment))
	if !slices.ContainsFunc(alone, func(result policy.CheckResult) bool { return !result.Allowed }) {
		return nil
	}
	before, woven := evaluate(level, pod), evaluate(level, withFragment(pod, fragment))
	var added []string
	for i := range alone {
		if !alone[i].Allowed && !woven[i].Allowed && woven[i] != before[i] {
			added = append(added, inWords(&alone[i]))
		}
	}
	return added
}

// withFragment returns a Pod with what the checks see of a Fragment. Where in the Pod it stands is the same to them.
func withFragment(pod *corev1.Pod, fragment *weave.Fragment) *corev1.Pod {
	woven := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec}
	if len(fragment.Annotations) > 0 {
		woven.Annotations = maps.Clone(fragment.Annotations)
		maps.Copy(woven.Annotations, pod.Annotations)
	}
	woven.Spec.InitContainers = slices.Concat(pod.Spec.InitContainers, fragment.InitContainers)
	woven.Spec.Containers = slices.Concat(pod.Spec.Containers, fragment.Containers)
	woven.Spec.Volumes = slices.Concat(pod.Spec.Volumes, fragment.Volumes)
	return woven
}

// inWords says what a check says, as the API server words it.
func inWords(result *policy.CheckResult) string {
	aggregate := policy.AggregateCheckResults([]policy.CheckResult{*result})
	return aggregate.ForbiddenDetail()
}

// RestrictedViolations says why the Pod Security Standard "restricted", in its newest version, does not allow what a profile adds
// by default. known is false if that depends on the Pod or on what it gives: an ordinary Pod may show a violation, but none that it
// has shows that others have none either.
func RestrictedViolations(profile *Profile) (violations []string, known bool) {
	fragment, known := profile.example()
	if !known {
		return nil, false
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	violations = newPodSecurity(PodSecurity{}).fragmentViolations(level, &fragment)
	if len(violations) == 0 && profile.custom != nil && profile.custom.ReadsPod() {
		return nil, false
	}
	return violations, true
}

// example returns what a profile adds by default to an ordinary Pod, which gives an ordinary value for what the profile leaves to it;
// false if it takes a certain Pod, or something that cannot be made up.
func (p *Profile) example() (weave.Fragment, bool) {
	if p == nil || p.Pattern == nil {
		return weave.Fragment{}, false
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "default", Labels: map[string]string{"app": "app"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	request := &Request{Namespace: Namespace{Name: cmp.Or(p.Namespace, "default")}, Pod: pod}
	d := decider{
		snapshot: &Snapshot{options: Options{Images: injectors.DefaultImages("")}, memory: newMemory()}, request: request,
		namespace: request.Namespace, pod: pod, bare: pod, hardening: injectors.HardeningFor(pod), shared: newShared(),
	}
	c := &candidate{profile: p}
	if c.effectiveSpec, c.problems = p.effective(p.ordinary()); len(c.problems) > 0 {
		return weave.Fragment{}, false
	}
	what := d.build(c, nil)
	return what.fragment, len(what.problems) == 0
}
