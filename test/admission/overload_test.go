package admission

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
	"github.com/pillion-dev/pillion/test/installation"
	"github.com/pillion-dev/pillion/webhook"
)

const (
	// Limits of the webhook under fire: few requests, and as many bytes as four bodies may have, within a memory limit.
	fireRequests = 16
	fireMemory   = 100 << 20
	// fireHeaders is how long headers may take.
	fireHeaders = 3 * time.Second
)

// underFire is a webhook of which clients have to present a certificate, beside an API server that presents one.
type underFire struct {
	*processes

	binary, clientCA string
	client           tls.Certificate
	review           []byte
}

// TestAWebhookUnderFire asks more of the webhook's process than it may take: what is too much is refused, and nobody else is harmed.
func TestAWebhookUnderFire(t *testing.T) {
	t.Parallel()
	f := igniteWebhook(t)
	t.Run("API servers present a certificate, or are refused", f.clientCertificates)
	t.Run("four times as many requests as there may be", f.overload)
	t.Run("large bodies stay within the memory limit", f.memory)
	t.Run("bodies that would grow to gigabytes", f.growth)
	t.Run("500 connections with slow headers, and as many without a handshake", f.slow)
	t.Run("a second signal ends it at once", f.secondSignal)
}

func igniteWebhook(t *testing.T) *underFire {
	t.Helper()
	dir := t.TempDir()
	f := &underFire{processes: &processes{log: &fixture.Log{}}, clientCA: filepath.Join(dir, "clients.pem")}
	ca, client := clientPair(t)
	f.client = client
	writeFile(t, f.clientCA, ca)
	var err error
	if f.binary, err = installation.Build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	f.server = fixture.APIServer(t, apiserver.Options{
		Flags: map[string]string{"admission-control-config-file": admissionConfiguration(t, dir, client)},
	})
	f.Installation, err = installation.Start(t.Context(), f.server, installation.Options{
		Binary: f.binary, Log: f.log, Env: []string{
			"PILLION_LOG_LEVEL=warn",
			"PILLION_WEBHOOK_CLIENT_CA=" + f.clientCA, "PILLION_WEBHOOK_CLIENT_NAMES=kube-apiserver",
			fmt.Sprintf("PILLION_WEBHOOK_MAX_REQUESTS_IN_FLIGHT=%d", fireRequests),
			fmt.Sprintf("GOMEMLIMIT=%d", fireMemory),
			"PILLION_WEBHOOK_READ_HEADER_TIMEOUT=" + fireHeaders.String(),
		},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, f.log.Take())
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Errorf("%v\n%s", err, f.log.Take())
		}
	})
	f.createReady(t, cache("fire"))
	f.review = encode(t, (&hostile{namespace: f.namespace(t, nil)}).request(t, pod("", v1alpha1.InjectKey, "fire")))
	f.normal(t)
	return f
}

// clientPair returns a CA, and a certificate of it for an API server.
func clientPair(t *testing.T) (ca []byte, client tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	root := &x509.Certificate{
		Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, rootKey := issue(root, root, nil)
	leafDER, leafKey := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, root, rootKey)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}),
		tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}

// admissionConfiguration makes an API server present a certificate to all webhooks, and returns the file that says so.
func admissionConfiguration(t *testing.T, dir string, client tls.Certificate) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	kubeconfig := filepath.Join(dir, "webhooks.kubeconfig")
	writeFile(t, kubeconfig, []byte(`apiVersion: v1
kind: Config
users:
- name: "*"
  user:
    client-certificate-data: `+encoded("CERTIFICATE", client.Certificate[0])+`
    client-key-data: `+encoded("PRIVATE KEY", key)+"\n"))
	configuration := "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
	for _, plugin := range []string{"MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"} {
		configuration += "- name: " + plugin + `
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: ` + kubeconfig + "\n"
	}
	path := filepath.Join(dir, "admission.yaml")
	writeFile(t, path, []byte(configuration))
	return path
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *underFire) address() string { return strings.TrimPrefix(f.WebhookURL, "https://") }

