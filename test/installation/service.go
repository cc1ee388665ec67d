package installation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/network"
)

// ServiceName is the Service that the API server reaches the webhook by.
const ServiceName = "pillion-webhook"

// webhookPort is where every replica listens, at an address of its own.
const webhookPort = 9443

// ServiceOptions are the settings of an installation behind a Service.
type ServiceOptions struct {
	Options

	// Replicas are two, and Controllers one, where they are zero.
	Replicas, Controllers int

	// WebhookEnv and ControllerEnv are further variables of the one kind of process, as NAME=VALUE.
	WebhookEnv, ControllerEnv []string

	// ProbePeriod is how often a replica is asked whether it is ready: every 200 ms where it is zero. EndpointLag is how much later the
	// EndpointSlice says so.
	ProbePeriod, EndpointLag time.Duration
}

// Service is a Pillion with several replicas behind a Service, each at an address of its own. There is no node: Service itself does what
// a kubelet and the EndpointSlice controller would do, ask each replica whether it is ready, and tell.
//
// The API server has to be started with ServerFlags, in a network of package network.
type Service struct {
	Replicas    []*Replica
	Controllers []*Process

	place
	lag, period time.Duration
	stop        context.CancelFunc
	keeping     sync.WaitGroup

	mu      sync.Mutex
	ready   []string // the addresses in the EndpointSlice
	changed chan struct{}
}

// Replica is one process of the webhook.
type Replica struct {
	*Process
	// IP is the endpoint's address, Address that with the port where admission reviews are answered.
	IP, Address string
}

// ServerFlags are the flags of an API server that dials the endpoints of a Service itself, where no node does.
func ServerFlags() map[string]string { return map[string]string{"enable-aggregator-routing": "true"} }

// StartService installs what deploy/ holds and a Service, starts all processes and returns once all are ready, the Service has the
// replicas for endpoints and the API server has been told of the webhook. Call Stop at the end.
func StartService(ctx context.Context, server *apiserver.Server, options ServiceOptions) (*Service, error) {
	dir, err := os.MkdirTemp("", "pillion-installation-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the installation: %w", err)
	}
	s := &Service{place: place{dir, server}, lag: options.EndpointLag, period: options.ProbePeriod, changed: make(chan struct{})}
	if s.period == 0 {
		s.period = 200 * time.Millisecond
	}
	if err := s.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("install Pillion: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Service) start(ctx context.Context, options ServiceOptions) error {
	if err := s.server.InstallDeploy(ctx); err != nil {
		return err
	}
	if err := s.createService(ctx); err != nil {
		return err
	}
	for range max(options.Controllers, 1) {
		if err := s.startController(ctx, options); err != nil {
			return err
		}
	}
	for i := range max(options.Replicas, 2) {
		if err := s.startReplica(ctx, options, network.Address(byte(10+i))); err != nil {
			return err
		}
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.keeping.Go(func() { s.keepEndpoints(keep, options.Log) })
	for _, process := range s.processes() {
		if err := process.AwaitReady(ctx); err != nil {
			return err
		}
	}
	if err := s.AwaitEndpoints(ctx, len(s.Replicas)); err != nil {
		return err
	}
	return s.awaitEntries(ctx)
}

func (s *Service) createService(ctx context.Context) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: ServiceName},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{
			Name: "https", Port: 443, TargetPort: intstr.FromInt32(webhookPort),
		}}},
	}
	if err := s.server.Client.Create(ctx, service); err != nil {
		return fmt.Errorf("create the Service: %w", err)
	}
	if err := s.server.Client.Create(ctx, s.slice(nil)); err != nil {
		return fmt.Errorf("create the EndpointSlice: %w", err)
	}
	return nil
}

func (s *Service) startController(ctx context.Context, options ServiceOptions) error {
	addresses, err := freeAddresses(2)
	if err != nil {
		return err
	}
	controller, err := s.process(ctx, options.Options, "controller", addresses[0], slices.Concat(
		[]string{
			"PILLION_NAMESPACE=" + Namespace, "PILLION_CONTROLLER_HEALTH_ADDRESS=" + addresses[0],
			"PILLION_CONTROLLER_METRICS_ADDRESS=" + addresses[1],
		}, options.Env, options.ControllerEnv))
	if err != nil {
		return err
	}
	controller.MetricsURL = "http://" + addresses[1] + "/metrics"
	s.Controllers = append(s.Controllers, controller)
	return nil
}

