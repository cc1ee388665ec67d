package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// sidecar is a template with a native sidecar of an image.
const sidecar = `
custom:
  template:
    initContainers:
    - image: registry.example.com/agent:1
      restartPolicy: Always
`

// custom is a profile with a spec in YAML.
func custom(t *testing.T, name, spec string) *v1alpha1.ClusterPatternProfile {
	t.Helper()
	profile := clusterProfile(name, v1alpha1.Pattern{})
	if err := yaml.UnmarshalStrict([]byte(spec), &profile.Spec); err != nil {
		t.Fatalf("the spec of %s: %v", name, err)
	}
	return profile
}

// enforcing makes a profile enforce its match.
func enforcing(profile *v1alpha1.ClusterPatternProfile) *v1alpha1.ClusterPatternProfile {
	profile.Spec.Match.Enforce = true
	return profile
}

// change edits a profile of the cluster, again if somebody else writes it meanwhile.
func change(t *testing.T, name string, edit func(*v1alpha1.ClusterPatternProfile)) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		if err := server.Client.Get(ctx, client.ObjectKey{Name: name}, profile); err != nil {
			return false, err
		}
		edit(profile)
		err := server.Client.Update(ctx, profile)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// statusOf returns the status of a profile, once the controller has seen its spec.
func statusOf(ctx context.Context, c client.Client, key types.NamespacedName) (v1alpha1.ProfileStatus, error) {
	if key.Namespace != "" {
		profile := &v1alpha1.PatternProfile{}
		err := c.Get(ctx, key, profile)
		return profile.Status, errors.Join(err, seen(&profile.Status, profile.Generation))
	}
	profile := &v1alpha1.ClusterPatternProfile{}
	err := c.Get(ctx, key, profile)
	return profile.Status, errors.Join(err, seen(&profile.Status, profile.Generation))
}

func seen(status *v1alpha1.ProfileStatus, generation int64) error {
	if status.ObservedGeneration != generation {
		return fmt.Errorf("the controller has seen generation %d of %d", status.ObservedGeneration, generation)
	}
	return nil
}

// awaitCondition waits until a condition of a profile of the cluster has a status and a reason, and returns its message.
func awaitCondition(t *testing.T, name, kind string, status metav1.ConditionStatus, reason string) string {
	t.Helper()
	return awaitConditionOf(t, server.Client, types.NamespacedName{Name: name}, kind, status, reason)
}

func awaitConditionOf(
	t *testing.T, c client.Client, key types.NamespacedName, kind string, status metav1.ConditionStatus, reason string,
) (message string) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		profile, err := statusOf(ctx, c, key)
		if err != nil {
			return false, err
		}
		condition := meta.FindStatusCondition(profile.Conditions, kind)
		if condition == nil || condition.Status != status || condition.Reason != reason {
			return false, fmt.Errorf("%s: no condition %s=%s %s: %+v", key, kind, status, reason, profile.Conditions)
		}
		message = condition.Message
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// containerOf returns a container of a Pod.
func containerOf(t *testing.T, p *corev1.Pod, name string) *corev1.Container {
	t.Helper()
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	t.Fatalf("the Pod has no container %s; Pillion added %q", name, added(p))
	return nil
}

// envOf returns the value of a variable of a container; "" if there is none.
func envOf(container *corev1.Container, name string) string {
	for _, variable := range container.Env {
		if variable.Name == name {
			return variable.Value
		}
	}
	return ""
}

// webhookAfterPillion lets a webhook change the Pods of a namespace behind Pillion's, which the API server calls in the order of
// their configurations' names.
func webhookAfterPillion(
	t *testing.T, beside *apiserver.Server, namespace string, again admissionregistrationv1.ReinvocationPolicyType,
	patch func(*corev1.Pod) []map[string]any,
) {
	t.Helper()
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		review := &admissionv1.AdmissionReview{}
		p := &corev1.Pod{}
		if err := errors.Join(json.NewDecoder(r.Body).Decode(review), json.Unmarshal(review.Request.Object.Raw, p)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		if operations := patch(p); len(operations) > 0 {
			review.Response.Patch, _ = json.Marshal(operations)
			review.Response.PatchType = new(admissionv1.PatchTypeJSONPatch)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(other.Close)
	configuration := afterPillion(namespace, other, again)
	if err := beside.Client.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before its webhook closes
		if err := beside.Client.Delete(context.Background(), configuration); err != nil {
			t.Error(err)
		}
	})
}

