// Command reference writes docs/reference.md from the CustomResourceDefinitions and from the keys in api/v1alpha1, so that what
// it says of a field is what the API server does with it. `make generate` runs it.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: reference CRDS TYPES > docs/reference.md")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

const header = `<!-- Written by ` + "`make generate`" + ` from the types in api/v1alpha1. -->

# Reference

Every field of both kinds, and every annotation and label. What a Pod, or its Namespace for all its Pods, may change of a profile is
what the profile lists in ` + "`spec.overridable`" + `, by the annotation ` + "`PROFILE.pillion.dev/FIELD`" + `, with the name of the field as it
stands here below its pattern: ` + "`site-content.pillion.dev/ref`" + `. ` + "`kubectl explain clusterpatternprofile.spec`" + ` tells the same of
the cluster's release.

Types: a *quantity* is written as ` + "`64Mi`" + ` or ` + "`100m`" + `, a *duration* as ` + "`90s`" + ` or ` + "`1h30m`" + `, a *label selector* as
` + "`{matchLabels: {…}, matchExpressions: […]}`" + `. ` + "`x[].y`" + ` is the field ` + "`y`" + ` of each item of the list ` + "`x`" + `, ` + "`x.*`" + ` each value of a map.
`

// write writes the whole page.
func write(w io.Writer, crds, types string) error {
	cluster, err := read(filepath.Join(crds, "pillion.dev_clusterpatternprofiles.yaml"))
	if err != nil {
		return err
	}
	namespaced, err := read(filepath.Join(crds, "pillion.dev_patternprofiles.yaml"))
	if err != nil {
		return err
	}
	keys, err := readKeys(types)
	if err != nil {
		return err
	}
	p := &page{}
	p.text.WriteString(header)
	for _, crd := range []*apiextensionsv1.CustomResourceDefinition{cluster, namespaced} {
		if err := p.kind(crd, cluster); err != nil {
			return err
		}
	}
	p.patterns(specOf(cluster))
	p.status(cluster)
	p.keys(keys)
	_, err = io.WriteString(w, p.text.String())
	return err
}

func read(path string) (*apiextensionsv1.CustomResourceDefinition, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a CustomResourceDefinition: %w", err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(content, crd); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(crd.Spec.Versions) != 1 {
		return nil, fmt.Errorf("%s has %d versions; this program describes one", path, len(crd.Spec.Versions))
	}
	return crd, nil
}

func schemaOf(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.JSONSchemaProps {
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func specOf(crd *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.JSONSchemaProps {
	spec := schemaOf(crd).Properties["spec"]
	return &spec
}

// plain makes a description one line that Markdown shows as it is written.
func plain(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", "&lt;", "|", `\|`, "`", "\\`").
		Replace(strings.Join(strings.Fields(text), " "))
}

// code shows text as code in a cell of a table.
func code(text string) string {
	fence := "`"
	if strings.Contains(text, "`") {
		fence = "``"
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}