// tls trusts what the API server trusts, and presents what it presents.
func (f *underFire) tls(t *testing.T) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(f.entries(t)[0].ClientConfig.CABundle) {
		t.Fatal("no certificate in the caBundle")
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{f.client}, MinVersion: tls.VersionTLS13}
}

func (f *underFire) clients(t *testing.T, config *tls.Config) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// post sends a body, and returns the status and how long it took.
func (f *underFire) post(client *http.Client, body []byte) (*http.Response, []byte, error) {
	response, err := client.Post(f.WebhookURL+webhook.PathPods, jsonType, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}

// normal sends what has to be woven at once.
func (f *underFire) normal(t *testing.T) {
	t.Helper()
	client := f.clients(t, f.tls(t))
	start := time.Now()
	response, answer, err := f.post(client, f.review)
	if err != nil {
		t.Fatal(err)
	}
	review := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(answer, &review); err != nil || review.Response == nil || len(review.Response.Patch) == 0 {
		t.Fatalf("a normal request is answered %s: %.300s", response.Status, answer)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a normal request took %s", took)
	}
}

func (f *underFire) clientCertificates(t *testing.T) {
	in := f.namespace(t, nil)
	stored, _ := f.admit(t, pod(in, v1alpha1.InjectKey, "fire"))
	if len(added(stored)) != 1 {
		t.Errorf("added %q", added(stored))
	}
	anonymous := f.tls(t)
	anonymous.Certificates = nil
	f.log.Take()
	if response, _, err := f.post(f.clients(t, anonymous), f.review); err == nil { // it may write before it reads why it is refused
		t.Errorf("one without a certificate is answered %s", response.Status)
	}
	refused := func(context.Context) (bool, error) {
		err := missing(f.log.String(), "handshake failed", "client_certificate")
		return err == nil, err
	}
	if err := apiserver.Await(t.Context(), refused); err != nil {
		t.Errorf("the log does not say why one without a certificate was refused: %v", err)
	}
	good, err := os.ReadFile(f.clientCA)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := clientPair(t)
	writeFile(t, f.clientCA, other)
	// The API server keeps connections that it made while its certificate was good: they go with the process.
	if err := errors.Join(f.Webhook.Stop(), f.Webhook.Start(), f.Webhook.AwaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	_, err = f.server.Clientset.CoreV1().Pods(in).Create(t.Context(), pod(in, v1alpha1.InjectKey, "fire"), metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "failed calling webhook") { // it may write before it reads why it is refused
		t.Errorf("an API server that is not known is answered: %v", err)
	}
	if err := missing(f.log.Take(), "handshake failed", "client_certificate"); err != nil {
		t.Error(err)
	}
	writeFile(t, f.clientCA, good)
	err = apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		_, err := f.server.Clientset.CoreV1().Pods(in).Create(ctx, pod(in, v1alpha1.InjectKey, "fire"), metav1.CreateOptions{})
		return err == nil, err
	})
	if err != nil {
		t.Error(err)
	}
}

