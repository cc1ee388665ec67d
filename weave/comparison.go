package weave

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// comparison compares a part of a Fragment with that of the Pod, both as their JSON has them.
type comparison struct {
	*differences
	where string // "container x", for sentences
}

// field compares a value of the Fragment with the Pod's, which is nil where it is absent.
func (c *comparison) field(at string, want, got any) {
	if got == nil {
		if want != nil {
			c.report("%s is without %s, which profile %s sets to %s", c.where, at, c.profile, shown(want))
		}
		return
	}
	switch want := want.(type) {
	case map[string]any:
		if object, ok := got.(map[string]any); ok {
			c.objects(at, want, object)
			return
		}
	case []any:
		if list, ok := got.([]any); ok {
			c.lists(at, want, list)
			return
		}
	default:
		if want == got || isQuantity(at) && sameQuantity(want, got) {
			return
		}
	}
	c.differs(at, want, got)
}

// objects compares objects field by field. What the Pod has beyond the Fragment has to be what the API server sets.
func (c *comparison) objects(at string, want, got map[string]any) {
	for _, field := range sortedFields(want) {
		c.field(join(at, field), want[field], got[field])
	}
	for _, field := range sortedFields(got) {
		if _, set := want[field]; !set && !isDefault(field, got[field]) {
			c.extra(join(at, field), got[field])
		}
	}
}

// lists compares lists: those with keys by them, whatever else there is, and others item by item.
func (c *comparison) lists(at string, want, got []any) {
	if _, keyed := listKeys[at]; keyed {
		c.keyedLists(at, want, got)
		return
	}
	if len(want) != len(got) {
		c.differs(at, want, got)
		return
	}
	for i := range want {
		c.field(fmt.Sprintf("%s[%d]", at, i), want[i], got[i])
	}
}

// keyedLists compares the items of each key, in their order: of variables of one name the last counts, so that there must be no
// more of them than the Fragment has.
func (c *comparison) keyedLists(at string, want, got []any) {
	seen := map[string]bool{}
	for _, item := range want {
		key := listKeys[at](item)
		if seen[key] {
			continue
		}
		seen[key] = true
		place := at + "[" + key + "]"
		switch wanted, there := withKey(at, key, want), withKey(at, key, got); {
		case len(there) == 0:
			c.field(place, item, nil)
		case len(there) != len(wanted):
			c.differs(place, wanted, there)
		default:
			for i := range wanted {
				c.field(place, wanted[i], c.asDefaulted(at, wanted[i], there[i]))
			}
		}
	}
}

// withKey returns the items of a key.
func withKey(at, key string, list []any) []any {
	var all []any
	for _, item := range list {
		if listKeys[at](item) == key {
			all = append(all, item)
		}
	}
	return all
}

// asDefaulted returns an item of the Pod without what the API server sets by what else there is: under hostNetwork, every port is
// one of the node.
func (c *comparison) asDefaulted(at string, want, got any) any {
	wanted, _ := want.(map[string]any)
	item, _ := got.(map[string]any)
	if at != "ports" || !c.pod.Spec.HostNetwork || wanted["hostPort"] != nil || item["hostPort"] != item["containerPort"] {
		return got
	}
	item = maps.Clone(item)
	delete(item, "hostPort")
	return item
}

func (c *comparison) differs(at string, want, got any) {
	c.report("%s has %s set to %s, and profile %s says %s", c.where, at, shown(got), c.profile, shown(want))
}

func (c *comparison) extra(at string, got any) {
	c.report("%s has %s set to %s, which profile %s does not set", c.where, at, shown(got), c.profile)
}

// listKeys are the lists of a container whose items have keys.
var listKeys = map[string]func(item any) string{
	"env":          func(item any) string { return text(item, "name") },
	"volumeMounts": func(item any) string { return text(item, "mountPath") },
	"ports": func(item any) string {
		protocol := text(item, "protocol")
		if protocol == "" {
			protocol = string(corev1.ProtocolTCP)
		}
		return text(item, "containerPort") + "/" + protocol
	},
}

func text(item any, field string) string {
	object, _ := item.(map[string]any)
	if object[field] == nil {
		return ""
	}
	return fmt.Sprint(object[field])
}

func items(list any) []map[string]any {
	all, _ := list.([]any)
	var objects []map[string]any
	for _, item := range all {
		if object, ok := item.(map[string]any); ok {
			objects = append(objects, object)
		}
	}
	return objects
}

// keysOf returns the keys of a list of a name.
func keysOf(list any, name string) map[string]bool {
	keys := map[string]bool{}
	for _, item := range items(list) {
		keys[listKeys[name](item)] = true
	}
	return keys
}

// defaults are what the API server sets in containers and volumes where nothing is said.
var defaults = map[string][]any{
	"apiVersion":        {"v1"},
	"defaultMode":       {int64(corev1.ConfigMapVolumeSourceDefaultMode)},
	"divisor":           {"0"},
	"expirationSeconds": {int64(60 * 60)},
	"failureThreshold":  {int64(3)},
	"mountPropagation":  {string(corev1.MountPropagationNone)},
	"path":              {"/"}, // of an HTTP probe
	"periodSeconds":     {int64(10)},
	"procMount":         {string(corev1.DefaultProcMount)},
	"protocol":          {string(corev1.ProtocolTCP)},
	"recursiveReadOnly": {string(corev1.RecursiveReadOnlyDisabled)},
	"scheme":            {string(corev1.URISchemeHTTP)},
	"service":           {""}, // of a gRPC probe
	"successThreshold":  {int64(1)},
	"timeoutSeconds":    {int64(1)},
	"type":              {""}, // of a hostPath
	"volumeMode":        {string(corev1.PersistentVolumeFilesystem)},
}

// isDefault tells whether a field that the Fragment leaves open is what the API server makes of that.
func isDefault(field string, value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case map[string]any:
		return len(value) == 0
	case []any:
		return len(value) == 0
	}
	return field == "pullPolicy" || slices.Contains(defaults[field], value)
}

// isQuantity tells whether a field holds a quantity, which is the same in several spellings.
func isQuantity(at string) bool {
	field := at[strings.LastIndexByte(at, '.')+1:]
	return slices.Contains([]string{"sizeLimit", "divisor", "storage"}, field)
}

func sameQuantity(a, b any) bool {
	first, err := resource.ParseQuantity(fmt.Sprint(a))
	if err != nil {
		return false
	}
	second, err := resource.ParseQuantity(fmt.Sprint(b))
	return err == nil && first.Cmp(second) == 0
}

func sortedFields(object map[string]any) []string { return slices.Sorted(maps.Keys(object)) }

func join(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}

// shown returns a value as JSON, cut where it is long.
func shown(value any) string {
	const most = 80
	document := &bytes.Buffer{}
	encoder := json.NewEncoder(document)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "a value that has no JSON"
	}
	runes := []rune(strings.TrimSpace(document.String()))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}
