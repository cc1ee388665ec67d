// Command bench measures what Pillion costs the creation of a Pod and of a Deployment, through a real API server, against a no-op webhook
// that gives the very same patch or warning; what decisions cost; the webhook's memory with 1,000 profiles after 50,000 requests; and
// the controller's, which counts 100,000 Pods. Lanes are interleaved in one run, so that a machine that speeds up or slows down does so
// for all of them. A figure that is over its bound is told in a line that begins with OVER, and makes the exit code 1.
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
	"math"
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
	"k8s.io/apimachinery/pkg/runtime"
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
	pods := flag.Int("pods", 100_000, "Pods that the controller counts when its memory is read")
	check := flag.Bool("check", true, "exit with 1 if a figure is over its bound")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	over, err := run(ctx, *creates, *requests, *profiles, *pods)
	for _, figure := range over {
		fmt.Println("OVER:", figure)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || *check && len(over) > 0 {
		os.Exit(1) //nolint:gocritic // nothing is left to clean up: run has done it
	}
}

// The bounds. That of latency is of the time that Pillion adds, over what the no-op webhook adds, with one client: with more they
// compete with the API server for the machine.
const (
	maxRatio       = 1.25
	maxResidentMiB = 64.0
)

// namespace is where Pods are created, without ever being stored.
const namespace = "bench"

// The profiles of the lanes.
const (
	oneProfile   = "site-content"
	fourProfiles = "site-content, site-config, page-cache, page-metrics"
)

// run measures, and returns the figures that are over their bounds.
func run(ctx context.Context, creates, requests, profiles, pods int) (over []string, err error) {
	dir, err := os.MkdirTemp("", "pillion-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{}
	if err := b.decisions(); err != nil { // while nothing else runs
		return nil, err
	}
	server, err := apiserver.Start(ctx, apiserver.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	binary, err := installation.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := b.lint(ctx, binary); err != nil {
		return nil, err
	}
	pillion, err := installation.Start(ctx, server, installation.Options{Binary: binary, Env: []string{"PILLION_LOG_LEVEL=warn"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pillion.Stop()) }()
	floor, err := startNoop(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, floor.stop()) }()

	b.server, b.pillion, b.floor = server, pillion, floor
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	for _, clients := range []int{1, 4} {
		if err := b.latency(ctx, creates, clients); err != nil {
			return nil, err
		}
	}
	if err := b.workloads(ctx, creates); err != nil {
		return b.over, err
	}
	if err := b.memory(ctx, requests, profiles); err != nil {
		return b.over, err
	}
	return b.over, b.counts(ctx, pods)
}

type bench struct {
	server  *apiserver.Server
	pillion *installation.Installation
	floor   *noop
	// review is a review as the API server sends it to Pillion; direct reaches Pillion without the API server.
	review []byte
	direct *http.Client
	// over are the figures that are over their bounds, in words.
	over []string
}

// bounded keeps a figure that is over its bound, and returns the bound in words.
func (b *bench) bounded(figure string, value, bound float64) string {
	if value > bound {
		b.over = append(b.over, fmt.Sprintf("%s: %.2f, bound %.2f", figure, value, bound))
	}
	return fmt.Sprintf("(bound %.2f)", bound)
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
	patch, err := b.ask(ctx, b.review)
	if err != nil {
		return err
	}
	return b.floor.give("/"+lane, patch)
}

// ask sends a review to Pillion, past the API server, and returns the patch.
func (b *bench) ask(ctx context.Context, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.pillion.WebhookURL+"/inject/pods", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := b.direct.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(answer, review); err != nil {
		return nil, fmt.Errorf("%s: %s", response.Status, answer)
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
	for _, pair := range []struct {
		profiles       string
		pillion, floor int
	}{{"one profile", 2, 1}, {"four profiles", 4, 3}} {
		figure, value := fmt.Sprintf("ratio to no-op (%s%s)", pair.profiles, suffix), ratio(pair.pillion, pair.floor)
		bound := "(no bound)"
		if clients == 1 {
			bound = b.bounded(figure, value, maxRatio)
		}
		fmt.Printf("%s: %.2f %s\n", figure, value, bound)
	}
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
	if err := b.awaitMemory(ctx, profiles); err != nil {
		return err
	}
	loaded, err := b.settledMiB(ctx)
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
				if _, err := b.ask(ctx, b.review); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	close(failures)
	for err := range failures {
		return err
	}
	after, err := b.settledMiB(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d requests with %d profiles and namespaces: %.0f a second\n",
		requests, profiles, float64(requests)/took.Seconds())
	for _, figure := range []struct {
		name  string
		value float64
	}{{"webhook RSS in MiB, loaded", loaded}, {"webhook RSS in MiB, after the requests", after}} {
		fmt.Printf("%s: %.1f %s\n", figure.name, figure.value, b.bounded(figure.name, figure.value, maxResidentMiB))
	}
	return nil
}

// awaitMemory returns once the webhook has all profiles and namespaces in memory. No metric counts namespaces, but their changes come
// in order: once the webhook knows that the namespace of all Pods, which it has known for long, now asks by a label, it knows what
// was created before.
func (b *bench) awaitMemory(ctx context.Context, profiles int) error {
	installed, err := apiserver.Read(bytes.NewReader(profilesYAML))
	if err != nil {
		return err
	}
	want := float64(len(installed) + profiles)
	err = apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		got, err := b.pillion.Metric(ctx, "pillion_snapshot_profiles")
		return got == want, errors.Join(err, fmt.Errorf("the webhook has %v of %v profiles", got, want))
	})
	if err != nil {
		return err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	label := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, v1alpha1.InjectKey, oneProfile)
	if err := b.server.Client.Patch(ctx, ns, client.RawPatch(types.MergePatchType, label)); err != nil {
		return err
	}
	silent, err := silentReview()
	if err != nil {
		return err
	}
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		_, err := b.ask(ctx, silent)
		return err == nil, err
	})
}

// silentReview is a review of a Pod that does not ask itself.
func silentReview() ([]byte, error) {
	pod := benchPod("none", otherKey, "")
	pod.APIVersion, pod.Kind = "v1", "Pod"
	object, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	review := admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID: "0123", Operation: admissionv1.Create, Namespace: namespace, Object: runtime.RawExtension{Raw: object},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
	}}
	review.APIVersion, review.Kind = "admission.k8s.io/v1", "AdmissionReview"
	return json.Marshal(review)
}

// settledReads is how often in a row, 50 times a second, the resident set has to be the same.
const settledReads = 200

// settledMiB returns the webhook's resident set once it stays the same for some seconds: what the changes of a thousand profiles left
// behind is given back then.
func (b *bench) settledMiB(ctx context.Context) (resident float64, err error) {
	same := 0
	err = apiserver.Await(ctx, func(context.Context) (bool, error) {
		now, err := residentMiB(b.pillion.Webhook.Pid())
		if math.Abs(now-resident) < 0.5 {
			same++
		} else {
			same = 0
		}
		resident = now
		return same >= settledReads, err
	})
	return resident, err
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
