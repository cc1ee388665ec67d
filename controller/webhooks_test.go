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
)

var update = flag.Bool("update", false, "write the golden files")

func TestCompiledWebhooksAreTheGoldenOnes(t *testing.T) {
	cluster := []v1alpha1.ClusterPatternProfile{
		clusterProfile("site-content", v1alpha1.FailurePolicyIgnore, "env=prod", "app=web"),
		clusterProfile("page-cache", v1alpha1.FailurePolicyFail, "env=prod", ""),
		clusterProfile("asked-for-only", v1alpha1.FailurePolicyFail, "", ""),
	}
	cluster[2].Spec.Match = nil
	namespaced := []v1alpha1.PatternProfile{
		namespacedProfile("shop", "metrics", v1alpha1.FailurePolicyIgnore),
		namespacedProfile("blog", "metrics", v1alpha1.FailurePolicyIgnore),
		namespacedProfile("shop", "config", v1alpha1.FailurePolicyFail),
	}
	got, err := yaml.Marshal(compileWebhooks(planSelections(cluster, namespaced, excluded()), service(), excluded()))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "webhooks.yaml")
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
		t.Errorf("(-want +got; -update writes it):\n%s", diff)
	}
}

func TestEntries(t *testing.T) {
	const ignore, fail = v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail
	tests := map[string]struct {
		cluster    []v1alpha1.ClusterPatternProfile
		namespaced []v1alpha1.PatternProfile
		// want are the match entries in order: policy, what they select beyond what all do, and the profiles they serve.
		want []string
		// wantRefused are profiles with the reason for which their match has no entry.
		wantRefused map[string]string
	}{
		"without profiles there is no match entry": {},
		"a profile without match has none": {
			cluster: []v1alpha1.ClusterPatternProfile{withoutMatch(clusterProfile("a", ignore, "", ""))},
		},
		"a match without selectors selects all": {
			cluster: []v1alpha1.ClusterPatternProfile{clusterProfile("a", ignore, "", "")},
			want:    []string{"Ignore ns[] pods[]: a"},
		},
		"equal matches of one policy share an entry": {
			cluster: []v1alpha1.ClusterPatternProfile{
				clusterProfile("a", ignore, "env=prod", "app=web"), clusterProfile("b", ignore, "env=prod", "app=web"),
			},
			want: []string{"Ignore ns[env=prod] pods[app=web]: a b"},
		},
		"matches that differ in the order of their parts are equal": {
			cluster: []v1alpha1.ClusterPatternProfile{
				withExpressions("a", "env in (b,a,a)", "team in (x)"), withExpressions("b", "team in (x)", "env in (a,b)"),
			},
			want: []string{"Ignore ns[env in (a,b),team in (x)] pods[]: a b"},
		},
		"an absent policy is Ignore": {
			cluster: []v1alpha1.ClusterPatternProfile{
				clusterProfile("a", "", "env=prod", ""), clusterProfile("b", ignore, "env=prod", ""),
			},
			want: []string{"Ignore ns[env=prod] pods[]: a b"},
		},
		"equal matches of two policies do not share, and Fail comes first": {
			cluster: []v1alpha1.ClusterPatternProfile{
				clusterProfile("a", ignore, "env=prod", ""), clusterProfile("b", fail, "env=prod", ""),
			},
			want: []string{"Fail ns[env=prod] pods[]: b", "Ignore ns[env=prod] pods[]: a"},
		},
		"namespaced profiles share an entry for each policy": {
			namespaced: []v1alpha1.PatternProfile{
				namespacedProfile("shop", "a", ignore), namespacedProfile("blog", "a", ignore),
				namespacedProfile("shop", "b", ignore), namespacedProfile("shop", "c", fail),
			},
			want: []string{"Fail inside[shop]", "Ignore inside[blog shop]"},
		},
		"namespaced profiles in excluded namespaces have no part in it": {
			namespaced: []v1alpha1.PatternProfile{
				namespacedProfile("kube-system", "a", fail), namespacedProfile("pillion-system", "a", ignore),
			},
		},
		"ten Ignore matches have ten entries": {
			cluster: numbered(10, ignore),
			want: sortedByID(10, ignore, func(i int) string {
				return fmt.Sprintf("Ignore ns[n=%02d] pods[]: p%02d", i, i)
			}),
		},
		"eleven Ignore matches share one that selects all": {
			cluster: numbered(11, ignore),
			want:    []string{"Ignore ns[] pods[]: p00 p01 p02 p03 p04 p05 p06 p07 p08 p09 p10"},
		},
		"the Fail matches beyond ten are refused, the youngest first": {
			cluster: numbered(12, fail),
			want: sortedByID(10, fail, func(i int) string {
				return fmt.Sprintf("Fail ns[n=%02d] pods[]: p%02d", i, i)
			}),
			wantRefused: map[string]string{"p10": ReasonTooManySelections, "p11": ReasonTooManySelections},
		},
		"a Fail match beyond ten that equals one of them shares its entry": {
			cluster: append(numbered(10, fail), youngest(clusterProfile("z", fail, "n=09", ""))),
			want: sortedByID(10, fail, func(i int) string {
				return fmt.Sprintf("Fail ns[n=%02d] pods[]: p%02d", i, i) + map[bool]string{true: " z"}[i == 9]
			}),
		},
		"many Ignore matches leave Fail ones alone": {
			cluster: append(numbered(11, ignore), clusterProfile("z", fail, "env=prod", "")),
			want: []string{
				"Fail ns[env=prod] pods[]: z", "Ignore ns[] pods[]: p00 p01 p02 p03 p04 p05 p06 p07 p08 p09 p10",
			},
		},
		"a Fail match of every namespace is refused": {
			cluster:     []v1alpha1.ClusterPatternProfile{clusterProfile("a", fail, "", "app=web")},
			wantRefused: map[string]string{"a": ReasonInvalidSelector},
		},
		"a selector that the API server would refuse keeps no other out": {
			cluster: []v1alpha1.ClusterPatternProfile{
				withExpressions("a", "env in ()"), withExpressions("b", "env Sometimes ()"),
				clusterProfile("c", ignore, "bad key=x", ""), clusterProfile("d", ignore, "", "app=bad value"),
				clusterProfile("e", ignore, "env=prod", ""),
			},
			want: []string{"Ignore ns[env=prod] pods[]: e"},
			wantRefused: map[string]string{
				"a": ReasonInvalidSelector, "b": ReasonInvalidSelector, "c": ReasonInvalidSelector, "d": ReasonInvalidSelector,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, order := range []string{"as given", "reversed"} {
				if order == "reversed" {
					slices.Reverse(test.cluster)
					slices.Reverse(test.namespaced)
				}
				p := planSelections(test.cluster, test.namespaced, excluded())
				if diff := cmp.Diff(test.want, describe(p)); diff != "" {
					t.Errorf("%s: entries (-want +got):\n%s", order, diff)
				}
				var refused map[string]string
				for name, refusal := range p.refused {
					if refused == nil {
						refused = map[string]string{}
					}
					refused[name] = refusal.reason
				}
				if diff := cmp.Diff(test.wantRefused, refused); diff != "" {
					t.Errorf("%s: refused (-want +got):\n%s", order, diff)
				}
			}
		})
	}
}