// fire sends a body by many clients for some time, and returns how often there was which status.
func (f *underFire) fire(t *testing.T, clients int, lasting time.Duration, body []byte) map[int]int {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	counts, until := map[int]int{}, time.Now().Add(lasting)
	client := f.clients(t, f.tls(t))
	for range clients {
		group.Go(func() {
			for time.Now().Before(until) {
				response, _, err := f.post(client, body)
				if err != nil {
					t.Errorf("it is not answered: %v", err)
					return
				}
				if response.StatusCode == http.StatusTooManyRequests && response.Header.Get("Retry-After") != "1" {
					t.Error("no Retry-After")
				}
				mu.Lock()
				counts[response.StatusCode]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return counts
}

func onlyRefused(t *testing.T, counts map[int]int) {
	t.Helper()
	t.Logf("by status: %v", counts)
	if diff := slices.Sorted(maps.Keys(counts)); !slices.Equal(diff, []int{http.StatusOK, http.StatusTooManyRequests}) {
		t.Errorf("answers of HTTP 200 and 429 are wanted, and not of %v", diff)
	}
}

func (f *underFire) overload(t *testing.T) {
	// All but two places are held by requests that do not end.
	held := make([]*tls.Conn, fireRequests-2)
	for i := range held {
		connection, err := tls.Dial("tcp", f.address(), f.tls(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = connection.Close() })
		_, err = fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
			webhook.PathPods)
		if err != nil {
			t.Fatal(err)
		}
		held[i] = connection
	}
	onlyRefused(t, f.fire(t, 4*fireRequests, 3*time.Second, f.review))
	for _, connection := range held {
		_ = connection.Close()
	}
	start := time.Now()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		response, _, err := f.post(f.clients(t, f.tls(t)), f.review)
		return err == nil && response.StatusCode == http.StatusOK, err
	})
	if took := time.Since(start); err != nil || took > 2*time.Second {
		t.Errorf("it has recovered after %s: %v", took, err)
	}
	if refused := f.metric(t, `pillion_requests_rejected_total{limit="requests_in_flight"}`); refused == 0 {
		t.Error("what was refused is not counted")
	}
}

func (f *underFire) metric(t *testing.T, name string) float64 {
	t.Helper()
	value, err := f.Metric(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// resident returns how much memory the webhook's process has, and had at most, in bytes.
func (f *underFire) resident(t *testing.T) (now, most int) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.Webhook.Pid()))
	if err != nil {
		t.Skipf("memory is measured where there is /proc: %v", err)
	}
	for line := range strings.Lines(string(content)) {
		for name, into := range map[string]*int{"VmRSS:": &now, "VmHWM:": &most} {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
				kilobytes, err := strconv.Atoi(fields[1])
				if err != nil {
					t.Fatal(err)
				}
				*into = kilobytes << 10
			}
		}
	}
	return now, most
}

func (f *underFire) memory(t *testing.T) {
	large := bytes.Replace(f.review, []byte(`"annotations":{`), []byte(`"annotations":{"a":"`+strings.Repeat("x", 6<<20)+`",`), 1)
	before, _ := f.resident(t)
	counts := f.fire(t, 24, 5*time.Second, large)
	onlyRefused(t, counts)
	f.normal(t)
	after, most := f.resident(t)
	t.Logf("MiB before %d, at most %d, after %d", before>>20, most>>20, after>>20)
	if most > fireMemory*5/4 {
		t.Errorf("it had %d MiB, and GOMEMLIMIT is %d", most>>20, fireMemory>>20)
	}
}

func (f *underFire) growth(t *testing.T) {
	_, before := f.resident(t)
	in := func(text string) []byte {
		return bytes.Replace(f.review, []byte(`"containers":[`), []byte(`"containers":[`+text), 1)
	}
	for _, body := range [][]byte{in(strings.Repeat("{},", 2_000_000)), in(strings.Repeat("null,", 1_400_000))} {
		counts := f.fire(t, 8, time.Second, body)
		t.Logf("by status: %v", counts)
		if counts[http.StatusRequestEntityTooLarge] == 0 || counts[http.StatusOK] > 0 {
			t.Errorf("HTTP 413 is wanted, and not %v", counts)
		}
	}
	// As many as there may be of what takes most room besides: they are decoded, one at a time.
	quantities := &strings.Builder{}
	for i := range 390_000 {
		fmt.Fprintf(quantities, `"%x":1,`, i)
	}
	heavy := in(`{"resources":{"limits":{` + quantities.String() + `"a":1}}},`)
	counts := f.fire(t, 8, 2*time.Second, heavy)
	alone := f.fire(t, 1, time.Second, heavy)
	t.Logf("by status: %v, and alone %v", counts, alone)
	if counts[http.StatusTooManyRequests] == 0 || alone[http.StatusOK] == 0 || len(alone) > 1 {
		t.Errorf("HTTP 429 is wanted where there are many, and 200 alone, and not %v and %v", counts, alone)
	}
	f.normal(t)
	_, most := f.resident(t)
	t.Logf("MiB at most before %d, after %d", before>>20, most>>20)
	if most > fireMemory*5/4 {
		t.Errorf("it had %d MiB, and GOMEMLIMIT is %d", most>>20, fireMemory>>20)
	}
}

