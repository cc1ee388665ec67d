package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

const pathWorkloads = profiles.PathWorkloads + "pods"

// resourceOf returns the resource of a kind of workloads.
func resourceOf(kind string) metav1.GroupVersionResource {
	group := "apps"
	if kind == "Job" || kind == "CronJob" {
		group = "batch"
	}
	return metav1.GroupVersionResource{Group: group, Version: "v1", Resource: strings.ToLower(kind) + "s"}
}

// workloadReview is a review of a workload in YAML; more are further fields of the request.
func workloadReview(t *testing.T, kind, object, more string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	resource, err := json.Marshal(resourceOf(kind))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
		"namespace":"web","resource":%s,"object":%s%s}}`, resource, raw, more)
}

// templated is a workload whose Pod template has annotations, in YAML.
func templated(kind, annotations string) string {
	const template = `{template: {metadata: {labels: {app: web}, annotations: {%s}}, spec: {containers: [{name: app, image: app}]}}}`
	spec := fmt.Sprintf(template, annotations)
	if kind == "CronJob" {
		spec = "{jobTemplate: {spec: " + spec + "}}"
	}
	return "{metadata: {name: shop}, spec: " + spec + "}"
}

func TestWhoWritesAWorkloadIsToldWhatWillBecomeOfItsPods(t *testing.T) {
	web := map[string]map[string]string{"web": {"team": "web"}}
	site, ignored := profile(t, "site", nil), profile(t, "policy", matchingWeb)
	failing := profile(t, "policy", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		matchingWeb(spec)
		spec.FailurePolicy = v1alpha1.FailurePolicyFail
	})
	byController := profile(t, "policy", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		matchingWeb(spec)
		spec.FailurePolicy = v1alpha1.FailurePolicyFail
		spec.Match.Conditions = []v1alpha1.MatchCondition{{Name: "by-daemon-sets", Expression: `!request.dryRun &&
			object.metadata.namespace == "web" && object.metadata.generateName == "shop-" && object.kind == "Pod" &&
			request.userInfo.username == "system:serviceaccount:kube-system:daemon-set-controller"`}}
	})
	mounting := profile(t, "mounts-data", func(spec *v1alpha1.ClusterPatternProfileSpec) {
		spec.GitSync, spec.Custom = nil, &v1alpha1.Custom{Template: apiextensionsv1.JSON{Raw: []byte(
			`{"containers":[{"image":"registry.example.com/backup:1","volumeMounts":[{"name":"data","mountPath":"/data"}]}]}`)}}
	})
	const taken = `{metadata: {name: shop}, spec: {template: {spec: {containers: [{name: app, volumeMounts: [{name: a, mountPath: /srv/site}]}],
		volumes: [{name: a, emptyDir: {}}]}}}}`
	const collision = "profile policy mounts /srv/site into container app, where volume a is mounted at /srv/site: one would hide the " +
		"other; choose another path (MountPathCollision)"
	tests := map[string]struct {
		memory []*profiles.Profile
		// namespaces in memory; nil: web, with the label team
		namespaces         map[string]map[string]string
		kind, object, more string // kind is Deployment if empty
		path               string // empty: of those that ask
		want               []string
	}{
		"one that can be woven":     {object: templated("", "pillion.dev/inject: site")},
		"one that asks for nothing": {object: templated("", "")},
		"one that declines":         {object: templated("", "pillion.dev/inject: none")},
		"one that asks for an unknown name": {
			object: templated("", "pillion.dev/inject: sit"),
			want: []string{"profile sit is not available in namespace web; did you mean site? (ProfileNotAvailable): " +
				"Pods of Deployment shop will be refused"},
		},
		"one that asks for several things that cannot be": {
			object: templated("", `pillion.dev/inject: "nosuch,Not_A_Name", site.pillion.dev/ref: v2`),
			want: []string{
				`annotation pillion.dev/inject names "Not_A_Name", which is no profile's name: a name has at most 40 lower-case letters, ` +
					`digits and dashes, and names are joined by "," (InvalidRequest): Pods of Deployment shop will be refused`,
				"profile nosuch is not available in namespace web (ProfileNotAvailable): Pods of Deployment shop will be refused",
				"Deployment shop: annotation site.pillion.dev/ref has no effect: profile site is not applied to this Pod",
			},
		},
		"a CronJob, by the template of its Jobs": {
			kind: "CronJob", object: templated("CronJob", "pillion.dev/inject: nosuch"),
			want: []string{"profile nosuch is not available in namespace web (ProfileNotAvailable): Pods of CronJob shop will be refused"},
		},
		"one that its namespace asks for": {
			namespaces: map[string]map[string]string{"web": {v1alpha1.InjectKey: "nosuch"}}, path: profiles.PathWorkloads + "namespaces",
			object: templated("", ""),
			want:   []string{"profile nosuch is not available in namespace web (ProfileNotAvailable): Pods of Deployment shop will be refused"},
		},
		"one from which policy is left out": {
			memory: []*profiles.Profile{ignored}, object: taken, path: profiles.WorkloadsPath(entryOf(ignored)),
			want: []string{"Deployment shop: Pillion left out profile policy: " + collision},
		},
		"one that policy refuses": {
			memory: []*profiles.Profile{failing}, object: taken, path: profiles.WorkloadsPath(entryOf(failing)),
			want: []string{collision + ": Pods of Deployment shop will be refused"},
		},
		"conditions see the controller and the Pod that it would create": {
			memory: []*profiles.Profile{byController}, object: taken, kind: "DaemonSet", more: `,"dryRun":true,"userInfo":{"username":"jane"}`,
			path: profiles.WorkloadsPath(entryOf(byController)),
			want: []string{collision + ": Pods of DaemonSet shop will be refused"},
		},
		"an annotation of the workload itself": {
			object: `{metadata: {name: shop, annotations: {pillion.dev/inject: site}}, spec: {template: {spec: {containers: [{name: app}]}}}}`,
			want: []string{"Deployment shop: its own metadata.annotations have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.template.metadata.annotations"},
		},
		"an annotation of a CronJob itself": {
			kind: "CronJob", object: `{metadata: {generateName: shop-, annotations: {pillion.dev/inject: site}}, spec: {}}`,
			want: []string{"CronJob shop: its own metadata.annotations have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.jobTemplate.spec.template.metadata.annotations"},
		},
		"an annotation of a CronJob's Job template": {
			kind: "CronJob", object: `{metadata: {name: shop}, spec: {jobTemplate: {metadata: {annotations: {pillion.dev/inject: site}}}}}`,
			want: []string{"CronJob shop: the metadata.annotations of its Job template have pillion.dev/inject, which is read from Pods only; " +
				"move it to spec.jobTemplate.spec.template.metadata.annotations"},
		},
		"a volume that the controller adds": {
			memory: []*profiles.Profile{mounting}, kind: "StatefulSet", object: strings.Replace(templated("", "pillion.dev/inject: mounts-data"),
				"spec: {", "spec: {volumeClaimTemplates: [{metadata: {name: data}}], ", 1),
		},
		"a volume that no controller adds": {
			memory: []*profiles.Profile{mounting}, kind: "Deployment", object: strings.Replace(templated("", "pillion.dev/inject: mounts-data"),
				"spec: {", "spec: {volumeClaimTemplates: [{metadata: {name: data}}], ", 1),
			want: []string{"profile mounts-data mounts the volume data into its container pillion-mounts-data, which neither the profile's template " +
				"nor the Pod has; the Pod has none (VolumeNotFound): Pods of Deployment shop will be refused"},
		},
		"a label in place of an annotation": {
			object: `{metadata: {name: shop}, spec: {template: {metadata: {labels: {pillion.dev/inject: site}}, spec: {containers: [{name: app}]}}}}`,
			want: []string{"Deployment shop: its label pillion.dev/inject is not read: only Namespaces ask by a label; " +
				"write an annotation in spec.template.metadata.annotations, where commas join names"},
		},
		"an update": {object: templated("", "pillion.dev/inject: nosuch"), more: `,"operation":"UPDATE"`, want: []string{
			"profile nosuch is not available in namespace web (ProfileNotAvailable): Pods of Deployment shop will be refused",
		}},
		"a removal":              {object: "null", more: `,"operation":"DELETE"`},
		"a subresource":          {object: templated("", "pillion.dev/inject: nosuch"), more: `,"subResource":"scale"`},
		"another kind":           {kind: "Widget", object: templated("", "pillion.dev/inject: nosuch")},
		"another kind of nature": {kind: "Widget", object: `{metadata: {name: shop}, spec: [1]}`},
		"a null object":          {object: "null"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &cluster{memory: append(test.memory, site), namespaces: web}
			if test.namespaces != nil {
				c.namespaces = test.namespaces
			}
			c.live = func(_ context.Context, name string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
				return profiles.Namespace{Name: name, Labels: c.namespaces[name]}, nil, nil
			}
			if test.kind == "" {
				test.kind = "Deployment"
			}
			if test.path == "" {
				test.path = pathWorkloads
			}
			result, response := send(t, c, webhook.Options{}, test.path, workloadReview(t, test.kind, test.object, test.more))
			if response == nil {
				t.Fatalf("HTTP %d", result.StatusCode)
			}
			if !response.Allowed || response.UID != "u" || response.Patch != nil || response.Result != nil {
				t.Errorf("not a plain yes: %+v", response)
			}
			if diff := gocmp.Diff(test.want, response.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryKindOfWorkloadIsToldOf(t *testing.T) {
	c := webhook.Static{Profiles: profiles.NewSnapshot(profiles.Options{}, nil)}
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"} {
		_, response := send(t, c, webhook.Options{}, pathWorkloads, workloadReview(t, kind, templated(kind, "pillion.dev/inject: nosuch"), ""))
		if response == nil || len(response.Warnings) != 1 || !strings.HasSuffix(response.Warnings[0], "Pods of "+kind+" shop will be refused") {
			t.Errorf("%s: %+v", kind, response)
		}
	}
}

// What memory lacks is asked for before something is said to be wrong, and what cannot be asked for is not said.
func TestAWorkloadIsNotWarnedOfWhatMemoryOnlyLacks(t *testing.T) {
	site := profile(t, "site", nil)
	web := map[string]map[string]string{"web": {}}
	asking := templated("", "pillion.dev/inject: site")
	type live = func(context.Context, string, []string, bool) (profiles.Namespace, []*profiles.Profile, error)
	labels := func(labels map[string]string, read ...*profiles.Profile) live {
		return func(_ context.Context, name string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
			return profiles.Namespace{Name: name, Labels: labels}, read, nil
		}
	}
	failing := func(context.Context, string, []string, bool) (profiles.Namespace, []*profiles.Profile, error) {
		return profiles.Namespace{}, nil, errors.New("down")
	}
	tests := map[string]struct {
		cluster      *cluster
		path, object string
		wantAsked    []string
		want         int // warnings
		wantStatus   int // 0: it is answered
	}{
		"a profile of a moment ago": {
			cluster: &cluster{namespaces: web, live: labels(nil, site)}, object: asking, wantAsked: []string{"web [site] false"},
		},
		"a profile that nobody has": {
			cluster: &cluster{namespaces: web, live: labels(nil)}, object: asking, wantAsked: []string{"web [site] false"}, want: 1,
		},
		"a namespace of a moment ago": {
			cluster: &cluster{memory: []*profiles.Profile{site}, live: labels(nil)}, object: asking, wantAsked: []string{"web [] false"},
		},
		"a namespace whose label is of a moment ago": {
			cluster: &cluster{namespaces: web, live: labels(map[string]string{v1alpha1.InjectKey: "site"})},
			path:    profiles.PathWorkloads + "namespaces", object: templated("", ""), wantAsked: []string{"web [] false", "web [site] false"}, want: 1,
		},
		"policy of a moment ago": {
			cluster: &cluster{namespaces: web, live: labels(nil)}, path: profiles.PathWorkloads + "match/0123abcd",
			object: templated("", ""), wantAsked: []string{"web [] true"},
		},
		"what the API server does not tell": {
			cluster: &cluster{namespaces: web, live: failing}, object: asking, wantAsked: []string{"web [site] false"},
			wantStatus: http.StatusServiceUnavailable,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.path == "" {
				test.path = pathWorkloads
			}
			result, response := send(t, test.cluster, webhook.Options{}, test.path, workloadReview(t, "Deployment", test.object, ""))
			if test.wantStatus != 0 {
				if result.StatusCode != test.wantStatus {
					t.Errorf("HTTP %d, want %d", result.StatusCode, test.wantStatus)
				}
			} else if response == nil || !response.Allowed || len(response.Warnings) != test.want {
				t.Errorf("response %+v, want %d warnings", response, test.want)
			}
			if diff := gocmp.Diff(test.wantAsked, test.cluster.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABadReviewOfAWorkloadIsAFault(t *testing.T) {
	c := webhook.Static{Profiles: profiles.NewSnapshot(profiles.Options{}, nil)}
	good := workloadReview(t, "Deployment", templated("", ""), "")
	tests := map[string]struct {
		body string
		want int
	}{
		"nothing":                         {"", http.StatusBadRequest},
		"garbage":                         {"\x00", http.StatusBadRequest},
		"a review cut short":              {good[:len(good)-3], http.StatusBadRequest},
		"no request":                      {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, http.StatusBadRequest},
		"no uid":                          {strings.Replace(good, `"uid":"u"`, `"uid":""`, 1), http.StatusBadRequest},
		"another version":                 {strings.Replace(good, "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1), http.StatusBadRequest},
		"a Deployment whose spec is none": {workloadReview(t, "Deployment", "{spec: [1]}", ""), http.StatusBadRequest},
		"a template whose annotations are no map": {
			workloadReview(t, "Job", "{spec: {template: {metadata: {annotations: [a]}}}}", ""), http.StatusBadRequest,
		},
		"more than is read": {strings.Repeat(" ", 10000) + good, http.StatusRequestEntityTooLarge},
	}
	for name, test := range tests {
		for _, path := range []string{pathWorkloads, profiles.PathWorkloads + "enforce/0123abcd"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				result, _ := send(t, c, webhook.Options{MaxBodyBytes: 9000}, path, test.body)
				if result.StatusCode != test.want {
					t.Errorf("HTTP %d, want %d", result.StatusCode, test.want)
				}
			})
		}
	}
}

func TestAWorkloadWithWhatPodsAreRefusedForIsToldAndLetPass(t *testing.T) {
	c := webhook.Static{Profiles: profiles.NewSnapshot(profiles.Options{}, nil)}
	many := make([]string, 32)
	for i := range many {
		many[i] = fmt.Sprintf("nosuch-%d", i)
	}
	containers := strings.Repeat(`{"name":"app"},`, 1000)
	tests := map[string]struct {
		body string
		want int
		has  string
	}{
		"bytes that are not UTF-8": {
			strings.Replace(workloadReview(t, "Job", templated("", "a: b"), ""), `"b"`, "\"\xff\"", 1), 1, "bytes that are not UTF-8",
		},
		"more problems than are told": {
			workloadReview(t, "Job", templated("", `pillion.dev/inject: "`+strings.Join(many, ",")+`"`), ""), 10, "there are 23 more warnings",
		},
		"a thousand containers": {
			strings.Replace(workloadReview(t, "Job", templated("", "pillion.dev/inject: nosuch"), ""), `{"image"`, containers+`{"image"`, 1),
			1, "nosuch is not available",
		},
		"text that a header cannot hold": {
			workloadReview(t, "Job", templated("", `pillion.dev/inject: "a\u0085\nb\u202e"`), ""), 1, "InvalidRequest",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, response := send(t, c, webhook.Options{}, pathWorkloads, test.body)
			if response == nil || !response.Allowed || len(response.Warnings) != test.want {
				t.Fatalf("response %+v, want %d warnings", response, test.want)
			}
			last := response.Warnings[test.want-1]
			if !strings.Contains(last, test.has) || strings.ContainsAny(last, "\n\u0085") || !utf8.ValidString(last) {
				t.Errorf("warnings %q", response.Warnings)
			}
		})
	}
}

func TestTheLogOfWorkloadsHasNoValues(t *testing.T) {
	const canary = "s3cr3t" // it can be a profile's name
	logged := &bytes.Buffer{}
	c := webhook.Static{Profiles: profiles.NewSnapshot(profiles.Options{}, []*profiles.Profile{profile(t, "site", nil)})}
	object := templated("", `pillion.dev/inject: "site,`+canary+`", site.pillion.dev/ref: `+canary+`, a: `+canary)
	send(t, c, webhook.Options{Logger: slog.New(slog.NewTextHandler(logged, nil))}, pathWorkloads, workloadReview(t, "Deployment", object, ""))
	if text := logged.String(); strings.Contains(text, canary) || !strings.Contains(text, "name=shop") ||
		!strings.Contains(text, "(unknown)=ProfileNotAvailable") || !strings.Contains(text, "site=FieldNotOverridable") {
		t.Errorf("logged %s", text)
	}
}

// The API server leaves out warnings that a header cannot hold.
func TestWarningsHoldNoControlCharacters(t *testing.T) {
	policy := profile(t, "policy", matchingWeb)
	c := &cluster{memory: []*profiles.Profile{policy}, namespaces: map[string]map[string]string{"web": {"team": "web"}}}
	const spec = `"spec":{"containers":[{"name":"app","volumeMounts":[{"name":"a","mountPath":"/srv/site/a\nb\u007f\u0085"}]}]}`
	for path, body := range map[string]string{
		entryOf(policy): `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
			"namespace":"web","resource":{"version":"v1","resource":"pods"},"object":{"metadata":{"name":"shop"},` + spec + `}}}`,
		profiles.WorkloadsPath(entryOf(policy)): workloadReview(t, "Deployment", `{"metadata":{"name":"shop"},"spec":{"template":{`+spec+`}}}`, ""),
	} {
		_, response := send(t, c, webhook.Options{}, path, body)
		if response == nil || len(response.Warnings) != 1 || !strings.Contains(response.Warnings[0], "MountPathCollision") {
			t.Errorf("%s: %+v", path, response)
			continue
		}
		if strings.ContainsFunc(response.Warnings[0], unicode.IsControl) {
			t.Errorf("%s: warning %q", path, response.Warnings[0])
		}
	}
}
