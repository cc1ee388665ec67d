// Package injectors holds the patterns, a file each: what a pattern adds to a Pod for a typed spec. It is pure.
package injectors

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// Injector is one pattern.
type Injector struct {
	// Kind names the pattern to people, Field is its field in the spec of a profile.
	Kind  v1alpha1.PatternKind
	Field string

	// Required are the fields without which there is nothing to add. A profile may leave them to the Pods that get it, so that the CRD's
	// schema does not require them of profiles but by a rule of its own. Nil: the schema says all.
	Required []Required

	// Validate says what is wrong with a spec that the CRD's schema cannot see: the configuration of a program that would not
	// start with it. It is called with the spec of every profile, and with every spec that a Pod's annotations changed.
	// path is the path of the pattern's field. All problems are reported.
	Validate func(pattern *v1alpha1.Pattern, path *field.Path) field.ErrorList

	// Configuration returns the configuration file of the pattern's program, "" if the spec asks for a program without. It is made
	// once for a spec and not for every Pod. Nil: no program of the pattern has one.
	Configuration func(pattern *v1alpha1.Pattern) string

	// Fragment says what the pattern adds. It never depends on the Pod, so that it is made once for a spec and not for every Pod.
	Fragment func(request Request) weave.Fragment

	// Problems says why the pattern cannot be woven into a Pod: a volume that it does not have, say. The Pod is without what is
	// reserved. Nil: there is never a reason beside collisions.
	Problems func(request Request, pod *corev1.Pod) []Problem

	// Pick returns a copy of the pattern in which ports that are taken are replaced by the next that are free; nil if it has no ports,
	// or if none is free. Nil: the pattern has no ports.
	Pick func(pattern *v1alpha1.Pattern, taken Taken) *v1alpha1.Pattern

	// Sources names the profiles whose volumes this one reads; they come before it. Nil: none.
	Sources func(pattern *v1alpha1.Pattern) []string
}

// Required is a field that every effective spec has, and a profile may lack.
type Required struct {
	// Field is its name, which is its path below the pattern.
	Field string
	// Path is that of the field, or of one in it, that a Pod sets most simply, Example a value of that.
	Path, Example string
}

// All returns the patterns, in the order in which those of a Pod start unless its profiles say otherwise: files, what is made of
// them, and what the app talks to.
func All() []Injector {
	return []Injector{
		gitSyncInjector(),
		templateProcessorInjector(),
		cacheAmbassadorInjector(),
		prometheusAdapterInjector(),
		// What a custom pattern adds depends on the Pod: see Custom.
		{
			Kind: v1alpha1.KindCustom, Field: "custom",
			Validate: func(*v1alpha1.Pattern, *field.Path) field.ErrorList { return nil },
		},
	}
}

// Request is what an injector sees. Nothing in it may be changed.
type Request struct {
	// Profile is the name of the profile.
	Profile string

	// Pattern is the effective spec: defaulted, overridden by the Pod's annotations and valid.
	Pattern *v1alpha1.Pattern

	// Configuration is what the Injector's Configuration returned for the Pattern.
	Configuration string

	// Applied holds the effective specs of the other profiles that this Pod has or gets, by name.
	Applied map[string]*v1alpha1.Pattern

	// Images says which images stand for the patterns' programs.
	Images Images
}
