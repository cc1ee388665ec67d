package webhook

import (
	"context"

	"github.com/pillion-dev/pillion/profiles"
)

// Static is a Cluster of what it is given, for use without one: on the command line and in unit tests. A namespace that it was
// not given exists, without labels or annotations.
type Static struct {
	Profiles   *profiles.Snapshot
	Namespaces map[string]profiles.Namespace // by name
}

// Snapshot returns the profiles.
func (s Static) Snapshot() *profiles.Snapshot { return s.Profiles }

// Namespace returns a namespace. Every one is known.
func (s Static) Namespace(name string) (profiles.Namespace, bool) {
	return namespaceOr(s.Namespaces[name], name), true
}

// Live knows no more than Namespace.
func (s Static) Live(_ context.Context, namespace string, _ []string, _ bool) (profiles.Namespace, []*profiles.Profile, error) {
	known, _ := s.Namespace(namespace)
	return known, nil, nil
}
