package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// width is where text is wrapped.
const width = 100

// describeRequest prints what of an object asks for profiles.
func describeRequest(out io.Writer, object *unstructured.Unstructured) {
	_, _ = fmt.Fprintf(out, "   %s %s\n", object.GetKind(), nameOf(object.GetNamespace(), object.GetName()))
	show := func(what string, values map[string]string, wanted func(string) bool) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if wanted(key) {
				_, _ = fmt.Fprintf(out, "     %s %s: %s\n", what, key, values[key])
			}
		}
	}
	show("annotation", object.GetAnnotations(), func(key string) bool { return strings.Contains(key, v1alpha1.Group) })
	show("label", object.GetLabels(), func(key string) bool { return !strings.Contains(key, "kubernetes.io") })
}

// describePod prints what a Pod gained.
func describePod(out io.Writer, before, after *corev1.Pod) {
	_, _ = fmt.Fprintf(out, "   -> created, and gained:\n")
	for i := range after.Spec.InitContainers {
		container := &after.Spec.InitContainers[i]
		if hasContainer(before, container.Name) {
			continue
		}
		kind := "init container"
		if container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = "native sidecar"
		}
		_, _ = fmt.Fprintf(out, "      + %s %s\n          image %s\n", kind, container.Name, container.Image)
		for _, line := range argumentLines(container.Args) {
			_, _ = fmt.Fprintf(out, "          %s\n", line)
		}
	}
	for i := range after.Spec.Containers {
		describeGain(out, find(before, after.Spec.Containers[i].Name), &after.Spec.Containers[i])
	}
	_, _ = fmt.Fprintf(out, "   starts in this order: %s\n", strings.Join(startOrder(after), ", "))
}

// describeGain prints what a container of the app gained.
func describeGain(out io.Writer, before, after *corev1.Container) {
	if before == nil {
		_, _ = fmt.Fprintf(out, "      + container %s\n", after.Name)
		return
	}
	for _, mount := range after.VolumeMounts {
		if v1alpha1.IsReservedName(mount.Name) {
			mode := ""
			if mount.ReadOnly {
				mode = ", read-only"
			}
			_, _ = fmt.Fprintf(out, "      + container %s sees %s%s\n", after.Name, mount.MountPath, mode)
		}
	}
	var added []string
	for _, variable := range after.Env {
		if !slices.Contains(before.Env, variable) {
			added = append(added, variable.Name+"="+variable.Value)
		}
	}
	if len(added) > 0 {
		_, _ = fmt.Fprintf(out, "      + container %s has %s\n", after.Name, strings.Join(added, " "))
	}
}

// describeDenial prints why a Pod was refused, each reason on lines of its own.
func describeDenial(out io.Writer, pod *corev1.Pod, err error) {
	message := err.Error()
	status := apierrors.APIStatus(nil)
	if errors.As(err, &status) {
		message = status.Status().Message
	}
	_, _ = fmt.Fprintf(out, "   -> %s was refused:\n", nameOf(pod.Namespace, pod.Name))
	reasons := regexp.MustCompile(`;? ?\[\d+\] `).Split(message, -1)
	wrap(out, reasons[0])
	for _, reason := range reasons[1:] {
		wrap(out, "- "+reason)
	}
}

// wrap prints text indented, in lines of at most width characters where its words allow; a list item hangs by its dash.
func wrap(out io.Writer, text string) {
	indent, rest := "      ", "      "
	if strings.HasPrefix(text, "- ") {
		rest = "        "
	}
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			_, _ = fmt.Fprintf(out, "%s%s\n", indent, line)
			indent, line = rest, ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" {
		_, _ = fmt.Fprintf(out, "%s%s\n", indent, line)
	}
}

// argumentLines returns arguments a line each, with the value of a flag beside it.
func argumentLines(arguments []string) []string {
	var lines []string
	for i, argument := range arguments {
		if i > 0 && !strings.HasPrefix(argument, "-") {
			lines[len(lines)-1] += " " + argument
			continue
		}
		lines = append(lines, argument)
	}
	return lines
}

func startOrder(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.InitContainers {
		names = append(names, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	return names
}

func hasContainer(pod *corev1.Pod, name string) bool {
	return find(pod, name) != nil || slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func find(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

func nameOf(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
