package profiles

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"pgregory.net/rapid"
)

// The index is an optimization: it finds what asking every profile finds.
func TestIndexFindsWhatAskingEveryProfileFinds(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) { found += checkIndex(t) })
	if found == 0 {
		t.Error("no generated profile matches anything")
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { checkIndex(t) }))
}

func checkIndex(t *rapid.T) int {
	var profiles []*Profile
	for i := range rapid.IntRange(0, 12).Draw(t, "profiles") {
		profiles = append(profiles, &Profile{Name: string(rune('a' + i)), match: drawMatch(t)})
	}
	namespaceLabels, podLabels := drawLabels(t, "namespace"), drawLabels(t, "pod")

	var want []string
	for _, profile := range profiles {
		if profile.match.matches(namespaceLabels, podLabels) {
			want = append(want, profile.Name)
		}
	}
	index := newMatchIndex(profiles)
	var got []string
	for _, profile := range index.matching(namespaceLabels, podLabels) {
		got = append(got, profile.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the index finds other profiles than a scan:\n%s", diff)
	}
	return len(want)
}

func drawMatch(t *rapid.T) *match {
	m := &match{}
	if rapid.Bool().Draw(t, "selects namespaces") {
		m.namespaces = drawSelector(t)
	}
	if rapid.Bool().Draw(t, "selects pods") {
		m.pods = drawSelector(t)
	}
	m.namespaceRequirements, m.podRequirements = requirements(m.namespaces), requirements(m.pods)
	return m
}

func drawSelector(t *rapid.T) labels.Selector {
	selector := labels.NewSelector()
	for range rapid.IntRange(0, 3).Draw(t, "requirements") {
		operator := rapid.SampledFrom([]selection.Operator{
			selection.In, selection.NotIn, selection.Exists, selection.DoesNotExist, selection.Equals, selection.GreaterThan,
			selection.LessThan,
		}).Draw(t, "operator")
		var values []string
		switch operator {
		case selection.In, selection.NotIn:
			values = rapid.SliceOfN(rapid.SampledFrom([]string{"", "1", "2", "3"}), 1, 3).Draw(t, "values")
		case selection.Equals:
			values = []string{rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value")}
		case selection.GreaterThan, selection.LessThan:
			values = []string{rapid.SampledFrom([]string{"1", "2"}).Draw(t, "bound")}
		default:
		}
		requirement, err := labels.NewRequirement(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"), operator, values)
		if err != nil {
			t.Fatal(err)
		}
		selector = selector.Add(*requirement)
	}
	return selector
}

func drawLabels(t *rapid.T, whose string) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"", "1", "2", "3"}), 0,
		3).Draw(t, whose)
}

func TestIndexFindsALabelWithAnEmptyValue(t *testing.T) {
	selector, err := labels.Parse("app in (web,)")
	if err != nil {
		t.Fatal(err)
	}
	index := newMatchIndex([]*Profile{{Name: "x", match: &match{pods: selector, podRequirements: requirements(selector)}}})
	for value, want := range map[string]int{"": 1, "web": 1, "api": 0} {
		if got := index.matching(nil, map[string]string{"app": value}); len(got) != want {
			t.Errorf("app=%q finds %d profiles, want %d", value, len(got), want)
		}
	}
}

func TestIndexFilesUnderTheRarestLabel(t *testing.T) {
	profile := func(name string, required ...string) *Profile {
		selector := labels.NewSelector()
		for _, label := range required {
			parsed, err := labels.ParseToRequirements(label)
			if err != nil {
				t.Fatal(err)
			}
			selector = selector.Add(parsed...)
		}
		return &Profile{Name: name, match: &match{pods: selector, podRequirements: requirements(selector)}}
	}
	index := newMatchIndex([]*Profile{
		profile("everyone"), profile("web", "team=web", "app=web"), profile("api", "team=web", "app=api"), profile("negative",
			"app!=x"),
	})
	names := func(profiles []*Profile) (names []string) {
		for _, p := range profiles {
			names = append(names, p.Name)
		}
		return names
	}
	if diff := cmp.Diff([]string{"everyone", "negative"}, names(index.rest)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"web"}, names(index.byLabel[label{key: "app", value: "web"}])); diff != "" {
		t.Error(diff)
	}
	if crowd := index.byLabel[label{key: "team", value: "web"}]; len(crowd) > 0 {
		t.Errorf("%v are filed where all of a team's Pods would ask them", names(crowd))
	}
}
