package reconnect

import (
	"net/http"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// Mapper maps kinds to resources as manager.Options.MapperProvider does, but needs no API server for those that are watched
// from the start: a process that starts while there is none waits for it, rather than to end and be started again ever later.
// Of the others it asks when they are met first.
func Mapper(config *rest.Config, httpClient *http.Client) (meta.RESTMapper, error) {
	asked, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, err
	}
	known := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Secret", "Pod"} {
		known.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	known.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
		known.Add(admissionregistrationv1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeRoot)
	}
	known.Add(v1alpha1.GroupVersion.WithKind("ClusterPatternProfile"), meta.RESTScopeRoot)
	known.Add(v1alpha1.GroupVersion.WithKind("PatternProfile"), meta.RESTScopeNamespace)
	return mapper{RESTMapper: asked, known: known}, nil
}

// mapper is a mapper that asks the API server, but for the kinds that are known.
type mapper struct {
	meta.RESTMapper

	known meta.RESTMapper
}

// RESTMapping implements meta.RESTMapper.
func (m mapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	if mapping, err := m.known.RESTMapping(kind, versions...); err == nil {
		return mapping, nil
	}
	return m.RESTMapper.RESTMapping(kind, versions...)
}
