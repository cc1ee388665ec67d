package controller

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// TestTheControllerOnARealAPIServer runs the controller with its own ServiceAccount's permissions. Each part begins where the one
// before it ended.
func TestTheControllerOnARealAPIServer(t *testing.T) {
	server, err := apiserver.Start(t.Context(), apiserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := server.InstallDeploy(t.Context()); err != nil {
		t.Fatal(err)
	}
	webhook := startWebhook(t)
	c := &cluster{Client: server.Client, webhook: webhook}
	c.remove(t, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "pillion"}})
	stop := startController(t, server, webhook.url)

	for _, part := range []struct {
		name string
		run  func(*cluster, *testing.T)
	}{
		{"a matching profile waits for the webhook configuration", (*cluster).withoutConfiguration},
		{"the webhook configuration is filled as soon as it is there", (*cluster).fills},
		{"a profile that cannot be used says why", (*cluster).invalidProfile},
		{"a profile in an excluded namespace says so", (*cluster).excludedProfile},
		{"what somebody else does to the entries is undone", (*cluster).repairs},
		{"a status that somebody else wrote is mended", (*cluster).mendsStatus},
		{"nothing is written when nothing changed", (*cluster).rests},
		{"the API server sends a Pod to the entry that is for it, and to no other", (*cluster).routes},
		{"selections beyond the bound are refused until there is room", (*cluster).bounds},
		{"a lost certificate is made again", (*cluster).certificates},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(c, t) }) {
			break
		}
	}
	if err := stop(); err != nil {
		t.Errorf("the controller ended with: %v", err)
	}
}

// startController runs the controller until the returned function is called, which gives Run's error.
func startController(t *testing.T, server *apiserver.Server, webhookURL string) func() error {
	t.Helper()
	config, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, config, Options{
			Namespace:            "pillion-system",
			CASecret:             "pillion-ca",
			CertificateSecret:    "pillion-webhook-tls",
			WebhookConfiguration: "pillion",
			WebhookURL:           webhookURL,
			ExcludedNamespaces:   []string{"kube-system"},
			LeaderElection:       true,
			Logger:               testr.New(t),
		})
	}()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// cluster is what the parts of the test share.
type cluster struct {
	client.Client
	webhook *webhook
}

func (c *cluster) withoutConfiguration(t *testing.T) {
	c.create(t, gitSyncProfile(clusterProfile("site-content", v1alpha1.FailurePolicyIgnore, "env=prod", "app=web")))
	c.create(t, gitSyncProfile(withoutMatch(clusterProfile("on-demand", v1alpha1.FailurePolicyIgnore, "", ""))))
	c.awaitProfile(t, "site-content", "Accepted True Accepted", "Ready False WebhookConfigurationNotFound")
	c.awaitProfile(t, "on-demand", "Accepted True Accepted", "Ready True Ready")
}

func (c *cluster) fills(t *testing.T) {
	c.create(t, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
		Name: "pillion", Annotations: map[string]string{"theirs": "kept"}, Labels: map[string]string{"theirs": "kept"},
	}})
	c.awaitProfile(t, "site-content", "Accepted True Accepted", "Ready True Ready")
	configuration := c.configuration(t)
	want := []string{"pods.pillion.dev", "namespaces.pillion.dev", "match-" + idOf("env=prod", "app=web") + ".pillion.dev"}
	if diff := cmp.Diff(want, entryNames(configuration)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if configuration.Annotations["theirs"] != "kept" || configuration.Labels["theirs"] != "kept" {
		t.Errorf("annotations %v, labels %v", configuration.Annotations, configuration.Labels)
	}
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "site-content"}, profile)
	if profile.Status.Kind != v1alpha1.KindGitSync || profile.Status.Revision == "" ||
		profile.Status.ObservedGeneration != profile.Generation {
		t.Errorf("status %+v of generation %d", profile.Status, profile.Generation)
	}
}

func (c *cluster) invalidProfile(t *testing.T) {
	profile := gitSyncProfile(withoutMatch(clusterProfile("invalid", "", "", "")))
	profile.Spec.Overridable = []string{"noSuchField"}
	c.create(t, profile)
	c.awaitProfile(t, "invalid", "Accepted False InvalidSpec", "Ready False NotAccepted")
}

func (c *cluster) excludedProfile(t *testing.T) {
	profile := namespacedProfile("kube-system", "nowhere", v1alpha1.FailurePolicyFail)
	profile.Spec.GitSync = gitSync()
	c.create(t, &profile)
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(&profile), &profile)
		return conditionsAre(profile.Status, "Accepted True Accepted", "Ready False NamespaceExcluded")
	})
}

