package availability

import (
	"context"
	"fmt"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/certs"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// lives are short lives of certificates, as the controller is told of them. There is one controller: another would wait for the Lease of
// one that was killed, which is another test's matter.
func lives(ca, leaf, settle time.Duration) []string {
	return []string{
		fmt.Sprint("PILLION_CERTS_CA_LIFETIME=", ca), fmt.Sprint("PILLION_CERTS_LEAF_LIFETIME=", leaf),
		fmt.Sprint("PILLION_CERTS_SETTLE=", settle), "PILLION_CONTROLLER_LEADER_ELECTION=false",
	}
}

// A third of a leaf's life is left when it is renewed. So a leaf of five seconds is renewed every three, and fails calls if the controller
// or a replica then stands still for longer than 1.7 s, on a machine that has other things to do. That would be nobody's fault, so that
// the short form gives them four seconds.
func shortLives() []string {
	return lives(either(24*time.Second, 14*time.Second), either(12*time.Second, 5*time.Second), either(1500*time.Millisecond, 800*time.Millisecond))
}

// TestCertificatesAreReplacedUnderTraffic replaces the serving certificate every three seconds and the CA every ten.
func TestCertificatesAreReplacedUnderTraffic(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{noDrain}, ControllerEnv: shortLives()})
	c.requireFailurePolicyFail(t)
	rotation := c.followRotation(t)
	began := time.Now()
	traffic, stop := c.startTraffic(t, flow{creators: 4, rate: either(40, 45), handshakes: either(60, 120)})
	if *soak {
		time.Sleep(10 * time.Minute) // what is asked for is how long it goes on
	} else {
		// A CA's whole life: made, trusted, signing, and trusted no longer.
		rotation.await(t, "a second CA that signs alone", func() bool {
			return len(rotation.cas) >= 2 && rotation.phases[certs.PhaseRetire] >= 1 && rotation.phase == certs.PhaseStable
		})
		traffic.awaitReplicas(t, 1000, 4, 2)
		traffic.awaitCreates(t, 300)
	}
	lasted := time.Since(began)
	stop()
	traffic.report(t, nil)
	handshakes, leaves, cas := traffic.least()
	t.Logf("in %s: %d leaves and %d CAs were written; each replica presented %d leaves of %d CAs at least, in %d handshakes",
		lasted.Round(time.Second), len(rotation.leaves), len(rotation.cas), leaves, cas, handshakes)
	if !*soak {
		return
	}
	for what, count := range map[string]struct{ is, want int }{
		"leaves written":       {len(rotation.leaves), int(lasted / (3 * time.Second))},
		"CAs written":          {len(rotation.cas), int(lasted / (10 * time.Second))},
		"leaves presented":     {leaves, int(lasted / (3 * time.Second))},
		"CAs presented":        {cas, int(lasted / (10 * time.Second))},
		"handshakes a replica": {handshakes, 100 * int(lasted/time.Second)},
		"creates":              {int(traffic.creates.Load()), 20_000},
	} {
		if count.is < count.want {
			t.Errorf("%s: %d, want at least %d", what, count.is, count.want)
		}
	}
}

// requireFailurePolicyFail checks that a Pod of the traffic fails where the webhook cannot be reached.
func (c *cluster) requireFailurePolicyFail(t *testing.T) {
	t.Helper()
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := c.server.Client.Get(t.Context(), client.ObjectKey{Name: installation.Configuration}, configuration); err != nil {
		t.Fatal(err)
	}
	for i := range configuration.Webhooks {
		if policy := *configuration.Webhooks[i].FailurePolicy; policy != admissionregistrationv1.Fail {
			t.Fatalf("entry %s has failurePolicy %s", configuration.Webhooks[i].Name, policy)
		}
	}
}

// awaitReplicas returns once each replica has presented as many leaves of as many CAs, in as many handshakes.
func (f *traffic) awaitReplicas(t *testing.T, handshakes, leaves, cas int) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		gotHandshakes, gotLeaves, gotCAs := f.least()
		return gotHandshakes >= handshakes && gotLeaves >= leaves && gotCAs >= cas,
			fmt.Errorf("a replica presented %d leaves of %d CAs in %d handshakes, awaited are %d of %d in %d",
				gotLeaves, gotCAs, gotHandshakes, leaves, cas, handshakes)
	})
	if err != nil {
		t.Fatal(err)
	}
}
