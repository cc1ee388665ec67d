package patterns_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// shopFile is what the app reads.
const shopFile = "/etc/shop/shop.conf"

// shopTemplates are the same in every environment.
const shopTemplates = `
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-templates}
data:
  shop.conf.tmpl: |
    # of {{ .site.team }}
    listen {{ .shop.port }};
    {{- range .shop.backends }}
    backend {{ . }};
    {{- end }}
    {{- if .shop.debug }}
    log everything;
    {{- end }}
`

// The parameters of each, and what is made of them.
const (
	devParameters = `
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-parameters}
data:
  shop.yaml: |
    port: 8081
    backends: ["localhost:9000"]
    debug: true
`
	devFile = "# of web\nlisten 8081;\nbackend localhost:9000;\nlog everything;"

	prodParameters = `
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-parameters}
data:
  shop.yaml: |
    port: 443
    backends: ["shop-0.shop:9000", "shop-1.shop:9000"]
    debug: false
`
	prodFile = "# of web\nlisten 443;\nbackend shop-0.shop:9000;\nbackend shop-1.shop:9000;"
)

// shopSpec is of a profile that renders them.
const shopSpec = `
  templateProcessor:
    templates:
      configMap: {name: shop-templates, keys: [shop.conf.tmpl]}
    parameters:
    - name: shop
      configMap: {name: shop-parameters, key: shop.yaml}
    - name: site
      values: {team: web}
    mountPath: /etc/shop
`

func TestOneTemplateIsRenderedWithTheParametersOfEachNamespace(t *testing.T) {
	t.Parallel()
	cluster.Apply(t, "", `
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: template-shop}
spec:
  failurePolicy: Fail
  match: {namespaceSelector: {matchLabels: {template-shop: wanted}}}`+shopSpec)
	cluster.AwaitProfile(t, "", "template-shop")

	dev := runShop(t, "dev", devParameters, devFile)
	prod := runShop(t, "prod", prodParameters, prodFile)
	if one, other := revisionOf(t, dev, "template-shop"), revisionOf(t, prod, "template-shop"); one == "" || one != other {
		t.Errorf("revisions %q and %q, want the same: it is one profile", one, other)
	}

	// What is changed in dev reaches the next Pod there, and prod not at all.
	setShopParameters(t, dev.Namespace, "'{port: 9443, backends: [], debug: false}'")
	checkFileNow(t, dev, devFile)
	restart(t, dev.Namespace, "deployment/shop")
	if err := cluster.AwaitRollout(t.Context(), dev.Namespace, "shop"); err != nil {
		t.Fatal(err)
	}
	next := cluster.ReadyPod(t, dev.Namespace, "shop")
	reportAtStart(t, next, "app").checkContents(t, map[string]string{shopFile: "# of web\nlisten 9443;"})

	// Parameters that lack something stop the rollout, and the Pod that runs goes on.
	setShopParameters(t, dev.Namespace, "'backends: []'")
	restart(t, dev.Namespace, "deployment/shop")
	awaitMessage(t, podBeside(t, next), "pillion-template-shop", shopTemplateFile+":2", "<.shop.port>", "map has no entry for key")
	checkFileNow(t, next, "# of web\nlisten 9443;")
	checkFileNow(t, prod, prodFile)
	reportAtStart(t, prod, "app").checkContents(t, map[string]string{shopFile: prodFile})
}

// runShop runs the shop in a namespace with its own parameters, and checks what it reads.
func runShop(t *testing.T, stage, parameters, want string) *corev1.Pod {
	t.Helper()
	namespace := cluster.CreateRestricted(t, map[string]string{"stage": stage, "template-shop": "wanted"})
	cluster.Apply(t, namespace, shopTemplates+"---"+parameters)
	pod := runWoven(t, installed.Deployment(namespace, "shop", workload, "-read", shopFile, serving), "template-shop")
	report := reportAtStart(t, pod, "app")
	report.checkContents(t, map[string]string{shopFile: want})
	if file := report.Files[shopFile]; file.Mode != "0644" || !file.ReadOnly {
		t.Errorf("the app finds %+v, want a file of mode 0644 that is mounted read-only", file)
	}
	return pod
}

