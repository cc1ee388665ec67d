package patterns_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// adapterNginx is an nginx that any user may run.
const adapterNginx = "docker.io/nginxinc/nginx-unprivileged:1.29"

func TestARedisThatIsTheAppIsMeasuredWithItsPassword(t *testing.T) {
	t.Parallel()
	namespace := createAdapted(t, "    server: {type: Redis, credentials: {secretName: shop-redis, passwordKey: password}}\n")
	cluster.Create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop-redis"},
		StringData: map[string]string{"password": "opensesame"},
	})
	deployment := installed.Deployment(namespace, "shop", injectors.DefaultImages("").Redis)
	app := &deployment.Spec.Template.Spec.Containers[0]
	app.Command = []string{"redis-server", "--requirepass", "$(PASSWORD)", "--save", "", "--appendonly", "no", "--dir", "/tmp"}
	app.Env = []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "shop-redis"}, Key: "password",
	}}}}
	pod := runAdapted(t, deployment, "6379")

	redis := dialRedis(t, pod, "opensesame")
	set := func(first, last int) {
		for i := first; i <= last; i++ {
			redis("SET", "key"+strconv.Itoa(i), "x")
		}
	}
	set(1, 7)
	awaitRedis(t, pod, 7)
	set(8, 12)
	redis("DEL", "key1")
	found := awaitRedis(t, pod, 11)
	if sets := found.series("redis_commands_total")[`redis_commands_total{cmd="set"}`]; sets != 12 {
		t.Errorf("redis counts %v SET, 12 were sent", sets)
	}

	// Nobody may have it log in elsewhere, or read keys.
	address, err := metricsURL(pod)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, asked := serveElsewhere(t)
	target := strings.Replace(elsewhere, "http://", "redis://", 1)
	status, body, err := installed.Get(t.Context(), strings.TrimSuffix(address, "/metrics")+"/scrape?"+url.Values{
		"target": {target}, "check-single-keys": {"key2"},
	}.Encode())
	if err != nil || status != http.StatusNotFound {
		t.Errorf("/scrape of another target: %d %s (%v)", status, body, err)
	}
	if _, err := scrapeURL(t.Context(), address+"?target="+url.QueryEscape(target)); err != nil {
		t.Error(err)
	}
	if asked() != 0 {
		t.Error("the adapter connected to another server")
	}
	checkRefusesConnections(t, pod, "19121")
}

// awaitRedis waits until the exporter tells of so many keys.
func awaitRedis(t *testing.T, pod *corev1.Pod, keys float64) (found *scraped) {
	t.Helper()
	cluster.Eventually(t, "the metrics of redis", func(ctx context.Context) (err error) {
		if found, err = scrape(ctx, pod); err != nil {
			return err
		}
		up, got := found.series("redis_up")["redis_up"], found.series("redis_db_keys")[`redis_db_keys{db="db0"}`]
		if up != 1 || got != keys {
			return fmt.Errorf("redis_up is %v; there are %v keys of %v", up, got, keys)
		}
		return nil
	})
	return found
}

// dialRedis returns a function that sends a command to a redis, and returns its answer.
func dialRedis(t *testing.T, pod *corev1.Pod, password string) func(words ...string) string {
	t.Helper()
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort(pod.Status.PodIP, "6379"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	answers := bufio.NewReader(connection)
	send := func(words ...string) string {
		command := fmt.Sprintf("*%d\r\n", len(words))
		for _, word := range words {
			command += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := connection.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil || strings.HasPrefix(answer, "-") {
			t.Fatalf("%s: %s (%v)", words[0], answer, err)
		}
		return answer
	}
	send("AUTH", password)
	return send
}

// statusOfNginx is a configuration of nginx that serves a page to everybody, and its status to its own machine.
const statusOfNginx = `server {
    listen 8080;
    location / { return 200 "hello\n"; }
    location = /stub_status { stub_status; allow 127.0.0.1; deny all; }
}
`

func TestAnNginxIsMeasuredInANamespaceThatAsksForTheDefaultProfile(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, map[string]string{v1alpha1.InjectKey: "prometheus-adapter"})
	annotateNamespace(t, namespace, map[string]string{
		"server": `{"type": "Nginx", "port": 8080, "nginx": {"statusPath": "/stub_status"}}`,
	})
	cluster.Create(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop-nginx"},
		Data:       map[string]string{"default.conf": statusOfNginx},
	})
	deployment := installed.Deployment(namespace, "shop", adapterNginx)
	spec := &deployment.Spec.Template.Spec
	spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "configuration", MountPath: "/etc/nginx/conf.d"}, {Name: "tmp", MountPath: "/tmp"},
	}
	spec.Volumes = []corev1.Volume{
		{Name: "configuration", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "shop-nginx"},
		}}},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	cluster.AwaitWoven(t, namespace, &deployment.Spec.Template, "prometheus-adapter")
	pod := runAdapted(t, deployment, "8080")

	var before *scraped
	cluster.Eventually(t, "the metrics of nginx", func(ctx context.Context) (err error) {
		if before, err = scrape(ctx, pod); err != nil {
			return err
		}
		if before.series("nginx_up")["nginx_up"] != 1 {
			return fmt.Errorf("nginx_up is %v", before.series("nginx_up"))
		}
		return nil
	})
	before.checkTypes(t, "nginx_http_", map[string]string{"nginx_http_requests_total": "COUNTER"})
	for range 20 {
		status, body, err := installed.Get(t.Context(), "http://"+pod.Status.PodIP+":8080/")
		if err != nil || status != http.StatusOK || body != "hello\n" {
			t.Fatalf("the page: %d %q (%v)", status, body, err)
		}
	}
	after, err := scrape(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	const requests = "nginx_http_requests_total"
	// A scrape is a request, too.
	if got := after.series(requests)[requests] - before.series(requests)[requests]; got != 21 {
		t.Errorf("nginx counted %v more requests, there were 20 and a scrape", got)
	}
}

// annotateNamespace sets annotations of a namespace for the default profile, in place of those that it has.
func annotateNamespace(t *testing.T, name string, fields map[string]string) {
	t.Helper()
	const prefix = "prometheus-adapter.pillion.dev/"
	namespace := &corev1.Namespace{}
	if err := cluster.Client.Get(t.Context(), client.ObjectKey{Name: name}, namespace); err != nil {
		t.Fatal(err)
	}
	was := client.MergeFrom(namespace.DeepCopy())
	annotations := map[string]string{}
	for key, value := range namespace.Annotations {
		if !strings.HasPrefix(key, prefix) {
			annotations[key] = value
		}
	}
	for field, value := range fields {
		annotations[prefix+field] = value
	}
	namespace.Annotations = annotations
	if err := cluster.Client.Patch(t.Context(), namespace, was); err != nil {
		t.Fatal(err)
	}
}
