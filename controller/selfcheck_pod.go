package controller

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// selfCheckToken is the parameter that each Pod of the self-check gives a value of its own, so that what comes back is known to be the
// answer to this Pod.
const selfCheckToken = "token"

// selfCheckTemplate has something of each kind that profiles add. IMAGE is put in its place.
const selfCheckTemplate = `{
  "annotations": {"self-check.example/answers": "${params.token}"},
  "app": [{
    "env": [{"name": "SELF_CHECK", "value": "${params.token}"}],
    "volumeMounts": [{"mountPath": "/self-check", "name": "files", "readOnly": true}]
  }],
  "initContainers": [{
    "args": ["version", "--token=${params.token}"],
    "env": [{"name": "NAMESPACE", "value": "${namespace.metadata.name}"}],
    "image": "IMAGE",
    "name": "sidecar",
    "restartPolicy": "Always",
    "volumeMounts": [{"mountPath": "/self-check", "name": "files"}]
  }],
  "volumes": [{"emptyDir": {"sizeLimit": "1Mi"}, "name": "files"}]
}`

// selfCheckProfile is the profile that the Pod of the self-check asks for, with the API server's defaults.
func selfCheckProfile(image string) *v1alpha1.PatternProfile {
	profile := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{
		Namespace: SelfCheckNamespace, Name: SelfCheckProfile,
		Labels: map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "self-check"},
	}}
	profile.Spec.FailurePolicy = v1alpha1.FailurePolicyIgnore
	profile.Spec.OnPortConflict = v1alpha1.PortConflictFail
	profile.Spec.Overridable = []string{selfCheckToken}
	profile.Spec.Custom = &v1alpha1.Custom{
		Parameters: []v1alpha1.Parameter{{
			Name: selfCheckToken, Type: v1alpha1.ParameterString, Required: true, Pattern: "^[0-9a-f]{1,32}$",
			Description: "What the Pod of a self-check is known by.",
		}},
		Template: apiextensionsv1.JSON{Raw: []byte(strings.ReplaceAll(selfCheckTemplate, "IMAGE", image))},
	}
	return profile
}

// selfCheckPod is the Pod that is created by dry run. Should it ever be stored, its scheduling gate keeps it from running.
func selfCheckPod(image, token string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: SelfCheckNamespace, GenerateName: SelfCheckProfile + "-",
			Labels: map[string]string{"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "self-check"},
			Annotations: map[string]string{
				v1alpha1.InjectKey: SelfCheckProfile,
				v1alpha1.OverrideKey(SelfCheckProfile, selfCheckToken): token,
			},
		},
		Spec: corev1.PodSpec{
			SchedulingGates:              []corev1.PodSchedulingGate{{Name: v1alpha1.Group + "/" + SelfCheckProfile}},
			AutomountServiceAccountToken: new(false),
			EnableServiceLinks:           new(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "app", Image: image, Args: []string{"version"},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
					},
					Limits: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
					},
				},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// decodedPod returns a Pod as it is decoded from its JSON.
func decodedPod(pod *corev1.Pod) (*corev1.Pod, error) {
	encoded, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode the Pod of the self-check: %w", err)
	}
	decoded := &corev1.Pod{}
	if err := json.Unmarshal(encoded, decoded); err != nil {
		return nil, fmt.Errorf("decode the Pod of the self-check: %w", err)
	}
	return decoded, nil
}

// compare says whether the Pod that came back has what the decision adds for the profile of the self-check. What other profiles, the API
// server's defaults and other webhooks add is let be, and so are image, pull policy and resources, which clusters rewrite.
func compare(sent, got *corev1.Pod, decision profiles.Decision) verdict {
	want := decision.Pod()
	wanted, expected := markOf(want)
	if !expected {
		return verdict{reason: ReasonRefused, message: "By the profiles as they are the Pod of the self-check cannot be woven: " +
			shorten(printable(decision.Denial()), maxQuoted)}
	}
	added := addedNames(want)
	mark, woven := markOf(got)
	if !woven && !slices.ContainsFunc(namesOf(got), added.Has) {
		return verdict{reason: ReasonNotWoven, message: "The Pod came back as it was sent: the API server did not call Pillion, or was " +
			"answered without a change."}
	}
	if woven && mark.Profile != wanted.Profile { // the revision of the profile itself, without the Pod's token
		return verdict{reason: ReasonStaleProfile, message: "The Pod came back with another revision of the profile than the current one: " +
			"a replica of the webhook does not see changes, or is of another version than the controller. Compare " +
			"pillion_snapshot_last_contact_timestamp_seconds of the replicas, and restart the one that is behind."}
	}
	differences := differencesOf(sent, want, got, added)
	if !woven || !equality.Semantic.DeepEqual(mark, wanted) {
		differences = append(differences, "the annotation "+v1alpha1.InjectedKey)
	}
	if len(differences) > 0 {
		return verdict{reason: ReasonWovenOtherwise, message: fmt.Sprintf("The Pod came back otherwise than the profile says, in %s: the "+
			"webhook is of another version or configured otherwise than the controller, or another webhook changes what Pillion adds.",
			strings.Join(differences, ", "))}
	}
	return verdict{ok: true, reason: ReasonWoven, message: "The API server sent a Pod to Pillion, and it came back as the profile says."}
}