// setShopParameters replaces the content of the one key, given as YAML of a string.
func setShopParameters(t *testing.T, namespace, content string) {
	t.Helper()
	cluster.Apply(t, namespace,
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-parameters}\ndata: {shop.yaml: "+content+"}\n")
}

// checkFileNow has the app of a Pod that runs read its file again.
func checkFileNow(t *testing.T, pod *corev1.Pod, want string) {
	t.Helper()
	now, err := reportNow(t.Context(), pod)
	if err != nil {
		t.Fatalf("Pod %s: %v", pod.Name, err)
	}
	now.checkContents(t, map[string]string{shopFile: want})
}

// podBeside waits for the Pod that is to replace another one of Deployment shop.
func podBeside(t *testing.T, old *corev1.Pod) (pod *corev1.Pod) {
	t.Helper()
	cluster.Eventually(t, "a Pod beside "+old.Name, func(ctx context.Context) error {
		list := &corev1.PodList{}
		err := cluster.Client.List(ctx, list, client.InNamespace(old.Namespace), client.MatchingLabels{"app": "shop"})
		for i := range list.Items {
			if list.Items[i].UID != old.UID && list.Items[i].DeletionTimestamp == nil {
				pod = &list.Items[i]
				return nil
			}
		}
		return errors.Join(err, errors.New("there is none"))
	})
	return pod
}

// runWoven creates a Deployment once its Pods get these profiles and no others, and returns its Pod when it is Ready.
func runWoven(t *testing.T, deployment *appsv1.Deployment, profiles ...string) *corev1.Pod {
	t.Helper()
	cluster.AwaitWoven(t, deployment.Namespace, &deployment.Spec.Template, profiles...)
	cluster.Create(t, deployment)
	pod := cluster.ReadyPod(t, deployment.Namespace, deployment.Name)
	checkWoven(t, pod, profiles...)
	return pod
}

// restart is what people do to have new Pods.
func restart(t *testing.T, namespace string, workloads ...string) {
	t.Helper()
	if _, err := cluster.Kubectl(t.Context(), append([]string{"rollout", "restart", "--namespace", namespace}, workloads...)...); err != nil {
		t.Fatal(err)
	}
}

func revisionOf(t *testing.T, pod *corev1.Pod, profile string) string {
	t.Helper()
	var marks map[string]v1alpha1.Injected
	if err := json.Unmarshal([]byte(pod.Annotations[v1alpha1.InjectedKey]), &marks); err != nil {
		t.Fatal(err)
	}
	return marks[profile].Revision
}

// shopTemplateFile is where gomplate finds the template.
const shopTemplateFile = "/templates/shop-templates/shop.conf.tmpl"

// awaitMessage waits until the status of a Pod has a message of a container's end that says all this.
func awaitMessage(t *testing.T, pod *corev1.Pod, container string, parts ...string) {
	t.Helper()
	cluster.Eventually(t, "why Pod "+pod.Name+" does not start", func(ctx context.Context) error {
		now := &corev1.Pod{}
		if err := cluster.Client.Get(ctx, client.ObjectKeyFromObject(pod), now); err != nil {
			return err
		}
		message := endOf(now, container)
		if message == "" {
			return errors.New("no message")
		}
		for _, part := range parts {
			if !strings.Contains(message, part) {
				return fmt.Errorf("the message does not say %q: %s", part, message)
			}
		}
		return nil
	})
}

// endOf is the message that a container's last end left in the status.
func endOf(pod *corev1.Pod, container string) string {
	status := statusOf(pod, container)
	for _, ended := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
		if ended != nil && ended.ExitCode != 0 {
			return ended.Message
		}
	}
	return ""
}

