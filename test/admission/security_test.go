package admission

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// privileged is a template with a container that may do everything.
const privileged = sidecar + `
      securityContext: {privileged: true}
`

func TestWhatAProfileAddsIsHeldToThePodSecurityOfTheNamespace(t *testing.T) {
	t.Parallel()
	create(t, custom(t, "too-much", privileged))
	createReady(t, matching(custom(t, "too-much-chosen", privileged), "too-much-chosen", v1alpha1.FailurePolicyIgnore))
	restricted := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	says := []string{`Pod Security "restricted:latest"`, "privileged", `must not set securityContext.privileged=true`}

	message := refuse(t, pod(namespace(t, restricted), v1alpha1.InjectKey, "too-much"))
	if err := missing(message, append(says, "Pillion refuses this Pod", "profile too-much", "(PodSecurity)")...); err != nil {
		t.Error(err)
	}
	stored, _ := admit(t, pod(namespace(t, nil), v1alpha1.InjectKey, "too-much"))
	containerOf(t, stored, "pillion-too-much")

	restricted["too-much-chosen"] = ""
	stored, warnings := admit(t, pod(namespace(t, restricted)))
	if len(added(stored)) > 0 || len(warnings) != 1 || missing(warnings[0], append(says, "too-much-chosen")...) != nil {
		t.Errorf("added %q, warnings %q", added(stored), warnings)
	}
	if err := missing(stored.Annotations[v1alpha1.SkippedKey], "too-much-chosen", "PodSecurity"); err != nil {
		t.Error(err)
	}

	message = awaitCondition(t, "too-much", v1alpha1.ConditionRestricted, metav1.ConditionFalse, "ViolatesRestricted")
	if err := missing(message, "must not set securityContext.privileged=true"); err != nil {
		t.Error(err)
	}
	create(t, custom(t, "modest", sidecar))
	awaitCondition(t, "modest", v1alpha1.ConditionRestricted, metav1.ConditionTrue, "MeetsRestricted")
}

// TestAGuaranteedPodStaysGuaranteed weaves one profile of each kind into a Pod.
func TestAGuaranteedPodStaysGuaranteed(t *testing.T) {
	t.Parallel()
	root, err := apiserver.Root()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, example := range []string{"site-content", "metrics-from-statsd", "page-cache", "app-config-from-volume", "log-shipper"} {
		objects, err := apiserver.ReadFile(filepath.Join(root, "examples", example+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects {
			if object.GroupVersionKind().Group == v1alpha1.Group {
				object.SetName("qos-" + object.GetName())
				create(t, object)
				names = append(names, object.GetName())
			}
		}
	}
	p := pod(namespace(t, nil), v1alpha1.InjectKey, strings.Join(names, ","))
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Resources.Requests = p.Spec.Containers[i].Resources.Limits
	}
	stored, warnings := admit(t, p)
	if len(names) != 5 || len(added(stored)) < 5 || stored.Status.QOSClass != corev1.PodQOSGuaranteed || len(warnings) > 0 {
		t.Errorf("%q added %q; the QoS class is %s, warnings %q", names, added(stored), stored.Status.QOSClass, warnings)
	}
}

func TestAJobIsNotKeptFromCompleting(t *testing.T) {
	t.Parallel()
	create(t, custom(t, "endless", `custom: {template: {containers: [{image: "registry.example.com/agent:1"}]}}`))
	create(t, custom(t, "ends", sidecar))
	in := namespace(t, nil)
	for _, policy := range []corev1.RestartPolicy{corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure} {
		job := pod(in, v1alpha1.InjectKey, "endless")
		job.Spec.RestartPolicy = policy
		if err := missing(refuse(t, job), "pillion-endless", string(policy), "restartPolicy: Always", "NeverCompletes"); err != nil {
			t.Error(err)
		}
		job.Annotations[v1alpha1.InjectKey] = "ends"
		stored, _ := admit(t, job)
		containerOf(t, stored, "pillion-ends")
	}
	stored, _ := admit(t, pod(in, v1alpha1.InjectKey, "endless"))
	if len(stored.Spec.Containers) != 3 || stored.Spec.Containers[2].Name != "pillion-endless" {
		t.Errorf("a Pod that always runs got %q", added(stored))
	}
}

func TestAPortThatIsPickedReachesWhoeverNeedsIt(t *testing.T) {
	t.Parallel()
	adapter := clusterProfile("pick-statsd", v1alpha1.Pattern{PrometheusAdapter: &v1alpha1.PrometheusAdapter{StatsD: &v1alpha1.StatsDSource{}}})
	adapter.Spec.OnPortConflict = v1alpha1.PortConflictPick
	create(t, adapter)
	strict := adapter.DeepCopy()
	strict.ObjectMeta, strict.Spec.OnPortConflict = metav1.ObjectMeta{Name: "fail-statsd"}, v1alpha1.PortConflictFail
	create(t, strict)
	create(t, custom(t, "pick-custom", `
custom:
  parameters: [{name: port, type: integer, default: 4180}]
  template:
    initContainers:
    - image: registry.example.com/agent:1
      restartPolicy: Always
      args: ["--listen=:${params.port}"]
      ports: [{containerPort: "${params.port}"}]
      startupProbe: {tcpSocket: {port: "${params.port}"}}
    app: [{env: [{name: AGENT_PORT, value: "${string(params.port)}"}]}]
    annotations: {example.com/port: "${string(params.port)}"}
onPortConflict: Pick
`))
	in := namespace(t, nil)
	taking := func(profiles string) *corev1.Pod {
		p := pod(in, v1alpha1.InjectKey, profiles)
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{
			{ContainerPort: 9102}, {ContainerPort: 9125, Protocol: corev1.ProtocolUDP}, {ContainerPort: 4180}, {ContainerPort: 4181},
		}
		return p
	}
	if err := missing(refuse(t, taking("fail-statsd")), "fail-statsd", "9102", "PortCollision"); err != nil {
		t.Error(err)
	}
	stored, _ := admit(t, taking("pick-statsd, pick-custom"))

	exporter, app := containerOf(t, stored, "pillion-pick-statsd"), containerOf(t, stored, "app")
	metrics, lines := stored.Annotations["prometheus.io/port"], envOf(app, "STATSD_PORT")
	if metrics != "9103" || lines != "9126" {
		t.Errorf("the scrape annotation says %q, and STATSD_PORT %q", metrics, lines)
	}
	said := strings.Join(exporter.Args, " ")
	if err := missing(said, ":"+metrics, ":"+lines); err != nil {
		t.Errorf("args: %v", err)
	}
	if !slices.ContainsFunc(exporter.Ports, func(p corev1.ContainerPort) bool { return p.ContainerPort == 9103 }) {
		t.Errorf("ports %v", exporter.Ports)
	}

	agent := containerOf(t, stored, "pillion-pick-custom")
	if agent.Args[0] != "--listen=:4182" || agent.Ports[0].ContainerPort != 4182 || agent.StartupProbe.TCPSocket.Port.IntValue() != 4182 ||
		envOf(app, "AGENT_PORT") != "4182" || stored.Annotations["example.com/port"] != "4182" {
		t.Errorf("args %q, ports %v, probe %v, env %v, annotations %v",
			agent.Args, agent.Ports, agent.StartupProbe, app.Env, stored.Annotations)
	}
	mayBeCreatedAgain(t, stored)
}
