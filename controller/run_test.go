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
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/transport"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// TestTheControllerOnARealAPIServer runs the controller with its own ServiceAccount's permissions. Each part begins where the one
// before it ended.
func TestTheControllerOnARealAPIServer(t *testing.T) {
	server := fixture.Installed(t)
	webhook := startWebhook(t)
	c := &cluster{Client: server.Client, webhook: webhook}
	for _, configuration := range configurations() {
		c.remove(t, configuration)
	}
	stop := startController(t, server, webhook.url, nil)

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
		{"policy that enforces has two entries, and is ready once both stand", (*cluster).enforces},
		{"profiles that come after each other in a circle say so", (*cluster).circles},
		{"a spec that cannot be used leaves the last good one serving", (*cluster).breaks},
		{"Pods are counted", (*cluster).counts},
		{"a deleted profile is kept while somebody asks for it", (*cluster).keeps},
		{"a deleted profile is let go when an administrator says so", (*cluster).releases},
		{"a namespace that goes waits for no profile", (*cluster).terminates},
		{"a lost certificate is made again", (*cluster).certificates},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(c, t) }) {
			break
		}
	}
	t.Run("numbers of Pods from before a restart are mended", func(t *testing.T) {
		c.restarts(t, stop, func(wrap transport.WrapperFunc) { stop = startController(t, server, webhook.url, wrap) })
	})
	if err := stop(); err != nil {
		t.Errorf("the controller ended with: %v", err)
	}
}

