package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// verbs are all that an authorizer is asked for.
func verbs() []string {
	return []string{
		"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
		"bind", "escalate", "impersonate", "use", "approve", "sign", "attest", anything,
	}
}

// access is what somebody may be allowed to do.
type access struct {
	verb, name, namespace string // name and namespace are empty for any and all
	resource              schema.GroupResource
}

func (a access) String() string {
	return fmt.Sprintf("%s %s %q in namespace %q", a.verb, a.resource, a.name, a.namespace)
}

func (a access) attributes() *authorizationv1.ResourceAttributes {
	resource, subresource, _ := strings.Cut(a.resource.Resource, "/")
	return &authorizationv1.ResourceAttributes{
		Verb: a.verb, Group: a.resource.Group, Resource: resource, Subresource: subresource, Name: a.name, Namespace: a.namespace,
	}
}

// everyAccess multiplies all resources of the API server with all verbs, and with no namespace and these. Resources that rows
// speak of are multiplied with the names of all rows too; no other has permissions by name, for which there is another test.
func everyAccess(t *testing.T, rows []row, namespaces []string) []access {
	t.Helper()
	_, lists, err := server.Clientset.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var all []access
	add := func(resource schema.GroupResource, namespaced bool) {
		names := []string{""}
		if slices.ContainsFunc(rows, func(r row) bool { return r.resource == resource }) {
			names = append(names, namesOf(rows)...)
		}
		for _, verb := range verbs() {
			for _, name := range names {
				all = append(all, access{verb: verb, name: name, resource: resource})
				for _, namespace := range namespaces {
					if namespaced {
						all = append(all, access{verb: verb, name: name, namespace: namespace, resource: resource})
					}
				}
			}
		}
	}
	seen := map[schema.GroupResource]bool{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if name := version.WithResource(resource.Name).GroupResource(); !seen[name] {
				seen[name] = true
				add(name, resource.Namespaced)
			}
		}
	}
	if len(seen) < 90 {
		t.Fatalf("the API server has only %d resources", len(seen))
	}
	// What is impersonated is no resource of the API, and * is asked for as itself.
	for _, name := range []string{"users", "groups", "uids", anything} {
		add(schema.GroupResource{Resource: name}, false)
	}
	add(schema.GroupResource{Group: anything, Resource: anything}, true)
	return all
}

// namesOf returns the names of objects in rows.
func namesOf(rows []row) []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.names...)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == anything })
}

// awaitAllowed waits until the authorizer, which watches roles, knows of a permission.
func awaitAllowed(ctx context.Context, who subject, a access) error {
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.user, Groups: who.groups, ResourceAttributes: a.attributes(),
		}}
		answer, err := server.Clientset.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Allowed, fmt.Errorf("%s may not %s", who.user, a)
	})
}

// subject is somebody who is not there, as the authorizer sees them.
type subject struct {
	user   string
	groups []string
}

func serviceAccount(name string) subject {
	return subject{user: "system:serviceaccount:" + namespace + ":" + name, groups: []string{
		"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated",
	}}
}

// allowed returns what the authorizer allows a subject, as sorted sentences.
func allowed(t *testing.T, who subject, all []access) []string {
	t.Helper()
	answers := make([]bool, len(all))
	group := errgroup.Group{}
	group.SetLimit(16)
	for i, a := range all {
		group.Go(func() error {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: who.user, Groups: who.groups, ResourceAttributes: a.attributes(),
			}}
			answer, err := server.Clientset.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("ask whether %s may %s: %w", who.user, a, err)
			}
			answers[i] = answer.Status.Allowed
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var sentences []string
	for i, a := range all {
		if answers[i] {
			sentences = append(sentences, a.String())
		}
	}
	slices.Sort(sentences)
	return sentences
}

// permitted returns which of all accesses the rows permit, as sorted sentences.
func permitted(rows []row, all []access) []string {
	var sentences []string
	for _, a := range all {
		if slices.ContainsFunc(rows, func(r row) bool { return r.covers(a) }) {
			sentences = append(sentences, a.String())
		}
	}
	slices.Sort(sentences)
	return sentences
}