func TestAMissingParameterKeepsThePodFromStartingAndItsStatusSaysWhich(t *testing.T) { //nolint:tparallel // they have two rounds
	t.Parallel()
	const parametersFile = "/parameters/shop/configmap/shop-parameters/shop.yaml"
	tests := map[string]*struct {
		spec    string // shopSpec where it is empty
		objects string
		says    []string
		mended  string
		want    string // devFile where it is empty

		namespace string
		pod       *corev1.Pod
	}{
		"the ConfigMap with parameters is missing": {
			objects: shopTemplates,
			says:    []string{parametersFile, "no such file or directory"},
			mended:  devParameters,
		},
		"the key with parameters is missing": {
			objects: shopTemplates + "---" + strings.ReplaceAll(devParameters, "shop.yaml:", "shop.yml:"),
			says:    []string{parametersFile, "no such file or directory"},
			mended:  devParameters,
		},
		"a value that the template names is missing": {
			objects: shopTemplates + "---" + strings.ReplaceAll(devParameters, "port: 8081", "# port: 8081"),
			says:    []string{shopTemplateFile + ":2", "<.shop.port>", "map has no entry for key"},
			mended:  devParameters,
		},
		"the template is missing": {
			objects: strings.ReplaceAll(shopTemplates, "shop.conf.tmpl", "shop.tmpl") + "---" + devParameters,
			says:    []string{shopTemplateFile, "no such file or directory"},
			mended:  shopTemplates,
		},
		"the parameters are no YAML": {
			objects: shopTemplates + "---" + strings.ReplaceAll(devParameters, "debug: true", "debug: [true"),
			says:    []string{"yaml: line 2: did not find expected"}, // gomplate does not say which file

			mended: devParameters,
		},
		"the Secret with a parameter is missing": {
			spec:    strings.ReplaceAll(shopSpec, "configMap: {name: shop-parameters", "secret: {name: shop-secrets"),
			objects: shopTemplates,
			says:    []string{"/parameters/shop/secret/shop-secrets/shop.yaml", "no such file or directory"},
			mended: `
apiVersion: v1
kind: Secret
metadata: {name: shop-secrets}
stringData: {shop.yaml: '{port: 8443, backends: [], debug: false}'}
`,
			want: "# of web\nlisten 8443;",
		},
	}
	// All of them wait at the same time for the kubelet to try again, so that it does not matter that subtests run one by one.
	for _, test := range tests {
		test.namespace = cluster.CreateRestricted(t, nil)
		cluster.Apply(t, test.namespace, test.objects+"---"+matchingShop(cmp.Or(test.spec, shopSpec)))
	}
	for _, test := range tests {
		startMatchedShop(t, test.namespace)
	}
	for name, test := range tests {
		t.Run(name+", and the status says so", func(t *testing.T) {
			test.pod = podThatFails(t, test.namespace)
			awaitMessage(t, test.pod, "pillion-shop-config", test.says...)
			if app := statusOf(test.pod, "app"); test.pod.Status.Phase != corev1.PodPending || app.State.Waiting == nil {
				t.Errorf("the Pod is %s and the app %+v, want neither to have started", test.pod.Status.Phase, app.State)
			}
			cluster.Apply(t, test.namespace, test.mended)
		})
	}
	if t.Failed() {
		return
	}
	for name, test := range tests {
		t.Run(name+" until it is mended", func(t *testing.T) {
			ready := cluster.ReadyPod(t, test.namespace, "shop")
			if ready.UID != test.pod.UID {
				t.Errorf("Pod %s came up, want %s to do so by itself", ready.Name, test.pod.Name)
			}
			reportAtStart(t, ready, "app").checkContents(t, map[string]string{shopFile: cmp.Or(test.want, devFile)})
		})
	}
}

// startMatchedShop runs the shop once the profile of matchingShop is for its Pods.
func startMatchedShop(t *testing.T, namespace string) {
	t.Helper()
	cluster.AwaitProfile(t, namespace, "shop-config")
	deployment := installed.Deployment(namespace, "shop", workload, "-read", shopFile, serving)
	cluster.AwaitWoven(t, namespace, &deployment.Spec.Template, "shop-config")
	cluster.Create(t, deployment)
}

// podThatFails is the shop's, once gomplate has ended with a failure.
func podThatFails(t *testing.T, namespace string) *corev1.Pod {
	t.Helper()
	return cluster.PodThat(t, namespace, "shop", "tells what is missing", func(pod *corev1.Pod) error {
		if endOf(pod, "pillion-shop-config") == "" {
			return errors.New("nothing has failed yet")
		}
		return nil
	})
}

// matchingShop is a PatternProfile for the Pods of Deployment shop.
func matchingShop(spec string) string {
	return `
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: shop-config}
spec:
  match: {podSelector: {matchLabels: {app: shop}}}` + spec
}