func (c *cluster) repairs(t *testing.T) {
	tampering := map[string]func(*admissionregistrationv1.MutatingWebhookConfiguration){
		"the entries are gone": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			configuration.Webhooks = nil
		},
		"an entry calls somebody else": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			configuration.Webhooks[0].ClientConfig.URL = new("https://127.0.0.1:1/")
		},
		"a CA bundle is blank": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			configuration.Webhooks[1].ClientConfig.CABundle = nil
		},
		"a failure policy is another": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			configuration.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore)
		},
		"an entry was added": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			added := configuration.Webhooks[0].DeepCopy()
			added.Name = "another.pillion.dev"
			configuration.Webhooks = append(configuration.Webhooks, *added)
		},
		"an excluded namespace is let in": func(configuration *admissionregistrationv1.MutatingWebhookConfiguration) {
			configuration.Webhooks[0].NamespaceSelector = nil
		},
	}
	want := c.configuration(t).Webhooks
	for name, tamper := range tampering {
		t.Run(name, func(t *testing.T) {
			configuration := c.configuration(t)
			tamper(configuration)
			if err := c.Update(t.Context(), configuration); err != nil {
				t.Fatal(err)
			}
			c.await(t, func() (bool, error) {
				diff := cmp.Diff(want, c.configuration(t).Webhooks)
				return diff == "", errors.New(diff)
			})
		})
	}
	c.awaitProfile(t, "site-content", "Accepted True Accepted", "Ready True Ready")
}

func (c *cluster) mendsStatus(t *testing.T) {
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "site-content"}, profile)
	profile.Status = v1alpha1.ProfileStatus{Kind: "Nonsense"}
	if err := c.Status().Update(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	c.await(t, func() (bool, error) {
		c.get(t, types.NamespacedName{Name: "site-content"}, profile)
		return profile.Status.Kind == v1alpha1.KindGitSync, fmt.Errorf("kind %s", profile.Status.Kind)
	})
	c.awaitProfile(t, "site-content", "Accepted True Accepted", "Ready True Ready")
}

// rests makes the controller look at everything again and checks that only what concerns the change was written.
func (c *cluster) rests(t *testing.T) {
	before := c.configuration(t)
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "site-content"}, profile)

	c.create(t, gitSyncProfile(withoutMatch(clusterProfile("another", "", "", ""))))
	c.awaitProfile(t, "another", "Accepted True Accepted", "Ready True Ready")
	touched := c.configuration(t)
	touched.Labels["touched"] = "true"
	if err := c.Update(t.Context(), touched); err != nil {
		t.Fatal(err)
	}
	// A change after it, which is seen after it.
	c.create(t, gitSyncProfile(clusterProfile("later", v1alpha1.FailurePolicyIgnore, "env=later", "")))
	c.awaitProfile(t, "later", "Accepted True Accepted", "Ready True Ready")

	if after := c.configuration(t); after.Generation != before.Generation+1 {
		t.Errorf("the configuration's generation went from %d to %d for one change", before.Generation, after.Generation)
	}
	again := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "site-content"}, again)
	if again.ResourceVersion != profile.ResourceVersion {
		t.Errorf("the profile was written, its resource version went from %s to %s", profile.ResourceVersion, again.ResourceVersion)
	}
	c.remove(t, gitSyncProfile(clusterProfile("later", "", "", "")))
}

