package availability

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/installation"
)

const (
	// largeBody is the largest body that a request may have, fewBytes what bodies may have together in these tests: two such.
	largeBody = 7 << 20
	fewBytes  = 2*largeBody + largeBody/2
	// mostDense bounds the memory of a replica, in MiB, while it decodes as many bodies as it may that become as much as they can.
	mostDense = 384
)

// largeBodies sends the largest bodies that there may be, of which a replica may hold two.
func largeBodies(t *testing.T, replica *installation.Replica, d *direct, asking *review) {
	largest := asking.padded(largeBody)
	var holding []*held
	for range 2 {
		h := d.hold(t.Context(), largest)
		if !h.isHeld() {
			_, err := h.await()
			t.Fatal(err)
		}
		holding = append(holding, h)
	}
	expectMetric(t, replica, "pillion_request_bytes_in_flight", 2*largeBody)
	if got, err := d.send(t.Context(), largest); got != limited {
		t.Errorf("the third is %s: %v", got, err)
	}
	if _, err := d.send(t.Context(), asking); err != nil {
		t.Errorf("a small one: %v", err)
	}
	for _, h := range holding {
		h.release()
		if _, err := h.await(); err != nil {
			t.Errorf("one of the first two: %v", err)
		}
	}
	expectMetric(t, replica, "pillion_request_bytes_in_flight", 0)

	answers, peak := bodyStorm(t, replica, d, largest, 12, either(2*time.Second, time.Minute))
	answers.report(t, "bodies of 7 MiB")
	if answers.count(woven) == 0 || answers.count(limited) == 0 || answers.count(tooLarge) > 0 {
		t.Error("either nothing was refused, or nothing was answered, or not all for the same reason")
	}
	t.Logf("RSS at most %.1f MiB", peak)
	if peak >= mostResident {
		t.Errorf("RSS was %.1f MiB, and has to stay under %d", peak, mostResident)
	}
	expectMetric(t, replica, "pillion_request_bytes_in_flight", 0)
	if _, err := d.send(t.Context(), asking); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// denseBodies sends large bodies that would become far larger once they are decoded.
func denseBodies(t *testing.T, replica *installation.Replica, d *direct, namespace string) {
	deployment := func(metadata, spec string) *review {
		return &review{path: profiles.WorkloadsPath(profiles.PathPods), want: untouched, body: fmt.Appendf(nil,
			`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"0123","operation":"CREATE","namespace":%q,`+
				`"resource":{"group":"apps","version":"v1","resource":"deployments"},`+
				`"object":{"metadata":{"name":"web"},"spec":{"template":{"metadata":%s,"spec":%s}}}}}`, namespace, metadata, spec)}
	}
	const length = largeBody - 1000 // the rest is around it
	fill := func(item string) string { return "[" + strings.Repeat(item+",", length/(len(item)+1)-1) + item + "]" }
	var keys strings.Builder
	for i := 0; keys.Len() < length-20; i++ {
		fmt.Fprintf(&keys, `"a%d":"",`, i)
	}
	const container = `{"name":"","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File",` +
		`"imagePullPolicy":"Always"}`
	for _, test := range []struct {
		name   string
		review *review
	}{
		{"annotations", deployment(`{"annotations":{`+keys.String()+`"z":""}}`, "{}")},
		{"containers, as the API server sends them", deployment("{}", `{"containers":`+fill(container)+`}`)},
		{"containers without anything", deployment("{}", `{"containers":`+fill("{}")+`}`)},
		{"variables without anything", deployment("{}", `{"containers":[{"name":"app","env":`+fill("{}")+`}]}`)},
	} {
		answers, peak := bodyStorm(t, replica, d, test.review, 12, either(time.Second, 20*time.Second))
		answers.report(t, test.name)
		t.Logf("%s: RSS at most %.1f MiB", test.name, peak)
		if peak >= mostDense {
			t.Errorf("%s: RSS was %.1f MiB, and has to stay under %d", test.name, peak, mostDense)
		}
	}
	expectMetric(t, replica, "pillion_request_bytes_in_flight", 0)
}

// bodyStorm sends a review on several connections at once, for some time, and returns how much memory that took.
func bodyStorm(t *testing.T, replica *installation.Replica, d *direct, r *review, clients int, length time.Duration) (*tally, float64) {
	t.Helper()
	if err := forgetPeak(replica.Process); err != nil {
		t.Fatal(err)
	}
	answers := &tally{}
	storm, end := context.WithTimeout(t.Context(), length)
	defer end()
	var sending sync.WaitGroup
	for range clients {
		sending.Go(func() {
			for storm.Err() == nil {
				began := time.Now()
				got, err := d.send(context.WithoutCancel(storm), r)
				answers.add(got, err, time.Since(began), limited, tooLarge)
			}
		})
	}
	sending.Wait()
	peak, err := memory(replica.Process, "VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	return answers, peak
}
