// Command bench measures what Pillion costs the creation of a Pod, through a real API server, against a no-op webhook that gives the
// very same patch; and the webhook's memory with 1,000 profiles after 50,000 requests. Lanes are interleaved in one run, so that a
// machine that speeds up or slows down does so for all of them.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == noopCommand {
		if err := serveNoop(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	creates := flag.Int("creates", 600, "dry-run creates per lane and number of clients")
	requests := flag.Int("requests", 50_000, "reviews before memory is read")
	profiles := flag.Int("profiles", 1000, "profiles and namespaces when memory is read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *creates, *requests, *profiles); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to clean up: run has done it
	}
}

// namespace is where Pods are created, without ever being stored.
const namespace = "bench"

// The profiles of the lanes.
const (
	oneProfile   = "site-content"
	fourProfiles = "site-content, site-config, page-cache, page-metrics"
)

func run(ctx context.Context, creates, requests, profiles int) (err error) {
	dir, err := os.MkdirTemp("", "pillion-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := apiserver.Start(ctx, apiserver.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	binary, err := installation.Build(ctx, dir)
	if err != nil {
		return err
	}
	pillion, err := installation.Start(ctx, server, installation.Options{Binary: binary, Env: []string{"PILLION_LOG_LEVEL=warn"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pillion.Stop()) }()
	floor, err := startNoop(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()

	b := &bench{server: server, pillion: pillion, floor: floor}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, clients := range []int{1, 4} {
		if err := b.latency(ctx, creates, clients); err != nil {
			return err
		}
	}
	return b.memory(ctx, requests, profiles)
}

type bench struct {
	server  *apiserver.Server
	pillion *installation.Installation
	floor   *noop
	// review is a review as the API server sends it to Pillion; direct reaches Pillion without the API server.
	review []byte
	direct *http.Client
}

// prepare installs the profiles and the no-op webhook, and gives that the patches that Pillion gives.
func (b *bench) prepare(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: namespace}}
	for _, object := range []client.Object{ns, account} {
		if err := b.server.Client.Create(ctx, object); err != nil {
			return err
		}
	}
	profiles, err := apiserver.Read(bytes.NewReader(profilesYAML))
	if err != nil {
		return err
	}
	for _, profile := range profiles {
		if err := b.server.Apply(ctx, profile); err != nil {
			return err
		}
	}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := b.server.Client.Get(ctx, client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
		return err
	}
	if b.direct, err = trusting(configuration.Webhooks[0].ClientConfig.CABundle); err != nil {
		return err
	}
	if err := b.server.Client.Create(ctx, b.floorConfiguration()); err != nil {
		return err
	}
	for _, lane := range []struct{ name, inject string }{{"noop-one", oneProfile}, {"noop-four", fourProfiles}} {
		if err := b.teach(ctx, lane.name, lane.inject); err != nil {
			return fmt.Errorf("find the patch for the lane %s: %w", lane.name, err)
		}
	}
	return nil
}

// floorConfiguration sends Pods to the no-op webhook by their label "lane".
func (b *bench) floorConfiguration() *admissionregistrationv1.MutatingWebhookConfiguration {
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "a-floor"}}
	for _, lane := range []string{"noop-one", "noop-four"} {
		url := b.floor.url + "/" + lane
		configuration.Webhooks = append(configuration.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name:                    lane + ".example.com",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: b.floor.ca},
			AdmissionReviewVersions: []string{"v1"},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{"lane": lane}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		})
	}
	return configuration
}

// teach sends a Pod through the API server past the no-op webhook, which records the review, asks Pillion with that review, and gives
// its patch to the no-op webhook.
func (b *bench) teach(ctx context.Context, lane, inject string) error {
	err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		pod := benchPod(lane, v1alpha1.InjectKey, inject)
		if err := b.server.Client.Create(ctx, pod, client.DryRunAll); err != nil {
			return false, err
		}
		review, err := b.floor.recorded("/" + lane)
		b.review = review
		return len(review) > 0 && len(pod.Spec.InitContainers) > 0, err
	})
	if err != nil {
		return err
	}
	patch, err := b.ask(ctx)
	if err != nil {
		return err
	}
	return b.floor.give("/"+lane, patch)
}

// ask sends the recorded review to Pillion and returns the patch.
func (b *bench) ask(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.pillion.WebhookURL+"/inject/pods", bytes.NewReader(b.review))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := b.direct.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, review); err != nil {
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	if len(review.Response.Patch) == 0 {
		return nil, fmt.Errorf("no patch from Pillion: %v", review.Response.Result)
	}
	return review.Response.Patch, nil
}

