package gen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

type (
	object = map[string]any
	list   = []any
)

// Names that generated Pods and profiles share, so that they meet: profiles name these containers and volumes, and collide with
// these ports, paths and variables.
func containerNames() []string { return []string{"app", "web", "worker"} }
func initNames() []string      { return []string{"setup", "migrate", "log-agent"} }
func volumeNames() []string    { return []string{"data", "conf", "templates", "scratch"} }
func mountPaths() []string {
	return []string{
		"/data", "/srv", "/srv/site", "/srv/site/sub", "/etc/app", "/var/log/app", "/cache/", "tmp/relative",
		"/var/run/secrets/kubernetes.io/serviceaccount",
	}
}

func variableNames() []string {
	return []string{"PATH", "CACHE_HOST", "CACHE_PORT", "STATSD_HOST", "STATSD_PORT", "A", "B"}
}
func ports() []int { return []int{80, 8080, 6379, 9102, 9125, 11211, 21211, 17979} }

// Mesh returns the names of containers of meshes that generated Pods have, as an installation would list them in
// weave.Options.
func Mesh() []string {
	return []string{"istio-init", "istio-validation", "istio-proxy", "linkerd-network-validator", "linkerd-init", "linkerd-proxy"}
}

// pod draws a Pod of a namespace, with annotations that were drawn before.
func pod(t *rapid.T, namespace string, annotations map[string]string, reserved []string) string {
	metadata := object{}
	if oneIn(t, 2, "generateName") {
		metadata["generateName"] = "web-6d4b75cb6d-"
	} else {
		metadata["name"] = rapid.SampledFrom([]string{"web", "web-0"}).Draw(t, "name")
	}
	if oneIn(t, 2, "namespace in the object") {
		metadata["namespace"] = namespace
	}
	metadata["creationTimestamp"] = nil
	put(t, metadata, "annotations", podAnnotations(t, annotations))
	put(t, metadata, "labels", podLabels(t))
	unknown(t, metadata)

	spec := object{"containers": containers(t, reserved)}
	put(t, spec, "initContainers", initContainers(t, reserved))
	put(t, spec, "volumes", volumes(t, reserved))
	if oneIn(t, 12, "ephemeral containers") {
		spec["ephemeralContainers"] = list{container(t, rapid.SampledFrom(append([]string{"debug"}, reserved...)).Draw(t, "ephemeral"))}
	}
	podSettings(t, metadata, spec)
	unknown(t, spec)

	root := object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": object{}}
	unknown(t, root)
	return encode(root)
}

// podSettings draws what a Pod has once.
func podSettings(t *rapid.T, metadata, spec object) {
	maybe := func(n int, key string, values ...any) {
		if oneIn(t, n, key) {
			spec[key] = rapid.SampledFrom(values).Draw(t, key)
		}
	}
	maybe(12, "hostNetwork", true)
	maybe(20, "os", object{"name": "windows"}, object{"name": "linux"})
	maybe(20, "nodeSelector", object{"kubernetes.io/os": "windows"}, object{"disk": "ssd"}, object{})
	maybe(4, "automountServiceAccountToken", false, true)
	maybe(4, "securityContext", object{}, object{"runAsUser": 1000, "fsGroup": 2000, "runAsNonRoot": true},
		object{"futureContext": 1})
	maybe(4, "imagePullSecrets", list{}, list{object{"name": "registry"}})
	maybe(4, "shareProcessNamespace", true)
	maybe(4, "terminationGracePeriodSeconds", 5, 0)
	maybe(6, "restartPolicy", "Always")
	maybe(8, "tolerations", list{}, list{object{"operator": "Exists", "futureToleration": "x"}})
	maybe(8, "resources", object{"limits": object{"cpu": "2"}})
	if oneIn(t, 6, "of a Job") {
		spec["restartPolicy"] = rapid.SampledFrom([]string{"Never", "OnFailure"}).Draw(t, "restartPolicy of a Job")
		metadata["ownerReferences"] = list{object{
			"apiVersion": "batch/v1", "kind": "Job", "name": "import", "uid": "3b0f0b5e-0000-4000-8000-000000000000", "controller": true,
		}}
	}
}

func podAnnotations(t *rapid.T, drawn map[string]string) object {
	annotations := object{}
	for _, key := range sortedKeys(drawn) {
		annotations[key] = drawn[key]
	}
	odd := map[string]string{
		"": "empty key", "~": "tilde", "a/b~1c": "~0 and ~1",
		"with space": "\"quoted\"\\\n", "ключ": "значение", "/": "slash",
		"kubectl.kubernetes.io/default-container":                      "app",
		"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "data",
		"prometheus.io/port":                                              "8080",
		"pillion.dev/injected":                                            `{"site":{"kind":"GitSync","revision":"0"}}`,
		"pillion.dev/skipped":                                             "forged",
		"pillion.dev/config.metrics":                                      "forged",
		"kubectl.kubernetes.io/last-applied-configuration":                `{"spec":{"containers":[{"name":"app"}]}}`,
		"this-annotation.example.com/is-longer-than-the-others-by-a-lot1": strings.Repeat("x", 300),
	}
	for _, key := range some(t, sortedKeys(odd), 2, "odd annotations") {
		if oneIn(t, 2, "keep the odd annotation") {
			annotations[key] = odd[key]
		}
	}
	return annotations
}

