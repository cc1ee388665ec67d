package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// maxControllerMiB bounds the controller's resident set while it counts the Pods.
const maxControllerMiB = 150.0

// podsNamespace is one that Pillion never touches: what Pods there say of what was woven is counted, although nothing was.
const podsNamespace = metav1.NamespacePublic

// counts measures the controller's memory once it has counted many Pods, as many of them current as outdated: half of them ten of
// each workload, and half each of an owner of its own, whose name is to be remembered, for all ask for the profile.
func (b *bench) counts(ctx context.Context, pods int) error {
	profile := gitSyncProfile("counted")
	if err := b.server.Client.Create(ctx, profile); err != nil {
		return err
	}
	err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		err := b.server.Client.Get(ctx, client.ObjectKeyFromObject(profile), profile)
		return profile.Status.Revision != "", err
	})
	if err != nil {
		return fmt.Errorf("await the profile's revision: %w", err)
	}
	if err := b.preparePodsNamespace(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := b.createWoven(ctx, profile.Status.Revision, pods); err != nil {
		return err
	}
	created := time.Since(start)
	deadline, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for err = errors.New("not looked yet"); err != nil && deadline.Err() == nil; {
		err = apiserver.Await(deadline, func(ctx context.Context) (bool, error) {
			err := b.server.Client.Get(ctx, client.ObjectKeyFromObject(profile), profile)
			counted := profile.Status.Pods
			if err == nil && counted != nil {
				err = fmt.Errorf("%d current and %d outdated Pods are counted", counted.Current, counted.Outdated)
			}
			return counted != nil && int(counted.Current+counted.Outdated) == pods, err
		})
	}
	if err != nil {
		return fmt.Errorf("await the counts: %w", err)
	}
	resident, err := residentMiB(b.pillion.Controller.Pid())
	if err != nil {
		return err
	}
	fmt.Printf("\n%d Pods created in %v; %d current and %d outdated counted\n",
		pods, created.Round(time.Second), profile.Status.Pods.Current, profile.Status.Pods.Outdated)
	figure := "controller RSS in MiB, with the counts"
	fmt.Printf("%s: %.1f %s\n", figure, resident, b.bounded(figure, resident, maxControllerMiB))
	return nil
}

// preparePodsNamespace makes what Pods need there, as far as the API server has not.
func (b *bench) preparePodsNamespace(ctx context.Context) error {
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: podsNamespace}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: podsNamespace}},
	} {
		if err := b.server.Client.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// createWoven creates Pods that say what was woven into them.
func (b *bench) createWoven(ctx context.Context, revision string, pods int) error {
	const clients = 8
	var group sync.WaitGroup
	failures := make(chan error, clients)
	for first := range clients {
		group.Go(func() {
			for i := first; i < pods; i += clients {
				if err := b.server.Client.Create(ctx, wovenPod(revision, i)); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failures)
	return <-failures
}

func wovenPod(revision string, i int) *corev1.Pod {
	workload := fmt.Sprintf("workload-%d", i/10)
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: workload + "-6d4b75cb6d"}
	if i/10%2 == 1 {
		owner = metav1.OwnerReference{APIVersion: "tekton.dev/v1", Kind: "TaskRun", Name: fmt.Sprintf("build-and-test-the-shop-%d", i)}
	}
	owner.UID, owner.Controller, owner.BlockOwnerDeletion = "00000000-0000-0000-0000-000000000001", new(true), new(true)
	if i%2 == 1 {
		revision = "0ddba11000"
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: workload + "-6d4b75cb6d-", Namespace: podsNamespace,
			Labels: map[string]string{v1alpha1.InjectedKey: "true", "app": workload, "pod-template-hash": "6d4b75cb6d"},
			Annotations: map[string]string{
				v1alpha1.InjectKey: "counted",
				v1alpha1.InjectedKey: fmt.Sprintf(
					`{"counted":{"kind":"GitSync","revision":%q,"containers":["pillion-counted"]}}`, revision),
				"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "pillion-counted,pillion-counted-no-token",
			},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
}
