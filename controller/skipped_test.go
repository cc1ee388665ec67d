package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// skippedMeta is the metadata of a Pod that something was left out of.
func skippedMeta(namespace, name, skipped string, created time.Time) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(namespace + name), CreationTimestamp: metav1.NewTime(created),
		Labels:      map[string]string{v1alpha1.SkippedKey: "true"},
		Annotations: map[string]string{v1alpha1.SkippedKey: skipped},
	}}
}

func TestWhatAnAnnotationSaysIsBoundedAndPrintable(t *testing.T) {
	many := map[string]string{}
	for i := range 2000 {
		many[fmt.Sprintf("p%04d", i)] = "R: m"
	}
	tests := map[string]struct {
		annotation string
		want       []skip
		number     int
	}{
		"what Pillion writes": {
			annotation: `{"site":"PortCollision: port 80 is taken","cache":"ConditionFailed: no such key: team"}`,
			want: []skip{
				{"cache", "ConditionFailed: no such key: team"}, {"site", "PortCollision: port 80 is taken"},
			},
		},
		"nothing":                {},
		"no JSON":                {annotation: `}{`},
		"JSON of something else": {annotation: `["site"]`},
		"values that are no texts": {
			annotation: `{"site":{"a":1}}`,
		},
		"names that no profile can have": {annotation: `{"../x":"R: m","A B":"R: m","none":"R: m","":"R: m"}`},
		"control characters, escapes and text that runs backwards": {
			annotation: `{"site":"R: a\u0000b\u001b[31mc\nd\u202ee\ufeff\u200b f"}`,
			want:       []skip{{"site", "R: a b [31mc d e f"}},
		},
		"nothing that can be shown": {annotation: `{"site":"\u0007\u202e"}`},
		"a long text": {
			annotation: `{"site":"R: ` + strings.Repeat("ä", 5000) + `"}`,
			want:       []skip{{"site", "R: " + strings.Repeat("ä", 509) + "…"}},
		},
		"more than is read":            {annotation: `{"site":"R: m"` + strings.Repeat(" ", profiles.MaxMarkBytes) + `}`},
		"more profiles than a Pod has": {annotation: encodeJSON(t, many), number: maxToldProfiles},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := skipsOf(skippedMeta("web", "a", test.annotation, time.Now()))
			if test.number > 0 {
				if len(got) != test.number {
					t.Errorf("%d are told", len(got))
				}
				return
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(skip{})); diff != "" {
				t.Error(diff)
			}
			for i := range got {
				if note := got[i].note(strings.Repeat("n", 253)); len(note) > maxNote || !strings.Contains(note, got[i].profile) {
					t.Errorf("a note of %d bytes: %s", len(note), note)
				}
			}
		})
	}
}

