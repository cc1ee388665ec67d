package availability

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/installation"
)

// inOneBreath is how often a profile, a namespace and a Pod are created one right after the other.
const inOneBreath = 1000

func TestWhatIsCreatedInOneBreathIsWoven(t *testing.T) {
	c := newCluster(t, installation.ServiceOptions{WebhookEnv: []string{noDrain}})
	t.Run("those whom policy chooses, once it is ready", func(t *testing.T) {
		// As many at once as have entries of their own.
		c.breathe(t, 4, either(40, inOneBreath), func(ctx context.Context, i int) error {
			name := fmt.Sprintf("policy-%d", i)
			profile := aCache(name)
			profile.Spec.Match = &v1alpha1.ClusterMatch{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{name: ""}}, Enforce: i%2 == 0,
			}
			profile.Spec.FailurePolicy = v1alpha1.FailurePolicyFail
			if i%4 >= 2 {
				profile.Spec.FailurePolicy = v1alpha1.FailurePolicyIgnore
			}
			if err := c.createReady(ctx, profile); err != nil {
				return err
			}
			if err := c.createWoven(ctx, namespaceOf(map[string]string{name: ""}), "", name); err != nil {
				return err
			}
			return c.server.Client.Delete(ctx, profile)
		})
	})
	t.Run("those who ask", func(t *testing.T) {
		c.breathe(t, 8, inOneBreath, func(ctx context.Context, i int) error {
			name := fmt.Sprintf("breath-%d", i)
			switch i % 4 {
			case 0: // the label of a namespace asks for a profile, all of them new
				if err := c.server.Client.Create(ctx, aCache(name)); err != nil {
					return err
				}
				return c.createWoven(ctx, namespaceOf(map[string]string{v1alpha1.InjectKey: name}), "", name)
			case 1: // an annotation asks, in a namespace that is new
				if err := c.server.Client.Create(ctx, aCache(name)); err != nil {
					return err
				}
				return c.createWoven(ctx, namespaceOf(nil), name, name)
			case 2: // the label that allows the profile is as new
				profile := aCache(name)
				profile.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": name}}
				if err := c.server.Client.Create(ctx, profile); err != nil {
					return err
				}
				return c.createWoven(ctx, namespaceOf(map[string]string{"team": name}), name, name)
			default: // the namespace's own profile
				namespace := namespaceOf(map[string]string{v1alpha1.InjectKey: name})
				profile := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}
				profile.Spec.ProfileSpec = aCache(name).Spec.ProfileSpec
				return c.createWoven(ctx, namespace, "", name, profile)
			}
		})
	})
}

// breathe does something so many times, by as many workers, and reports what failed.
func (c *cluster) breathe(t *testing.T, workers, times int, do func(ctx context.Context, i int) error) {
	t.Helper()
	began := time.Now()
	var next, failed atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= times || t.Context().Err() != nil {
					return
				}
				if err := do(t.Context(), i); err != nil && failed.Add(1) <= 10 {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	group.Wait()
	t.Logf("attempted: %d; failed: %d; in %s", times, failed.Load(), time.Since(began).Round(time.Millisecond))
}

func aCache(name string) *v1alpha1.ClusterPatternProfile {
	profile := &v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: name}}
	profile.Spec.CacheAmbassador = &v1alpha1.CacheAmbassador{Protocol: v1alpha1.CacheProtocolMemcached, Local: &v1alpha1.LocalCache{}}
	return profile
}

func namespaceOf(labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "breath-", Labels: labels}}
}

// createWoven creates a namespace, what is to be in it, and a Pod that has to have what a profile adds.
func (c *cluster) createWoven(ctx context.Context, namespace *corev1.Namespace, asks, gets string, inside ...client.Object) error {
	if err := c.server.Client.Create(ctx, namespace); err != nil {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "default"}}
	for _, object := range append([]client.Object{account}, inside...) { // no controller makes the ServiceAccount
		object.SetNamespace(namespace.Name)
		if err := c.server.Client.Create(ctx, object); err != nil {
			return err
		}
	}
	pod := appPod(namespace.Name, asks)
	if err := c.server.Client.Create(ctx, pod); err != nil {
		return err
	}
	if added := pod.Spec.InitContainers; len(added) != 1 || added[0].Name != "pillion-"+gets {
		return fmt.Errorf("the Pod was admitted without profile %s: %d init containers were added", gets, len(added))
	}
	return nil
}

// createReady creates a profile and returns the moment a watch tells that it is ready.
func (c *cluster) createReady(ctx context.Context, profile *v1alpha1.ClusterPatternProfile) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.server.Client.Create(ctx, profile); err != nil {
		return err
	}
	for {
		current := &v1alpha1.ClusterPatternProfile{}
		if err := c.server.Client.Get(ctx, client.ObjectKeyFromObject(profile), current); err != nil {
			return fmt.Errorf("wait until it is ready: %w", err)
		}
		if meta.IsStatusConditionTrue(current.Status.Conditions, v1alpha1.ConditionReady) && current.Status.ObservedGeneration == current.Generation {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("it does not become ready")
		case <-time.After(2 * time.Millisecond):
		}
	}
}
