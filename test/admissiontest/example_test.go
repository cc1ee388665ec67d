package admissiontest_test

import (
	"fmt"
	"strings"

	"github.com/pillion-dev/pillion/test/admissiontest"
)

func Example() {
	webhook := admissiontest.Must(admissiontest.New(
		admissiontest.WithProfilesFrom("testdata/profiles"),
		admissiontest.WithNamespace("shop", map[string]string{"team": "web"}),
	))

	result := admissiontest.Must(webhook.CreateYAML(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  template:
    metadata:
      annotations:
        pillion.dev/inject: site
        site.pillion.dev/ref: v2.1
    spec:
      containers:
      - name: app
        image: nginx
`))
	fmt.Println(result.Injected())
	fmt.Println(result.Container("pillion-site").Args[:2])
	fmt.Println(result.Container("app").VolumeMounts[0].MountPath)
	// Output:
	// [pillion-site]
	// [--repo=https://git.example.com/site.git --ref=v2.1]
	// /srv/site
}

// A denial is a result, with the message that kubectl shows.
func ExampleResult_denied() {
	webhook := admissiontest.Must(admissiontest.New(admissiontest.WithProfilesFrom("testdata/profiles")))
	result := admissiontest.Must(webhook.CreateYAML(`
apiVersion: v1
kind: Pod
metadata:
  annotations:
    pillion.dev/inject: site
    site.pillion.dev/repo: https://evil.example.com/site.git
spec:
  containers:
  - name: app
`))
	fmt.Println(result.Denied)
	sentence, _, _ := strings.Cut(result.Message, ";")
	fmt.Println(sentence)
	// Output:
	// true
	// Pillion refuses this Pod: annotation site.pillion.dev/repo: profile site does not let Pods change repo
}