func (c *cluster) routes(t *testing.T) {
	inside := namespacedProfile("shop", "metrics", v1alpha1.FailurePolicyFail)
	inside.Spec.GitSync = gitSync()
	namespaces := map[string]map[string]string{
		"plain": nil, "asking": {v1alpha1.InjectKey: "site-content"}, "declining": {v1alpha1.InjectKey: "none", "env": "prod"},
		"prod": {"env": "prod"}, "prod-asking": {"env": "prod", v1alpha1.InjectKey: "site-content"}, "shop": nil,
	}
	for name, labels := range namespaces {
		c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
		c.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}})
	}
	c.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "default"}})
	c.create(t, &inside)
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(&inside), &inside)
		return conditionsAre(inside.Status, "Accepted True Accepted", "Ready True Ready")
	})
	secret := &corev1.Secret{}
	c.get(t, types.NamespacedName{Namespace: "pillion-system", Name: "pillion-webhook-tls"}, secret)
	c.webhook.present(t, secret)

	const pods, asking = "/inject/pods", "/inject/namespaces"
	prod := "/inject/match/" + idOf("env=prod", "app=web")
	shop := "/inject/any/" + (&selection{Policy: v1alpha1.FailurePolicyFail, Inside: true}).id()
	annotated := func(value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.InjectKey, value)
		}
	}
	labeled := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { metav1.SetMetaDataLabel(&pod.ObjectMeta, key, value) }
	}
	mirror := func(pod *corev1.Pod) {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, corev1.MirrorPodAnnotationKey, "x")
		pod.Spec.NodeName, pod.Spec.ServiceAccountName = "node", ""
	}
	otherwise := func(pod *corev1.Pod) { metav1.SetMetaDataAnnotation(&pod.ObjectMeta, "a", "b") }
	web := labeled("app", "web")
	c.await(t, func() (bool, error) { // the API server watches the configuration, as we do
		c.webhook.forget()
		err := c.Create(t.Context(), podIn("shop"), client.DryRunAll)
		return slices.Equal(c.webhook.calls(), []string{shop}), err
	})
	tests := map[string]struct {
		namespace string
		pod       []func(*corev1.Pod)
		want      []string
	}{
		"a Pod without annotations and labels, where nobody asks": {namespace: "plain"},
		"a Pod that asks":                             {namespace: "plain", pod: shape(annotated("site")), want: []string{pods}},
		"a Pod that asks badly":                       {namespace: "plain", pod: shape(annotated("a,,b")), want: []string{pods}},
		"a Pod that asks with nothing":                {namespace: "plain", pod: shape(annotated("")), want: []string{pods}},
		"a Pod that declines":                         {namespace: "plain", pod: shape(annotated("none"))},
		"a Pod that declines in spaces":               {namespace: "plain", pod: shape(annotated(" none\n"))},
		"a Pod with other annotations":                {namespace: "plain", pod: shape(otherwise)},
		"a Pod whose namespace asks":                  {namespace: "asking", want: []string{asking}},
		"a Pod that asks there too":                   {namespace: "asking", pod: shape(annotated("x")), want: []string{pods}},
		"a Pod that declines there":                   {namespace: "asking", pod: shape(annotated("none"))},
		"a Pod whose namespace declines":              {namespace: "declining", pod: shape(web)},
		"a Pod that asks there":                       {namespace: "declining", pod: shape(web, annotated("x")), want: []string{pods}},
		"a Pod that matches":                          {namespace: "prod", pod: shape(web), want: []string{prod}},
		"a Pod that matches and asks":                 {namespace: "prod", pod: shape(web, annotated("x")), want: []string{pods}},
		"a Pod that matches and declines":             {namespace: "prod", pod: shape(web, annotated("none"))},
		"a Pod that matches and is woven":             {namespace: "prod", pod: shape(web, labeled(v1alpha1.InjectedKey, "true"))},
		"a Pod of another label":                      {namespace: "prod", pod: shape(labeled("app", "db"))},
		"a Pod that matches where the namespace asks": {namespace: "prod-asking", pod: shape(web), want: []string{asking}},
		"a Pod where a namespaced profile matches":    {namespace: "shop", want: []string{shop}},
		"a mirror Pod":                                {namespace: "prod-asking", pod: shape(web, mirror)},
		"a mirror Pod that asks":                      {namespace: "plain", pod: shape(annotated("x"), mirror)},
		"a Pod in an excluded namespace":              {namespace: "kube-system", pod: shape(web, annotated("x"))},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := podIn(test.namespace)
			for _, change := range test.pod {
				change(pod)
			}
			c.webhook.forget()
			if err := c.Create(t.Context(), pod, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, c.webhook.calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func (c *cluster) bounds(t *testing.T) {
	fail := numbered(12, v1alpha1.FailurePolicyFail)
	for i := range fail {
		fail[i].CreationTimestamp = metav1.Time{}
		c.create(t, gitSyncProfile(fail[i]))
	}
	for i := range fail {
		if i < 10 {
			c.awaitProfile(t, fail[i].Name, "Accepted True Accepted", "Ready True Ready")
		} else {
			c.awaitProfile(t, fail[i].Name, "Accepted False TooManySelections", "Ready False NotAccepted")
		}
	}
	c.remove(t, gitSyncProfile(fail[3]))
	c.awaitProfile(t, "p10", "Accepted True Accepted", "Ready True Ready")
	c.awaitProfile(t, "p11", "Accepted False TooManySelections", "Ready False NotAccepted")
	for i := range fail {
		if i != 3 {
			c.remove(t, gitSyncProfile(fail[i]))
		}
	}

	ignore := numbered(12, v1alpha1.FailurePolicyIgnore)
	for i := range ignore {
		ignore[i].Name, ignore[i].CreationTimestamp = "i"+ignore[i].Name, metav1.Time{}
		c.create(t, gitSyncProfile(ignore[i]))
	}
	want := []string{
		podsEntry, namespacesEntry,
		matchEntryName((&selection{Policy: v1alpha1.FailurePolicyFail, Inside: true}).id()), matchEntryName(idOf("", "")),
	}
	c.await(t, func() (bool, error) {
		diff := cmp.Diff(want, entryNames(c.configuration(t)))
		return diff == "", errors.New(diff)
	})
	for i := range ignore {
		c.awaitProfile(t, ignore[i].Name, "Accepted True Accepted", "Ready True Ready")
	}
}

func (c *cluster) certificates(t *testing.T) {
	for _, name := range []string{"pillion-webhook-tls", "pillion-ca"} {
		lost := &corev1.Secret{}
		c.get(t, types.NamespacedName{Namespace: "pillion-system", Name: name}, lost)
		c.remove(t, lost)
		made := &corev1.Secret{}
		c.await(t, func() (bool, error) {
			err := c.Get(t.Context(), client.ObjectKeyFromObject(lost), made)
			return err == nil, err
		})
		if bytes.Equal(made.Data[corev1.TLSCertKey], lost.Data[corev1.TLSCertKey]) {
			t.Errorf("Secret %s is as it was", name)
		}
	}
	c.await(t, func() (bool, error) {
		secret := &corev1.Secret{}
		c.get(t, types.NamespacedName{Namespace: "pillion-system", Name: "pillion-webhook-tls"}, secret)
		pair := certs.Pair{Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
		for _, webhook := range c.configuration(t).Webhooks {
			if err := certs.Verify(pair, webhook.ClientConfig.CABundle, []string{"127.0.0.1"}, time.Now()); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

func (c *cluster) create(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) remove(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) get(t *testing.T, key types.NamespacedName, into client.Object) {
	t.Helper()
	if err := c.Get(t.Context(), key, into); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) configuration(t *testing.T) *admissionregistrationv1.MutatingWebhookConfiguration {
	t.Helper()
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	c.get(t, types.NamespacedName{Name: "pillion"}, configuration)
	return configuration
}

func (c *cluster) await(t *testing.T, condition func() (bool, error)) {
	t.Helper()
	if err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { return condition() }); err != nil {
		t.Fatal(err)
	}
}

// awaitProfile waits until the ClusterPatternProfile's conditions are as given, as "TYPE STATUS REASON".
func (c *cluster) awaitProfile(t *testing.T, name string, want ...string) {
	t.Helper()
	c.await(t, func() (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		c.get(t, types.NamespacedName{Name: name}, profile)
		return conditionsAre(profile.Status, want...)
	})
}

func conditionsAre(status v1alpha1.ProfileStatus, want ...string) (bool, error) {
	var got []string
	for _, conditionType := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionReady} {
		if condition := meta.FindStatusCondition(status.Conditions, conditionType); condition != nil {
			got = append(got, fmt.Sprintf("%s %s %s", condition.Type, condition.Status, condition.Reason))
		}
	}
	return slices.Equal(got, want), fmt.Errorf("conditions %q, want %q", got, want)
}

func podIn(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "web-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}

// shape collects what makes a Pod of a test.
func shape(changes ...func(*corev1.Pod)) []func(*corev1.Pod) { return changes }

func gitSync() *v1alpha1.GitSync {
	return &v1alpha1.GitSync{Repo: "https://git.example.com/site.git", MountPath: "/srv/site"}
}

func gitSyncProfile(profile v1alpha1.ClusterPatternProfile) *v1alpha1.ClusterPatternProfile {
	profile.Spec.GitSync = gitSync()
	return &profile
}

// idOf is the id of an Ignore selection by labels, each KEY=VALUE or empty.
func idOf(namespaces, pods string) string {
	return (&selection{
		Policy:     v1alpha1.FailurePolicyIgnore,
		Namespaces: canonical(equal(namespaces)),
		Pods:       canonical(equal(pods)),
	}).id()
}

func entryNames(configuration *admissionregistrationv1.MutatingWebhookConfiguration) []string {
	var names []string
	for i := range configuration.Webhooks {
		names = append(names, configuration.Webhooks[i].Name)
	}
	return names
}

// webhook allows everything and remembers at which paths it was called.
type webhook struct {
	url     string
	serving *certs.Serving

	mu    sync.Mutex
	paths []string
}

func startWebhook(t *testing.T) *webhook {
	t.Helper()
	w := &webhook{serving: &certs.Serving{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "https://" + listener.Addr().String()
	server := &http.Server{
		Handler:           w,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: w.serving.GetCertificate},
		ErrorLog:          log.New(t.Output(), "", 0),
		ReadHeaderTimeout: time.Second,
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.ServeTLS(listener, "", "") }()
	return w
}

// present serves with a Secret's certificate.
func (w *webhook) present(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	err := w.serving.Update(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], secret.Data[certs.CABundleKey],
		[]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
}

func (w *webhook) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = nil
}

func (w *webhook) calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.paths)
}

func (w *webhook) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	review := admissionv1.AdmissionReview{}
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(response, "no review", http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	w.paths = append(w.paths, request.URL.Path)
	w.mu.Unlock()
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(review)
}