// afterPillion is a configuration whose name puts it behind Pillion's.
func afterPillion(
	namespace string, other *httptest.Server, again admissionregistrationv1.ReinvocationPolicyType,
) *admissionregistrationv1.MutatingWebhookConfiguration {
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "zz-" + namespace},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "zz.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: new(other.URL), CABundle: pemOf(other.Certificate()),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				},
			}},
			NamespaceSelector:  &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			SideEffects:        new(admissionregistrationv1.SideEffectClassNone),
			ReinvocationPolicy: &again, AdmissionReviewVersions: []string{"v1"},
		}},
	}
}

// awaitOther waits until what becomes of a Pod shows that a webhook behind Pillion's is called: the API server takes a moment to
// hear of it.
func awaitOther(t *testing.T, beside *apiserver.Server, p *corev1.Pod, isCalled func(*corev1.Pod, error) bool) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		made, err := beside.Clientset.CoreV1().Pods(p.Namespace).Create(ctx, p.DeepCopy(), dryRun())
		return isCalled(made, err), errors.Join(err, errors.New("the other webhook is not called"))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// stripped removes what Pillion added to the spec of a Pod.
func stripped(p *corev1.Pod) []map[string]any {
	bare := p.Spec.DeepCopy()
	isReserved := func(c corev1.Container) bool { return v1alpha1.IsReservedName(c.Name) }
	bare.InitContainers = slices.DeleteFunc(bare.InitContainers, isReserved)
	bare.Containers = slices.DeleteFunc(bare.Containers, isReserved)
	bare.Volumes = slices.DeleteFunc(bare.Volumes, func(v corev1.Volume) bool { return v1alpha1.IsReservedName(v.Name) })
	for i := range bare.Containers {
		bare.Containers[i].VolumeMounts = slices.DeleteFunc(bare.Containers[i].VolumeMounts, func(m corev1.VolumeMount) bool {
			return v1alpha1.IsReservedName(m.Name)
		})
	}
	if len(bare.Volumes) == len(p.Spec.Volumes) && len(bare.InitContainers) == len(p.Spec.InitContainers) {
		return nil
	}
	return []map[string]any{{"op": "replace", "path": "/spec", "value": bare}}
}

// labeled adds a label.
func labeled(key, value string) func(*corev1.Pod) []map[string]any {
	return func(p *corev1.Pod) []map[string]any {
		switch {
		case p.Labels[key] == value:
			return nil
		case len(p.Labels) == 0:
			return []map[string]any{{"op": "add", "path": "/metadata/labels", "value": map[string]string{key: value}}}
		default:
			return []map[string]any{{"op": "add", "path": "/metadata/labels/" + key, "value": value}}
		}
	}
}

// entriesFor returns the names of the entries in both webhook configurations whose namespaceSelector wants a label.
func entriesFor(ctx context.Context, c client.Client, key string) (mutating, validating []string, err error) {
	changing := &admissionregistrationv1.MutatingWebhookConfiguration{}
	checking := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	name := client.ObjectKey{Name: configurationName}
	if err := errors.Join(c.Get(ctx, name, changing), c.Get(ctx, name, checking)); err != nil {
		return nil, nil, err
	}
	wants := func(selector *metav1.LabelSelector) bool {
		_, ok := selector.MatchLabels[key]
		return ok
	}
	for i := range changing.Webhooks {
		if wants(changing.Webhooks[i].NamespaceSelector) {
			mutating = append(mutating, changing.Webhooks[i].Name)
		}
	}
	for i := range checking.Webhooks {
		isForPods := slices.Contains(checking.Webhooks[i].Rules[0].Resources, "pods")
		if isForPods && wants(checking.Webhooks[i].NamespaceSelector) {
			validating = append(validating, checking.Webhooks[i].Name)
		}
	}
	return mutating, validating, nil
}
