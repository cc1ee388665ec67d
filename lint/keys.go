package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/report"
)

// The keys that are read, or written, of each kind of object. What ends in a dot is the beginning of keys.
var (
	ofPod       = []string{v1alpha1.InjectKey, v1alpha1.InjectedKey, v1alpha1.InjectedKey + ".", v1alpha1.SkippedKey, v1alpha1.ConfigKeyPrefix}
	ofNamespace = []string{v1alpha1.InjectKey}
	ofProfile   = []string{v1alpha1.ReleaseKey}
)

// checkKeys tells of annotations or labels of an object that look like Pillion's, and are none.
func (l *linter) checkKeys(object *manifest.Object, field string, known []string) {
	l.add(unknownKeys(object.Document, object.Pointer, field, known)...)
}

// unknownKeys is checkKeys for the metadata of what a JSON pointer leads to.
func unknownKeys(document *manifest.Document, pointer, field string, known []string) []report.Finding {
	var found []report.Finding
	for _, key := range document.Keys(pointer + "/metadata/" + field) {
		advice := adviceOn(key, known)
		if advice == "" {
			continue
		}
		found = append(found, finding(document, document.FieldPosition(pointer, "metadata."+field+"["+key+"]"), report.Error,
			ReasonUnknownKey, fmt.Sprintf("nothing reads the %s %s%s", strings.TrimSuffix(field, "s"), shown(key), advice)))
	}
	return found
}

// adviceOn says what to write instead of a key; "" for one that is read, or that is no business of Pillion's.
func adviceOn(key string, known []string) string {
	prefix, name, qualified := strings.Cut(key, "/")
	if !qualified {
		return ""
	}
	if profile, ok := strings.CutSuffix(prefix, "."+v1alpha1.Group); ok {
		if profile != "" && name != "" {
			return "" // Decide judges overrides
		}
		return "; write PROFILE." + v1alpha1.Group + "/FIELD"
	}
	if prefix == v1alpha1.Group {
		for _, k := range known {
			if key == k || (strings.HasSuffix(k, ".") && strings.HasPrefix(key, k)) {
				return ""
			}
		}
		if meant := suggest(key, known); meant != "" {
			return meant
		}
		return "; those read here are " + strings.Join(whole(known), ", ")
	}
	if group := misspelled(prefix); group != "" {
		return fmt.Sprintf("; did you mean %s/%s?", group, name)
	}
	return ""
}

// misspelled returns the prefix that one is a slip of, "" if it is none.
func misspelled(prefix string) string {
	labels := strings.Split(prefix, ".")
	if len(labels) < 2 {
		return ""
	}
	group := strings.Join(labels[len(labels)-2:], ".")
	if d := profiles.Distance(group, v1alpha1.Group); d == 0 || d > 1 {
		return ""
	}
	return strings.Join(append(slices.Clone(labels[:len(labels)-2]), v1alpha1.Group), ".")
}

// whole leaves out the beginnings of keys.
func whole(keys []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return strings.HasSuffix(key, ".") })
}

// shown is a key of the user's for a message: quoted, unless it is one that the API server takes.
func shown(key string) string {
	if len(validation.IsQualifiedName(key)) == 0 {
		return key
	}
	return strconv.QuoteToASCII(key)
}

// suggest returns "; did you mean X?" for the known word that is closest to one that is not, if any is close.
func suggest(word string, known []string) string {
	best, least := "", len(word)/4+1
	for _, candidate := range whole(known) {
		if d := profiles.Distance(word, candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
