package weave

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mattbaird/jsonpatch"
	corev1 "k8s.io/api/core/v1"
)

// SafeToEvictKey lists the emptyDirs of a Pod that the cluster autoscaler may delete with it; an emptyDir that is not listed
// keeps the node from being scaled down.
const SafeToEvictKey = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

// Marks are annotations and labels that the weaving as a whole puts on the Pod. A key that the Pod has is left as it is.
type Marks struct {
	Annotations map[string]string
	Labels      map[string]string
}

// patch collects operations in the order in which they apply.
type patch struct {
	operations []jsonpatch.JsonPatchOperation
}

// Weave returns the Pod with every Fragment that was taken, and the operations that turn the Pod into it: only "add", at
// explicit indices or at keys that are not there. Containers stand in the order of profiles; a profile that is not in it comes
// last. Without Fragments and Marks the patch is empty. What is not changed is shared with the Weaver's Pod: neither may
// be changed afterwards.
func (w *Weaver) Weave(order []string, marks Marks) (*corev1.Pod, []jsonpatch.JsonPatchOperation) {
	fragments := slices.Clone(w.fragments)
	position := func(f taken) int {
		if i := slices.Index(order, f.Profile); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(fragments, func(a, b taken) int { return position(a) - position(b) })

	woven := *w.pod // what changes is made anew below
	p := &patch{}
	p.addMetadata(&woven, w.metadata(fragments, marks))
	p.addVolumes(&woven, fragments)
	p.addToContainers("/spec/initContainers/", &woven.Spec.InitContainers, fragments)
	p.addToContainers("/spec/containers/", &woven.Spec.Containers, fragments)
	p.addInitContainers(&woven, fragments, w.place())
	p.appendContainers(&woven, fragments)
	p.addPullSecrets(&woven, fragments)
	p.addHostAliases(&woven, fragments)
	return &woven, p.operations
}

// place returns the index at which init containers go: behind those of a mesh that lead the list, and behind those of an earlier
// weaving that PlaceBehind was told of, ahead of the app's. A reserved name alone does not make a container one of ours: the app could
// have its own start ahead of what is woven.
func (w *Weaver) place() int {
	place := 0
	for place < len(w.pod.Spec.InitContainers) {
		name := w.pod.Spec.InitContainers[place].Name
		if !w.ours[name] && !slices.Contains(w.options.LeadingContainers, name) {
			break
		}
		place++
	}
	return place
}

// metadata collects the annotations and labels of all Fragments and the Marks that the Pod does not have.
func (w *Weaver) metadata(fragments []taken, marks Marks) Marks {
	all := Marks{Annotations: map[string]string{}, Labels: map[string]string{}}
	var emptyDirs []string
	for i := range fragments {
		maps.Copy(all.Annotations, fragments[i].Annotations)
		maps.Copy(all.Labels, fragments[i].Labels)
		for j := range fragments[i].Volumes {
			if volume := &fragments[i].Volumes[j]; volume.EmptyDir != nil {
				emptyDirs = append(emptyDirs, volume.Name)
			}
		}
	}
	addMissing := func(into, from, pod map[string]string) {
		for key, value := range from {
			if _, there := pod[key]; !there {
				into[key] = value
			}
		}
	}
	addMissing(all.Annotations, marks.Annotations, w.pod.Annotations)
	addMissing(all.Labels, marks.Labels, w.pod.Labels)
	if len(emptyDirs) > 0 {
		addMissing(all.Annotations, map[string]string{SafeToEvictKey: strings.Join(emptyDirs, ",")}, w.pod.Annotations)
	}
	return all
}

// addToContainers adds variables and mounts to the app's containers. It comes before containers are inserted, so that the indices
// are still the Pod's own.
func (p *patch) addToContainers(path string, containers *[]corev1.Container, fragments []taken) {
	changed := false
	for i := range *containers {
		env, mounts := additions(&(*containers)[i], fragments)
		if len(env) == 0 && len(mounts) == 0 {
			continue
		}
		if !changed {
			*containers, changed = slices.Clone(*containers), true
		}
		container := &(*containers)[i]
		at := path + strconv.Itoa(i)
		container.Env = appendTo(p, at+"/env", container.Env, env)
		container.VolumeMounts = appendTo(p, at+"/volumeMounts", container.VolumeMounts, mounts)
	}
}

// additions returns what a container of the Pod gains, in the order of the Fragments. A variable that it has is left alone.
func additions(container *corev1.Container, fragments []taken) ([]corev1.EnvVar, []corev1.VolumeMount) {
	var env []corev1.EnvVar
	var mounts []corev1.VolumeMount
	for i := range fragments {
		for j, addition := range fragments[i].Additions {
			if !slices.ContainsFunc(fragments[i].targets[j], func(target *corev1.Container) bool { return target.Name == container.Name }) {
				continue
			}
			for _, variable := range addition.Env {
				if !hasEnv(container, variable.Name) {
					env = append(env, variable)
				}
			}
			mounts = append(mounts, addition.VolumeMounts...)
		}
	}
	return env, mounts
}

// KeptEnv returns the variables that the app keeps although a profile would set them, as "CONTAINER: NAME", for people to be
// told of.
func (w *Weaver) KeptEnv(profile string) []string {
	var kept []string
	for i := range w.fragments {
		if w.fragments[i].Profile != profile {
			continue
		}
		for j, addition := range w.fragments[i].Additions {
			for _, container := range w.fragments[i].targets[j] {
				for _, variable := range addition.Env {
					if hasEnv(container, variable.Name) {
						kept = append(kept, container.Name+": "+variable.Name)
					}
				}
			}
		}
	}
	return kept
}

func hasEnv(container *corev1.Container, name string) bool {
	return slices.ContainsFunc(container.Env, func(present corev1.EnvVar) bool { return present.Name == name })
}

func (p *patch) add(path string, value any) {
	p.operations = append(p.operations, jsonpatch.NewPatch("add", path, value))
}

func (p *patch) addMetadata(pod *corev1.Pod, marks Marks) {
	pod.Annotations = addKeys(p, "/metadata/annotations", pod.Annotations, marks.Annotations)
	pod.Labels = addKeys(p, "/metadata/labels", pod.Labels, marks.Labels)
}

func (p *patch) addVolumes(pod *corev1.Pod, fragments []taken) {
	var volumes []corev1.Volume
	var values []any
	for i := range fragments {
		volumes = append(volumes, fragments[i].Volumes...)
		values = append(values, fragments[i].volumeValues()...)
	}
	pod.Spec.Volumes = insertInto(p, "/spec/volumes", pod.Spec.Volumes, len(pod.Spec.Volumes), volumes, values)
}

func (p *patch) addInitContainers(pod *corev1.Pod, fragments []taken, place int) {
	var containers []corev1.Container
	var values []any
	for i := range fragments {
		containers = append(containers, fragments[i].InitContainers...)
		values = append(values, fragments[i].initContainerValues()...)
	}
	pod.Spec.InitContainers = insertInto(p, "/spec/initContainers", pod.Spec.InitContainers, place, containers, values)
}

// appendContainers adds regular containers behind the app's, so that what takes the first one for the app's goes on to do so.
func (p *patch) appendContainers(pod *corev1.Pod, fragments []taken) {
	var containers []corev1.Container
	var values []any
	for i := range fragments {
		containers = append(containers, fragments[i].Containers...)
		values = append(values, fragments[i].containerValues()...)
	}
	pod.Spec.Containers = insertInto(p, "/spec/containers", pod.Spec.Containers, len(pod.Spec.Containers), containers, values)
}

// addPullSecrets adds the secrets that the Pod does not have, each once.
func (p *patch) addPullSecrets(pod *corev1.Pod, fragments []taken) {
	var added []corev1.LocalObjectReference
	var there map[string]bool
	for i := range fragments {
		for _, secret := range fragments[i].ImagePullSecrets {
			if there == nil {
				there = pullSecretNames(pod)
			}
			if !there[secret.Name] {
				there[secret.Name] = true
				added = append(added, secret)
			}
		}
	}
	pod.Spec.ImagePullSecrets = appendTo(p, "/spec/imagePullSecrets", pod.Spec.ImagePullSecrets, added)
}

func pullSecretNames(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, secret := range pod.Spec.ImagePullSecrets {
		names[secret.Name] = true
	}
	return names
}

func appendTo[T any](p *patch, path string, list, added []T) []T {
	return insertInto(p, path, list, len(list), added, values(added, nil))
}

// insertInto adds items, whose values are what operations hold of them, to a list at an index, and the list itself where it is
// absent.
func insertInto[T any](p *patch, path string, list []T, at int, added []T, values []any) []T {
	if len(added) == 0 {
		return list
	}
	if list == nil {
		p.add(path, values)
		return slices.Clone(added)
	}
	for i := range added {
		p.add(path+"/"+strconv.Itoa(at+i), values[i])
	}
	return slices.Concat(list[:at], added, list[at:])
}

// addKeys adds keys to a map, and the map itself where it is absent. The caller knows that none of the keys is there.
func addKeys(p *patch, path string, present, added map[string]string) map[string]string {
	if len(added) == 0 {
		return present
	}
	if present == nil {
		p.add(path, added)
		return maps.Clone(added)
	}
	present = maps.Clone(present)
	for _, key := range sortedKeys(added) {
		p.add(path+"/"+escapePointer(key), added[key])
		present[key] = added[key]
	}
	return present
}

// escapePointer escapes a key for a JSON pointer (RFC 6901, section 3): "~" first, then "/".
func escapePointer(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// Encode returns operations as a JSON patch document, written in one go: what an operation makes of itself would be validated and
// copied twice more, which counts on the way of every Pod.
func Encode(operations []jsonpatch.JsonPatchOperation) ([]byte, error) {
	document := &bytes.Buffer{}
	encoder := json.NewEncoder(document)
	encoder.SetEscapeHTML(false)
	separator := byte('[')
	for i := range operations {
		operation := &operations[i]
		document.WriteByte(separator)
		separator = ','
		document.WriteString(`{"op":"` + operation.Operation + `","path":`)
		if err := encoder.Encode(operation.Path); err != nil {
			return nil, fmt.Errorf("encode the path %s: %w", operation.Path, err)
		}
		document.WriteString(`,"value":`)
		if err := encodeValue(document, encoder, operation.Value); err != nil {
			return nil, fmt.Errorf("encode what is added at %s: %w", operation.Path, err)
		}
		document.WriteByte('}')
	}
	if len(operations) == 0 {
		document.WriteByte('[')
	}
	document.WriteByte(']')
	return document.Bytes(), nil
}

// encodeValue writes what is JSON already as it is, and the rest by the encoder, which writes to the document.
func encodeValue(document *bytes.Buffer, encoder *json.Encoder, value any) error {
	switch value := value.(type) {
	case json.RawMessage:
		document.Write(value)
		return nil
	case []any:
		separator := byte('[')
		for i := range value { // never empty: an absent list is only made for what it is to hold
			document.WriteByte(separator)
			separator = ','
			if err := encodeValue(document, encoder, value[i]); err != nil {
				return err
			}
		}
		document.WriteByte(']')
		return nil
	default:
		return encoder.Encode(value)
	}
}
