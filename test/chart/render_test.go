package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// rendered is what the chart renders with a set of values.
type rendered []*unstructured.Unstructured

func render(t *testing.T, args ...string) rendered {
	t.Helper()
	out, err := template(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := apiserver.Read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// find returns an object; nil if there is none.
func (r rendered) find(kind, name string) *unstructured.Unstructured {
	i := slices.IndexFunc(r, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	if i < 0 {
		return nil
	}
	return r[i]
}

// as returns an object as its type, strictly.
func as[T any](t *testing.T, r rendered, kind, name string) *T {
	t.Helper()
	object := r.find(kind, name)
	if object == nil {
		t.Fatalf("there is no %s %s", kind, name)
	}
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true); err != nil {
		t.Fatalf("%s %s: %v", kind, name, err)
	}
	return typed
}

// settings returns what a process would read of the ConfigMap.
func (r rendered) settings(t *testing.T) config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(as[corev1.ConfigMap](t, r, "ConfigMap", "pillion").Data["config.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(nil, []string{"PILLION_CONFIG=" + file})
	if err != nil {
		t.Fatalf("a process would not start with it: %v", err)
	}
	return loaded
}

func TestEverySetOfValuesRendersWhatFitsTogether(t *testing.T) {
	for name, file := range valueSets(t) {
		t.Run(name, func(t *testing.T) {
			all := render(t, "--values", file)
			settings := all.settings(t)
			if settings.Namespace != namespace {
				t.Errorf("the configuration is for namespace %s", settings.Namespace)
			}
			webhook := as[appsv1.Deployment](t, all, "Deployment", "pillion-webhook")
			controller := as[appsv1.Deployment](t, all, "Deployment", "pillion-controller")
			checkAddresses(t, webhook, settings.Webhook.ListenAddress, settings.Webhook.HealthAddress, settings.Webhook.MetricsAddress)
			checkAddresses(t, controller, "", settings.Controller.HealthAddress, settings.Controller.MetricsAddress)
			for _, deployment := range []*appsv1.Deployment{webhook, controller} {
				checkDeployment(t, all, deployment)
				if image := deployment.Spec.Template.Spec.Containers[0].Image; image != settings.Images.Pillion {
					t.Errorf("%s runs %s, and injected containers %s", deployment.Name, image, settings.Images.Pillion)
				}
			}
			drain := settings.Webhook.DrainDelay + settings.Webhook.ShutdownTimeout
			grace := time.Duration(*webhook.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
			if grace < drain+5*time.Second {
				t.Errorf("the webhook has %s to end, and its drain takes %s", grace, drain)
			}
			if rolling := webhook.Spec.Strategy.RollingUpdate; rolling == nil || rolling.MaxUnavailable.IntValue() != 0 {
				t.Errorf("a rolling update may take a replica away: %+v", webhook.Spec.Strategy)
			}
			service := as[corev1.Service](t, all, "Service", settings.Controller.Service.Name)
			if port := service.Spec.Ports[0]; port.Port != settings.Controller.Service.Port || port.TargetPort.StrVal != "https" {
				t.Errorf("the Service has port %+v, and the controller says %+v", port, settings.Controller.Service)
			}
			if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(webhook.Spec.Template.Labels)) ||
				labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(controller.Spec.Template.Labels)) {
				t.Errorf("the Service selects %v", service.Spec.Selector)
			}
			for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
				object := all.find(kind, settings.WebhookConfiguration)
				if object == nil {
					t.Fatalf("there is no %s %s", kind, settings.WebhookConfiguration)
				}
				if _, says := object.Object["webhooks"]; says {
					t.Errorf("%s says something of entries, which are the controller's", kind)
				}
			}
		})
	}
}

// checkAddresses holds the named ports of a Deployment to the addresses that the process listens at.
func checkAddresses(t *testing.T, deployment *appsv1.Deployment, https, health, metrics string) {
	t.Helper()
	want := map[string]string{"https": https, "health": health, "metrics": metrics}
	for _, port := range deployment.Spec.Template.Spec.Containers[0].Ports {
		if !strings.HasSuffix(want[port.Name], ":"+strconv.Itoa(int(port.ContainerPort))) {
			t.Errorf("%s: port %s is %d, and the process listens at %q", deployment.Name, port.Name, port.ContainerPort, want[port.Name])
		}
		delete(want, port.Name)
	}
	for name, address := range want {
		if address != "" && address != "none" {
			t.Errorf("%s: there is no port %s for %s", deployment.Name, name, address)
		}
	}
}

// checkDeployment checks what both have to have.
func checkDeployment(t *testing.T, all rendered, deployment *appsv1.Deployment) {
	t.Helper()
	component := strings.TrimPrefix(deployment.Name, "pillion-")
	pod := deployment.Spec.Template
	container := pod.Spec.Containers[0]
	want := map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": component}
	if !labels.Equals(deployment.Spec.Selector.MatchLabels, want) || !labels.SelectorFromSet(want).Matches(labels.Set(pod.Labels)) {
		t.Errorf("%s selects %v, and its Pods are %v", deployment.Name, deployment.Spec.Selector.MatchLabels, pod.Labels)
	}
	if len(pod.Spec.TopologySpreadConstraints) == 0 {
		t.Errorf("%s is not spread", deployment.Name)
	}
	if container.ReadinessProbe == nil || container.LivenessProbe == nil {
		t.Errorf("%s is not probed", deployment.Name)
	}
	i := slices.IndexFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == "GOMEMLIMIT" })
	switch limit := container.Resources.Limits.Memory(); {
	case limit.IsZero() && i >= 0:
		t.Errorf("%s has no memory limit, and GOMEMLIMIT is %s", deployment.Name, container.Env[i].Value)
	case !limit.IsZero() && (i < 0 || container.Env[i].Value != strconv.FormatInt(limit.Value()*9/10, 10)):
		t.Errorf("%s has a memory limit of %s, and GOMEMLIMIT is not nine tenths of it: %v", deployment.Name, limit, container.Env)
	}
	budget := all.find("PodDisruptionBudget", deployment.Name)
	if hasMany := *deployment.Spec.Replicas > 1; hasMany != (budget != nil) {
		t.Errorf("%s has %d replicas, and a PodDisruptionBudget: %t", deployment.Name, *deployment.Spec.Replicas, budget != nil)
	}
	if budget != nil {
		typed := as[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget", deployment.Name)
		selector, err := metav1.LabelSelectorAsSelector(typed.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			t.Errorf("the PodDisruptionBudget of %s selects %v: %v", deployment.Name, selector, err)
		}
	}
}

