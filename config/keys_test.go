package config

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

func TestDocumentIsCurrent(t *testing.T) {
	const path = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Document(), string(content)); diff != "" {
		t.Errorf("docs/configuration.md is not what the table of keys says; run go test ./config -update (-want +got):\n%s", diff)
	}
}

func TestNamesDeriveFromThePath(t *testing.T) {
	for path, want := range map[string][2]string{
		"logLevel":              {"log-level", "PILLION_LOG_LEVEL"},
		"webhook.listenAddress": {"webhook-listen-address", "PILLION_WEBHOOK_LISTEN_ADDRESS"},
		"controller.webhookURL": {"controller-webhook-url", "PILLION_CONTROLLER_WEBHOOK_URL"},
		"certs.caSecret":        {"certs-ca-secret", "PILLION_CERTS_CA_SECRET"},

		"podSecurity.exemptRuntimeClasses": {
			"pod-security-exempt-runtime-classes", "PILLION_POD_SECURITY_EXEMPT_RUNTIME_CLASSES",
		},
	} {
		if got := [2]string{key{path: path}.flag(), key{path: path}.variable()}; got != want {
			t.Errorf("%s has %v, want %v", path, got, want)
		}
	}
}

func TestTheTableFitsConfig(t *testing.T) {
	seen := map[string]string{"config": "the file", fileVariable: "the file"}
	var leaves int
	for _, key := range keys() {
		for _, name := range []string{key.flag(), key.variable()} {
			if other, ok := seen[name]; ok {
				t.Errorf("%s is of %s and of %s", name, other, key.path)
			}
			seen[name] = key.path
		}
		if isServiceLink(key.variable()) {
			t.Errorf("%s: the kubelet may set %s for a Service", key.path, key.variable())
		}
		field := key.in(&Config{})
		if !field.IsValid() || field.Type() != reflect.TypeOf(key.value) {
			t.Errorf("%s has a default of type %T, which no field of that name takes", key.path, key.value)
		}
		if key.usage == "" || len(key.groups) == 0 || strings.Contains(key.usage, "|") {
			t.Errorf("%s wants a usage and a group", key.path)
		}
		if value, err := parse(key, key.text()); key.text() != "" && (err != nil || !reflect.DeepEqual(value, key.value)) {
			t.Errorf("%s: the default %q reads as %v, %v", key.path, key.text(), value, err)
		}
		leaves++
	}
	if want := countLeaves(reflect.TypeFor[Config]()); leaves != want {
		t.Errorf("the table has %d keys, Config %d fields", leaves, want)
	}
}

func countLeaves(of reflect.Type) int {
	if of.Kind() != reflect.Struct || of == reflect.TypeFor[Service]() {
		return 1
	}
	count := 0
	for i := range of.NumField() {
		count += countLeaves(of.Field(i).Type)
	}
	return count
}