func (f *underFire) slow(t *testing.T) {
	client := f.clients(t, f.tls(t))
	measure := func() time.Duration {
		var times []time.Duration
		for range 200 {
			start := time.Now()
			if response, _, err := f.post(client, f.review); err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("a request of others is not answered: %v", err)
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		return times[len(times)/2]
	}
	usual := measure()
	goroutines := f.metric(t, "go_goroutines")
	var slow []net.Conn
	var mu sync.Mutex
	var group sync.WaitGroup
	config := f.tls(t)
	for range 10 {
		group.Go(func() {
			for range 50 {
				silent, err := net.Dial("tcp", f.address())
				if err != nil {
					t.Error(err)
					return
				}
				connection, err := tls.Dial("tcp", f.address(), config)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(connection, "POST "+webhook.PathPods+" HTTP/1.1\r\nHost: x\r\n")
				mu.Lock()
				slow = append(slow, silent, connection)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	meanwhile := measure()
	t.Logf("half of the requests of others took %s before and %s meanwhile; %v connections, %v goroutines, %v MiB", usual, meanwhile,
		f.metric(t, "pillion_tls_connections"), f.metric(t, "go_goroutines"), first(f.resident(t))>>20)
	if meanwhile > 4*usual+50*time.Millisecond {
		t.Error("others wait")
	}
	for _, connection := range slow {
		awaitClosed(t, connection)
		if t.Failed() {
			return // the others would take as long
		}
		_ = connection.Close()
	}
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		now, err := f.Metric(ctx, "go_goroutines")
		return now < goroutines+20, errors.Join(err, fmt.Errorf("%v goroutines, and %v before", now, goroutines))
	})
	if err != nil {
		t.Error(err)
	}
	f.normal(t)
}

func first(a, _ int) int { return a }

// secondSignal runs a webhook that cannot finish: its drain is long, or a request never ends.
func (f *underFire) secondSignal(t *testing.T) {
	config, err := f.server.ServiceAccountConfig(t.Context(), installation.Namespace, "pillion-webhook")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := apiserver.WriteKubeconfig(config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	t.Run("while endpoints move on", func(t *testing.T) {
		f.signalTwice(t, kubeconfig, func(_, health string) {
			awaitStatus(t, health, http.StatusServiceUnavailable, "shutting down")
		}, "--webhook-drain-delay", "1m")
	})
	t.Run("while a request is in flight", func(t *testing.T) {
		f.signalTwice(t, kubeconfig, func(address, _ string) {
			err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
				connection, err := net.Dial("tcp", address)
				if err == nil {
					err = connection.Close()
					return false, errors.Join(errors.New("it goes on listening"), err)
				}
				return true, err
			})
			if err != nil {
				t.Error(err)
			}
		}, "--webhook-drain-delay", "1ms", "--webhook-shutdown-timeout", "1m", "--webhook-read-timeout", "1m")
	})
}

// signalTwice sends a webhook that has a request which does not end SIGTERM, and again once it has come so far as is awaited.
func (f *underFire) signalTwice(t *testing.T, kubeconfig string, await func(address, health string), flags ...string) {
	t.Helper()
	address, health := mustFreeAddress(t), mustFreeAddress(t)
	command := exec.CommandContext(t.Context(), f.binary, append([]string{
		"webhook", "--kubeconfig", kubeconfig, "--webhook-listen-address", address,
		"--webhook-health-address", health, "--webhook-metrics-address", "none",
	}, flags...)...)
	log := &fixture.Log{}
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- command.Wait() }()
	awaitStatus(t, health, http.StatusOK, "ok")
	connection, err := tls.Dial("tcp", address, f.tls(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	// The 100 that it is answered tells that the request has begun.
	_, err = fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"+
		"Expect: 100-continue\r\n\r\n", webhook.PathPods)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(address, health)
	select {
	case err := <-result:
		t.Fatalf("it ended though it was to finish what it has begun: %v %s", err, log.Take())
	default:
	}
	start := time.Now()
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		exit := (*exec.ExitError)(nil)
		if took := time.Since(start); !errors.As(err, &exit) || exit.ExitCode() != 1 || took > 5*time.Second {
			t.Errorf("it ended after %s: %v", took, err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on", command.Process.Kill())
	}
	if err := missing(log.Take(), "a second signal"); err != nil {
		t.Error(err)
	}
}