// lane is one way for a Pod to be created.
type lane struct {
	name string
	pod  func() *corev1.Pod
}

// The key of the other lanes is as long as Pillion's, so that all Pods are of one size.
const otherKey = "example.co/inject"

func lanes() []lane {
	return []lane{
		{"no webhook", func() *corev1.Pod { return benchPod("none", otherKey, oneProfile) }},
		{"no-op, patch of one profile", func() *corev1.Pod { return benchPod("noop-one", otherKey, oneProfile) }},
		{"Pillion, one profile", func() *corev1.Pod { return benchPod("pillion", v1alpha1.InjectKey, oneProfile) }},
		{"no-op, patch of four profiles", func() *corev1.Pod { return benchPod("noop-four", otherKey, fourProfiles) }},
		{"Pillion, four profiles", func() *corev1.Pod { return benchPod("pillion", v1alpha1.InjectKey, fourProfiles) }},
	}
}

// latency prints what each lane's creates take.
func (b *bench) latency(ctx context.Context, creates, clients int) error {
	const warmUp = 30
	all := lanes()
	times := make([][]time.Duration, len(all))
	var mu sync.Mutex
	var group sync.WaitGroup
	var failed error
	for range clients {
		group.Go(func() {
			for i := range creates/clients + warmUp {
				for l, lane := range all {
					pod := lane.pod()
					start := time.Now()
					err := b.server.Client.Create(ctx, pod, client.DryRunAll)
					took := time.Since(start)
					mu.Lock()
					if err != nil {
						failed = err
					} else if i >= warmUp {
						times[l] = append(times[l], took)
					}
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}
		})
	}
	group.Wait()
	if failed != nil {
		return failed
	}
	fmt.Printf("\ndry-run Pod creates, %d per lane, %d client(s), lanes interleaved\n", len(times[0]), clients)
	fmt.Printf("%-32s %10s %10s %12s\n", "lane", "p50", "p90", "added p50")
	medians := make([]time.Duration, len(all))
	for l := range all {
		slices.Sort(times[l])
		medians[l] = times[l][len(times[l])/2]
		fmt.Printf("%-32s %10s %10s %12s\n", all[l].name, round(medians[l]), round(times[l][len(times[l])*9/10]), round(medians[l]-medians[0]))
	}
	ratio := func(pillion, floor int) float64 {
		return float64(medians[pillion]-medians[0]) / float64(medians[floor]-medians[0])
	}
	suffix := ""
	if clients > 1 {
		suffix = fmt.Sprintf(", %d clients", clients)
	}
	fmt.Printf("ratio to no-op (one profile%s): %.2f\n", suffix, ratio(2, 1))
	fmt.Printf("ratio to no-op (four profiles%s): %.2f\n", suffix, ratio(4, 3))
	return nil
}

func round(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// memory prints the webhook's resident set with many profiles and namespaces, after many requests.
func (b *bench) memory(ctx context.Context, requests, profiles int) error {
	for i := range profiles {
		profile := gitSyncProfile(fmt.Sprintf("profile-%d", i))
		profile.Spec.Match = &v1alpha1.ClusterMatch{PodSelector: &metav1.LabelSelector{
			MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i)},
		}}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ns-%d", i), Labels: map[string]string{"team": "web"}}}
		for _, object := range []client.Object{profile, ns} {
			if err := b.server.Client.Create(ctx, object); err != nil {
				return err
			}
		}
	}
	loaded, err := residentMiB(b.pillion.Webhook.Pid())
	if err != nil {
		return err
	}
	start := time.Now()
	const clients = 4
	var group sync.WaitGroup
	failures := make(chan error, clients)
	for range clients {
		group.Go(func() {
			for range requests / clients {
				if _, err := b.ask(ctx); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failures)
	for err := range failures {
		return err
	}
	after, err := residentMiB(b.pillion.Webhook.Pid())
	if err != nil {
		return err
	}
	fmt.Printf("\nwebhook RSS with %d profiles and namespaces: %.1f MiB; after %d requests (%.0f a second): %.1f MiB\n",
		profiles, loaded, requests, float64(requests)/time.Since(start).Seconds(), after)
	return nil
}

// residentMiB reads a process's resident set from /proc.
func residentMiB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		kib := 0
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return float64(kib) / 1024, nil
		}
	}
	return 0, errors.New("no VmRSS in the status of the process")
}

// trusting returns a client that trusts a CA and nothing else.
func trusting(ca []byte) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the CA holds no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, MaxIdleConnsPerHost: 16,
	}}, nil
}

func typesUID(uid string) types.UID { return types.UID(uid) }