func (s *Service) startReplica(ctx context.Context, options ServiceOptions, ip string) error {
	at := func(port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }
	process, err := s.process(ctx, options.Options, "webhook", at(8081), slices.Concat(
		[]string{
			"PILLION_NAMESPACE=" + Namespace, "PILLION_WEBHOOK_LISTEN_ADDRESS=" + at(webhookPort),
			"PILLION_WEBHOOK_HEALTH_ADDRESS=" + at(8081), "PILLION_WEBHOOK_METRICS_ADDRESS=" + at(8083),
		}, options.Env, options.WebhookEnv))
	if err != nil {
		return err
	}
	process.MetricsURL = "http://" + at(8083) + "/metrics"
	s.Replicas = append(s.Replicas, &Replica{Process: process, IP: ip, Address: at(webhookPort)})
	return nil
}

// keepEndpoints keeps the EndpointSlice at the replicas that are ready.
func (s *Service) keepEndpoints(ctx context.Context, log io.Writer) {
	ticker := time.NewTicker(s.period)
	defer ticker.Stop()
	said := map[string]bool{} // what was told last
	for {
		ready := s.probe(ctx)
		if !maps.Equal(ready, said) {
			if wait(ctx, s.lag) != nil {
				return
			}
			if err := s.tell(ctx, ready); err == nil {
				said = ready
			} else if log != nil && ctx.Err() == nil {
				_, _ = fmt.Fprintln(log, "the endpoints could not be told:", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// probe asks every replica whether it is ready.
func (s *Service) probe(ctx context.Context) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	ready := map[string]bool{}
	for _, replica := range s.Replicas {
		asking.Go(func() {
			isReady, _ := replica.Ready(ctx)
			mu.Lock()
			defer mu.Unlock()
			ready[replica.IP] = isReady
		})
	}
	asking.Wait()
	return ready
}

// tell writes the EndpointSlice.
func (s *Service) tell(ctx context.Context, ready map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.server.Client.Update(ctx, s.slice(ready)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = nil
	for ip, isReady := range ready {
		if isReady {
			s.ready = append(s.ready, ip)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *Service) slice(ready map[string]bool) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: Namespace, Name: ServiceName, Labels: map[string]string{discoveryv1.LabelServiceName: ServiceName},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{
			Name: new("https"), Port: new(int32(webhookPort)), Protocol: new(corev1.ProtocolTCP),
		}},
	}
	for _, ip := range slices.Sorted(maps.Keys(ready)) {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(ready[ip])},
		})
	}
	return slice
}

// Endpoints returns the addresses that the EndpointSlice has, and a channel that is closed when they change.
func (s *Service) Endpoints() ([]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ready), s.changed
}

// AwaitEndpoints returns once the EndpointSlice has as many addresses.
func (s *Service) AwaitEndpoints(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		ready, changed := s.Endpoints()
		if len(ready) == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Service has the endpoints %v, %d are awaited: %w", ready, n, ctx.Err())
		case <-changed:
		}
	}
}

// Restart stops a replica by SIGTERM, starts it again and returns once the Service has it for an endpoint again, as a rolling restart
// does with one replica after another.
func (s *Service) Restart(ctx context.Context, replica *Replica) error {
	if err := replica.Stop(); err != nil {
		return err
	}
	if err := s.AwaitEndpoints(ctx, len(s.Replicas)-1); err != nil { // what had ended unseen would seem to be there still
		return err
	}
	if err := replica.Start(); err != nil {
		return err
	}
	if err := replica.AwaitReady(ctx); err != nil {
		return err
	}
	return s.AwaitEndpoints(ctx, len(s.Replicas))
}

func (s *Service) processes() []*Process {
	all := slices.Clone(s.Controllers)
	for _, replica := range s.Replicas {
		all = append(all, replica.Process)
	}
	return all
}

// Stop ends all processes, the webhooks last, and removes their files.
func (s *Service) Stop() error {
	var errs []error
	for _, process := range s.processes() {
		errs = append(errs, process.Stop())
	}
	if s.stop != nil {
		s.stop()
		s.keeping.Wait()
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// wait waits, or until the context ends, which is the error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