// startController runs the controller until the returned function is called, which gives Run's error. What it asks of the API
// server goes through wrap unless that is nil.
func startController(t *testing.T, server *apiserver.Server, webhookURL string, wrap transport.WrapperFunc) func() error {
	t.Helper()
	config, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	config.Wrap(wrap)
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
			RecheckUsers:         100 * time.Millisecond,
			CountsInterval:       100 * time.Millisecond,
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
	for _, configuration := range configurations() {
		configuration.SetAnnotations(map[string]string{"theirs": "kept"})
		configuration.SetLabels(map[string]string{"theirs": "kept"})
		c.create(t, configuration)
	}
	c.awaitProfile(t, "site-content", "Accepted True Accepted", "Ready True Ready")
	configuration := c.configuration(t)
	want := []string{"pods.pillion.dev", "namespaces.pillion.dev", "match-" + idOf("env=prod", "app=web") + ".pillion.dev"}
	if diff := cmp.Diff(want, entryNames(configuration)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if configuration.Annotations["theirs"] != "kept" || configuration.Labels["theirs"] != "kept" {
		t.Errorf("annotations %v, labels %v", configuration.Annotations, configuration.Labels)
	}
	c.await(t, func() (bool, error) {
		got := c.validations(t)
		want := []string{profilesEntry, workloadsEntry, workloadNamespacesEntry, workloadMatchEntryName(idOf("env=prod", "app=web"))}
		return slices.Equal(got, want), fmt.Errorf("validating entries %q", got)
	})
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
	shop := "/inject/any/" + (&profiles.Selection{Policy: v1alpha1.FailurePolicyFail, Inside: true}).ID()
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
	fail := numbered("p", 12, v1alpha1.FailurePolicyFail)
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

	ignore := numbered("p", 12, v1alpha1.FailurePolicyIgnore)
	for i := range ignore {
		ignore[i].Name, ignore[i].CreationTimestamp = "i"+ignore[i].Name, metav1.Time{}
		c.create(t, gitSyncProfile(ignore[i]))
	}
	want := []string{
		podsEntry, namespacesEntry,
		matchEntryName((&profiles.Selection{Policy: v1alpha1.FailurePolicyFail, Inside: true}).ID()), matchEntryName(idOf("", "")),
	}
	c.await(t, func() (bool, error) {
		diff := cmp.Diff(want, entryNames(c.configuration(t)))
		return diff == "", errors.New(diff)
	})
	for i := range ignore {
		c.awaitProfile(t, ignore[i].Name, "Accepted True Accepted", "Ready True Ready")
	}
}

func (c *cluster) enforces(t *testing.T) {
	selection := profiles.Selection{
		Policy: v1alpha1.FailurePolicyFail, Enforce: true, Namespaces: *equal("env=prod"), Pods: *equal("app=audited"),
	}
	entry, verification := matchEntryName(selection.ID()), verifyEntryName(selection.ID())
	c.remove(t, configurations()[1])
	c.create(t, gitSyncProfile(enforcing(clusterProfile("audit", v1alpha1.FailurePolicyFail, "env=prod", "app=audited"))))
	c.awaitProfile(t, "audit", "Accepted True Accepted", "Ready False WebhookConfigurationNotFound")
	c.create(t, configurations()[1])
	c.awaitProfile(t, "audit", "Accepted True Accepted", "Ready True Ready")
	want := []string{
		profilesEntry, verification, workloadsEntry, workloadNamespacesEntry, workloadMatchEntryName(selection.ID()),
		workloadMatchEntryName(idOf("", "")), // and none for PatternProfiles: it is for all namespaces
	}
	if got := c.validations(t); !slices.Equal(got, want) {
		t.Errorf("validating entries %q", got)
	}
	if got := entryNames(c.configuration(t)); !slices.Contains(got, entry) {
		t.Errorf("mutating entries %q", got)
	}
	c.await(t, func() (bool, error) { // neither none nor a mark keeps it off, and it is asked again about what is to be stored
		c.webhook.forget()
		pod := podIn("prod")
		pod.Labels = map[string]string{"app": "audited", v1alpha1.InjectedKey: "true"}
		pod.Annotations = map[string]string{v1alpha1.InjectKey: "none"}
		err := c.Create(t.Context(), pod, client.DryRunAll)
		want := []string{"/inject/enforce/" + selection.ID(), "/verify/enforce/" + selection.ID()}
		return slices.Equal(c.webhook.calls(), want), errors.Join(err, fmt.Errorf("calls %q, want %q", c.webhook.calls(), want))
	})
	c.remove(t, gitSyncProfile(clusterProfile("audit", "", "", "")))
	c.await(t, func() (bool, error) {
		mutating, validating := entryNames(c.configuration(t)), c.validations(t)
		gone := !slices.Contains(mutating, entry) && !slices.Contains(validating, verification)
		return gone, fmt.Errorf("entries %q %q", mutating, validating)
	})
}

func (c *cluster) circles(t *testing.T) {
	one, other := c.onDemand("one"), c.onDemand("other")
	other.Spec.After = []string{"one"}
	c.create(t, other)
	c.awaitProfile(t, "other", "Accepted False InvalidSpec", "Ready False NotAccepted")
	c.create(t, one)
	c.awaitProfile(t, "other", "Accepted True Accepted", "Ready True Ready")
	c.awaitProfile(t, "one", "Accepted True Accepted", "Ready True Ready")
	c.change(t, one, func() { one.Spec.After = []string{"other"} })
	for _, name := range []string{"one", "other"} {
		c.await(t, func() (bool, error) {
			profile := &v1alpha1.ClusterPatternProfile{}
			c.get(t, types.NamespacedName{Name: name}, profile)
			condition := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionAccepted)
			return condition.Status == metav1.ConditionFalse, fmt.Errorf("%s: %+v", name, profile.Status)
		})
	}
	c.change(t, one, func() { one.Spec.After = nil })
	c.awaitProfile(t, "one", "Accepted True Accepted", "Ready True Ready")
	c.awaitProfile(t, "other", "Accepted True Accepted", "Ready True Ready")
	c.remove(t, other)
	c.remove(t, one)
}

