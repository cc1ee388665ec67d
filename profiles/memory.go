package profiles

import (
	"crypto/sha256"
	"encoding/json"
	"sync"

	"k8s.io/pod-security-admission/api"
	"k8s.io/utils/lru"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/weave"
)

// The bounds of what is remembered of what depends on Pods: how many, and how large each, as JSON. Together they bound the memory.
const (
	maxRemembered      = 1024
	maxRememberedBytes = 16 << 10
)

// memory remembers what profiles add, which is the same for most Pods.
type memory struct {
	fixed   sync.Map   // of what depends on no Pod: *added by fragmentKey
	results *lru.Cache // of what a custom pattern's expressions made of a Pod: *added by fragmentKey
}

func newMemory() *memory { return &memory{results: lru.New(maxRemembered)} }

// fragmentKey is all that what a profile adds depends on, beside the Snapshot's options.
type fragmentKey struct {
	profile   *Profile
	source    *v1alpha1.Pattern // of the profile that it reads from; nil: it reads from none
	hardening injectors.Hardening
	result    [sha256.Size]byte // of the results of a custom pattern's expressions
}

// added is what a profile adds, or why it cannot be made.
type added struct {
	fragment weave.Fragment
	problems []weave.Problem
	// violations are those of Pod Security standards, by level and version.
	violations sync.Map // []string by api.LevelVersion
}

// remembered returns what is remembered under a key, or makes it.
func (m *memory) remembered(key fragmentKey, build func() *added) *added {
	if key.profile.custom != nil {
		if found, ok := m.results.Get(key); ok {
			return found.(*added) //nolint:forcetypeassert // nothing else is stored
		}
		made := build()
		if len(made.problems) == 0 && sizeOf(&made.fragment) <= maxRememberedBytes {
			m.results.Add(key, made)
		}
		return made
	}
	if found, ok := m.fixed.Load(key); ok {
		return found.(*added) //nolint:forcetypeassert // nothing else is stored
	}
	made, _ := m.fixed.LoadOrStore(key, build())
	return made.(*added) //nolint:forcetypeassert // nothing else is stored
}

// newAdded returns what a Fragment adds, with the JSON of it, as it will be woven again and again.
func newAdded(fragment weave.Fragment, problems []weave.Problem) *added {
	if len(problems) == 0 {
		var err error
		if fragment, err = fragment.WithJSON(); err != nil {
			problems = []weave.Problem{{Reason: ReasonProfileNotReady, Message: err.Error()}}
		}
	}
	return &added{fragment: fragment, problems: problems}
}

// sizeOf returns about how many bytes of JSON a Fragment with JSON adds.
func sizeOf(fragment *weave.Fragment) int {
	size := 0
	for _, items := range [][]json.RawMessage{fragment.JSON.InitContainers, fragment.JSON.Containers, fragment.JSON.Volumes} {
		for _, item := range items {
			size += len(item)
		}
	}
	for _, pairs := range []map[string]string{fragment.Annotations, fragment.Labels} {
		for key, value := range pairs {
			size += len(key) + len(value)
		}
	}
	for i := range fragment.Additions {
		for j := range fragment.Additions[i].Env {
			size += len(fragment.Additions[i].Env[j].Name) + len(fragment.Additions[i].Env[j].Value)
		}
		for j := range fragment.Additions[i].VolumeMounts {
			size += len(fragment.Additions[i].VolumeMounts[j].MountPath) + len(fragment.Additions[i].VolumeMounts[j].SubPathExpr)
		}
	}
	return size
}

// violationsAt returns what the Fragment adds that a Pod Security level does not allow.
func (a *added) violationsAt(level api.LevelVersion, security *podSecurity) []string {
	if found, ok := a.violations.Load(level); ok {
		return found.([]string) //nolint:forcetypeassert // nothing else is stored
	}
	violations := security.fragmentViolations(level, &a.fragment)
	a.violations.Store(level, violations)
	return violations
}
