package patterns_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// badAdapters are configurations that would end an exporter, or that it would pass over in silence.
var badAdapters = map[string]struct{ adapter, field, want string }{
	"a mapping that refers to more than it matches": {
		adapter: `statsd: {mappings: [{match: shop.*, name: "shop_${2}"}]}`,
		field:   "spec.prometheusAdapter.statsd.mappings[0].name", want: "${2} refers to more than match has: it finds 1",
	},
	"a mapping that is no regular expression": {
		adapter: `statsd: {mappings: [{match: "shop.(", matchType: Regex, name: shop}]}`,
		field:   "spec.prometheusAdapter.statsd.mappings[0]", want: "missing closing )",
	},
	"buckets that do not rise": {
		adapter: `statsd: {mappings: [{match: shop.a, name: shop, observerType: Histogram, buckets: ["1", "0.5"]}]}`,
		field:   "spec.prometheusAdapter.statsd.mappings[0].buckets", want: "must rise",
	},
	"a program of mtail that counts what it has not declared": {
		adapter: `logs: {directory: /var/log/shop, programs: [{name: shop, program: "/x/ {\n  orders_total++\n}"}]}`,
		field:   "spec.prometheusAdapter.logs.programs[0].program", want: "shop.mtail, line 2: orders_total is not declared",
	},
	"a path that is no JSONPath": {
		adapter: `json: {url: "http://localhost:8081/status", metrics: [{name: shop_open, path: "{.open"}]}`,
		field:   "spec.prometheusAdapter.json.metrics[0].path", want: "unclosed action",
	},
}

func TestWhatAnExporterWouldNotTakeIsRefusedInTheProfile(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, nil)
	for name, test := range badAdapters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := applyDocument(t, namespace, matched("bad", "    "+test.adapter))
			if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
				t.Fatalf("the answer is %v", err)
			}
			for _, want := range []string{test.field, test.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the answer does not say %q: %v", want, err)
				}
			}
			key, profile := client.ObjectKey{Namespace: namespace, Name: "bad"}, &v1alpha1.PatternProfile{}
			if err := cluster.Client.Get(t.Context(), key, profile); !apierrors.IsNotFound(err) {
				t.Errorf("a profile of that name: %v", err)
			}
		})
	}
}

func TestAProfileThatWorksStaysAsItIsWhenAChangeIsRefused(t *testing.T) {
	t.Parallel()
	namespace := createAdapted(t, "    statsd: {mappings: [{match: shop.started.*, name: shop_started_total}]}")
	for name, test := range badAdapters {
		if err := applyDocument(t, namespace, matched("numbers", "    "+test.adapter)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	pod := startShop(t, namespace)
	awaitSeries(t, pod, "shop_", map[string]float64{"shop_started_total": 200})
}

func TestAPodThatWouldGetABadConfigurationFromItsNamespaceIsRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ field, value, want string }{
		"a mapping": {
			field: "statsd", value: `{"mappings": [{"match": "shop.*", "name": "shop_${2}"}]}`,
			want: "${2} refers to more than match has",
		},
		"a program of mtail": {
			field: "logs",
			value: `{"directory": "/var/log/shop", "programs": [{"name": "shop", "program": "/x/ {\n  orders_total++\n}"}]}`,
			want:  "orders_total is not declared",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := cluster.CreateRestricted(t, map[string]string{v1alpha1.InjectKey: "prometheus-adapter"})
			annotateNamespace(t, namespace, map[string]string{test.field: test.value})
			template := &installed.Deployment(namespace, "shop", adapterShop).Spec.Template
			cluster.Eventually(t, "a Pod that is refused for it", func(ctx context.Context) error {
				pod := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "dry-run-", Labels: template.Labels},
					Spec:       template.Spec,
				}
				err := cluster.Client.Create(ctx, pod, client.DryRunAll)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					return fmt.Errorf("the answer is %w; the exporter is %q", err, exporterOf(pod))
				}
				return nil
			})
		})
	}
}

// applyDocument applies a document, and returns what the API server answers.
func applyDocument(t *testing.T, namespace, document string) error {
	t.Helper()
	objects, err := apiserver.Read(strings.NewReader(document))
	if err != nil || len(objects) != 1 {
		t.Fatalf("%d objects: %v", len(objects), err)
	}
	objects[0].SetNamespace(namespace)
	return cluster.Server.Apply(t.Context(), objects[0])
}