func (c *cluster) breaks(t *testing.T) {
	profile := c.onDemand("breaks")
	c.create(t, profile)
	c.awaitProfile(t, "breaks", "Accepted True Accepted", "Ready True Ready")
	c.get(t, client.ObjectKeyFromObject(profile), profile)
	good, revision := profile.Status.LastGood, profile.Status.Revision
	if good == nil || good.Generation != profile.Generation || !bytes.Contains(good.Spec.Raw, []byte(profile.Spec.GitSync.Repo)) {
		t.Fatalf("last good: %+v", good)
	}
	deployment := deploymentIn("plain", "asks-for-breaks", "breaks")
	c.create(t, deployment)
	c.change(t, profile, func() { profile.Spec.Overridable = []string{"noSuchField"} })
	c.awaitProfile(t, "breaks", "Accepted False InvalidSpec", "Ready False ServingLastGood")
	c.awaitUse(t, "breaks", "True AskedFor", "1 still ask for the profile: Deployment plain/asks-for-breaks.")
	c.get(t, client.ObjectKeyFromObject(profile), profile)
	if !cmp.Equal(profile.Status.LastGood, good) || profile.Status.Revision != revision {
		t.Errorf("last good %+v, revision %s", profile.Status.LastGood, profile.Status.Revision)
	}
	c.remove(t, deployment)
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(profile), profile)
		return profile.Status.LastGood == nil, errors.New("the last good spec stays although nobody asks")
	})
	c.awaitProfile(t, "breaks", "Accepted False InvalidSpec", "Ready False NotAccepted")
	c.awaitUse(t, "breaks", "", "")
	c.change(t, profile, func() { profile.Spec.Overridable = nil })
	c.awaitProfile(t, "breaks", "Accepted True Accepted", "Ready True Ready")
	c.remove(t, profile)
}

func (c *cluster) counts(t *testing.T) {
	c.create(t, c.onDemand("counted"))
	c.awaitProfile(t, "counted", "Accepted True Accepted", "Ready True Ready")
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "counted"}, profile)
	current := fmt.Sprintf(`{"counted":{"kind":"GitSync","revision":%q,"containers":[]}}`, profile.Status.Revision)
	var pods []*corev1.Pod
	for i, injected := range []string{current, current, `{"counted":{"revision":"old"}}`} {
		pod := podIn("plain")
		pod.Name, pod.GenerateName = fmt.Sprintf("counted-%d", i), ""
		pod.Labels = map[string]string{v1alpha1.InjectedKey: "true"}
		pod.Annotations = map[string]string{v1alpha1.InjectedKey: injected}
		c.create(t, pod)
		pods = append(pods, pod)
	}
	c.awaitCounts(t, "counted", v1alpha1.PodCounts{Current: 2, Outdated: 1})
	shadow := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "plain", Name: "counted"}}
	shadow.Spec.GitSync = gitSync()
	c.create(t, shadow)
	shadowed := podIn("plain")
	shadowed.Labels = map[string]string{v1alpha1.InjectedKey: "true"}
	shadowed.Annotations = map[string]string{v1alpha1.InjectedKey: `{"counted":{"revision":"old","namespace":"plain"}}`}
	c.create(t, shadowed)
	pods = append(pods, shadowed)
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(shadow), shadow)
		return shadow.Status.Pods != nil && *shadow.Status.Pods == v1alpha1.PodCounts{Outdated: 1},
			fmt.Errorf("the PatternProfile has %+v", shadow.Status.Pods)
	})
	c.awaitCounts(t, "counted", v1alpha1.PodCounts{Current: 2, Outdated: 1})
	c.remove(t, shadow)
	for i, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} { // they have ended, and stay
		ended := pods[i+1]
		ended.Status.Phase = phase
		if err := c.Status().Update(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
		c.awaitCounts(t, "counted", []v1alpha1.PodCounts{{Current: 1, Outdated: 1}, {Current: 1}}[i])
	}
	for _, pod := range pods {
		if err := c.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	c.awaitCounts(t, "counted", v1alpha1.PodCounts{})
	c.remove(t, profile)
}

// restarts lets the controller begin anew, and learn of its Pods last.
func (c *cluster) restarts(t *testing.T, stop func() error, start func(transport.WrapperFunc)) {
	c.create(t, c.onDemand("restarted"))
	c.awaitProfile(t, "restarted", "Accepted True Accepted", "Ready True Ready")
	var pods []*corev1.Pod
	for range 2 {
		pod := podIn("plain")
		pod.Labels = map[string]string{v1alpha1.InjectedKey: "true"}
		pod.Annotations = map[string]string{v1alpha1.InjectedKey: `{"restarted":{"revision":"old"}}`}
		c.create(t, pod)
		pods = append(pods, pod)
	}
	c.awaitCounts(t, "restarted", v1alpha1.PodCounts{Outdated: 2})
	if err := stop(); err != nil {
		t.Errorf("the controller ended with: %v", err)
	}
	pods[0].Status.Phase = corev1.PodSucceeded
	if err := c.Status().Update(t.Context(), pods[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), pods[1], client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: "restarted"}, profile)
	profile.Status.Kind = "Nonsense"
	if err := c.Status().Update(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	listed := make(chan struct{})
	start(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(request *http.Request) (*http.Response, error) {
			if request.URL.Path == "/api/v1/pods" {
				select {
				case <-listed:
				case <-request.Context().Done():
				}
			}
			return next.RoundTrip(request)
		})
	})
	c.await(t, func() (bool, error) {
		c.get(t, types.NamespacedName{Name: "restarted"}, profile)
		return profile.Status.Kind == v1alpha1.KindGitSync, fmt.Errorf("kind %s", profile.Status.Kind)
	})
	if got := profile.Status.Pods; got == nil || got.Outdated != 2 {
		t.Errorf("before Pods are listed there are %+v", got)
	}
	close(listed)
	c.awaitCounts(t, "restarted", v1alpha1.PodCounts{})
	c.remove(t, profile)
}

// roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

func (c *cluster) keeps(t *testing.T) {
	profile := c.onDemand("kept")
	c.create(t, profile)
	c.awaitProfile(t, "kept", "Accepted True Accepted", "Ready True Ready")
	deployment, elsewhere := deploymentIn("plain", "asks", "kept"), deploymentIn("shop", "asks-for-its-own", "kept")
	own := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kept"}}
	own.Spec.GitSync = gitSync()
	c.create(t, own)
	c.create(t, deployment)
	c.create(t, elsewhere)
	c.await(t, func() (bool, error) { // it is accepted with its finalizer
		c.get(t, client.ObjectKeyFromObject(own), own)
		return conditionsAre(own.Status, "Accepted True Accepted", "Ready True Ready")
	})
	c.remove(t, profile)
	c.awaitProfile(t, "kept", "Accepted True Accepted", "Ready False Terminating")
	c.awaitUse(t, "kept", "True AskedFor", "1 still ask for the profile: Deployment plain/asks.")
	namespace := &corev1.Namespace{}
	c.get(t, types.NamespacedName{Name: "prod"}, namespace)
	c.change(t, namespace, func() { namespace.Labels[v1alpha1.InjectKey] = "site-content.kept" })
	c.awaitUse(t, "kept", "True AskedFor", "2 still ask for the profile: Deployment plain/asks, Namespace prod.")
	c.remove(t, deployment)
	c.awaitUse(t, "kept", "True AskedFor", "1 still ask for the profile: Namespace prod.")
	c.change(t, namespace, func() { delete(namespace.Labels, v1alpha1.InjectKey) })
	c.awaitGone(t, profile)
	c.remove(t, elsewhere)
	c.remove(t, own)
	c.awaitGone(t, own)
}

func (c *cluster) releases(t *testing.T) {
	profile, deployment := c.onDemand("released"), deploymentIn("plain", "asks-for-released", "released")
	c.create(t, profile)
	c.create(t, deployment)
	c.awaitProfile(t, "released", "Accepted True Accepted", "Ready True Ready")
	c.remove(t, profile)
	c.awaitProfile(t, "released", "Accepted True Accepted", "Ready False Terminating")
	c.change(t, profile, func() { profile.Annotations = map[string]string{v1alpha1.ReleaseKey: "true"} })
	c.awaitGone(t, profile)
	c.remove(t, deployment)
}

