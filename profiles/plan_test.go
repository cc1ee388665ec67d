package profiles

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func TestPlan(t *testing.T) {
	const ignore, fail = v1alpha1.FailurePolicyIgnore, v1alpha1.FailurePolicyFail
	tests := map[string]struct {
		profiles []*Profile
		// want are the selections in order: policy, what they select, and the profiles they serve.
		want []string
		// wantRefused are the profiles whose match has no selection.
		wantRefused []string
	}{
		"without profiles there is no selection": {},
		"a profile without match has none":       {profiles: []*Profile{{Name: "a"}}},
		"a match without selectors selects all": {
			profiles: []*Profile{planned("a", ignore, "", "")},
			want:     []string{"Ignore ns[] pods[]: a"},
		},
		"equal matches of one policy share a selection": {
			profiles: []*Profile{planned("a", ignore, "env=prod", "app=web"), planned("b", ignore, "env=prod", "app=web")},
			want:     []string{"Ignore ns[env=prod] pods[app=web]: a b"},
		},
		"matches that differ in the order of their parts are equal": {
			profiles: []*Profile{
				plannedBy("a", "env in (b,a,a)", "team in (x)"), plannedBy("b", "team in (x)", "env in (a,b)"),
			},
			want: []string{"Ignore ns[env in (a,b),team in (x)] pods[]: a b"},
		},
		"an absent policy is Ignore": {
			profiles: []*Profile{planned("a", "", "env=prod", ""), planned("b", ignore, "env=prod", "")},
			want:     []string{"Ignore ns[env=prod] pods[]: a b"},
		},
		"equal matches of two policies do not share, and Fail comes first": {
			profiles: []*Profile{planned("a", ignore, "env=prod", ""), planned("b", fail, "env=prod", "")},
			want:     []string{"Fail ns[env=prod] pods[]: b", "Ignore ns[env=prod] pods[]: a"},
		},
		"equal matches that enforce and that do not do not share, and those that enforce come first": {
			profiles: []*Profile{
				planned("a", ignore, "env=prod", ""), enforcing(planned("b", ignore, "env=prod", "")),
				planned("c", fail, "env=prod", ""), enforcing(planned("d", fail, "env=prod", "")),
			},
			want: []string{
				"Fail enforcing ns[env=prod] pods[]: d", "Fail ns[env=prod] pods[]: c",
				"Ignore enforcing ns[env=prod] pods[]: b", "Ignore ns[env=prod] pods[]: a",
			},
		},
		"namespaced profiles share a selection for each policy, behind those of the cluster": {
			profiles: []*Profile{
				plannedIn("shop", "a", ignore), plannedIn("blog", "a", ignore), plannedIn("shop", "b", ignore),
				plannedIn("shop", "c", fail), planned("d", ignore, "env=prod", ""), planned("e", fail, "env=prod", ""),
			},
			want: []string{
				"Fail ns[env=prod] pods[]: e", "Fail inside[shop]: shop/c",
				"Ignore ns[env=prod] pods[]: d", "Ignore inside[blog shop]: blog/a shop/a shop/b",
			},
		},
		"namespaced profiles in excluded namespaces have no part in it": {
			profiles: []*Profile{plannedIn("kube-system", "a", fail), plannedIn("pillion-system", "a", ignore)},
		},
		"a deleted profile has none": {
			profiles: []*Profile{{Name: "a", Deleted: true, FailurePolicy: fail}},
		},
		"ten Ignore matches have ten selections": {
			profiles: plannedMany("p", 10, ignore, false),
			want:     inOrder(plannedMany("p", 10, ignore, false)),
		},
		"eleven Ignore matches share one that selects all": {
			profiles: plannedMany("p", 11, ignore, false),
			want:     []string{"Ignore wide ns[] pods[]: p00 p01 p02 p03 p04 p05 p06 p07 p08 p09 p10"},
		},
		"two Ignore matches that enforce have two selections": {
			profiles: plannedMany("p", 2, ignore, true),
			want:     inOrder(plannedMany("p", 2, ignore, true)),
		},
		"three Ignore matches that enforce share one that selects all, and leave others alone": {
			profiles: append(plannedMany("p", 3, ignore, true), planned("z", ignore, "env=prod", "")),
			want:     []string{"Ignore enforcing wide ns[] pods[]: p00 p01 p02", "Ignore ns[env=prod] pods[]: z"},
		},
		"eleven Ignore matches leave one that enforces alone": {
			profiles: append(plannedMany("p", 11, ignore, false), enforcing(planned("z", ignore, "env=prod", ""))),
			want: []string{
				"Ignore enforcing ns[env=prod] pods[]: z", "Ignore wide ns[] pods[]: p00 p01 p02 p03 p04 p05 p06 p07 p08 p09 p10",
			},
		},
		"a wide selection is that of a match of all Pods": {
			profiles: append(plannedMany("p", 10, ignore, false), planned("z", ignore, "", "")),
			want:     []string{"Ignore wide ns[] pods[]: p00 p01 p02 p03 p04 p05 p06 p07 p08 p09 z"},
		},
		"the Fail matches beyond ten are refused, the youngest first": {
			profiles:    plannedMany("p", 12, fail, false),
			want:        inOrder(plannedMany("p", 10, fail, false)),
			wantRefused: []string{"p10", "p11"},
		},
		"Fail matches are counted whether they enforce or not": {
			profiles: append(plannedMany("p", 9, fail, false),
				aged(100, enforcing(planned("x", fail, "env=x", ""))), aged(101, enforcing(planned("y", fail, "env=y", ""))),
				aged(102, planned("z", fail, "env=z", ""))),
			want: append([]string{"Fail enforcing ns[env=x] pods[]: x"},
				inOrder(plannedMany("p", 9, fail, false))...),
			wantRefused: []string{"y", "z"},
		},
		"a Fail match beyond ten that equals one of them shares its selection": {
			profiles: append(plannedMany("p", 10, fail, false), aged(1000, planned("z", fail, "n=09", ""))),
			want: replaced(inOrder(plannedMany("p", 10, fail, false)),
				"Fail ns[n=09] pods[]: p09", "Fail ns[n=09] pods[]: p09 z"),
		},
		"tenants' matches take nothing from the cluster's": {
			profiles: append(append(plannedMany("p", 10, fail, false), enforcing(planned("z", ignore, "env=prod", ""))),
				plannedIn("shop", "a", fail), plannedIn("blog", "b", fail), plannedIn("shop", "c", ignore)),
			want: append(inOrder(plannedMany("p", 10, fail, false)), "Fail inside[blog shop]: blog/b shop/a",
				"Ignore enforcing ns[env=prod] pods[]: z", "Ignore inside[shop]: shop/c"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, order := range []string{"as given", "reversed"} {
				if order == "reversed" {
					slices.Reverse(test.profiles)
				}
				plan := NewPlan(test.profiles, []string{"kube-system", "pillion-system"})
				if diff := cmp.Diff(test.want, describePlan(plan, test.profiles)); diff != "" {
					t.Errorf("%s: selections (-want +got):\n%s", order, diff)
				}
				if diff := cmp.Diff(test.wantRefused, refusedBy(t, plan, test.profiles)); diff != "" {
					t.Errorf("%s: refused (-want +got):\n%s", order, diff)
				}
			}
		})
	}
}

