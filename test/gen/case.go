// Package gen draws Pods, profiles and what Pods ask for, for property tests. Pods are JSON and hold fields that this build does
// not know, as a newer API server or another webhook would send them.
package gen

import (
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// Case is what a decision is made of.
type Case struct {
	// Profiles are decoded JSON, as profiles.Compiler takes it. Each is valid by itself.
	Profiles []map[string]any
	// Namespace, NamespaceLabels and NamespaceAnnotations are those of the Pod's namespace.
	Namespace            string
	NamespaceLabels      map[string]string
	NamespaceAnnotations map[string]string
	// Pod is JSON as an admission request carries it.
	Pod string
}

// Cases draws decisions of every kind; most weave something.
func Cases() *rapid.Generator[Case] {
	return rapid.Custom(func(t *rapid.T) Case {
		c := Case{Namespace: rapid.SampledFrom([]string{"web", "web", "web", "web", "web", "web", "web", "kube-system"}).Draw(t,
			"namespace")}
		c.Profiles = profileSet(t, c.Namespace)
		c.NamespaceLabels = namespaceLabels(t, c)
		if oneIn(t, 3, "namespace overrides") {
			c.NamespaceAnnotations = overriding(t, c.Profiles)
		}
		annotations := map[string]string{}
		if !oneIn(t, 4, "no annotation") {
			annotations["pillion.dev/inject"] = request(t, c.Profiles, ",")
		}
		for key, value := range overriding(t, c.Profiles) {
			annotations[key] = value
		}
		if oneIn(t, 40, "mirror Pod") {
			annotations["kubernetes.io/config.mirror"] = "0"
		}
		c.Pod = pod(t, c.Namespace, annotations, reservedNames(c.Profiles))
		return c
	})
}

func namespaceLabels(t *rapid.T, c Case) map[string]string {
	labels := map[string]string{"kubernetes.io/metadata.name": c.Namespace}
	if !oneIn(t, 4, "no team") {
		labels["team"] = rapid.SampledFrom([]string{"web", "web", "db", ""}).Draw(t, "team")
	}
	if oneIn(t, 3, "namespace's label") {
		labels["pillion.dev/inject"] = request(t, c.Profiles, ".")
	}
	return labels
}

// request draws the value of the annotation or label that asks for profiles.
func request(t *rapid.T, profiles []map[string]any, separator string) string {
	switch rapid.IntRange(0, 19).Draw(t, "request") {
	case 18:
		return rapid.SampledFrom([]string{
			"none", "", " ", "../x", "site" + separator, "none" + separator + "site", "Site", "\u202esite", "a\x00", "\ufffd",
			strings.Repeat("x"+separator, 40) + "x", strings.Repeat("y", 300),
		}).Draw(t, "odd request")
	case 19:
		return "nosuch" + separator + "sitee"
	}
	var names []string
	for _, profile := range profiles {
		if name := nameOf(profile); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	asked := some(t, names, 3, "asked for")
	if len(asked) == 0 {
		asked = names[:1]
	}
	if oneIn(t, 8, "twice") {
		asked = append(asked, asked[0])
	}
	return strings.Join(asked, rapid.SampledFrom([]string{separator, separator, " " + separator + "\t"}).Draw(t, "separator"))
}

// overriding draws annotations that override fields, mostly those that a profile lets Pods override.
func overriding(t *rapid.T, profiles []map[string]any) map[string]string {
	annotations := map[string]string{}
	values := overrides()
	for _, profile := range profiles {
		if !oneIn(t, 3, "overrides "+nameOf(profile)) {
			continue
		}
		paths, _ := profile["spec"].(object)["overridable"].(list)
		for _, path := range some(t, paths, 2, "overridden") {
			path := path.(string)
			value := values[path][0]
			if oneIn(t, 6, "another value") {
				value = rapid.SampledFrom(values[path]).Draw(t, "value of "+path)
			}
			annotations[nameOf(profile)+".pillion.dev/"+path] = value
		}
		if oneIn(t, 8, "any field") {
			path := rapid.SampledFrom(sortedKeys(values)).Draw(t, "any field")
			annotations[nameOf(profile)+".pillion.dev/"+path] = rapid.SampledFrom(values[path]).Draw(t, "any value")
		}
	}
	return annotations
}

// reservedNames are names of containers and volumes that the profiles would add.
func reservedNames(profiles []map[string]any) []string {
	var names []string
	for _, profile := range profiles {
		names = append(names, "pillion-"+nameOf(profile), "pillion-"+nameOf(profile)+"-config")
	}
	return names
}

func nameOf(profile map[string]any) string {
	name, _ := profile["metadata"].(object)["name"].(string)
	return name
}
