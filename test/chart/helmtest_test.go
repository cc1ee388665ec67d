package chart

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// helmTest runs helm test. There is no node: what the Pod's containers would run is run here, with the Pod's identity, and helm
// is told that they have ended well.
func helmTest(t *testing.T, pillion *processes) {
	awaitSelfCheck(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := run(ctx, helmBinary(), "test", release, "--namespace", namespace, "--timeout", "2m")
		ended <- err
	}()
	pod := &corev1.Pod{}
	err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		select {
		case err := <-ended:
			t.Fatalf("helm test ended before its Pod was there: %v", err)
		default:
		}
		err := server.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "pillion-test"}, pod)
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	runTest := func() error {
		dir := t.TempDir()
		files := strings.NewReplacer(
			"/etc/pillion/config.yaml", writeConfigMap(t, dir, "pillion", "config.yaml"),
			"/test/pod.yaml", writeConfigMap(t, dir, "pillion-test", "pod.yaml"),
		)
		for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			args := slices.Clone(container.Args)
			for i := range args {
				args[i] = files.Replace(args[i])
			}
			out, err := pillion.command(t, pod.Spec.ServiceAccountName, args...)
			if err != nil {
				return err
			}
			if container.Name == "woven" && !strings.Contains(out, "The Pod gets self-check") {
				t.Errorf("it does not say that the Pod was woven:\n%s", out)
			}
		}
		return nil
	}
	if err := runTest(); err != nil {
		t.Errorf("the test fails: %v", err)
	}
	t.Run("it fails if the webhook is away", func(t *testing.T) {
		pillion.webhook.stop(t)
		defer func() {
			pillion.webhook.start(t, pillion)
			pillion.webhook.awaitReady(t)
		}()
		if err := runTest(); err == nil || !strings.Contains(err.Error(), "the API server does not reach Pillion's webhook") {
			t.Errorf("%v", err)
		}
	})
	t.Run("it fails if nobody calls the webhook", func(t *testing.T) {
		pillion.controller.stop(t)
		defer func() {
			pillion.controller.start(t, pillion)
			pillion.controller.awaitReady(t)
			awaitEntries(t)
		}()
		configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
		configuration.Name = "pillion"
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"webhooks": []}`))
		if err := server.Client.Patch(t.Context(), configuration, patch); err != nil {
			t.Fatal(err)
		}
		if err := runTest(); err == nil || !strings.Contains(err.Error(), "has no entries") {
			t.Errorf("%v", err)
		}
	})
	pod.Status.Phase = corev1.PodSucceeded
	if err := server.Client.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("helm test: %v", err)
	}
	now, err := inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key := range now {
		if strings.HasSuffix(key, "/pillion-test") {
			t.Errorf("the test leaves %s", key)
		}
	}
}

// awaitSelfCheck returns once the controller has made the profile of the self-check.
func awaitSelfCheck(t *testing.T) {
	t.Helper()
	err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
		list, err := objects.Resource(patternProfiles).Namespace(selfCheck).List(ctx, listAll)
		if err != nil {
			return false, err
		}
		return len(list.Items) == 1, errors.New("there is no profile of the self-check")
	})
	if err != nil {
		t.Fatal(err)
	}
}
