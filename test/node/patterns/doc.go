// Package patterns proves each pattern on a real node: Deployments that know nothing of Pillion, woven by the webhook that its
// chart installed, run real programs that do their work. Its tests are all that is in it.
package patterns
