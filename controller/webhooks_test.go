package controller

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

var update = flag.Bool("update", false, "write the golden files")

func TestCompiledWebhooksAreTheGoldenOnes(t *testing.T) {
	cluster := []v1alpha1.ClusterPatternProfile{
		clusterProfile("site-content", v1alpha1.FailurePolicyIgnore, "env=prod", "app=web"),
		clusterProfile("page-cache", v1alpha1.FailurePolicyFail, "env=prod", ""),
		clusterProfile("asked-for-only", v1alpha1.FailurePolicyFail, "", ""),
	}
	cluster[2].Spec.Match = nil
	cluster = append(cluster,
		enforcing(clusterProfile("audit-log", v1alpha1.FailurePolicyFail, "env=prod", "")),
		enforcing(clusterProfile("trace", v1alpha1.FailurePolicyIgnore, "env=prod", "app=web")))
	namespaced := []v1alpha1.PatternProfile{
		namespacedProfile("shop", "metrics", v1alpha1.FailurePolicyIgnore),
		namespacedProfile("blog", "metrics", v1alpha1.FailurePolicyIgnore),
		namespacedProfile("shop", "config", v1alpha1.FailurePolicyFail),
	}
	p := planOf(t, cluster, namespaced)
	checkGolden(t, "webhooks.yaml", compileWebhooks(p, service(), excluded()))
	checkGolden(t, "validations.yaml", compileValidations(p, service(), excluded()))
}

func checkGolden(t *testing.T, name string, entries any) {
	t.Helper()
	got, err := yaml.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", name, diff)
	}
}

// planOf compiles profiles and returns the plan of them.
func planOf(t *testing.T, cluster []v1alpha1.ClusterPatternProfile, namespaced []v1alpha1.PatternProfile) *profiles.Plan {
	t.Helper()
	compiler, err := profiles.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	var all []*profiles.Profile
	for i := range cluster {
		cluster[i].Spec.GitSync = gitSync()
		all = append(all, compiler.Cluster(&cluster[i]))
	}
	for i := range namespaced {
		namespaced[i].Spec.GitSync = gitSync()
		all = append(all, compiler.Namespaced(&namespaced[i]))
	}
	for _, profile := range all {
		if len(profile.Problems) > 0 {
			t.Fatalf("%s: %v", profile.Scope(), profile.Problems)
		}
	}
	return profiles.NewSnapshot(profiles.Options{ExcludedNamespaces: excluded()}, all).Plan()
}

func TestEveryEntryKeepsToTheRules(t *testing.T) {
	cluster := append(numbered("f", 8, v1alpha1.FailurePolicyFail), numbered("i", 9, v1alpha1.FailurePolicyIgnore)...)
	cluster = append(cluster,
		enforcing(clusterProfile("a", v1alpha1.FailurePolicyFail, "env=prod", "")),
		enforcing(clusterProfile("b", v1alpha1.FailurePolicyIgnore, "", "")))
	namespaced := []v1alpha1.PatternProfile{namespacedProfile("shop", "a", v1alpha1.FailurePolicyIgnore)}
	p := planOf(t, cluster, namespaced)
	rules := newRules(t)
	mutating, validating := compileWebhooks(p, service(), excluded()), compileValidations(p, service(), excluded())
	if len(mutating) != 2+8+9+2+1 || len(validating) != 1+2+3 {
		t.Fatalf("%d mutating and %d validating entries", len(mutating), len(validating))
	}
	for i := range mutating {
		webhook := &mutating[i]
		rules.check(webhook.Name, *webhook.ClientConfig.Service.Path, *webhook.FailurePolicy, *webhook.TimeoutSeconds,
			webhook.NamespaceSelector)
		rules.checkEnforcement(webhook.Name, strings.Contains(*webhook.ClientConfig.Service.Path, "/enforce/"),
			*webhook.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy, webhook.MatchConditions)
	}
	for i := range validating {
		webhook := &validating[i]
		if webhook.Name == profilesEntry {
			continue // it is not for Pods
		}
		rules.check(webhook.Name, *webhook.ClientConfig.Service.Path, *webhook.FailurePolicy, *webhook.TimeoutSeconds,
			webhook.NamespaceSelector)
		if strings.HasPrefix(webhook.Name, "workload") {
			if *webhook.FailurePolicy != admissionregistrationv1.Ignore {
				t.Errorf("%s may keep a workload from being written", webhook.Name)
			}
			continue
		}
		rules.checkEnforcement(webhook.Name, true, true, webhook.MatchConditions)
		twin := "match" + strings.TrimPrefix(webhook.Name, "verify")
		j := slices.IndexFunc(mutating, func(m admissionregistrationv1.MutatingWebhook) bool { return m.Name == twin })
		if j < 0 || !cmp.Equal(mutating[j].NamespaceSelector, webhook.NamespaceSelector) ||
			!cmp.Equal(mutating[j].ObjectSelector, webhook.ObjectSelector) || !cmp.Equal(mutating[j].Rules, webhook.Rules) {
			t.Errorf("%s is not for the Pods of %s", webhook.Name, twin)
		}
	}
}