func TestEveryEntryKeepsToTheRules(t *testing.T) {
	cluster := append(numbered(12, v1alpha1.FailurePolicyFail), numbered(9, v1alpha1.FailurePolicyIgnore)...)
	namespaced := []v1alpha1.PatternProfile{namespacedProfile("shop", "a", v1alpha1.FailurePolicyIgnore)}
	webhooks := compileWebhooks(planSelections(cluster, namespaced, excluded()), service(), excluded())
	if got, want := len(webhooks), 2+10+9+1; got != want {
		t.Fatalf("%d entries, want %d", got, want)
	}
	names, paths := map[string]bool{}, map[string]bool{}
	wellNamed := regexp.MustCompile(`^(pods|namespaces|match-[0-9a-f]{8})\.pillion\.dev$`)
	for _, webhook := range webhooks {
		path := *webhook.ClientConfig.Service.Path
		if !wellNamed.MatchString(webhook.Name) || names[webhook.Name] || paths[path] {
			t.Errorf("entry %s at %s is badly named or not unique", webhook.Name, path)
		}
		names[webhook.Name], paths[path] = true, true
		short := strings.TrimSuffix(webhook.Name, ".pillion.dev")
		// A selection that chooses exactly has another path than one that only may.
		want, may := "/inject/"+strings.Replace(short, "match-", "match/", 1), "/inject/"+strings.Replace(short, "match-", "any/", 1)
		if path != want && path != may {
			t.Errorf("%s: path %s, want %s or %s", webhook.Name, path, want, may)
		}
		timeout := map[admissionregistrationv1.FailurePolicyType]int32{"Fail": 5, "Ignore": 2}[*webhook.FailurePolicy]
		if *webhook.TimeoutSeconds != timeout {
			t.Errorf("%s: %d s for %s", webhook.Name, *webhook.TimeoutSeconds, *webhook.FailurePolicy)
		}
		exclusion := metav1.LabelSelectorRequirement{
			Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn, Values: excluded(),
		}
		if !slices.ContainsFunc(webhook.NamespaceSelector.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return cmp.Equal(r, exclusion)
		}) {
			t.Errorf("%s: the excluded namespaces are not excluded", webhook.Name)
		}
	}
}

