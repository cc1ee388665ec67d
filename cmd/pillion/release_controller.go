package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/controller"
)

const (
	// lookEvery is how often it is looked whether a controller that is ending has ended.
	lookEvery = 500 * time.Millisecond

	// endsWithin is how long one may take to end: twice what the chart lets it.
	endsWithin = time.Minute
)

// controllerLook finds out whether a controller runs anywhere in the cluster.
type controllerLook struct {
	reader client.Reader
	// waits tells whether to wait for one that is ending. tell gets a line for whoever waits.
	waits bool
	tell  io.Writer

	// renewed is when each Lease had been renewed when it was first seen, since when it was first seen.
	renewed map[client.ObjectKey]time.Time
	since   time.Time
}

// sign is something that a running controller leaves.
type sign struct {
	what string
	// passing tells that it may be gone by itself soon.
	passing bool
}

// noneRuns returns an error where a controller runs, or nobody can say.
func (c *controllerLook) noneRuns(ctx context.Context) error {
	c.renewed, c.since = map[client.ObjectKey]time.Time{}, time.Now()
	told := false
	for {
		signs, err := c.signs(ctx)
		if err != nil {
			return err
		}
		if len(signs) == 0 {
			return nil
		}
		for _, s := range signs {
			if !s.passing || !c.waits || time.Since(c.since) > endsWithin {
				return fmt.Errorf("a controller runs (%s), which takes the finalizer off by itself: at once from deleted profiles that have "+
					"the annotation pillion.dev/release=true. Uninstall it first, or add --force", s.what)
			}
		}
		if !told {
			told = true
			if err := writeLine(c.tell, "waiting for the end of "+signs[0].what); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // somebody has interrupted it
		case <-time.After(lookEvery):
		}
	}
}

func (c *controllerLook) signs(ctx context.Context) ([]sign, error) {
	pods, leases := &corev1.PodList{}, &coordinationv1.LeaseList{}
	err := errors.Join(
		c.reader.List(ctx, pods, client.MatchingLabels{
			"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "controller",
		}),
		c.reader.List(ctx, leases, client.MatchingFields{"metadata.name": controller.LeaseName}),
	)
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("you may not see whether a controller runs (permission: list pods and leases in all namespaces), beside "+
			"which the finalizer would come back; add --force if none does: %w", err)
	case err != nil:
		return nil, fmt.Errorf("find out whether a controller runs: %w", err)
	}
	var found []sign
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			found = append(found, sign{"Pod " + pod.Namespace + "/" + pod.Name, pod.DeletionTimestamp != nil})
		}
	}
	for i := range leases.Items {
		if s := c.signOf(&leases.Items[i]); s != nil {
			found = append(found, *s)
		}
	}
	return found, nil
}

// signOf tells whether a Lease is held. One that is renewed while it is watched is; one that was not for as long as it lasts
// has no holder any more, by this machine's clock or the holder's.
func (c *controllerLook) signOf(lease *coordinationv1.Lease) *sign {
	spec := &lease.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return nil
	}
	key, renewed := client.ObjectKeyFromObject(lease), spec.RenewTime.Time
	first, seen := c.renewed[key]
	if !seen {
		c.renewed[key], first = renewed, renewed
	}
	isRenewed, lasts := !renewed.Equal(first), time.Duration(*spec.LeaseDurationSeconds)*time.Second
	if !isRenewed && (time.Since(renewed) > lasts || time.Since(c.since) > lasts) {
		return nil
	}
	return &sign{fmt.Sprintf("%s, who holds Lease %s", *spec.HolderIdentity, key), !isRenewed}
}
