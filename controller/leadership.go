package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

const (
	// beginAnew is how long is waited before a controller that led begins anew, for what has ended to let go of its addresses.
	beginAnew = time.Second
	// askWhoLeads bounds how long is waited to hear who leads now.
	askWhoLeads = 3 * time.Second
)

// Run keeps the cluster in order until the context ends. A leader that cannot renew its Lease stops all its work; if nobody
// else has taken over, as nobody can while the API server is gone, it begins anew under the same name, so that it leads again
// as soon as the API server is there. If another leads, or it never led, that is an error: whoever calls Run should end the
// process then.
func Run(ctx context.Context, restConfig *rest.Config, options Options) error {
	if err := options.complete(); err != nil {
		return err
	}
	lock, stop, err := newLock(restConfig, options)
	if err != nil {
		return err
	}
	defer stop()
	hasLed := false
	for {
		leads, err := work(ctx, restConfig, options, lock)
		hasLed = hasLed || leads
		if err == nil || ctx.Err() != nil || !hasLed || lock == nil {
			return err
		}
		if other := otherLeader(ctx, lock); other != "" {
			return fmt.Errorf("%s leads now: %w", other, err)
		}
		options.Logger.Info("Beginning anew: the controller stopped while it led", "cause", err.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beginAnew):
		}
	}
}

// work runs one manager, and tells whether it led.
func work(ctx context.Context, restConfig *rest.Config, options Options, lock resourcelock.Interface) (led bool, err error) {
	mgr, err := assemble(restConfig, options, lock)
	if err != nil {
		return false, err
	}
	err = mgr.Start(ctx)
	select {
	case <-mgr.Elected():
		led = true
	default:
	}
	return led, err
}

// newLock returns the Lease that the leader holds, nil if nobody is to be elected. This process holds it under one name for
// as long as it lives.
func newLock(restConfig *rest.Config, options Options) (lock resourcelock.Interface, stop func(), err error) {
	if !options.LeaderElection {
		return nil, func() {}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, fmt.Errorf("prepare leader election: %w", err)
	}
	restConfig = rest.AddUserAgent(rest.CopyConfig(restConfig), "leader-election") // it edits what it is given
	restConfig.Timeout = max(options.RenewDeadline/2, time.Second)                 // so that one request that hangs costs nobody the Lease
	core, errCore := coreclient.NewForConfig(restConfig)
	coordination, errCoordination := coordinationclient.NewForConfig(restConfig)
	if err := errors.Join(errCore, errCoordination); err != nil {
		return nil, nil, fmt.Errorf("prepare leader election: %w", err)
	}
	identity := host + "_" + string(uuid.NewUUID())
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&coreclient.EventSinkImpl{Interface: core.Events(options.Namespace)})
	lock, err = resourcelock.New(resourcelock.LeasesResourceLock, options.Namespace, LeaseName, core, coordination,
		resourcelock.ResourceLockConfig{
			Identity: identity, EventRecorder: events.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: identity}),
		})
	if err != nil {
		events.Shutdown()
		return nil, nil, fmt.Errorf("prepare leader election: %w", err)
	}
	return lock, events.Shutdown, nil
}

// otherLeader returns who holds the Lease, if it is not this process; nothing if that cannot be asked.
func otherLeader(ctx context.Context, lock resourcelock.Interface) string {
	ctx, cancel := context.WithTimeout(ctx, askWhoLeads)
	defer cancel()
	held, _, err := lock.Get(ctx)
	if err != nil || held.HolderIdentity == lock.Identity() {
		return ""
	}
	return held.HolderIdentity
}