func podLabels(t *rapid.T) object {
	labels := object{}
	if !oneIn(t, 4, "no app label") {
		labels["app"] = rapid.SampledFrom([]string{"web", "worker", ""}).Draw(t, "app")
	}
	odd := map[string]string{
		"tier": "1", "pillion.dev/injected": "true", "pillion.dev/skipped": "forged", "batch.kubernetes.io/job-name": "import", "~/~": "odd",
	}
	for _, key := range some(t, sortedKeys(odd), 2, "odd labels") {
		if oneIn(t, 2, "keep the odd label") {
			labels[key] = odd[key]
		}
	}
	return labels
}

func containers(t *rapid.T, reserved []string) list {
	names := some(t, containerNames(), 3, "containers")
	if len(names) == 0 {
		names = []string{"app"}
	}
	if oneIn(t, 6, "mesh container") {
		names = append([]string{rapid.SampledFrom([]string{"istio-proxy", "linkerd-proxy"}).Draw(t, "mesh")}, names...)
	}
	if len(reserved) > 0 && oneIn(t, 20, "reserved container") {
		names = append(names, rapid.SampledFrom(reserved).Draw(t, "reserved"))
	}
	guaranteed := oneIn(t, 4, "guaranteed")
	drawn := make(list, len(names))
	for i, name := range names {
		c := container(t, name)
		if guaranteed {
			c["resources"] = object{"limits": object{"cpu": "1", "memory": "1Gi"}}
		}
		drawn[i] = c
	}
	return drawn
}

func initContainers(t *rapid.T, reserved []string) list {
	var names []string
	switch rapid.IntRange(0, 5).Draw(t, "mesh of the init containers") {
	case 0:
		names = []string{"istio-init", "istio-proxy"}
	case 1:
		names = []string{"istio-validation"}
	case 2:
		names = []string{"linkerd-init", "linkerd-proxy"}
	}
	names = append(names, some(t, initNames(), 2, "init containers")...)
	if len(reserved) > 0 && oneIn(t, 20, "reserved init container") {
		names = append(names, rapid.SampledFrom(reserved).Draw(t, "reserved"))
	}
	drawn := make(list, len(names))
	for i, name := range names {
		c := container(t, name)
		if strings.HasSuffix(name, "-proxy") || name == "log-agent" {
			c["restartPolicy"] = "Always"
		}
		drawn[i] = c
	}
	return drawn
}

func container(t *rapid.T, name string) object {
	c := object{"name": name, "image": "registry.example.com/" + name + ":1"}
	put(t, c, "env", listOf(t, 2, "env", variable))
	put(t, c, "volumeMounts", listOf(t, 2, "volumeMounts", volumeMount))
	if oneIn(t, 3, "ports") {
		c["ports"] = listOf(t, 2, "ports", containerPort)
	}
	if oneIn(t, 8, "volumeDevices") {
		c["volumeDevices"] = list{object{"name": "data", "devicePath": rapid.SampledFrom(mountPaths()).Draw(t, "devicePath")}}
	}
	containerSettings(t, c)
	unknown(t, c)
	return c
}

func containerSettings(t *rapid.T, c object) {
	maybe := func(key string, values ...any) {
		if oneIn(t, 6, key) {
			c[key] = rapid.SampledFrom(values).Draw(t, key)
		}
	}
	maybe("resources", object{}, object{"requests": object{"cpu": "100m", "memory": "1e3"}},
		object{"limits": object{"cpu": 1, "memory": "128974848"}, "claims": list{}, "futureResource": object{"a": 1.0}})
	maybe("securityContext", object{}, object{"runAsUser": 0, "privileged": false, "futureProfile": "x"})
	maybe("envFrom", list{}, list{object{"configMapRef": object{"name": "env"}}})
	maybe("args", list{}, list{"--host=$(CACHE_HOST)", "\u2028", "a\"b"})
	maybe("livenessProbe", object{"httpGet": object{"port": "http", "path": "/"}, "futureProbe": list{1, "two", nil}},
		object{"futureCheck": object{"port": 1}})
	maybe("startupProbe", object{"exec": object{"command": list{"true"}}, "periodSeconds": 1})
	maybe("lifecycle", object{"preStop": object{"sleep": object{"seconds": 1}, "futureHandler": object{}}})
	maybe("resizePolicy", list{}, list{object{"resourceName": "cpu", "restartPolicy": "NotRequired"}})
	maybe("terminationMessagePolicy", "File")
}

