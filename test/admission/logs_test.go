package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// canaries are values that people write, by where they stand.
type canaries map[string]string

// at returns a value that stands nowhere else. It is a DNS label, as a profile's name is.
func (c canaries) at(place string) string {
	if c[place] == "" {
		c[place] = fmt.Sprintf("canary%02d", len(c))
	}
	return c[place]
}

// expectNone expects that a text holds none of the values.
func (c canaries) expectNone(t *testing.T, where, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		for place, canary := range c {
			if strings.Contains(strings.ToLower(line), canary) {
				t.Errorf("%s holds the value of %s: %s", where, place, strings.TrimSpace(line))
			}
		}
	}
}

// brokenProfile is a profile that the API server stores and that cannot be used.
func (a *telling) brokenProfile(t *testing.T) client.Object {
	t.Helper()
	a.canaries = canaries{}
	return custom(t, "logs-broken", `
custom:
  parameters:
  - {name: size, type: integer, default: `+a.canaries.at("a default of the wrong type")+`}
  template:
    containers:
    - image: registry.example.com/agent:1
      args: ["${params.`+a.canaries.at("an expression")+`}", "`+a.canaries.at("an argument in a profile")+`"]
      nosuchField: `+a.canaries.at("a field in a profile")+`
`)
}

// awaitLogged waits until the log says something, and returns all that it has said meanwhile.
func (a *telling) awaitLogged(t *testing.T, so string, says ...string) string {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		so += a.log.Take()
		return missing(so, says...) == nil, missing(so, says...)
	})
	if err != nil {
		t.Error(err)
	}
	return so
}

func (a *telling) awaitMetric(t *testing.T, what string, is func() bool) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { return is(), errors.New("not yet") })
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// logsNoValues comes last: it looks at all that was logged.
func (a *telling) logsNoValues(t *testing.T) {
	c := a.canaries
	awaitConditionOf(t, a.server.Client, types.NamespacedName{Name: "logs-broken"},
		v1alpha1.ConditionReady, metav1.ConditionFalse, "NotAccepted")
	in := a.namespace(t, nil)
	annotated := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/note":%q}}}`, c.at("an annotation of a namespace"))
	if err := a.server.Client.Patch(t.Context(), annotated, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	parameters := custom(t, "logs-custom", `
custom:
  parameters:
  - {name: mode, default: `+c.at("a parameter's default")+`}
  - {name: size, type: integer, default: 1}
  template:
    containers:
    - image: registry.example.com/agent:1
      args: ["${params.mode}"]
overridable: [mode, size]
`)
	a.createReady(t, parameters)
	policy := matching(custom(t, "logs-policy", strings.ReplaceAll(sidecar, "custom:", "overridable: [size]\ncustom:\n"+
		"  parameters: [{name: size, type: integer, default: 1}]")), "logs", v1alpha1.FailurePolicyIgnore)
	a.createReady(t, policy)

	t.Run("of Pods", func(t *testing.T) { a.createPodsWithValues(t, in) })
	t.Run("of profiles that are refused", func(t *testing.T) {
		refused := custom(t, "logs-refused", `
custom:
  template:
    containers: [{image: registry.example.com/agent:1, args: ["${params.`+c.at("a profile that is refused")+`}"]}]
`)
		if err := a.server.Client.Create(t.Context(), refused); err == nil {
			t.Error("it is stored")
		}
	})
	t.Run("of what is no admission review", a.postValues)
	t.Run("of Secrets", a.writeSecrets)

	log := a.awaitLogged(t, "", "logs-custom=Applied", "(unknown)=ProfileNotAvailable", "logs-custom=InvalidOverride",
		"logs-policy=InvalidOverride", "logs-refused", "request not decided", "msg\":\"warned", "namespace\":\""+in)
	if len(strings.Split(log, "\n")) < 20 || !strings.Contains(log, `"level":"DEBUG"`) {
		t.Errorf("that is not the whole log:\n%s", log)
	}
	c.expectNone(t, "the log", log)
}

// createPodsWithValues creates Pods with values at every place: good ones, and ones that are refused or left out.
func (a *telling) createPodsWithValues(t *testing.T, in string) {
	c := a.canaries
	app := func(annotations ...string) *corev1.Pod {
		p := pod(in, append(annotations, "example.com/note", c.at("any annotation"))...)
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: c.at("an environment variable")}}
		p.Spec.Containers[0].Args = []string{c.at("an argument")}
		p.Labels = map[string]string{"example.com/label": c.at("a label")}
		return p
	}
	create := func(p *corev1.Pod, wantRefused bool) {
		t.Helper()
		if _, err := a.server.Clientset.CoreV1().Pods(p.Namespace).Create(t.Context(), p, metav1.CreateOptions{}); (err != nil) != wantRefused {
			t.Errorf("refused: %t is wanted: %v", wantRefused, err)
		}
	}
	create(app(v1alpha1.InjectKey, "logs-custom", "logs-custom.pillion.dev/mode", c.at("a good override")), false)
	create(app(v1alpha1.InjectKey, "logs-custom", "logs-custom.pillion.dev/size", c.at("a bad override")), true)
	create(app(v1alpha1.InjectKey, "logs-custom,"+c.at("a name that no profile has")), true)
	create(app(v1alpha1.InjectKey, "logs-custom,"+strings.ToUpper(c.at("a name that no profile can have"))), true)
	create(app(v1alpha1.InjectKey, "logs-custom", v1alpha1.InjectedKey, `{"`+c.at("a forged mark")+`":`), false)
	inLabeled := a.namespace(t, map[string]string{v1alpha1.InjectKey: c.at("a label of a namespace")})
	create(pod(inLabeled), true)

	// What is left out is told by an Event on the owner, whose note quotes the value.
	by := a.namespace(t, map[string]string{"logs": ""})
	owner := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: by, Name: "owner"},
		Spec: appsv1.ReplicaSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: pod(by).Spec},
		},
	}
	a.create(t, owner)
	workload := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "warned"}}
	workload.Spec.Selector, workload.Spec.Template = owner.Spec.Selector, *owner.Spec.Template.DeepCopy()
	workload.Spec.Template.Annotations = map[string]string{
		v1alpha1.InjectKey:             "logs-custom," + c.at("a name that a workload asks for"),
		"logs-custom.pillion.dev/size": c.at("a bad override in a workload"),
	}
	a.create(t, workload)
	left := app("logs-policy.pillion.dev/size", c.at("an override of what is left out"))
	left.Namespace, left.Labels["app"] = by, "web"
	left.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	create(left, false)
	a.awaitMetric(t, "an Event on the owner", func() bool {
		events := &corev1.EventList{}
		if err := a.server.Client.List(t.Context(), events, client.InNamespace(by)); err != nil {
			t.Fatal(err)
		}
		return meta.LenList(events) > 0
	})
}