func TestAPodWaitsForAConfigMapOfTemplatesWhoseKeysNobodyNames(t *testing.T) {
	t.Parallel()
	namespace := cluster.CreateRestricted(t, nil)
	cluster.Apply(t, namespace, devParameters+"---"+
		matchingShop(strings.ReplaceAll(shopSpec, "shop-templates, keys: [shop.conf.tmpl]", "shop-templates")))
	startMatchedShop(t, namespace)
	cluster.Eventually(t, "an Event that names the ConfigMap", func(ctx context.Context) error {
		events, err := cluster.Events(ctx, namespace)
		if err == nil && !strings.Contains(events, `configmap "shop-templates" not found`) {
			err = errors.New(events)
		}
		return err
	})
	pod := cluster.PodThat(t, namespace, "shop", "waits", func(pod *corev1.Pod) error {
		if waiting := statusOf(pod, "pillion-shop-config").State.Waiting; waiting == nil {
			return fmt.Errorf("it is %+v", pod.Status)
		}
		return nil
	})

	cluster.Apply(t, namespace, shopTemplates)
	ready := cluster.ReadyPod(t, namespace, "shop")
	if ready.UID != pod.UID || statusOf(ready, "pillion-shop-config").RestartCount > 0 {
		t.Errorf("Pod %s came up, want %s to do so, and gomplate to run once", ready.Name, pod.Name)
	}
	reportAtStart(t, ready, "app").checkContents(t, map[string]string{shopFile: devFile})
}

func TestParametersOfASecretStayInMemory(t *testing.T) {
	t.Parallel()
	const password = "not-on-any-disk-4711"
	namespace := cluster.CreateRestricted(t, nil)
	cluster.Apply(t, namespace, `
apiVersion: v1
kind: Secret
metadata: {name: shop-database}
stringData: {password: `+password+`}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-templates}
data: {database.conf.tmpl: "user shop\npassword {{ .password }}\n"}
---`+matchingShop(`
  templateProcessor:
    templates:
      configMap: {name: shop-templates}
    parameters:
    - name: password
      secret: {name: shop-database, key: password}
    mountPath: /etc/shop
    containers: [app]
`))
	cluster.AwaitProfile(t, namespace, "shop-config")
	const databaseFile = "/etc/shop/database.conf"
	deployment := installed.Deployment(namespace, "shop", workload, "-read", databaseFile, serving)
	deployment.Spec.Template.Spec.Containers = append(deployment.Spec.Template.Spec.Containers,
		installed.Container("other", workload, "-read", databaseFile, "-serve=:8081"))
	pod := runWoven(t, deployment, "shop-config")

	report := reportAtStart(t, pod, "app")
	report.checkContents(t, map[string]string{databaseFile: "user shop\npassword " + password})
	if system := report.Files[databaseFile].Filesystem; system != "tmpfs" {
		t.Errorf("the file is in a filesystem of type %s, want tmpfs", system)
	}
	if other := reportAtStart(t, pod, "other"); len(other.Errors) != 1 || !strings.Contains(other.Errors[0], "no such file") {
		t.Errorf("the other container finds %+v, want nothing", other)
	}
	if object, err := json.Marshal(pod); err != nil || strings.Contains(string(object), password) {
		t.Errorf("the Pod holds the password (%v): %s", err, object)
	}
	inMemory, onDisk := filesWith(t, pod, password)
	if len(inMemory) < 2 {
		t.Errorf("the password is in the files %q, want it in the Secret's volume and the rendered file", inMemory)
	}
	if len(onDisk) > 0 {
		t.Errorf("the password is on the node's disk: %q", onDisk)
	}
}

// filesWith finds the files of a Pod on the node that hold a text: those in volumes that are filesystems in memory of their own,
// and all others.
func filesWith(t *testing.T, pod *corev1.Pod, text string) (inMemory, others []string) {
	t.Helper()
	root := "/var/lib/kubelet/pods/" + string(pod.UID)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var memories []string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[2] == "tmpfs" && strings.HasPrefix(fields[1], root+"/") {
			memories = append(memories, fields[1]+"/")
		}
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(content, []byte(text)) {
			return err
		}
		if slices.ContainsFunc(memories, func(memory string) bool { return strings.HasPrefix(path, memory) }) {
			inMemory = append(inMemory, path)
			return nil
		}
		others = append(others, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return inMemory, others
}
