package controller

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

func TestRunRefusesOptionsThatCannotWork(t *testing.T) {
	good := Options{
		Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls",
		WebhookConfiguration: "pillion", Service: Service{Name: "pillion-webhook"},
	}
	tests := map[string]struct {
		change func(*Options)
		want   []string
	}{
		"all that is missing is told": {
			change: func(o *Options) { *o = Options{} },
			want:   []string{"CASecret", "CertificateSecret", "Namespace", "WebhookConfiguration"},
		},
		"the CA and the certificate in one Secret": {
			change: func(o *Options) { o.CASecret = o.CertificateSecret }, want: []string{"Secrets of their own"},
		},
		"neither Service nor URL": {change: func(o *Options) { o.Service = Service{} }, want: []string{"neither a Service nor a URL"}},
		"a URL without TLS":       {change: func(o *Options) { o.WebhookURL = "http://x" }, want: []string{"https://HOST"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			options := good
			test.change(&options)
			err := Run(t.Context(), &rest.Config{}, options)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not contain %q", err, part)
				}
			}
		})
	}
}

func TestTheOwnNamespaceIsAlwaysExcluded(t *testing.T) {
	for _, given := range [][]string{nil, {"kube-system"}, {"pillion-system", "kube-system", "kube-system"}} {
		options := Options{Namespace: "pillion-system", ExcludedNamespaces: given}
		_ = options.complete() // of what else is missing
		want := []string{"kube-system", "pillion-system"}
		if given == nil {
			want = want[1:]
		}
		if diff := cmp.Diff(want, options.ExcludedNamespaces); diff != "" {
			t.Errorf("%q (-want +got):\n%s", given, diff)
		}
	}
}
