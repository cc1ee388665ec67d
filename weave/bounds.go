package weave

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// bounds compares what the cluster may change of a container, but not so that the container no longer does its work.
func (c *comparison) bounds(want, got *corev1.Container) {
	c.terminationMessagePath(want.TerminationMessagePath, got.TerminationMessagePath)
	c.pullPolicy(want, got)
	c.limits(want.Resources.Limits, got.Resources.Limits)
	c.claims(want.Resources.Claims, got.Resources.Claims)
}

// terminationMessagePath is where the kubelet mounts a file of its own: at another path it could hide one of the image.
func (c *comparison) terminationMessagePath(want, got string) {
	c.oneOf("terminationMessagePath", want, got, corev1.TerminationMessagePathDefault)
}

// pullPolicy may become Always (AlwaysPullImages). With Never the container may not start at all.
func (c *comparison) pullPolicy(want, got *corev1.Container) {
	wanted := cmp.Or(want.ImagePullPolicy, defaultPullPolicy(want.Image))
	there := cmp.Or(got.ImagePullPolicy, defaultPullPolicy(got.Image))
	c.oneOf("imagePullPolicy", string(want.ImagePullPolicy), string(there), string(wanted), string(corev1.PullAlways))
}

// oneOf reports a value that is neither the Fragment's nor one of those that are as good.
func (c *comparison) oneOf(at, want, got string, asGood ...string) {
	switch {
	case got == want || slices.Contains(asGood, got):
	case want == "":
		c.extra(at, got)
	default:
		c.differs(at, want, got)
	}
}

// defaultPullPolicy returns what the API server sets for an image: Always for the tag latest, which an image with neither tag nor
// digest has (SetDefaults_Container in k8s.io/kubernetes/pkg/apis/core/v1).
func defaultPullPolicy(image string) corev1.PullPolicy {
	tagged, _, hasDigest := strings.Cut(image, "@")
	_, tag, hasTag := strings.Cut(tagged[strings.LastIndexByte(tagged, '/')+1:], ":") // the host may have a port
	if tag == "latest" || !hasTag && !hasDigest {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// limits may be raised and added to (LimitRanger). With a lower one the container may be killed, or starve, for ever.
func (c *comparison) limits(want, got corev1.ResourceList) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		at, wanted := "resources.limits."+string(name), want[name]
		switch there, ok := got[name]; {
		case !ok:
			c.field(at, wanted.String(), nil)
		case there.Cmp(wanted) < 0:
			c.report("%s has %s set to %s, and profile %s says at least %s", c.where, at, there.String(), c.profile, wanted.String())
		}
	}
}

// claims are devices, which bring variables and mounts of their own.
func (c *comparison) claims(want, got []corev1.ResourceClaim) {
	switch {
	case slices.Equal(want, got):
	case len(want) == 0:
		c.extra("resources.claims", got)
	default:
		c.differs("resources.claims", want, got)
	}
}