func TestTheConfigurationFollowsTheValues(t *testing.T) {
	sets := valueSets(t)
	edge := render(t, "--values", sets["cert-manager"]).settings(t)
	if edge.Webhook.MaxBytesInFlight != 58720256 || edge.Webhook.DrainDelay != 90*time.Second ||
		edge.Controller.SelfCheckInterval != 0 || edge.Controller.LeaderElection || len(edge.LeadingContainers) != 0 || edge.Certs.Issuer != "ClusterIssuer/internal" {
		t.Errorf("%+v", edge)
	}
	const mirror = "registry.example.com/mirror"
	all := render(t, "--values", sets["air-gapped"])
	if got := all.settings(t).Images.Registry; got != mirror {
		t.Errorf("the patterns' images are pulled from %q", got)
	}
	images := regexp.MustCompile(`image: (\S+)`)
	out, err := template(t, "--values", sets["air-gapped"], "--set", "crds.enabled=false")
	if err != nil {
		t.Fatal(err)
	}
	found := images.FindAllStringSubmatch(out, -1)
	for _, image := range found {
		if !strings.HasPrefix(image[1], mirror+"/pillion-dev/pillion:") || !strings.Contains(image[1], "@sha256:") {
			t.Errorf("%s is pulled", image[1])
		}
	}
	if len(found) < 2 {
		t.Errorf("only %d images were found", len(found))
	}
}

// TestAChangedConfigurationMakesNewPods: the processes read theirs when they start.
func TestAChangedConfigurationMakesNewPods(t *testing.T) {
	at := func(args ...string) map[string]string {
		return as[appsv1.Deployment](t, render(t, args...), "Deployment", "pillion-webhook").Spec.Template.Annotations
	}
	const key = "pillion.dev/configuration"
	same, again, other := at()[key], at()[key], at("--set", "config.logLevel=debug")[key]
	if same == "" || same != again || same == other {
		t.Errorf("%q, %q again, and %q with another configuration", same, again, other)
	}
}

// TestTheDefaultImageIsThatOfTheRelease: what runs as Pillion and what is injected of it are one.
func TestTheDefaultImageIsThatOfTheRelease(t *testing.T) {
	if got, want := render(t).settings(t).Images.Pillion, injectors.DefaultImages("").Pillion; got != want {
		t.Errorf("the chart has %s, and the patterns %s: appVersion in Chart.yaml is that of the release", got, want)
	}
}

// TestAlertsFollowTheValues: what an alert compares with, and whether there is one, depends on the configuration.
func TestAlertsFollowTheValues(t *testing.T) {
	alerts := func(args ...string) map[string]map[string]any {
		all := map[string]map[string]any{}
		rule := render(t, append([]string{"--set", "prometheusRule.enabled=true"}, args...)...).find("PrometheusRule", "pillion")
		groups, _, err := unstructured.NestedSlice(rule.Object, "spec", "groups")
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range groups {
			rules, _, err := unstructured.NestedSlice(group.(map[string]any), "rules")
			if err != nil {
				t.Fatal(err)
			}
			for _, rule := range rules {
				all[rule.(map[string]any)["alert"].(string)] = rule.(map[string]any)
			}
		}
		return all
	}
	const expiring, single = "PillionPresentedCertificateExpiring", "PillionWebhookSingle"
	standard := alerts()
	other := alerts("--set", "config.certs.leafLifetime=35h,webhook.replicas=1,prometheusRule.disabled={PillionSlow}",
		"--set", "prometheusRule.runbookURL=https://wiki.example.com/pillion")
	for _, test := range []struct {
		alerts map[string]map[string]any
		part   string
	}{{standard, "< 86400"}, {other, "< 18000"}} {
		if expr, _ := test.alerts[expiring]["expr"].(string); !strings.HasSuffix(expr, test.part) {
			t.Errorf("%s: %q does not end in %s", expiring, expr, test.part)
		}
	}
	if standard[single] == nil || other[single] != nil || standard["PillionSlow"] == nil || other["PillionSlow"] != nil {
		t.Errorf("%d alerts, and %d without two", len(standard), len(other))
	}
	url, _, _ := unstructured.NestedString(other[expiring], "annotations", "runbook_url")
	if url != "https://wiki.example.com/pillion#pillionpresentedcertificateexpiring" {
		t.Errorf("its runbook is at %s", url)
	}
}
