package profiles

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// withoutReserved returns the Pod without the containers, volumes and labels that Pillion added earlier, and without what tells that
// something was left out, so that weaving twice sees what weaving once saw. It is the Pod itself if there are none.
func withoutReserved(pod *corev1.Pod) *corev1.Pod {
	isReserved := func(c corev1.Container) bool { return v1alpha1.IsReservedName(c.Name) }
	_, labeled := pod.Labels[v1alpha1.SkippedKey]
	_, annotated := pod.Annotations[v1alpha1.SkippedKey]
	if !labeled && !annotated && !isWoven(pod) && !slices.ContainsFunc(pod.Spec.InitContainers, isReserved) &&
		!slices.ContainsFunc(pod.Spec.Containers, isReserved) {
		return pod
	}
	bare := *pod
	bare.Labels = withoutMarkLabels(pod.Labels)
	if annotated {
		bare.Annotations = maps.Clone(pod.Annotations)
		delete(bare.Annotations, v1alpha1.SkippedKey)
	}
	bare.Spec.InitContainers = slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), isReserved)
	bare.Spec.Containers = slices.DeleteFunc(slices.Clone(pod.Spec.Containers), isReserved)
	bare.Spec.Volumes = slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool {
		return v1alpha1.IsReservedName(v.Name)
	})
	return &bare
}

// withClaims returns a Pod with the volumes that its controller will add to it, for which nothing else is to be changed.
func withClaims(pod *corev1.Pod, names []string) *corev1.Pod {
	if len(names) == 0 {
		return pod
	}
	claimed := *pod
	claimed.Spec.Volumes = slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool { return slices.Contains(names, v.Name) })
	for _, name := range names {
		source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
		claimed.Spec.Volumes = append(claimed.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	}
	return &claimed
}

// withoutMarkLabels returns a copy of a Pod's labels without those that tell what became of it.
func withoutMarkLabels(labels map[string]string) map[string]string {
	labels = maps.Clone(labels)
	delete(labels, v1alpha1.InjectedKey)
	delete(labels, v1alpha1.SkippedKey)
	return labels
}

// withoutMarks takes the annotations and the labels off a Pod that tell what was woven into it and what was left out. Its maps are
// replaced.
func withoutMarks(pod *corev1.Pod) {
	pod.Labels = withoutMarkLabels(pod.Labels)
	pod.Annotations = maps.Clone(pod.Annotations)
	maps.DeleteFunc(pod.Annotations, func(key, _ string) bool {
		return isInjectedKey(key) || key == v1alpha1.SkippedKey || strings.HasPrefix(key, v1alpha1.ConfigKeyPrefix)
	})
}

// withoutAdditions returns the Pod without what is reserved, and without what the profiles that were woven into it gave its metadata
// and the app's containers: what the expressions of templates saw when it was not woven yet.
func (d *decider) withoutAdditions() *corev1.Pod {
	if !isWoven(d.pod) {
		return d.bare
	}
	pod := *d.bare
	withoutMarks(&pod)
	gave := d.given()
	maps.DeleteFunc(pod.Labels, func(key, _ string) bool { return gave.labels[key] })
	maps.DeleteFunc(pod.Annotations, func(key, value string) bool {
		return gave.annotations[key] || (key == weave.SafeToEvictKey && !slices.ContainsFunc(strings.Split(value, ","), func(volume string) bool {
			return !v1alpha1.IsReservedName(volume)
		}))
	})
	for _, containers := range []*[]corev1.Container{&pod.Spec.InitContainers, &pod.Spec.Containers} {
		*containers = slices.Clone(*containers)
		for i := range *containers {
			c := &(*containers)[i]
			c.Env = slices.DeleteFunc(slices.Clone(c.Env), gave.gaveVariable)
			c.VolumeMounts = slices.DeleteFunc(slices.Clone(c.VolumeMounts), func(m corev1.VolumeMount) bool {
				return v1alpha1.IsReservedName(m.Name)
			})
		}
	}
	return &pod
}

// additions are what profiles give a Pod's metadata, by keys, and the app's containers: variables with their values, as far as they are
// known. The app's own value of a variable wins, and stays what it was.
type additions struct {
	labels, annotations map[string]bool
	env                 map[string][]knownVariable
}

// knownVariable is a variable that a profile gives; one of any value where that follows from an expression.
type knownVariable struct {
	value corev1.EnvVar
	isAny bool
}

func newAdditions() additions {
	return additions{labels: map[string]bool{}, annotations: map[string]bool{}, env: map[string][]knownVariable{}}
}