func TestAnOwnerThatCannotBeIsNone(t *testing.T) {
	valid := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Rollout", Name: "shop", UID: "1", Controller: new(true)}
	tests := map[string]struct {
		change func(*metav1.OwnerReference)
		want   bool
	}{
		"of a kind that nobody here knows": {change: func(*metav1.OwnerReference) {}, want: true},
		"of the core group":                {change: func(o *metav1.OwnerReference) { o.APIVersion = "v1" }, want: true},
		"one that controls nothing":        {change: func(o *metav1.OwnerReference) { o.Controller = nil }},
		"a name that no object has":        {change: func(o *metav1.OwnerReference) { o.Name = "a\x1b[2Jb" }},
		"a name that is too long":          {change: func(o *metav1.OwnerReference) { o.Name = strings.Repeat("a", 300) }},
		"a kind of two lines":              {change: func(o *metav1.OwnerReference) { o.Kind = "A\nB" }},
		"a kind that is too long":          {change: func(o *metav1.OwnerReference) { o.Kind = strings.Repeat("A", 64) }},
		"a version of three parts":         {change: func(o *metav1.OwnerReference) { o.APIVersion = "a/b/c" }},
		"a group that is no name":          {change: func(o *metav1.OwnerReference) { o.APIVersion = "a b/v1" }},
		"a long UID":                       {change: func(o *metav1.OwnerReference) { o.UID = types.UID(strings.Repeat("1", 1000)) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, owner := skippedMeta("web", "a", "", time.Now()), valid
			test.change(&owner)
			pod.OwnerReferences = []metav1.OwnerReference{owner}
			got, ok := controllerOf(pod)
			if ok != test.want {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestTheNameOfAnEventIsValidAndItsOwn(t *testing.T) {
	names := map[string]bool{}
	for _, regarding := range []corev1.ObjectReference{
		{Name: "shop", UID: "1"},
		{Name: "shop", UID: "2"},
		{Name: strings.Repeat("a", 253), UID: "3"},
		{Name: strings.Repeat("a", 235) + "." + strings.Repeat("b", 17), UID: "4"},
	} {
		for _, s := range []skip{{"site", "R: m"}, {"site", "R: n"}, {"cache", "R: m"}} {
			name := s.eventName(&regarding)
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 || names[name] {
				t.Errorf("%s: %q", name, problems)
			}
			names[name] = true
		}
	}
}

func TestOfOldDeletedAndUnmarkedPodsNothingIsTold(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	const site = `{"site":"R: m"}`
	tests := map[string]struct {
		pod  *metav1.PartialObjectMetadata
		edit func(*metav1.PartialObjectMetadata)
		want int
	}{
		"a young Pod":                    {pod: skippedMeta("web", "a", site, now.Add(-59*time.Minute)), want: 1},
		"an old Pod":                     {pod: skippedMeta("web", "a", site, now.Add(-61*time.Minute))},
		"a Pod of an excluded namespace": {pod: skippedMeta("kube-system", "a", site, now)},
		"a Pod that is being deleted": {
			pod:  skippedMeta("web", "a", site, now),
			edit: func(p *metav1.PartialObjectMetadata) { p.DeletionTimestamp = new(metav1.NewTime(now)) },
		},
		"a Pod with another label": {
			pod:  skippedMeta("web", "a", site, now),
			edit: func(p *metav1.PartialObjectMetadata) { p.Labels[v1alpha1.SkippedKey] = "false" },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSkipTeller(nil, nil, []string{"kube-system"}, func() time.Time { return now }, logr.Discard())
			if test.edit != nil {
				test.edit(test.pod)
			}
			s.see(test.pod, 1)
			if len(s.queued) != test.want {
				t.Errorf("%d Events wait", len(s.queued))
			}
		})
	}
}

func TestOnlyTheLeaderTells(t *testing.T) {
	var teller manager.Runnable = newSkipTeller(nil, nil, nil, time.Now, logr.Discard())
	if everywhere, ok := teller.(manager.LeaderElectionRunnable); ok && !everywhere.NeedLeaderElection() {
		t.Error("every controller would tell")
	}
}

func TestNoFloodOfPodsKeepsOthersFromBeingToldOf(t *testing.T) {
	now := time.Now()
	s := newSkipTeller(nil, nil, nil, func() time.Time { return now }, logr.Discard())
	for i := range 20_000 {
		s.see(skippedMeta("flood", fmt.Sprintf("p-%d", i), fmt.Sprintf(`{"site":"R: %d"}`, i), now), 0)
	}
	s.see(skippedMeta("web", "a", `{"site":"R: m"}`, now), 0)
	if len(s.queued) != maxWaitingInNamespace+1 || s.waiting["web"] != 1 {
		t.Errorf("%d Events wait, of them %d of namespace web", len(s.queued), s.waiting["web"])
	}
	for i := range 20_000 {
		s.see(skippedMeta(fmt.Sprintf("flood-%d", i), "p", `{"site":"R: m"}`, now), 0)
	}
	if len(s.queued) != maxWaitingEvents || s.unmade != 20_000-maxWaitingInNamespace+20_000-(maxWaitingEvents-maxWaitingInNamespace-1) {
		t.Errorf("%d Events wait, %d are not made", len(s.queued), s.unmade)
	}
}
