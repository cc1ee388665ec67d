package main

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

func TestDecisionsDependOnEverySettingThatIsForThem(t *testing.T) {
	settings := config.Config{
		ExcludedNamespaces: []string{"kube-system"},
		Images:             config.Images{Registry: "registry.example.com/mirror", Pillion: "registry.example.com/pillion:1"},
		LeadingContainers:  []string{"istio-proxy"},
		PodSecurity: config.PodSecurity{
			Mode: "Warn", Enforce: "baseline", EnforceVersion: "v1.30",
			ExemptUsernames: []string{"jane"}, ExemptNamespaces: []string{"storage"}, ExemptRuntimeClasses: []string{"kata"},
		},
	}
	want := profiles.Options{
		Images:             injectors.DefaultImages("registry.example.com/mirror"),
		ExcludedNamespaces: []string{"kube-system"},
		Weave:              weave.Options{LeadingContainers: []string{"istio-proxy"}},
		PodSecurity: profiles.PodSecurity{
			Mode: profiles.PodSecurityWarn, Enforce: "baseline", EnforceVersion: "v1.30",
			ExemptUsernames: []string{"jane"}, ExemptNamespaces: []string{"storage"}, ExemptRuntimeClasses: []string{"kata"},
		},
	}
	want.Images.Pillion = "registry.example.com/pillion:1"
	if diff := cmp.Diff(want, decisionOptions(settings)); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	// A setting that is added later has to be compared, too.
	for _, compared := range []any{want, want.PodSecurity, settings.Images, settings.PodSecurity} {
		for field, value := range reflect.ValueOf(compared).Fields() {
			if value.IsZero() {
				t.Errorf("%T: this test sets no %s", compared, field.Name)
			}
		}
	}
}
