package availability

import (
	"context"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/installation"
)

// mostResident is how much memory a replica may take under steady load, in MiB.
const mostResident = 128

// TestSteadyLoadCostsNoMoreAndMoreMemory sends one replica 500 reviews a second, while its certificates are replaced again and again:
// all are answered right, and what the replica holds does not grow.
func TestSteadyLoadCostsNoMoreAndMoreMemory(t *testing.T) {
	const rate, workers = 500, 32 // each worker may open a connection where all are busy, which a short run does not see the end of
	length := either(12*time.Second, 30*time.Minute)
	c := newCluster(t, installation.ServiceOptions{
		Replicas: 1,
		WebhookEnv: []string{
			"PILLION_WEBHOOK_DRAIN_DELAY=0s", // nothing is lost at the end of a test
			// How fast the API server tells of a name that does not exist is not what this is about.
			"PILLION_WEBHOOK_LIVE_READ_TIMEOUT=10s",
		},
		ControllerEnv: []string{
			"PILLION_CERTS_LEAF_LIFETIME=" + either(6*time.Second, time.Minute).String(),
			"PILLION_CERTS_CA_LIFETIME=" + either(18*time.Second, 5*time.Minute).String(),
			"PILLION_CERTS_SETTLE=" + either(time.Second, 5*time.Second).String(),
		},
	})
	replica := c.Replicas[0]
	var following sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); following.Wait() }()
	roots := c.followBundle(ctx, t, &following)
	leaves := c.followLeaves(ctx, t, &following, replica, roots)
	d := newDirect(t, replica, roots, protocols{http1: 16, http2: 3})
	reviews := c.mixedReviews(t)
	for _, r := range reviews {
		if _, err := d.send(ctx, r); err != nil {
			t.Fatal(err)
		}
	}

	loaded, end := context.WithTimeout(ctx, length)
	defer end()
	var sampling sync.WaitGroup
	var samples sampled
	var samplingErr error
	sampling.Go(func() {
		told := time.Duration(0)
		samples, samplingErr = sampleVitals(loaded, replica.Process, either(250*time.Millisecond, time.Second), func(at time.Duration, now vitals) {
			if at-told >= time.Minute {
				told = at
				t.Logf("after %s: %s", at.Round(time.Second), now)
			}
		})
	})
	start := time.Now()
	answers := d.run(loaded, rate, workers, reviews)
	took := time.Since(start)
	sampling.Wait()
	if samplingErr != nil {
		t.Fatal(samplingErr)
	}

	achieved := float64(answers.all()) / took.Seconds()
	t.Logf("%s of mixed reviews, %.1f a second; %d serving certificates were presented", took.Round(time.Second), achieved, leaves())
	answers.report(t, "reviews")
	if *soak && achieved < .98*rate {
		t.Errorf("%.1f reviews a second were sent, too few to say anything about %d", achieved, rate)
	}
	if leaves() < 2 {
		t.Error("no certificate was replaced meanwhile")
	}
	samples.expectFlat(t, "RSS in MiB", func(v vitals) float64 { return v.resident }, float64(either(8, 3)))
	samples.expectFlat(t, "goroutines", func(v vitals) float64 { return v.goroutines }, float64(either(2*workers, 10)))
	samples.expectFlat(t, "descriptors", func(v vitals) float64 { return v.descriptors }, float64(either(workers, 10)))
	if _, most := samples.thirds(func(v vitals) float64 { return v.resident }); most >= mostResident {
		t.Errorf("the replica's RSS reached %.1f MiB, and has to stay under %d", most, mostResident)
	}
}

// mixedReviews are reviews of all kinds, in the proportions of a busy cluster where most Pods that are sent are woven.
func (c *cluster) mixedReviews(t *testing.T) []*review {
	t.Helper()
	asking := c.askingReview(t)
	deployments := metav1.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	return []*review{
		asking,
		c.podReview(t, untouched, "example.com/note", "it asks for nothing"),
		asking,
		c.podReview(t, denied, v1alpha1.InjectKey, "no-such-profile"),
		asking,
		c.reviewOf(t, profiles.WorkloadsPath(profiles.PathPods), deployments, deployment("no-such-profile"), warned),
		asking,
		c.podReview(t, denied, v1alpha1.InjectKey, askedProfile, v1alpha1.OverrideKey(askedProfile, "protocol"), "Redis"),
		asking,
		c.reviewOf(t, profiles.WorkloadsPath(profiles.PathPods), deployments, deployment(askedProfile), untouched),
	}
}

// deployment is one whose Pods ask for a profile.
func deployment(asks string) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{v1alpha1.InjectKey: asks}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
			},
		},
	}
}
