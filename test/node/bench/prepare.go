package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node"
	"github.com/pillion-dev/pillion/test/node/gitserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

//go:embed profiles.yaml
var profilesYAML string

// bench is a node with Pillion, and what its Pods need and report to.
type bench struct {
	*installed.Cluster

	options   *options
	namespace string

	// reports is where apps report to, followed by the Pod's name.
	reports string

	// values are what profiles.yaml, and Pods that somebody wrote, may name: {{.Repository}} and {{.CacheServer}}.
	values map[string]string

	mu sync.Mutex
	// waiting are who waits for the report of a Pod.
	waiting map[string]chan started
	// runtime is what containerd told.
	runtime []node.RuntimeEvent

	closers []func() error
}

// started is what an app reports.
type started struct {
	Started time.Time `json:"started"`
	Broken  []string  `json:"broken"`
}

func (b *bench) close() {
	for _, end := range b.closers {
		_ = end() // the process is about to end
	}
}

// prepare makes what the lanes ask for.
func prepare(ctx context.Context, cluster *installed.Cluster, o *options) (*bench, error) {
	b := &bench{Cluster: cluster, options: o, waiting: map[string]chan started{}, values: map[string]string{}}
	var err error
	if b.namespace, err = cluster.CreateNamespace(ctx, map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted",
	}); err != nil {
		return nil, err
	}
	if err := b.listen(); err != nil {
		return nil, err
	}
	if b.values["CacheServer"], err = b.cacheServer(); err != nil {
		return nil, err
	}
	if b.values["Repository"], err = b.repository(ctx); err != nil {
		return nil, err
	}
	if err := b.apply(ctx); err != nil {
		return nil, err
	}
	return b, cluster.WatchRuntime(ctx, func(event node.RuntimeEvent) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.runtime = append(b.runtime, event)
	})
}

// listen takes the apps' reports.
func (b *bench) listen() error {
	listener, err := net.Listen("tcp", node.Address+":0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var report started
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if waits, ok := b.waiting[r.URL.Query().Get("pod")]; ok {
			select {
			case waits <- report:
			default: // a container that was started again: the first start counts
			}
		}
	})}
	go func() { _ = server.Serve(listener) }()
	b.closers = append(b.closers, server.Close)
	b.reports = "http://" + listener.Addr().String() + "/?pod="
	return nil
}

// cacheServer is somebody that twemproxy could connect to.
func (b *bench) cacheServer() (string, error) {
	listener, err := net.Listen("tcp", node.Address+":0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, connection)
				_ = connection.Close()
			}()
		}
	}()
	b.closers = append(b.closers, listener.Close)
	return listener.Addr().String(), nil
}

// repository serves a git repository of a page and a template.
func (b *bench) repository(ctx context.Context) (url string, err error) {
	dir, err := os.MkdirTemp("", "pillion-bench-")
	if err != nil {
		return "", err
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(dir) })
	server, err := gitserver.Start(ctx, filepath.Join(dir, "repositories"), node.Address+":0")
	if err != nil {
		return "", err
	}
	if err := server.Create("site"); err != nil {
		return "", err
	}
	_, err = server.Push(ctx, "site", map[string]string{
		"index.html": "<p>Hello</p>\n", "templates/app.conf.tmpl": "backend {{ .app.backend }}\n",
	}, "a page")
	return server.URL("site"), err
}

// apply applies the profiles, and waits until Pods get them.
func (b *bench) apply(ctx context.Context) error {
	objects, err := render(profilesYAML, b.values)
	if err != nil {
		return err
	}
	for _, object := range objects {
		object.SetNamespace(b.namespace)
		if err := b.Server.Apply(ctx, object); err != nil {
			return err
		}
	}
	return b.Await(ctx, "the profiles", func(ctx context.Context) error {
		list := &v1alpha1.PatternProfileList{}
		if err := b.Client.List(ctx, list, client.InNamespace(b.namespace)); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return errors.New("there are none")
		}
		for i := range list.Items {
			if err := ready(&list.Items[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func ready(profile *v1alpha1.PatternProfile) error {
	for _, condition := range profile.Status.Conditions {
		if condition.Type == v1alpha1.ConditionReady && condition.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("profile %s is not Ready: %v", profile.Name, profile.Status.Conditions)
}