func (c *cluster) terminates(t *testing.T) {
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}})
	profile := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "local"}}
	profile.Spec.GitSync = gitSync()
	c.create(t, profile)
	c.create(t, deploymentIn("going", "asks", "local"))
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(profile), profile)
		return conditionsAre(profile.Status, "Accepted True Accepted", "Ready True Ready")
	})
	c.remove(t, profile)
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(profile), profile)
		return conditionsAre(profile.Status, "Accepted True Accepted", "Ready False Terminating")
	})
	c.remove(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}})
	c.awaitGone(t, profile)
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
		// Of a lost CA the certificate stays trusted, which the webhook serves by, until the next one takes over.
		if name == "pillion-ca" && len(made.Data["next.crt"]) == 0 {
			t.Error("there is no CA to take over from the lost one")
		}
		if name != "pillion-ca" && bytes.Equal(made.Data[corev1.TLSCertKey], lost.Data[corev1.TLSCertKey]) {
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

// onDemand returns a ClusterPatternProfile that only those get who ask.
func (*cluster) onDemand(name string) *v1alpha1.ClusterPatternProfile {
	return gitSyncProfile(withoutMatch(clusterProfile(name, "", "", "")))
}

// deploymentIn returns a Deployment whose Pods ask for profiles.
func deploymentIn(namespace, name, asksFor string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{v1alpha1.InjectKey: asksFor}},
				Spec:       podIn(namespace).Spec,
			},
		},
	}
}

// change changes an object as it is now.
func (c *cluster) change(t *testing.T, object client.Object, change func()) {
	t.Helper()
	c.await(t, func() (bool, error) {
		c.get(t, client.ObjectKeyFromObject(object), object)
		change()
		err := c.Update(t.Context(), object)
		return err == nil, err
	})
}

func (c *cluster) awaitGone(t *testing.T, object client.Object) {
	t.Helper()
	c.await(t, func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err), errors.Join(err, fmt.Errorf("it is still there, with finalizers %q", object.GetFinalizers()))
	})
}

func (c *cluster) awaitCounts(t *testing.T, name string, want v1alpha1.PodCounts) {
	t.Helper()
	c.await(t, func() (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		c.get(t, types.NamespacedName{Name: name}, profile)
		return profile.Status.Pods != nil && *profile.Status.Pods == want, fmt.Errorf("%+v, want %+v", profile.Status.Pods, want)
	})
}

// awaitUse waits until the condition InUse is as given, as "STATUS REASON" and the message; both empty: there is none.
func (c *cluster) awaitUse(t *testing.T, name, want, message string) {
	t.Helper()
	c.await(t, func() (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		c.get(t, types.NamespacedName{Name: name}, profile)
		condition := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionInUse)
		if condition == nil {
			return want == "", errors.New("no condition InUse")
		}
		got := string(condition.Status) + " " + condition.Reason
		return got == want && condition.Message == message, fmt.Errorf("InUse %s: %s", got, condition.Message)
	})
}

// validations returns the names of the validating entries.
func (c *cluster) validations(t *testing.T) []string {
	t.Helper()
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	c.get(t, types.NamespacedName{Name: "pillion"}, configuration)
	var names []string
	for i := range configuration.Webhooks {
		names = append(names, configuration.Webhooks[i].Name)
	}
	return names
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
	selection := profiles.Selection{Policy: v1alpha1.FailurePolicyIgnore}
	if selector := equal(namespaces); selector != nil {
		selection.Namespaces = *selector
	}
	if selector := equal(pods); selector != nil {
		selection.Pods = *selector
	}
	return selection.ID()
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

// configurations are the objects that the installation has and the controller fills.
func configurations() []client.Object {
	meta := metav1.ObjectMeta{Name: "pillion"}
	return []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: meta},
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: meta},
	}
}