func variable(t *rapid.T) object {
	v := object{"name": rapid.SampledFrom(variableNames()).Draw(t, "variable")}
	switch rapid.IntRange(0, 3).Draw(t, "variable's source") {
	case 0:
		v["value"] = rapid.SampledFrom([]string{"", "1", "$(A)", "a\nb", "<&>"}).Draw(t, "value")
	case 1:
		v["valueFrom"] = object{"secretKeyRef": object{"name": "s", "key": "k", "optional": true}}
	case 2:
		v["valueFrom"] = object{"futureRef": object{"name": "s"}}
	}
	unknown(t, v)
	return v
}

func volumeMount(t *rapid.T) object {
	m := object{
		"name":      rapid.SampledFrom(volumeNames()).Draw(t, "mounted volume"),
		"mountPath": rapid.SampledFrom(mountPaths()).Draw(t, "mountPath"),
	}
	if oneIn(t, 4, "subPath") {
		m["subPath"] = "current"
	}
	unknown(t, m)
	return m
}

func containerPort(t *rapid.T) object {
	p := object{"containerPort": rapid.SampledFrom(ports()).Draw(t, "containerPort")}
	if oneIn(t, 2, "protocol") {
		p["protocol"] = rapid.SampledFrom([]string{"TCP", "UDP"}).Draw(t, "protocol")
	}
	if oneIn(t, 2, "named port") {
		p["name"] = rapid.SampledFrom([]string{"http", "metrics"}).Draw(t, "port's name")
	}
	unknown(t, p)
	return p
}

func volumes(t *rapid.T, reserved []string) list {
	names := some(t, volumeNames(), 4, "volumes")
	if len(reserved) > 0 && oneIn(t, 20, "reserved volume") {
		names = append(names, rapid.SampledFrom(reserved).Draw(t, "reserved"))
	}
	drawn := make(list, len(names))
	for i, name := range names {
		v := object{"name": name}
		switch rapid.IntRange(0, 4).Draw(t, "volume's source") {
		case 0:
			v["emptyDir"] = object{}
		case 1:
			v["configMap"] = object{"name": "c", "defaultMode": 420, "futureMode": "x"}
		case 2:
			v["futureSource"] = object{"driver": "x", "size": 1e21}
		case 3:
			v["projected"] = object{"sources": list{object{"serviceAccountToken": object{"path": "token", "expirationSeconds": 3607}}}}
		}
		unknown(t, v)
		drawn[i] = v
	}
	return drawn
}

// unknown adds fields that this build does not know, with values of every type and unusual spelling.
func unknown(t *rapid.T, o object) {
	if !oneIn(t, 4, "unknown fields") {
		return
	}
	keys := []string{"futureField", "x~1/y", "ünknown", "Env", "Spec"}
	values := []string{
		`1.0`, `1e3`, `-0`, `12345678901234567890`, `0.1e-7`, `true`, `null`, `""`, `"<&>\u00e9\u2028\n"`, `[]`, `{}`,
		`[[],{},null,1.50]`,
		`{"a":{"b":[{"name":"pillion-x"}]},"~":"/"}`,
	}
	for _, key := range some(t, keys, 2, "unknown keys") {
		o[key] = json.RawMessage(rapid.SampledFrom(values).Draw(t, "unknown value"))
	}
}

// put sets a list or map, or where it is empty either the empty one, or null, or nothing.
func put[C list | object](t *rapid.T, into object, key string, value C) {
	if len(value) > 0 {
		into[key] = value
		return
	}
	switch rapid.IntRange(0, 3).Draw(t, "empty "+key) {
	case 0:
		into[key] = value
	case 1:
		into[key] = nil
	default:
	}
}

func listOf(t *rapid.T, most int, label string, draw func(*rapid.T) object) list {
	drawn := list{}
	for range rapid.IntRange(0, most).Draw(t, "number of "+label) {
		drawn = append(drawn, draw(t))
	}
	return drawn
}

// some draws up to most of the items, in any order, each once.
func some[T any](t *rapid.T, items []T, most int, label string) []T {
	n := rapid.IntRange(0, min(most, len(items))).Draw(t, "number of "+label)
	remaining := append([]T{}, items...)
	drawn := make([]T, n)
	for i := range drawn {
		j := rapid.IntRange(0, len(remaining)-1).Draw(t, label)
		drawn[i] = remaining[j]
		remaining = append(remaining[:j], remaining[j+1:]...)
	}
	return drawn
}

// oneIn is true once in n times; it shrinks to false.
func oneIn(t *rapid.T, n int, label string) bool { return rapid.IntRange(0, n-1).Draw(t, label) == n-1 }

// encode returns JSON that keeps <, > and & as they are.
func encode(value any) string {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(fmt.Sprintf("encode what was generated: %v", err)) // cannot happen: maps, lists, strings and numbers
	}
	return strings.TrimSpace(buffer.String())
}