func TestAURLIsTheBaseOfThePaths(t *testing.T) {
	for _, base := range []string{"https://10.0.0.7:8443/base", "https://10.0.0.7:8443/base/"} {
		webhooks := compileWebhooks(plan{}, target{url: base, caBundle: []byte("ca")}, excluded())
		want := admissionregistrationv1.WebhookClientConfig{
			URL: new("https://10.0.0.7:8443/base/inject/pods"), CABundle: []byte("ca"),
		}
		if diff := cmp.Diff(want, webhooks[0].ClientConfig); diff != "" {
			t.Errorf("%s (-want +got):\n%s", base, diff)
		}
	}
}

func TestPlanningChangesNoProfile(t *testing.T) {
	profiles := []v1alpha1.ClusterPatternProfile{withExpressions("a", "env in (b,a,a)", "app in (x)")}
	before := profiles[0].DeepCopy()
	compileWebhooks(planSelections(profiles, nil, excluded()), service(), excluded())
	if diff := cmp.Diff(*before, profiles[0]); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
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

// withExpressions has a match of namespaces by expressions "KEY in (A,B)".
func withExpressions(name string, expressions ...string) v1alpha1.ClusterPatternProfile {
	profile := clusterProfile(name, v1alpha1.FailurePolicyIgnore, "", "")
	profile.Spec.Match.NamespaceSelector = &metav1.LabelSelector{}
	for _, expression := range expressions {
		parts := strings.Fields(expression)
		operator := metav1.LabelSelectorOperator(parts[1])
		if operator == "in" {
			operator = metav1.LabelSelectorOpIn
		}
		var values []string
		if list := strings.Trim(parts[2], "()"); list != "" {
			values = strings.Split(list, ",")
		}
		profile.Spec.Match.NamespaceSelector.MatchExpressions = append(profile.Spec.Match.NamespaceSelector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: parts[0], Operator: operator, Values: values})
	}
	return profile
}

// numbered returns profiles with different matches, p00 the oldest.
func numbered(n int, policy v1alpha1.FailurePolicy) []v1alpha1.ClusterPatternProfile {
	var out []v1alpha1.ClusterPatternProfile
	for i := range n {
		profile := clusterProfile(fmt.Sprintf("p%02d", i), policy, fmt.Sprintf("n=%02d", i), "")
		profile.CreationTimestamp = metav1.NewTime(time.Unix(int64(i/2), 0)) // two of an age: the name decides
		out = append(out, profile)
	}
	return out
}

func youngest(profile v1alpha1.ClusterPatternProfile) v1alpha1.ClusterPatternProfile {
	profile.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	return profile
}

// sortedByID returns the descriptions of the first n numbered profiles' entries in the order of their ids.
func sortedByID(n int, policy v1alpha1.FailurePolicy, description func(int) string) []string {
	byID := map[string]string{}
	var ids []string
	for i := range n {
		s := selection{Policy: policy, Namespaces: *equal(fmt.Sprintf("n=%02d", i))}
		ids = append(ids, s.id())
		byID[s.id()] = description(i)
	}
	slices.Sort(ids)
	var out []string
	for _, id := range ids {
		out = append(out, byID[id])
	}
	return out
}

func namespacedProfile(namespace, name string, policy v1alpha1.FailurePolicy) v1alpha1.PatternProfile {
	profile := v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	profile.Spec.FailurePolicy = policy
	profile.Spec.Match = &v1alpha1.PodMatch{PodSelector: equal("app=web")}
	return profile
}

// describe returns a line for each selection of a plan.
func describe(p plan) []string {
	var lines []string
	for i := range p.selections {
		s := &p.selections[i]
		if s.Inside {
			lines = append(lines, fmt.Sprintf("%s inside%v", s.Policy, s.in))
			continue
		}
		var served []string
		for profile, id := range p.cluster {
			if id == s.id() {
				served = append(served, profile)
			}
		}
		slices.Sort(served)
		lines = append(lines, fmt.Sprintf("%s ns[%s] pods[%s]: %s",
			s.Policy, text(s.Namespaces), text(s.Pods), strings.Join(served, " ")))
	}
	return lines
}

func text(selector metav1.LabelSelector) string {
	var parts []string
	for key, value := range selector.MatchLabels {
		parts = append(parts, key+"="+value)
	}
	for _, expression := range selector.MatchExpressions {
		parts = append(parts, fmt.Sprintf("%s in (%s)", expression.Key, strings.Join(expression.Values, ",")))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
