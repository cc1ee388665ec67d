package controller

import (
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestASelectionIsServedOnlyOnceItsEntriesStand(t *testing.T) {
	site := clusterProfile("site", v1alpha1.FailurePolicyIgnore, "env=prod", "")
	audit := enforcing(clusterProfile("audit", v1alpha1.FailurePolicyFail, "env=prod", ""))
	other := planOf(t, []v1alpha1.ClusterPatternProfile{clusterProfile("other", v1alpha1.FailurePolicyIgnore, "env=test", "")}, nil)
	stale, moved := service(), service()
	stale.caBundle = []byte("an old CA")
	moved.service.Namespace = "elsewhere"
	const mutating, validating = "MutatingWebhookConfiguration pillion", "ValidatingWebhookConfiguration pillion"

	tests := map[string]struct {
		profile v1alpha1.ClusterPatternProfile
		// stands returns what was read back, of the plan of the profile.
		stands func(*profiles.Plan) []client.Object
		noCA   bool
		want   verdict // of the message, only a part
	}{
		"the configuration has no entry": {
			profile: site, stands: func(*profiles.Plan) []client.Object { return configurations() },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"the configuration has entries of others": {
			profile: site, stands: func(*profiles.Plan) []client.Object { return filled(other, service(), other, service()) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"the entry has the CA bundle of before": {
			profile: site, stands: func(p *profiles.Plan) []client.Object { return filled(p, stale, p, stale) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"the entry leads to another Service": {
			profile: site, stands: func(p *profiles.Plan) []client.Object { return filled(p, moved, p, moved) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"there is no CA bundle that the entry could have": {
			profile: site, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), p, service()) }, noCA: true,
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"the configuration does not exist": {
			profile: site, stands: func(*profiles.Plan) []client.Object { return nil },
			want: verdict{reason: ReasonWebhookConfigurationNotFound, message: mutating},
		},
		"the entry stands": {
			profile: site, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), other, stale) }, want: ready(),
		},
		"of one that enforces the entry that verifies is missing": {
			profile: audit, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), other, service()) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: validating},
		},
		"of one that enforces the entry that verifies has the CA bundle of before": {
			profile: audit, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), p, stale) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: validating},
		},
		"of one that enforces the entry that injects is missing": {
			profile: audit, stands: func(p *profiles.Plan) []client.Object { return filled(other, service(), p, service()) },
			want: verdict{reason: ReasonWebhookConfigurationPending, message: mutating},
		},
		"of one that enforces the configuration that verifies does not exist": {
			profile: audit, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), p, service())[:1] },
			want: verdict{reason: ReasonWebhookConfigurationNotFound, message: validating},
		},
		"both entries of one that enforces stand": {
			profile: audit, stands: func(p *profiles.Plan) []client.Object { return filled(p, service(), p, service()) }, want: ready(),
		},
	}
	scheme := runtime.NewScheme()
	if err := admissionregistrationv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, []v1alpha1.ClusterPatternProfile{test.profile}, nil)
			d := &desired{
				reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(test.stands(p)...).Build(),
				name:   "pillion", target: service(), excluded: excluded(), bundle: newBundle(),
			}
			if !test.noCA {
				d.bundle.set(trust{certificates: service().caBundle})
			}
			got, err := d.serves(t.Context(), p, &p.Selections[0])
			if err != nil {
				t.Fatal(err)
			}
			if got.ok != test.want.ok || got.reason != test.want.reason || !strings.Contains(got.message, test.want.message) {
				t.Errorf("%+v, not %+v", got, test.want)
			}
		})
	}
}

func TestWhatChecksIsWrittenAfterWhatWeaves(t *testing.T) {
	plan := planOf(t, []v1alpha1.ClusterPatternProfile{enforcing(clusterProfile("audit", v1alpha1.FailurePolicyFail, "env=prod", ""))}, nil)
	none := planOf(t, nil, nil)
	verification := verifyEntryName(plan.Selections[0].ID())
	scheme := runtime.NewScheme()
	if err := admissionregistrationv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		stands []client.Object
		want   bool
	}{
		"not before that stands":                            {filled(none, service(), none, service()), false},
		"once it stands":                                    {filled(plan, service(), none, service()), true},
		"what stands is not taken out for lack of it":       {filled(none, service(), plan, service()), true},
		"nor waits for a configuration that does not exist": {filled(none, service(), none, service())[1:], true},
		"both stand": {filled(plan, service(), plan, service()), true},
	} {
		d := &desired{
			reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(test.stands...).Build(),
			name:   "pillion", target: service(), excluded: excluded(), bundle: newBundle(),
		}
		want := compileValidations(plan, service(), excluded())
		all := len(want)
		configuration, err := standing(t.Context(), d, validatingKind())
		if err != nil {
			t.Fatal(err)
		}
		got, err := withoutUnwoven(t.Context(), d, validatingKind(), want, *validatingKind().webhooks(configuration))
		if err != nil {
			t.Fatal(err)
		}
		has := slices.ContainsFunc(got, func(webhook admissionregistrationv1.ValidatingWebhook) bool { return webhook.Name == verification })
		if has != test.want || (has && len(got) != all) || (!has && len(got) != all-1) {
			t.Errorf("%s: %d entries of %d, the one that checks among them: %v", name, len(got), all, has)
		}
	}
}

// filled returns the configurations with the entries of plans, each for a target.
func filled(mutating *profiles.Plan, mutatingTo target, validating *profiles.Plan, validatingTo target) []client.Object {
	meta := metav1.ObjectMeta{Name: "pillion"}
	return []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{
			ObjectMeta: meta, Webhooks: compileWebhooks(mutating, mutatingTo, excluded()),
		},
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: meta, Webhooks: compileValidations(validating, validatingTo, excluded()),
		},
	}
}