// postValues sends the webhook what it cannot read.
func (a *telling) postValues(t *testing.T) {
	c := a.canaries
	sender := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // it only asks
	t.Cleanup(sender.CloseIdleConnections)
	review := func(group, version, resource, object string) string {
		return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","resource":
			{"group":%q,"version":%q,"resource":%q},"namespace":"web","object":%s}}`, group, version, resource, object)
	}
	for path, bodies := range map[string]map[string]string{
		profiles.PathPods: {
			"no JSON":       c.at("no JSON"),
			"truncated":     `{"request":{"uid":"` + c.at("what is truncated"),
			"a bad time":    review("", "v1", "pods", `{"metadata":{"creationTimestamp":"`+c.at("a bad time")+`"}}`),
			"a bad number":  review("", "v1", "pods", `{"spec":{"priority":"`+c.at("a bad number")+`"}}`),
			"a bad amount":  review("", "v1", "pods", `{"spec":{"containers":[{"resources":{"limits":{"cpu":"`+c.at("a bad quantity")+`"}}}]}}`),
			"a field twice": `{"` + c.at("a key") + `":1,"` + c.at("a key") + `":}`,
		},
		profiles.PathProfiles: {"no profile": review("pillion.dev", "v1alpha1", "patternprofiles", `"`+c.at("no profile")+`"`)},
		profiles.PathWorkloads: {
			"a bad time": review("apps", "v1", "deployments", `{"metadata":{},"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"`+
				c.at("a bad quantity of a workload")+`"}}}]}}}}`),
		},
	} {
		for name, body := range bodies {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.WebhookURL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			response, err := sender.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(response.Body)
			if err := errors.Join(err, response.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode == http.StatusOK {
				t.Errorf("%s is answered with %s", name, answer)
			}
			c.expectNone(t, "the answer, which the API server logs,", string(answer))
		}
	}
}

// writeSecrets breaks the serving certificate, which is mended.
func (a *telling) writeSecrets(t *testing.T) {
	c := a.canaries
	for place, data := range map[string]string{
		"a Secret":                          c.at("a Secret"),
		"a Secret that cannot be PEM":       "-----BEGIN CERTIFICATE-----\n" + c.at("a Secret that cannot be PEM") + "\n-----END CERTIFICATE-----\n",
		"a Secret with another kind of PEM": "-----BEGIN " + c.at("a kind of PEM") + "-----\nYQ==\n-----END " + c.at("a kind of PEM") + "-----\n",
	} {
		secret := &corev1.Secret{}
		key := client.ObjectKey{Namespace: ownNamespace, Name: certificateSecret}
		if err := a.server.Client.Get(t.Context(), key, secret); err != nil {
			t.Fatal(err)
		}
		secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey] = []byte(data), []byte(data)
		if err := a.server.Client.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		a.awaitMetric(t, place+" is mended", func() bool {
			mended := &corev1.Secret{}
			if err := a.server.Client.Get(t.Context(), key, mended); err != nil {
				t.Fatal(err)
			}
			return string(mended.Data[corev1.TLSCertKey]) != data
		})
	}
}
