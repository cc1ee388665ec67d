package admission

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// inOneBreath is how often a profile, a namespace and a Pod are created one right after the other.
const inOneBreath = 50

func TestAProfileANamespaceAndAPodMayBeCreatedInOneBreath(t *testing.T) {
	for i := range inOneBreath {
		name := fmt.Sprintf("breath-%d", i)
		var p *corev1.Pod
		switch i % 3 {
		case 0: // the label of the namespace asks for a profile of the cluster
			create(t, cache(name))
			p = pod(namespace(t, map[string]string{v1alpha1.InjectKey: name}))
		case 1: // the annotation asks for a profile of the namespace
			p = pod(namespace(t, nil), v1alpha1.InjectKey, name)
			create(t, inNamespace(p.Namespace, cache(name)))
		case 2: // the label that allows the profile is as new
			profile := cache(name)
			profile.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": name}}
			create(t, profile)
			p = pod(namespace(t, map[string]string{"team": name}), v1alpha1.InjectKey, name)
		}
		stored, _ := admit(t, p)
		if diff := cmp.Diff([]string{"pillion-" + name}, added(stored)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestANewProfileIsFoundThoughItsNameWasUnknownAMomentAgo(t *testing.T) {
	in := namespace(t, nil)
	if err := missing(refuse(t, pod(in, v1alpha1.InjectKey, "late")), "ProfileNotAvailable"); err != nil {
		t.Fatal(err)
	}
	createReady(t, cache("late"))
	if stored, _ := admit(t, pod(in, v1alpha1.InjectKey, "late")); len(added(stored)) != 1 {
		t.Errorf("added %q", added(stored))
	}
}