func TestASelectionsPathSaysWhatItIsFor(t *testing.T) {
	tests := map[string]struct {
		selection Selection
		want      string
	}{
		"a narrow one chooses exactly":    {selection: Selection{Pods: *labeledWith("app=web")}, want: PathMatch},
		"one of all Pods only may":        {selection: Selection{Wide: true}, want: PathAny},
		"one of a namespace only may":     {selection: Selection{Inside: true, In: []string{"shop"}}, want: PathAny},
		"one that enforces":               {selection: Selection{Enforce: true, Pods: *labeledWith("app=web")}, want: PathEnforce},
		"one of all Pods that enforces":   {selection: Selection{Enforce: true, Wide: true}, want: PathEnforce},
		"one of a match of all, narrowly": {selection: Selection{}, want: PathAny},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, want := test.selection.Path(), test.want+test.selection.ID(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func TestASelectionKeepsItsNameWhileNamespacesComeAndGo(t *testing.T) {
	one, other := Selection{Inside: true, In: []string{"shop"}}, Selection{Inside: true, In: []string{"blog", "shop"}}
	if one.ID() != other.ID() {
		t.Errorf("%s and %s", one.ID(), other.ID())
	}
}

func TestPlanningChangesNoProfile(t *testing.T) {
	profile := plannedBy("a", "env in (b,a,a)", "app in (x)")
	before := profile.match.namespaceSelector.DeepCopy()
	plan := NewPlan([]*Profile{profile}, nil)
	plan.Selections[0].Namespaces.MatchExpressions[0].Values[0] = "changed"
	if diff := cmp.Diff(before, profile.match.namespaceSelector); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func BenchmarkPlanOf1000Profiles(b *testing.B) {
	all := plannedMany("p", 1000, v1alpha1.FailurePolicyIgnore, false)
	for _, profile := range all {
		profile.match.selection = new(newSelection(profile.FailurePolicy, profile.match)) // as compiled
	}
	b.ReportAllocs()
	for b.Loop() {
		NewPlan(all, nil)
	}
}

// planned returns a ClusterPatternProfile with a match whose selectors are KEY=VALUE, or empty.
func planned(name string, policy v1alpha1.FailurePolicy, namespaces, pods string) *Profile {
	return &Profile{Name: name, FailurePolicy: policy, match: &match{
		namespaceSelector: labeledWith(namespaces), podSelector: labeledWith(pods),
	}}
}

func labeledWith(selector string) *metav1.LabelSelector {
	key, value, ok := strings.Cut(selector, "=")
	if !ok {
		return nil
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func enforcing(profile *Profile) *Profile {
	profile.match.enforce = true
	return profile
}

func aged(seconds int64, profile *Profile) *Profile {
	profile.Created = metav1.NewTime(time.Unix(seconds, 0))
	return profile
}

func plannedIn(namespace, name string, policy v1alpha1.FailurePolicy) *Profile {
	profile := planned(name, policy, "", "app=web")
	profile.Namespace = namespace
	return profile
}

// plannedBy has a match of namespaces by expressions "KEY in (A,B)".
func plannedBy(name string, expressions ...string) *Profile {
	profile := planned(name, v1alpha1.FailurePolicyIgnore, "", "")
	profile.match.namespaceSelector = &metav1.LabelSelector{}
	for _, expression := range expressions {
		key, list, _ := strings.Cut(expression, " in ")
		profile.match.namespaceSelector.MatchExpressions = append(profile.match.namespaceSelector.MatchExpressions,
			metav1.LabelSelectorRequirement{
				Key: key, Operator: metav1.LabelSelectorOpIn, Values: strings.Split(strings.Trim(list, "()"), ","),
			})
	}
	return profile
}

// plannedMany returns profiles with different matches, the one numbered 00 the oldest.
func plannedMany(prefix string, n int, policy v1alpha1.FailurePolicy, enforce bool) []*Profile {
	var out []*Profile
	for i := range n {
		profile := planned(fmt.Sprintf("%s%02d", prefix, i), policy, fmt.Sprintf("n=%02d", i), "")
		profile.match.enforce = enforce
		out = append(out, aged(int64(i/2), profile)) // two of an age: the name decides
	}
	return out
}

// inOrder returns the descriptions of the selections of profiles that have one each, in the order of their ids.
func inOrder(profiles []*Profile) []string {
	byID := map[string]string{}
	var ids []string
	for _, profile := range profiles {
		s := newSelection(profile.FailurePolicy, profile.match)
		ids = append(ids, s.ID())
		byID[s.ID()] = describeSelection(&s) + ": " + profile.Name
	}
	slices.Sort(ids)
	var out []string
	for _, id := range ids {
		out = append(out, byID[id])
	}
	return out
}

func replaced(lines []string, old, by string) []string {
	for i := range lines {
		if lines[i] == old {
			lines[i] = by
		}
	}
	return lines
}

// describePlan returns a line for each selection of a plan.
func describePlan(plan *Plan, profiles []*Profile) []string {
	var lines []string
	for i := range plan.Selections {
		s := &plan.Selections[i]
		var served []string
		for _, profile := range profiles {
			if of, _ := plan.Of(profile); of == s {
				served = append(served, strings.TrimPrefix(profile.Namespace+"/"+profile.Name, "/"))
			}
		}
		slices.Sort(served)
		lines = append(lines, describeSelection(s)+": "+strings.Join(served, " "))
	}
	return lines
}

func describeSelection(s *Selection) string {
	line := string(s.Policy)
	if s.Enforce {
		line += " enforcing"
	}
	if s.Wide {
		line += " wide"
	}
	if s.Inside {
		return fmt.Sprintf("%s inside%v", line, s.In)
	}
	return fmt.Sprintf("%s ns[%s] pods[%s]", line, describeSelector(s.Namespaces), describeSelector(s.Pods))
}

func describeSelector(selector metav1.LabelSelector) string {
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

// refusedBy returns the names of the profiles that a plan refuses.
func refusedBy(t *testing.T, plan *Plan, profiles []*Profile) []string {
	t.Helper()
	var names []string
	for _, profile := range profiles {
		selection, refusal := plan.Of(profile)
		if refusal != nil {
			names = append(names, profile.Name)
		}
		if refusal != nil && (selection != nil || refusal.Reason != ReasonTooManySelections || refusal.Message == "") {
			t.Errorf("%s is refused with %+v and has selection %v", profile.Name, refusal, selection)
		}
	}
	slices.Sort(names)
	return names
}