// markOf returns what a Pod's marks say of the profile of the self-check.
func markOf(pod *corev1.Pod) (found v1alpha1.Injected, ok bool) {
	for _, mark := range profiles.MarksOf(pod.Annotations) {
		entries := map[string]v1alpha1.Injected{}
		if json.Unmarshal([]byte(mark), &entries) != nil {
			continue
		}
		if entry, is := entries[SelfCheckProfile]; is && entry.Namespace == SelfCheckNamespace {
			found, ok = entry, true
		}
	}
	return found, ok
}

// addedNames are those of the containers and volumes that the profile of the self-check adds.
func addedNames(want *corev1.Pod) sets.Set[string] {
	names := sets.New[string]()
	for _, name := range namesOf(want) {
		if strings.HasPrefix(name, v1alpha1.ReservedName(SelfCheckProfile, "")) {
			names.Insert(name)
		}
	}
	return names
}

// namesOf returns the names of all containers and volumes, as they stand.
func namesOf(pod *corev1.Pod) []string {
	var names []string
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			names = append(names, containers[i].Name)
		}
	}
	for i := range pod.Spec.Volumes {
		names = append(names, pod.Spec.Volumes[i].Name)
	}
	return names
}

// differencesOf names what of the wanted Pod is not in the one that came back.
func differencesOf(sent, want, got *corev1.Pod, added sets.Set[string]) []string {
	var differences []string
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	concerns := func(name string) bool {
		return added.Has(name) || slices.Contains(namesOf(sent), name)
	}
	inOrder := func(pod *corev1.Pod) []string {
		return slices.DeleteFunc(namesOf(pod), func(name string) bool { return !concerns(name) })
	}
	if w, g := inOrder(want), inOrder(got); !slices.Equal(w, g) {
		differ("which containers and volumes there are, or their order (%s in place of %s)", strings.Join(g, " "), strings.Join(w, " "))
	}
	for key, value := range want.Annotations {
		if key != v1alpha1.InjectedKey && got.Annotations[key] != value {
			differ("the annotation %s", key)
		}
	}
	if got.Labels[v1alpha1.InjectedKey] != want.Labels[v1alpha1.InjectedKey] {
		differ("the label %s", v1alpha1.InjectedKey)
	}
	lists := []struct{ want, got []corev1.Container }{
		{want.Spec.InitContainers, got.Spec.InitContainers}, {want.Spec.Containers, got.Spec.Containers},
	}
	for _, list := range lists {
		for i := range list.want {
			name := list.want[i].Name
			j := slices.IndexFunc(list.got, func(c corev1.Container) bool { return c.Name == name })
			if concerns(name) && j >= 0 && !hasAllOf(&list.got[j], &list.want[i]) {
				differ("container %s", name)
			}
		}
	}
	for i := range want.Spec.Volumes {
		volume := &want.Spec.Volumes[i]
		j := slices.IndexFunc(got.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume.Name })
		if added.Has(volume.Name) && j >= 0 && !equality.Semantic.DeepDerivative(volume, &got.Spec.Volumes[j]) {
			differ("volume %s", volume.Name)
		}
	}
	slices.Sort(differences)
	return differences
}

// hasAllOf tells whether a container has all that another has, but for what clusters rewrite.
func hasAllOf(got, want *corev1.Container) bool {
	w, g := want.DeepCopy(), got.DeepCopy()
	for _, variable := range w.Env {
		if !slices.ContainsFunc(g.Env, func(v corev1.EnvVar) bool { return equality.Semantic.DeepEqual(v, variable) }) {
			return false
		}
	}
	for _, mount := range w.VolumeMounts {
		if !slices.ContainsFunc(g.VolumeMounts, func(m corev1.VolumeMount) bool { return equality.Semantic.DeepDerivative(mount, m) }) {
			return false
		}
	}
	for _, c := range []*corev1.Container{w, g} {
		c.Env, c.VolumeMounts, c.Image, c.ImagePullPolicy, c.Resources = nil, nil, "", "", corev1.ResourceRequirements{}
	}
	return slices.Equal(w.Args, g.Args) && slices.Equal(w.Command, g.Command) && equality.Semantic.DeepDerivative(w, g)
}

// sameJSON tells whether two values are the same JSON, however raw parts of them are written.
func sameJSON(a, b any) bool {
	var decoded [2]any
	for i, value := range []any{a, b} {
		encoded, err := json.Marshal(value)
		if err != nil || json.Unmarshal(encoded, &decoded[i]) != nil {
			return false
		}
	}
	return equality.Semantic.DeepEqual(decoded[0], decoded[1])
}
