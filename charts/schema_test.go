// Package charts_test holds the chart to the code and the documentation that it repeats. Package test/chart renders and
// installs it.
package charts_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pillion-dev/pillion/config"
)

var update = flag.Bool("update", false, "write the schema of the configuration into values.schema.json")

const schemaFile = "pillion/values.schema.json"

// durations are what time.ParseDuration reads.
const durations = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`

// enumerations are the keys that take one of some words. The page has them in its prose.
func enumerations() map[string][]string {
	return map[string][]string{
		"logLevel":            {"error", "warn", "info", "debug"},
		"logFormat":           {"json", "text"},
		"podSecurity.mode":    {"Deny", "Warn"},
		"podSecurity.enforce": {"privileged", "baseline", "restricted"},
		"certs.mode":          {"auto", "builtin", "cert-manager"},
	}
}

// documentedKey is a row of docs/configuration.md.
type documentedKey struct{ path, kind, meaning string }

// documentedKeys reads the page, which is written from the table that the processes read their configuration by.
func documentedKeys(t *testing.T) []documentedKey {
	t.Helper()
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Za-z.]+)` \\| `--.* \\| (.*) \\(([a-z]+)\\) \\|$")
	var keys []documentedKey
	for _, found := range row.FindAllStringSubmatch(string(page), -1) {
		keys = append(keys, documentedKey{path: found[1], kind: found[3], meaning: found[2]})
	}
	if rows := strings.Count(string(page), "\n| `"); len(keys) != rows || rows < 40 {
		t.Fatalf("%d keys were read of %d rows", len(keys), rows)
	}
	return keys
}

// schemaOf returns what a value of a key may be.
func schemaOf(key documentedKey) map[string]any {
	schema := map[string]any{"description": key.meaning}
	switch key.kind {
	case "bool":
		schema["type"] = "boolean"
	case "int":
		schema["type"] = "integer"
	case "list":
		schema["type"], schema["items"] = "array", map[string]any{"type": "string", "minLength": 1}
	case "duration":
		schema["type"], schema["pattern"] = "string", durations
		if strings.HasSuffix(key.meaning, "0 or none: never") {
			schema["type"], schema["pattern"] = []any{"string", "integer"}, strings.TrimSuffix(durations, "$")+"$|^(none|0)$"
			schema["maximum"], schema["minimum"] = 0, 0
		}
	default:
		schema["type"], schema["minLength"] = "string", 1
		if words := enumerations()[key.path]; words != nil {
			schema["enum"] = words
		}
	}
	return schema
}

func section() map[string]any {
	return map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
}

// TestTheSchemaHasTheKeysOfTheConfiguration holds values.schema.json to docs/configuration.md: every key, of its type, and no
// other.
func TestTheSchemaHasTheKeysOfTheConfiguration(t *testing.T) {
	want := section()
	for _, key := range documentedKeys(t) {
		at := want
		parts := strings.Split(key.path, ".")
		for _, part := range parts[:len(parts)-1] {
			properties := at["properties"].(map[string]any)
			if properties[part] == nil {
				properties[part] = section()
			}
			at = properties[part].(map[string]any)
		}
		at["properties"].(map[string]any)[parts[len(parts)-1]] = schemaOf(key)
	}
	schema := readSchema(t)
	properties := schema["properties"].(map[string]any)
	if *update {
		properties["config"] = want
		writeSchema(t, schema)
		return
	}
	if diff := cmp.Diff(normal(t, want), properties["config"]); diff != "" {
		t.Errorf("run go test ./charts -update (-docs/configuration.md +%s):\n%s", schemaFile, diff)
	}
}

// TestWordsOfTheSchemaAreTakenByTheProcesses holds the words of enumerations to what a process takes, and to be all that it
// takes.
func TestWordsOfTheSchemaAreTakenByTheProcesses(t *testing.T) {
	load := func(path, word string) error {
		file := filepath.Join(t.TempDir(), "config.yaml")
		parts := strings.Split(path, ".")
		content := ""
		for i, part := range parts {
			content += strings.Repeat("  ", i) + part + ":"
			if i < len(parts)-1 {
				content += "\n"
			}
		}
		if err := os.WriteFile(file, []byte(content+" "+word+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := config.Load(nil, []string{"PILLION_CONFIG=" + file})
		return err
	}
	documented := documentedKeys(t)
	for path, words := range enumerations() {
		i := slices.IndexFunc(documented, func(key documentedKey) bool { return key.path == path })
		if i < 0 {
			t.Errorf("there is no key %s", path)
			continue
		}
		for _, word := range words {
			if err := load(path, word); err != nil {
				t.Errorf("%s: %s is in the schema, and refused: %v", path, word, err)
			}
		}
		err := load(path, "nonsense")
		if err == nil {
			t.Errorf("%s takes any word: it is no enumeration", path)
			continue
		}
		_, said, _ := strings.Cut(err.Error(), "nonsense")
		for _, word := range regexp.MustCompile(`[A-Za-z-]+`).FindAllString(said, -1) {
			if load(path, word) == nil && !slices.Contains(words, word) {
				t.Errorf("%s: the process takes %s, which the schema refuses", path, word)
			}
		}
	}
}

func readSchema(t *testing.T) map[string]any {
	t.Helper()
	content, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	schema := map[string]any{}
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func writeSchema(t *testing.T, schema map[string]any) {
	t.Helper()
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(schemaFile, content.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// normal returns a value as it is read from JSON.
func normal(t *testing.T, value any) any {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var decoded any
	if err := json.Unmarshal(encoded, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}