// rules are those that every entry for Pods and workloads keeps to.
type rules struct {
	*testing.T

	names, paths map[string]bool
	wellNamed    *regexp.Regexp
}

func newRules(t *testing.T) *rules {
	t.Helper()
	return &rules{
		T: t, names: map[string]bool{}, paths: map[string]bool{},
		wellNamed: regexp.MustCompile(`^(pods|namespaces|workloads|workload-namespaces|(match|verify|workload-match)-[0-9a-f]{8})\.pillion\.dev$`),
	}
}

func (r *rules) check(
	name, path string, policy admissionregistrationv1.FailurePolicyType, timeout int32, namespaces *metav1.LabelSelector,
) {
	r.Helper()
	if !r.wellNamed.MatchString(name) || r.names[name] || r.paths[path] {
		r.Errorf("entry %s at %s is badly named or not unique", name, path)
	}
	r.names[name], r.paths[path] = true, true
	if short := strings.TrimSuffix(name, ".pillion.dev"); strings.Contains(short, "-") {
		if id := short[strings.LastIndexByte(short, '-')+1:]; !strings.HasSuffix(path, "/"+id) {
			r.Errorf("%s: path %s", name, path)
		}
	}
	if want := map[admissionregistrationv1.FailurePolicyType]int32{"Fail": 5, "Ignore": 2}[policy]; timeout != want {
		r.Errorf("%s: %d s for %s", name, timeout, policy)
	}
	exclusion := metav1.LabelSelectorRequirement{
		Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: excluded(),
	}
	if !slices.ContainsFunc(namespaces.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		return cmp.Equal(r, exclusion)
	}) {
		r.Errorf("%s: the excluded namespaces are not excluded", name)
	}
}

// checkEnforcement checks that only entries that enforce are called again, and that nothing about a Pod but that it is a mirror
// keeps it from them.
func (r *rules) checkEnforcement(name string, enforces, again bool, conditions []admissionregistrationv1.MatchCondition) {
	r.Helper()
	if again != enforces {
		r.Errorf("%s enforces: %v, is called again: %v", name, enforces, again)
	}
	if enforces != (len(conditions) == 1) || conditions[0].Name != "not-mirror" {
		r.Errorf("%s enforces: %v, has conditions %v", name, enforces, conditions)
	}
}

func TestAURLIsTheBaseOfThePaths(t *testing.T) {
	for _, base := range []string{"https://10.0.0.7:8443/base", "https://10.0.0.7:8443/base/"} {
		webhooks := compileWebhooks(&profiles.Plan{}, target{url: base, caBundle: []byte("ca")}, excluded())
		want := admissionregistrationv1.WebhookClientConfig{
			URL: new("https://10.0.0.7:8443/base/inject/pods"), CABundle: []byte("ca"),
		}
		if diff := cmp.Diff(want, webhooks[0].ClientConfig); diff != "" {
			t.Errorf("%s (-want +got):\n%s", base, diff)
		}
	}
}

func excluded() []string { return []string{"kube-system", "pillion-system"} }

func service() target {
	return target{
		service: admissionregistrationv1.ServiceReference{
			Namespace: "pillion-system", Name: "pillion-webhook", Port: new(int32(443)),
		},
		caBundle: []byte("a CA"),
	}
}

// clusterProfile has a match whose selectors are KEY=VALUE, or empty.
func clusterProfile(name string, policy v1alpha1.FailurePolicy, namespaces, pods string) v1alpha1.ClusterPatternProfile {
	profile := v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}
	profile.Spec.FailurePolicy = policy
	profile.Spec.Match = &v1alpha1.ClusterMatch{NamespaceSelector: equal(namespaces), PodSelector: equal(pods)}
	return profile
}

func equal(selector string) *metav1.LabelSelector {
	key, value, ok := strings.Cut(selector, "=")
	if !ok {
		return nil
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func withoutMatch(profile v1alpha1.ClusterPatternProfile) v1alpha1.ClusterPatternProfile {
	profile.Spec.Match = nil
	return profile
}

func enforcing(profile v1alpha1.ClusterPatternProfile) v1alpha1.ClusterPatternProfile {
	profile.Spec.Match.Enforce = true
	return profile
}

// numbered returns profiles with different matches, the one numbered 00 the oldest.
func numbered(prefix string, n int, policy v1alpha1.FailurePolicy) []v1alpha1.ClusterPatternProfile {
	var out []v1alpha1.ClusterPatternProfile
	for i := range n {
		profile := clusterProfile(fmt.Sprintf("%s%02d", prefix, i), policy, fmt.Sprintf("n=%02d", i), "")
		profile.CreationTimestamp = metav1.NewTime(time.Unix(int64(i/2), 0)) // two of an age: the name decides
		out = append(out, profile)
	}
	return out
}

func namespacedProfile(namespace, name string, policy v1alpha1.FailurePolicy) v1alpha1.PatternProfile {
	profile := v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	profile.Spec.FailurePolicy = policy
	profile.Spec.Match = &v1alpha1.PodMatch{PodSelector: equal("app=web")}
	return profile
}
