package webhook_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

func TestStaticNamespacesHaveTheLabelWithTheirName(t *testing.T) {
	given := map[string]profiles.Namespace{"web": {Labels: map[string]string{"team": "web"}}}
	static := webhook.Static{Namespaces: given}
	for _, name := range []string{"web", "unknown"} {
		namespace, known := static.Namespace(name)
		if !known || namespace.Name != name || namespace.Labels[corev1.LabelMetadataName] != name {
			t.Errorf("%s: %+v, known %t", name, namespace, known)
		}
	}
	if namespace, _ := static.Namespace("web"); namespace.Labels["team"] != "web" || len(given["web"].Labels) != 1 {
		t.Errorf("%+v of %+v", namespace, given)
	}
}
