package weave

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// collidingWithin finds what a Fragment adds twice, or in its own way. All of it is found by sorting: a custom profile may hold
// too much for comparing each with each.
func (w *Weaver) collidingWithin(added *taken) []Problem {
	problems := collidingNamesWithin(&added.Fragment)
	for _, containers := range [...][]corev1.Container{w.pod.Spec.InitContainers, w.pod.Spec.Containers} {
		for i := range containers {
			problems = append(problems, added.collidingIn(&containers[i])...)
		}
	}
	return problems
}

func collidingNamesWithin(fragment *Fragment) []Problem {
	var problems []Problem
	var containers, volumes [8]string // enough for most, without memory of their own
	names := containers[:0]
	for i := range fragment.InitContainers {
		names = append(names, fragment.InitContainers[i].Name)
	}
	for i := range fragment.Containers {
		names = append(names, fragment.Containers[i].Name)
	}
	for _, name := range repeated(names) {
		problems = append(problems, collision(ReasonNameCollision, fragment,
			"adds more than one container %s; rename all but one of them", name))
	}
	names = volumes[:0]
	for i := range fragment.Volumes {
		names = append(names, fragment.Volumes[i].Name)
	}
	for _, name := range repeated(names) {
		problems = append(problems, collision(ReasonNameCollision, fragment,
			"adds more than one volume %s; rename all but one of them", name))
	}
	return problems
}

// collidingIn finds what a container of the Pod would gain twice.
func (f *taken) collidingIn(container *corev1.Container) []Problem {
	var problems []Problem
	var variables [8]string
	var volumeMounts [8]*corev1.VolumeMount
	names, mounts := variables[:0], volumeMounts[:0]
	for i := range f.Additions {
		if !slices.Contains(f.targets[i], container) {
			continue
		}
		addition := &f.Additions[i]
		for j := range addition.Env {
			names = append(names, addition.Env[j].Name)
		}
		for j := range addition.VolumeMounts {
			mounts = append(mounts, &addition.VolumeMounts[j])
		}
	}
	if len(mounts) > 1 {
		problems = collidingMountsWithin(&f.Fragment, mounts, container.Name)
	}
	for _, name := range repeated(names) {
		problems = append(problems, collision(ReasonEnvCollision, &f.Fragment,
			"sets %s in container %s more than once; remove all but one of them", name, container.Name))
	}
	return problems
}

// collidingMountsWithin reports every mount that lies in another one, or at the same path, once.
func collidingMountsWithin(fragment *Fragment, mounts []*corev1.VolumeMount, container string) []Problem {
	type place struct {
		directory string
		*corev1.VolumeMount
	}
	places := make([]place, len(mounts))
	for i := range mounts {
		directory := strings.TrimSuffix(path.Join("/", mounts[i].MountPath), "/") + "/" // it begins every path in it
		places[i] = place{directory, mounts[i]}
	}
	slices.SortStableFunc(places, func(a, b place) int { return strings.Compare(a.directory, b.directory) })
	var problems []Problem
	outer := places[0] // everything in it follows it
	for _, inner := range places[1:] {
		if !strings.HasPrefix(inner.directory, outer.directory) {
			outer = inner
			continue
		}
		problems = append(problems, collision(ReasonMountPathCollision, fragment,
			"mounts volume %s at %s and volume %s at %s into container %s: one would hide the other; choose another path for one of them",
			outer.Name, outer.MountPath, inner.Name, inner.MountPath, container))
	}
	return problems
}

// repeated sorts names and returns those that are there more than once.
func repeated(names []string) []string {
	slices.Sort(names)
	var twice []string
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] && (len(twice) == 0 || twice[len(twice)-1] != names[i]) {
			twice = append(twice, names[i])
		}
	}
	return twice
}
