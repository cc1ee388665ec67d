package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// scraped returns the lines of a scrape that begin with "pillion_profile", sorted.
func scraped(ctx context.Context, url string) (lines []string, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "pillion_profile") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return lines, string(text), err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nobody connected
	return listener.Addr().String()
}

// TestAScrapeTellsWhichProfilesAreReady scrapes controllers of one process, on a real API server.
func TestAScrapeTellsWhichProfilesAreReady(t *testing.T) {
	server := fixture.Installed(t)
	config, err := server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	start := func(address string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, config, Options{
				Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
				WebhookConfiguration: "pillion", WebhookURL: "https://127.0.0.1:1", MetricsAddress: address, Logger: testr.New(t),
			})
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	await := func(address string, want ...string) (body string) {
		t.Helper()
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			lines, text, err := scraped(ctx, "http://"+address+"/metrics")
			body = text
			diff := cmp.Diff(want, lines)
			return err == nil && diff == "", errors.Join(err, errors.New(diff))
		})
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	none := []string{
		`pillion_profiles{ready="True",reason="Ready",scope="cluster"} 0`,
		`pillion_profiles{ready="True",reason="Ready",scope="namespace"} 0`,
	}
	first, second := freeAddress(t), freeAddress(t)
	stopFirst := start(first)
	await(first, none...)

	onDemand := func(name string) *v1alpha1.ClusterPatternProfile {
		return gitSyncProfile(withoutMatch(clusterProfile(name, v1alpha1.FailurePolicyIgnore, "", "")))
	}
	waits := onDemand("waits")
	waits.Spec.After = []string{"nobody"}
	own := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "site"}}
	own.Spec.GitSync = gitSync()
	for _, object := range []client.Object{onDemand("site"), waits, own} {
		if err := server.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	some := []string{
		`pillion_profile_not_ready{namespace="",profile="waits",reason="NotAccepted"} 1`,
		`pillion_profiles{ready="False",reason="NotAccepted",scope="cluster"} 1`,
		`pillion_profiles{ready="True",reason="Ready",scope="cluster"} 1`,
		`pillion_profiles{ready="True",reason="Ready",scope="namespace"} 1`,
	}
	body := await(first, some...)
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "pillion_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}

	stopSecond := start(second)
	await(second, some...) // of both together, each profile once
	stopFirst()
	await(second, some...)
	stopSecond()
	third := freeAddress(t)
	stopThird := start(third)
	defer stopThird()
	await(third, some...)
}

// catalogOf returns a catalog that has read some profiles.
func catalogOf(t *testing.T, objects ...client.Object) *catalog {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := newCatalog(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	return c
}

// gathered returns the metrics of a registry: each with its labels' values in the order of their names, and its value.
func gathered(t *testing.T, registry *prometheus.Registry) []string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			line := family.GetName()
			for _, label := range metric.GetLabel() {
				line += " " + label.GetName() + "=" + label.GetValue()
			}
			lines = append(lines, fmt.Sprintf("%s %v", line, metric.GetGauge().GetValue()))
		}
	}
	return lines
}

func TestMetricsNameTheFirstProfilesThatAreNotReadyAndReasonsThatAreKnown(t *testing.T) {
	registry := prometheus.NewRegistry()
	var objects []client.Object
	for i := range 120 {
		profile := gitSyncProfile(withoutMatch(clusterProfile(fmt.Sprintf("p-%03d", i), v1alpha1.FailurePolicyIgnore, "", "")))
		profile.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: fmt.Sprintf("Forged%d", i),
			LastTransitionTime: metav1.NewTime(time.Unix(1, 0)),
		}}
		objects = append(objects, profile)
	}
	pending := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "new"}}
	pending.Spec.GitSync = gitSync()
	forget, err := registerProfiles(registry, catalogOf(t, append(objects, pending)...))
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	var named, counted []string
	for _, line := range gathered(t, registry) {
		if strings.HasPrefix(line, "pillion_profiles ") {
			counted = append(counted, line)
		} else {
			named = append(named, line)
		}
	}
	want := []string{
		"pillion_profiles ready=False reason=Other scope=cluster 120",
		"pillion_profiles ready=True reason=Ready scope=cluster 0",
		"pillion_profiles ready=True reason=Ready scope=namespace 0",
		"pillion_profiles ready=Unknown reason=Pending scope=namespace 1",
	}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Error(diff)
	}
	last := "pillion_profile_not_ready namespace= profile=p-099 reason=Other 1"
	if len(named) != maxNotReady || !slices.Contains(named, last) {
		t.Errorf("%d are named: %q", len(named), named)
	}
}

func TestAControllerThatEndedIsNotToldOf(t *testing.T) {
	registry := prometheus.NewRegistry()
	site := gitSyncProfile(withoutMatch(clusterProfile("site", v1alpha1.FailurePolicyIgnore, "", "")))
	forgetFirst, err := registerProfiles(registry, catalogOf(t, site))
	if err != nil {
		t.Fatal(err)
	}
	forgetSecond, err := registerProfiles(registry, catalogOf(t))
	if err != nil {
		t.Fatalf("a second controller in one process: %v", err)
	}
	pending := "pillion_profiles ready=Unknown reason=Pending scope=cluster 1"
	if got := gathered(t, registry); !slices.Contains(got, pending) {
		t.Errorf("of two: %q", got)
	}
	forgetFirst()
	if got := gathered(t, registry); slices.Contains(got, pending) || len(got) != 2 {
		t.Errorf("of the second: %q", got)
	}
	forgetSecond()
	if got := gathered(t, registry); len(got) > 0 {
		t.Errorf("of none: %q", got)
	}
	forgetThird, err := registerProfiles(registry, catalogOf(t, site))
	if err != nil {
		t.Fatal(err)
	}
	defer forgetThird()
	if got := gathered(t, registry); !slices.Contains(got, pending) {
		t.Errorf("of the third: %q", got)
	}
}
