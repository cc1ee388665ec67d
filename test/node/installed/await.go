package installed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// patience is how long anything may take that ought to happen.
const patience = 3 * time.Minute

// Await waits for a condition, which returns why it does not hold yet.
func (c *Cluster) Await(ctx context.Context, what string, condition func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := condition(ctx)
		if err == nil || last == nil || ctx.Err() == nil { // that time is up says nothing of the condition
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w: %w", what, err, last)
	}
	return nil
}

// AwaitPillion waits for both Deployments, for what the controller writes once it leads, and for the default profiles to be Ready.
func (c *Cluster) AwaitPillion(ctx context.Context) error {
	err := c.Await(ctx, "Pillion", func(ctx context.Context) error {
		return errors.Join(
			c.rolledOut(ctx, Namespace, "pillion-webhook"),
			c.rolledOut(ctx, Namespace, "pillion-controller"),
			c.entered(ctx),
			c.profilesReady(ctx),
		)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Explain(ctx, Namespace))
	}
	return nil
}

// AwaitRollout waits until a Deployment runs as it is written, and nothing older of it is left.
func (c *Cluster) AwaitRollout(ctx context.Context, namespace, name string) error {
	err := c.Await(ctx, "Deployment "+name, func(ctx context.Context) error { return c.rolledOut(ctx, namespace, name) })
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Explain(ctx, namespace))
	}
	return nil
}

func (c *Cluster) rolledOut(ctx context.Context, namespace, name string) error {
	found := &appsv1.Deployment{}
	if err := c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, found); err != nil {
		return err
	}
	status, want := found.Status, *found.Spec.Replicas
	if status.ObservedGeneration < found.Generation || status.UpdatedReplicas < want || status.AvailableReplicas < want ||
		status.Replicas > want {
		return fmt.Errorf("of %d replicas of Deployment %s %d are updated, %d available; there are %d", want, name,
			status.UpdatedReplicas, status.AvailableReplicas, status.Replicas)
	}
	return nil
}

// entered tells whether the controller has written its entries.
func (c *Cluster) entered(ctx context.Context) error {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	for _, object := range []client.Object{mutating, validating} {
		if err := c.Client.Get(ctx, client.ObjectKey{Name: "pillion"}, object); err != nil {
			return err
		}
	}
	if len(mutating.Webhooks) == 0 || len(validating.Webhooks) == 0 {
		return errors.New("a webhook configuration has no entries")
	}
	return nil
}

// profilesReady tells whether all four default profiles are there and Ready.
func (c *Cluster) profilesReady(ctx context.Context) error {
	list := &v1alpha1.ClusterPatternProfileList{}
	if err := c.Client.List(ctx, list); err != nil {
		return err
	}
	if len(list.Items) < 4 {
		return fmt.Errorf("there are %d profiles", len(list.Items))
	}
	for i := range list.Items {
		if err := isReady(&list.Items[i], &list.Items[i].Status); err != nil {
			return err
		}
	}
	return nil
}

// isReady returns why a profile is not Ready as it is written now.
func isReady(profile client.Object, status *v1alpha1.ProfileStatus) error {
	name := profile.GetName()
	if status.ObservedGeneration < profile.GetGeneration() {
		return fmt.Errorf("profile %s has been changed since the controller saw it", name)
	}
	for _, condition := range status.Conditions {
		if condition.Type == v1alpha1.ConditionReady {
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("profile %s is not Ready: %s", name, condition.Message)
		}
	}
	return fmt.Errorf("profile %s does not say whether it is Ready", name)
}

// podsOf are a namespace's Pods with a label, the oldest first, without those that are being deleted.
func (c *Cluster) podsOf(ctx context.Context, namespace string, labels map[string]string) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := c.Client.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return pods, nil
}
