package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/test/node/installed"
)

// index is the file of the page.
const index = "index.html"

// page is an edition of it.
func page(edition string) string { return fmt.Sprintf("<h1>The handbook, %s edition</h1>\n", edition) }

// commands runs commands one after the other.
func (d *demo) commands(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		if err := d.Run(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

// install installs Pillion as docs/install.md says.
func (d *demo) install(ctx context.Context) error {
	err := d.commands(ctx,
		"helm install pillion charts/pillion --namespace pillion-system --create-namespace --wait --hide-notes",
		"kubectl label namespace pillion-system pod-security.kubernetes.io/enforce=restricted",
	)
	if err != nil {
		return err
	}
	// Some seconds later its profiles are ready.
	if err := d.cluster.AwaitPillion(ctx); err != nil {
		return err
	}
	if err := d.plugin.Wait(); err != nil {
		return err
	}
	return d.commands(ctx, "kubectl get pods,clusterpatternprofiles -n pillion-system")
}

// columns show a Pod's containers in the order in which they start.
const columns = "custom-columns='POD:.metadata.name,PHASE:.status.phase," +
	"WOVEN:.spec.initContainers[*].name,YOURS:.spec.containers[*].name'"

// serve has the app serve the first page.
func (d *demo) serve(ctx context.Context) error {
	err := d.commands(ctx,
		"cat "+manifests+"handbook.yaml "+manifests+"web.yaml",
		"kubectl apply -f "+manifests+"handbook.yaml",
		"kubectl pillion explain -f "+manifests+"web.yaml -n handbook --diff=false",
		"kubectl apply -n handbook -f "+manifests+"web.yaml",
		"kubectl rollout status deployment/web -n handbook",
		"kubectl get pods -n handbook -o "+columns,
		"kubectl diff -n handbook -f "+manifests+"web.yaml && echo 'the Deployment is as it was written'",
	)
	if err != nil {
		return err
	}
	url, err := d.service(ctx, "handbook")
	if err != nil {
		return err
	}
	return d.commands(ctx, "curl -s "+url)
}

// many answers are enough to go on.
const many = 200

// push publishes the second edition while a client asks for the page.
func (d *demo) push(ctx context.Context) error {
	url, err := d.service(ctx, "handbook")
	if err != nil {
		return err
	}
	c := ask(ctx, url, page("first"), page("second"))
	defer c.stop()
	if err := d.await(ctx, "the first answers", func() error { return c.saw(old, many) }); err != nil {
		return err
	}
	d.Say("a client asks %s without pause: %s", url, c)
	if err := d.publish(ctx, "second"); err != nil {
		return err
	}
	pushed := time.Now()
	err = d.await(ctx, "the page to change", func() error {
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond): // how often people want to see it
		}
		d.Say("%4.1f s after the push: %s", time.Since(pushed).Seconds(), c)
		return c.saw(changed, many)
	})
	if err != nil {
		return err
	}
	c.stop()
	if err := c.problem(); err != nil {
		return err
	}
	d.Say("each of the answers was the old page or the new one, whole, and never the old one after the new one")
	return nil
}

// publish pushes an edition of the page.
func (d *demo) publish(ctx context.Context, edition string) error {
	for _, command := range []string{
		fmt.Sprintf("echo '%.*s' > %s", len(page(edition))-1, page(edition), index),
		fmt.Sprintf("git commit --quiet --all --message='The %s edition' && git push", edition),
	} {
		if err := d.author.Run(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

// together has all four patterns work for one nginx: it is configured by the rendered template, serves the repository, reads the
// cache, and is scraped by its adapter.
func (d *demo) together(ctx context.Context) error {
	err := d.commands(ctx,
		"sed -n '/labels:/,$p' "+manifests+"shop.yaml",
		"kubectl apply -f "+manifests+"shop.yaml && kubectl apply -n shop -f "+manifests+"web.yaml",
		"kubectl rollout status deployment/web -n shop",
		"kubectl get pods -n shop -o "+columns,
	)
	if err != nil {
		return err
	}
	url, err := d.service(ctx, "shop")
	if err != nil {
		return err
	}
	if err := d.commands(ctx, "curl -s "+url+"/stage   # template-processor", "curl -s "+url+"         # git-sync"); err != nil {
		return err
	}
	if err := d.fillCache(ctx, url+"/cached/offer"); err != nil {
		return err
	}
	pod, err := d.pod(ctx, "shop")
	if err != nil {
		return err
	}
	return d.commands(ctx,
		"curl -s "+url+"/cached/offer   # cache-ambassador",
		"curl -s http://"+pod.Status.PodIP+":9113/metrics | grep ^nginx_http_requests_total   # prometheus-adapter",
	)
}

// fillCache puts something into the Pod's cache, which only what runs in the Pod can reach, and waits until the app serves it.
func (d *demo) fillCache(ctx context.Context, url string) error {
	const offer = "two for one, says memcached"
	forward, stop := context.WithCancel(ctx)
	defer stop()
	if err := d.Background(forward, "kubectl port-forward -n shop deployment/web 11211", "Forwarding from"); err != nil {
		return err
	}
	err := d.Run(ctx, fmt.Sprintf(`printf 'set /cached/offer 0 0 %d\r\n%s\n\r\n' > /dev/tcp/127.0.0.1/11211`, len(offer)+1, offer))
	if err != nil {
		return err
	}
	return d.await(ctx, "the cache to have it", func() error { return answers(ctx, url) })
}

// uninstall takes Pillion away, and publishes the third edition.
func (d *demo) uninstall(ctx context.Context) error {
	url, err := d.service(ctx, "handbook")
	if err != nil {
		return err
	}
	err = d.commands(ctx,
		"helm uninstall pillion --namespace pillion-system --wait",
		"kubectl get pods --all-namespaces -l pillion.dev/injected=true",
	)
	if err != nil {
		return err
	}
	if err := d.publish(ctx, "third"); err != nil {
		return err
	}
	if err := d.await(ctx, "the third edition", func() error { return serves(ctx, url, page("third")) }); err != nil {
		return err
	}
	return d.commands(ctx, "curl -s "+url)
}

// service returns the URL of the app's Service in a namespace, once it answers.
func (d *demo) service(ctx context.Context, namespace string) (string, error) {
	service := &corev1.Service{}
	if err := d.cluster.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "web"}, service); err != nil {
		return "", err
	}
	url := "http://" + service.Spec.ClusterIP
	return url, d.await(ctx, "Service "+namespace+"/web", func() error { return answers(ctx, url) })
}

// pod returns the app's only Pod in a namespace.
func (d *demo) pod(ctx context.Context, namespace string) (*corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := d.cluster.Client.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("there are %d Pods in namespace %s, want one", len(list.Items), namespace)
	}
	return &list.Items[0], nil
}

// await waits for a condition, which returns why it does not hold yet.
func (d *demo) await(ctx context.Context, what string, condition func() error) error {
	return d.cluster.Await(ctx, what, func(context.Context) error { return condition() })
}

// answers returns why a URL does not answer well.
func answers(ctx context.Context, url string) error {
	status, _, err := installed.Get(ctx, url)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s answers %d", url, status)
	}
	return err
}

// serves returns why a URL does not answer with a page.
func serves(ctx context.Context, url, page string) error {
	status, body, err := installed.Get(ctx, url)
	if err == nil && (status != http.StatusOK || body != page) {
		err = fmt.Errorf("%s answers %d with %q", url, status, body)
	}
	return err
}
