package profiles

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// maxProfiles is how many profiles a Pod may ask for. No Pod has use for more, and it bounds the work of a request.
const maxProfiles = 32

// Source says why a profile is considered for a Pod.
type Source string

// The sources.
const (
	SourceAnnotation Source = "Annotation"
	SourceNamespace  Source = "NamespaceLabel"
	SourceMatch      Source = "Match"
)

// asked is what a Pod, or its namespace for it, asks for.
type asked struct {
	names    []string // each once
	source   Source
	declined bool // by "none", which declines policy too
	problems []weave.Problem
}

// AskedNames returns the names that a Pod with annotations asks for in a namespace, sorted; none if it declines, or if what it says
// cannot be read.
func AskedNames(annotations map[string]string, namespace Namespace) []string {
	return slices.Sorted(slices.Values(requestOf(annotations, namespace).names))
}

// requestOf reads the Pod's annotation, or else the namespace's label, which the annotation replaces.
func requestOf(annotations map[string]string, namespace Namespace) asked {
	if value, ok := annotations[v1alpha1.InjectKey]; ok {
		return parseRequest(value, ",", "annotation "+v1alpha1.InjectKey, SourceAnnotation)
	}
	if value, ok := namespace.Labels[v1alpha1.InjectKey]; ok {
		return parseRequest(value, ".", "label "+v1alpha1.InjectKey+" of namespace "+namespace.Name, SourceNamespace)
	}
	return asked{source: SourceAnnotation}
}

func parseRequest(value, separator, where string, source Source) asked {
	if strings.TrimSpace(value) == v1alpha1.None {
		return asked{source: source, declined: true}
	}
	parsed := asked{source: source}
	refuse := func(format string, args ...any) {
		parsed.problems = append(parsed.problems, weave.Problem{
			Reason: ReasonInvalidRequest, Message: where + " " + fmt.Sprintf(format, args...),
		})
	}
	if strings.TrimSpace(value) == "" {
		refuse("is empty; write the names of profiles, joined by %q, or none", separator)
		return parsed
	}
	if err := injectors.CheckText(value); err != nil {
		refuse("cannot be read: %v", err)
		return parsed
	}
	if n := strings.Count(value, separator) + 1; n > maxProfiles {
		refuse("names %d profiles; a Pod may ask for at most %d", n, maxProfiles)
		return parsed
	}
	for part := range strings.SplitSeq(value, separator) {
		name := strings.TrimSpace(part)
		switch {
		case name == "":
			refuse("has an empty name in %q; remove the superfluous %q", shorten(value), separator)
		case name == v1alpha1.None:
			refuse("names none beside profiles in %q; write none alone to decline, or remove it", shorten(value))
		case !isProfileName(name):
			refuse("names %q, which is no profile's name: a name has at most %d lower-case letters, digits and dashes, "+
				"and names are joined by %q", shorten(name), v1alpha1.MaxProfileNameLength, separator)
		case !slices.Contains(parsed.names, name):
			parsed.names = append(parsed.names, name)
		}
	}
	return parsed
}

var profileName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func isProfileName(name string) bool {
	return len(name) <= v1alpha1.MaxProfileNameLength && profileName.MatchString(name)
}

// Suggest returns "; did you mean X?" for the one among names that is closest to one that is not, if any is close.
func Suggest(name string, usable []string) string {
	best, bestDistance := "", len(name)/3+1
	for _, candidate := range usable {
		if d := Distance(name, candidate); d < bestDistance || (d == bestDistance && best == "") {
			best, bestDistance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// Distance is the Levenshtein distance of two words; it is large if one is too long to be a word.
func Distance(a, b string) int {
	const most = 128
	if len(a) > most || len(b) > most {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