func TestChecks(t *testing.T) {
	tests := map[string]struct {
		good, bad []any
	}{
		"logLevel":  {good: []any{"error", "warn", "info", "debug"}, bad: []any{"", "INFO", "trace"}},
		"logFormat": {good: []any{"json", "text"}, bad: []any{"yaml"}},
		"namespace": {good: []any{"a", "a-1"}, bad: []any{"A", "a.b", strings.Repeat("a", 64), "a\n"}},
		"excludedNamespaces": {
			good: []any{[]string{}, []string{"a", "b"}}, bad: []any{[]string{"a", "a"}, []string{"a", "_"}},
		},
		"images.registry": {
			good: []any{"localhost:5000", "registry.example.com/a/b"},
			bad:  []any{"https://a", "a/", "a/B", "a b", "a:b", "-a"},
		},
		"images.pillion": {
			good: []any{"a/b", "a.b:5000/c:v1", "a/b@sha256:" + strings.Repeat("0", 64)},
			bad:  []any{"a/b:", "a/b@sha256:0", "a b", "a/B"},
		},
		"leadingContainers":          {good: []any{[]string{"istio-init"}}, bad: []any{[]string{"Istio"}}},
		"podSecurity.mode":           {good: []any{"Deny", "Warn"}, bad: []any{"", "deny", "Ignore"}},
		"podSecurity.enforce":        {good: []any{"privileged", "baseline", "restricted"}, bad: []any{"", "Baseline", "strict"}},
		"podSecurity.enforceVersion": {good: []any{"latest", "v1.0", "v1.33"}, bad: []any{"", "1.33", "v1", "v2.0", "v1.033", "v1.33.1"}},
		"podSecurity.exemptUsernames": {
			good: []any{[]string{}, []string{"system:serviceaccount:ci:builder", "Jane Doe"}},
			bad:  []any{[]string{""}, []string{" a"}, []string{"a\n"}, []string{"a", "a"}},
		},
		"podSecurity.exemptNamespaces":     {good: []any{[]string{"kube-system"}}, bad: []any{[]string{"a.b"}}},
		"podSecurity.exemptRuntimeClasses": {good: []any{[]string{"kata.v2"}}, bad: []any{[]string{"Kata"}}},
		"webhookConfiguration":             {good: []any{"pillion", "pillion.example.com"}, bad: []any{"Pillion", "a_b"}},
		"webhook.listenAddress": {
			good: []any{":1", "127.0.0.1:65535", "[::1]:9443", "localhost:1"},
			bad:  []any{"9443", ":0", ":65536", ":https", ":+1", "a.b:1", "::1:1"},
		},
		"webhook.metricsAddress": {good: []any{"", ":1"}, bad: []any{"none", ":0"}},
		"webhook.maxBodyBytes": {
			good: []any{int64(64 << 10), int64(64 << 20)}, bad: []any{int64(64<<10 - 1), int64(64<<20 + 1), int64(-1)},
		},
		"webhook.clientCA":            {good: []any{"/etc/ca.crt"}, bad: []any{" ", "a\n"}},
		"webhook.clientNames":         {good: []any{[]string{}, []string{"kube-apiserver"}}, bad: []any{[]string{""}, []string{"a", "a"}}},
		"webhook.maxRequestsInFlight": {good: []any{int64(1), int64(600)}, bad: []any{int64(0), int64(-1)}},
		"webhook.maxBytesInFlight":    {good: []any{int64(64 << 10)}, bad: []any{int64(64<<10 - 1)}},
		"webhook.maxConnections":      {good: []any{int64(16), int64(65536)}, bad: []any{int64(15), int64(0)}},
		"webhook.drainDelay":          {good: []any{time.Duration(0), 5 * time.Minute}, bad: []any{-time.Second, 5*time.Minute + 1}},
		"webhook.readTimeout":         {good: []any{100 * time.Millisecond, time.Minute}, bad: []any{time.Duration(0), time.Minute + 1}},
		"controller.service": {
			good: []any{Service{"a", 1}, Service{"a-b", 65535}},
			bad:  []any{Service{"a", 0}, Service{"a", 65536}, Service{"", 443}, Service{"1a", 443}, Service{"a.b", 443}},
		},
		"controller.webhookURL": {
			good: []any{"https://127.0.0.1:9443", "https://a.example.com/base", "https://[::1]:1/"},
			bad: []any{
				"http://a", "https://", "https://u:p@a", "https://a?b", "https://a?", "https://a#b", "https://a#", "https://a:0",
				"https://a:65536", "a", "https://a\n", "https://:443",
			},
		},
		"controller.leaseDuration": {
			good: []any{2 * time.Second, 5 * time.Minute}, bad: []any{time.Duration(0), time.Second, 2500 * time.Millisecond, 6 * time.Minute},
		},
		"controller.renewDeadline":     {good: []any{time.Second, 1500 * time.Millisecond}, bad: []any{time.Duration(0), 6 * time.Minute}},
		"controller.retryPeriod":       {good: []any{100 * time.Millisecond, time.Minute}, bad: []any{time.Duration(0), -time.Second}},
		"controller.selfCheckInterval": {good: []any{time.Duration(0), time.Second, time.Hour}, bad: []any{-time.Second, 10 * time.Millisecond, 2 * time.Hour}},
		"certs.mode":                   {good: []any{"auto", "builtin", "cert-manager"}, bad: []any{"", "Auto", "certmanager"}},
		"certs.issuer": {
			good: []any{"Issuer/a", "ClusterIssuer/a.b-c", "AWSPCAClusterIssuer.awspca.cert-manager.io/root"},
			bad:  []any{"a", "/a", "Issuer/", "issuer/a", "Issuer/A", "Issuer/a/b", "Issuer./a", "Issuer.x_y/a", "Issuer /a"},
		},
		"certs.caLifetime": {good: []any{24 * time.Hour, 87600 * time.Hour}, bad: []any{8 * time.Second, 87601 * time.Hour}},
	}
	byPath := map[string]key{}
	for _, key := range keys() {
		byPath[key.path] = key
	}
	for path, test := range tests {
		for _, value := range test.good {
			if err := byPath[path].validate(value); err != nil {
				t.Errorf("%s: %v is refused: %v", path, value, err)
			}
		}
		for _, value := range test.bad {
			if err := byPath[path].validate(value); err == nil {
				t.Errorf("%s: %q is accepted", path, value)
			}
		}
	}
}

func TestValidateTellsAllProblems(t *testing.T) {
	got := problemsOf(Config{}.Validate())
	for _, want := range []string{
		`logLevel: "" is none of error, warn, info, debug`,
		`webhook.readTimeout: 0s is not between 100ms and 1m`,
		`podSecurity.enforce: "" is not a Pod Security level: it must be one of privileged, baseline, restricted`,
		`podSecurity.enforceVersion: "" is not a version of Pod Security: it must be "latest" or "v1.x", for example v1.33`,
		`controller.webhookURL: the API server reaches the webhook by a Service or by a URL: ` +
			`set controller.service or controller.webhookURL`,
	} {
		found := false
		for _, line := range got {
			found = found || line == want
		}
		if !found {
			t.Errorf("%q is not among %q", want, got)
		}
	}
}
