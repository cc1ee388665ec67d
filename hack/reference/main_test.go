package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

const (
	crds  = "../../api/crds"
	types = "../../api/v1alpha1"
)

func TestReferenceIsCurrent(t *testing.T) {
	var want strings.Builder
	if err := write(&want, crds, types); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/reference.md is not what the types say; run make generate (-want +got):\n%s", diff)
	}
}

// TestEveryFieldIsTold looks for what every field of the CustomResourceDefinitions has: a name, a default, the messages of its rules.
func TestEveryFieldIsTold(t *testing.T) {
	var text strings.Builder
	if err := write(&text, crds, types); err != nil {
		t.Fatal(err)
	}
	fields := 0
	var check func(path string, schema *apiextensionsv1.JSONSchemaProps)
	check = func(path string, schema *apiextensionsv1.JSONSchemaProps) {
		for _, rule := range schema.XValidations {
			if !strings.Contains(text.String(), plain(rule.Message)) {
				t.Errorf("%s: the page does not say %q", path, rule.Message)
			}
		}
		if schema.Description != "" && !strings.Contains(text.String(), plain(schema.Description)) && !strings.HasSuffix(path, "[]") {
			t.Errorf("%s: the page does not describe it", path)
		}
		for name, property := range schema.Properties {
			fields++
			if !strings.Contains(text.String(), "`"+name+"` |") && !strings.Contains(text.String(), "."+name+"` |") &&
				!strings.Contains(text.String(), "\n### "+name+"\n") {
				t.Errorf("%s: the page has no row for %s", path, name)
			}
			if property.Default != nil && !strings.Contains(text.String(), defaultOf(&property)) {
				t.Errorf("%s.%s: the page does not tell the default", path, name)
			}
			if !isSelector(&property) {
				check(path+"."+name, &property)
			}
		}
		if schema.Items != nil && schema.Items.Schema != nil {
			check(path+"[]", schema.Items.Schema)
		}
	}
	for _, name := range []string{"clusterpatternprofiles", "patternprofiles"} {
		crd, err := read(filepath.Join(crds, "pillion.dev_"+name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"spec", "status"} {
			schema := schemaOf(crd).Properties[part]
			schema.Description = "" // each kind says it in other words
			check(part, &schema)
		}
	}
	if fields < 200 {
		t.Errorf("only %d fields were looked for", fields)
	}
}

func TestKeysAreToldByTheirValues(t *testing.T) {
	found, err := readKeys(types)
	if err != nil {
		t.Fatal(err)
	}
	p := &page{}
	p.keys(found)
	for _, want := range []string{"`pillion.dev/inject`", "`pillion.dev/skipped`", "`PROFILE.pillion.dev/FIELD`", "- `revision`: "} {
		if !strings.Contains(p.text.String(), want) {
			t.Errorf("the page does not tell %s", want)
		}
	}
	for _, constant := range found.constants {
		if strings.Contains(p.text.String(), constant.name) {
			t.Errorf("the page has %s, which readers do not know", constant.name)
		}
	}
}

func TestTypesOfFieldsAreNamedAsPeopleWriteThem(t *testing.T) {
	list := func(of apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &of}}
	}
	for want, schema := range map[string]apiextensionsv1.JSONSchemaProps{
		"string":             {Type: "string"},
		"duration":           {Type: "string", Pattern: durations},
		"quantity":           {XIntOrString: true},
		"list of quantities": list(apiextensionsv1.JSONSchemaProps{XIntOrString: true}),
		"list of objects":    list(apiextensionsv1.JSONSchemaProps{Type: "object"}),
		"map of strings": {Type: "object", AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{
			Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"},
		}},
	} {
		if got := typeOf(&schema); got != want {
			t.Errorf("it is called %q, want %q", got, want)
		}
	}
}