// gaveVariable tells whether a profile may have given a container this variable.
func (a *additions) gaveVariable(v corev1.EnvVar) bool {
	return slices.ContainsFunc(a.env[v.Name], func(known knownVariable) bool {
		return known.isAny || equality.Semantic.DeepEqual(known.value, v)
	})
}

// given returns what the profiles give that the Pod's marks name, as far as it is known without evaluating anything.
func (d *decider) given() additions {
	given := newAdditions()
	for name, entry := range d.injected() {
		profile := d.snapshot.find(entry.Namespace, name)
		switch {
		case profile == nil || profile.Pattern == nil:
		case profile.custom != nil:
			note(given.labels, slices.Values(profile.declared.Labels))
			note(given.annotations, slices.Values(profile.declared.Annotations))
			for _, variable := range profile.declared.Env {
				given.env[variable.value.Name] = append(given.env[variable.value.Name], variable)
			}
		default:
			d.givenByPattern(profile, &given)
		}
	}
	return given
}

func note(in map[string]bool, keys iter.Seq[string]) {
	for key := range keys {
		in[key] = true
	}
}

func (d *decider) givenByPattern(profile *Profile, given *additions) {
	c := d.plain(profile)
	if c.pattern == nil {
		return
	}
	what := d.added(c, nil)
	note(given.labels, maps.Keys(what.fragment.Labels))
	note(given.annotations, maps.Keys(what.fragment.Annotations))
	for i := range what.fragment.Additions {
		for j := range what.fragment.Additions[i].Env {
			variable := what.fragment.Additions[i].Env[j]
			given.env[variable.Name] = append(given.env[variable.Name], knownVariable{value: variable})
		}
	}
}

// plain returns a candidate of a profile with the overrides of the Pod and its namespace; without them, if they cannot be used. Its
// pattern is nil if there is none that can.
func (d *decider) plain(profile *Profile) *candidate {
	c := &candidate{profile: profile}
	if profile.Pattern == nil {
		return c
	}
	c.effectiveSpec, c.problems = profile.effective(d.overridesOf(profile.Name))
	if len(c.problems) > 0 {
		c.effectiveSpec, c.problems = profile.effective(nil)
	}
	return c
}

// declared are the keys and names that a custom template gives a Pod's metadata and the app's containers; none of them can be an
// expression.
type declared struct {
	Labels, Annotations []string
	Env                 []knownVariable
}

// declaredBy reads them from the JSON of a template that is valid.
func declaredBy(template []byte) *declared {
	read := struct {
		Labels, Annotations any
		App                 any
	}{}
	_ = json.Unmarshal(template, &read) // it was decoded strictly before
	keys := func(of any) []string {
		object, _ := of.(map[string]any)
		return slices.Sorted(maps.Keys(object))
	}
	found := &declared{Labels: keys(read.Labels), Annotations: keys(read.Annotations)}
	app, _ := read.App.([]any)
	for _, one := range app {
		addition, _ := one.(map[string]any)
		variables, _ := addition["env"].([]any)
		for _, variable := range variables {
			if variable, ok := variable.(map[string]any); ok {
				if name, ok := variable["name"].(string); ok {
					value, isText := variable["value"].(string)
					found.Env = append(found.Env, knownVariable{
						value: corev1.EnvVar{Name: name, Value: value}, isAny: !isText || strings.Contains(value, "${"),
					})
				}
			}
		}
	}
	return found
}

// containersOf returns the names of the containers that a profile adds.
func (d *decider) containersOf(profile *Profile) []string {
	if profile.custom != nil {
		return profile.custom.Containers()
	}
	names, known := d.names[profile]
	if !known {
		names = []string{v1alpha1.ReservedName(profile.Name, "")}
		if c := d.plain(profile); c.pattern != nil {
			what := d.added(c, nil)
			names = append(names, containerNames(&what.fragment)...)
		}
		if d.names == nil {
			d.names = map[*Profile][]string{}
		}
		d.names[profile] = names
	}
	return names
}

// hasContainerOf tells whether the Pod has a container of the name of one that a profile adds.
func (d *decider) hasContainerOf(profile *Profile) bool {
	return slices.ContainsFunc(d.containersOf(profile), func(name string) bool { return hasContainer(d.pod, name) })
}

// isWoven tells whether something was woven into the Pod, by the mark that the entries of the webhook configuration go by.
func isWoven(pod *corev1.Pod) bool {
	_, woven := pod.Labels[v1alpha1.InjectedKey]
	return woven
}

func hasContainer(pod *corev1.Pod, name string) bool {
	named := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.InitContainers, named) || slices.ContainsFunc(pod.Spec.Containers, named)
}
