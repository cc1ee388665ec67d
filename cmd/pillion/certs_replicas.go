package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
)

const (
	// maxReplicas is how many Pods are asked for their metrics, replicaTimeout how long each may take.
	maxReplicas    = 20
	replicaTimeout = 5 * time.Second
)

// shownReplica is what a replica of the webhook says of itself.
type shownReplica struct {
	Pod string `json:"pod"`
	// NotAfter is when the certificate that it presents expires; Current says whether that is the one in the Secret, as far as that shows.
	NotAfter *time.Time `json:"notAfter,omitempty"`
	Current  *bool      `json:"current,omitempty"`
	// Trusted says whether it verifies by every caBundle that the replica sees, Faulty whether the one in the Secret would not.
	Trusted         *bool            `json:"trusted,omitempty"`
	Faulty          *bool            `json:"faulty,omitempty"`
	HandshakeErrors map[string]int64 `json:"handshakeErrors,omitempty"`
	// Unknown says why nothing is known.
	Unknown string `json:"unknown,omitempty"`
}

// addReplicas asks the replicas of the webhook through the API server.
func (c *certsInspection) addReplicas(ctx context.Context, report *certsReport, state *certs.State) {
	const labels = "app.kubernetes.io/name=pillion,app.kubernetes.io/component=webhook"
	pods := &corev1.PodList{}
	err := c.reader.List(ctx, pods, client.InNamespace(c.settings.Namespace),
		client.MatchingLabels{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "webhook"})
	_, port, portErr := net.SplitHostPort(c.settings.Webhook.MetricsAddress)
	switch {
	case apierrors.IsForbidden(err):
		c.cannotSay("you may not list Pods in namespace " + c.settings.Namespace)
		return
	case err != nil:
		c.cannotSay("the Pods in namespace " + c.settings.Namespace + " could not be read: " + err.Error())
		return
	case len(pods.Items) == 0:
		c.cannotSay(fmt.Sprintf("there are no Pods with the labels %s in namespace %s", labels, c.settings.Namespace))
		return
	case portErr != nil:
		c.cannotSay("the webhook's metrics are turned off (webhook.metricsAddress)")
		return
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for i := range pods.Items[:min(len(pods.Items), maxReplicas)] {
		pod := &pods.Items[i]
		shown := shownReplica{Pod: pod.Name}
		if pod.Status.Phase != corev1.PodRunning {
			shown.Unknown = "it is " + string(pod.Status.Phase)
		} else if text, err := c.scrape(ctx, pod.Name, port); err != nil {
			shown.Unknown = whyNotScraped(err)
		} else {
			shown.read(text, state)
		}
		report.addReplica(&shown, state)
	}
	if more := len(pods.Items) - maxReplicas; more > 0 {
		c.cannotSay(fmt.Sprintf("only the first %d Pods of the webhook were asked", maxReplicas))
	}
}

func (c *certsInspection) cannotSay(why string) {
	c.unreadable = append(c.unreadable, "what the replicas of the webhook present is not shown: "+why)
}

// scrape reads the metrics of a Pod by the API server's proxy.
func (c *certsInspection) scrape(ctx context.Context, pod, port string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	configured := rest.CopyConfig(c.restConfig)
	configured.GroupVersion, configured.APIPath = &corev1.SchemeGroupVersion, "/api"
	configured.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	proxy, err := rest.RESTClientFor(configured)
	if err != nil {
		return "", fmt.Errorf("prepare to read metrics: %w", err)
	}
	body, err := proxy.Get().Namespace(c.settings.Namespace).Resource("pods").Name(pod + ":" + port).SubResource("proxy").
		Suffix("metrics").DoRaw(ctx)
	return string(body), err //nolint:wrapcheck // whyNotScraped tells what it is
}

func whyNotScraped(err error) string {
	status := apierrors.APIStatus(nil)
	switch {
	case apierrors.IsForbidden(err):
		return "you may not read its metrics through the API server (permission: get pods/proxy)"
	case errors.Is(err, context.DeadlineExceeded):
		return "its metrics did not come in time"
	case errors.As(err, &status) && status.Status().Code == http.StatusServiceUnavailable:
		return "the API server does not reach its metrics"
	default:
		return "its metrics could not be read: " + err.Error()
	}
}

// read takes what the metrics say.
func (s *shownReplica) read(text string, state *certs.State) {
	metrics := samplesOf(text)
	flag := func(name string) *bool {
		if value, ok := metrics[name]; ok {
			return new(value == 1)
		}
		return nil
	}
	s.Trusted, s.Faulty = flag("pillion_certificate_trusted"), flag("pillion_certificate_faulty")
	if until := metrics["pillion_certificate_not_after_seconds"]; until > 0 {
		s.NotAfter = new(time.Unix(int64(until), 0).UTC())
		for _, one := range state.Certificates {
			if one.Role == certs.RoleServing {
				s.Current = new(one.Certificate.NotAfter.Unix() == int64(until))
			}
		}
	}
	s.HandshakeErrors = map[string]int64{}
	for name, value := range metrics {
		rest, ok := strings.CutPrefix(name, `pillion_tls_handshake_errors_total{reason="`)
		if reason, _, found := strings.Cut(rest, `"`); ok && found && value > 0 {
			s.HandshakeErrors[reason] += int64(value)
		}
	}
	if s.NotAfter == nil && s.Trusted == nil && s.Faulty == nil {
		s.Unknown = "its metrics do not tell: it is not a webhook of this release"
	}
}

// samplesOf returns the samples of Pillion's own among metrics in Prometheus' text format, by name and labels as they are written.
func samplesOf(text string) map[string]float64 {
	samples := map[string]float64{}
	for line := range strings.SplitSeq(text, "\n") {
		at := strings.LastIndexByte(line, ' ')
		if !strings.HasPrefix(line, "pillion_") || at < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			samples[line[:at]] = value
		}
	}
	return samples
}

// addReplica adds a replica and what is wrong with it.
func (r *certsReport) addReplica(shown *shownReplica, state *certs.State) {
	r.Replicas = append(r.Replicas, *shown)
	no := func(flag *bool) bool { return flag != nil && !*flag }
	switch {
	case shown.Unknown != "":
	case shown.NotAfter == nil:
		r.problem("Pod %s presents no certificate: it has found none that verifies since it started; its log says why", shown.Pod)
	case r.now.After(*shown.NotAfter):
		r.problem("Pod %s presents a certificate that expired at %s; its log says why it takes no other", shown.Pod, inUTC(*shown.NotAfter))
	case no(shown.Trusted):
		r.problem("what Pod %s presents does not verify by every caBundle that it sees; its log says why", shown.Pod)
	case shown.Faulty != nil && *shown.Faulty:
		r.problem("Pod %s cannot use the certificate in the Secret, and presents the one before; its log says why", shown.Pod)
	case no(shown.Current) && r.now.Sub(issuedAt(state)) > overdue:
		r.problem("Pod %s presents another certificate than the one in the Secret, which expires at %s: it may have lost the API server; "+
			"see its log, and delete the Pod if it does not come to present it", shown.Pod, inUTC(*shown.NotAfter))
	}
}

// issuedAt is when the certificate in the Secret was made at the latest.
func issuedAt(state *certs.State) time.Time {
	for _, one := range state.Certificates {
		if one.Role == certs.RoleServing {
			return certs.IssuedAt(one.Certificate)
		}
	}
	return time.Time{}
}

// errorsText tells the errors of handshakes.
func (s *shownReplica) errorsText() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(s.HandshakeErrors)) {
		all = append(all, fmt.Sprintf("%s %d", reason, s.HandshakeErrors[reason]))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
