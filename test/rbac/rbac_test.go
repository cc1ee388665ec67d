package rbac

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

const (
	namespace = "pillion-system"
	elsewhere = "default"
	selfCheck = "pillion-selfcheck"
)

var server *apiserver.Server

func TestMain(m *testing.M) {
	os.Exit(apiserver.Run(m, apiserver.Options{}, func(s *apiserver.Server) {
		server = s
		if err := install(context.Background()); err != nil {
			panic(err)
		}
	}))
}

// install applies deploy/ and waits until the authorizer knows of the bindings.
func install(ctx context.Context) error {
	if err := server.InstallDeploy(ctx); err != nil {
		return err
	}
	secret := access{
		verb: "get", resource: schema.GroupResource{Resource: "secrets"}, namespace: namespace, name: "pillion-webhook-tls",
	}
	profiles := access{verb: "list", resource: schema.GroupResource{Group: v1alpha1.Group, Resource: "patternprofiles"}}
	for _, identity := range identities() {
		for _, a := range []access{secret, profiles} {
			if err := awaitAllowed(ctx, serviceAccount(identity), a); err != nil {
				return err
			}
		}
	}
	return nil
}

// identities are Pillion's ServiceAccounts.
func identities() []string { return []string{"pillion-webhook", "pillion-controller"} }

func TestEveryRowIsAllowedToTheServiceAccountsToken(t *testing.T) {
	rows := readTable(t)
	for _, identity := range identities() {
		config := configOf(t, identity)
		client := kubernetes.NewForConfigOrDie(config)
		for _, r := range rowsOf(rows, identity) {
			for _, a := range r.accesses() {
				t.Run(identity+" may "+a.String(), func(t *testing.T) {
					review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
						ResourceAttributes: a.attributes(),
					}}
					answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
					if err != nil || !answer.Status.Allowed {
						t.Fatalf("not allowed: %v, %s", err, answer.Status.Reason)
					}
					if err := read(t.Context(), config, a); err != nil && !apierrors.IsNotFound(err) {
						t.Errorf("the request itself: %v", err)
					}
				})
			}
		}
	}
}

// accesses multiplies out what a row permits.
func (r *row) accesses() []access {
	var all []access
	for _, verb := range r.verbs {
		for _, name := range r.names {
			a := access{verb: verb, name: name, namespace: r.namespace, resource: r.resource}
			if a.name == anything {
				a.name = ""
			}
			if a.namespace == anything {
				a.namespace = ""
			}
			all = append(all, a)
		}
	}
	return all
}

// read makes the request if it is a reading one. A name without which nothing can be got is made up.
func read(ctx context.Context, config *rest.Config, a access) error {
	version := "v1"
	if a.resource.Group == v1alpha1.Group {
		version = v1alpha1.GroupVersion.Version
	}
	client := dynamic.NewForConfigOrDie(config).Resource(a.resource.WithVersion(version)).Namespace(a.namespace)
	options := metav1.ListOptions{}
	if a.name != "" {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, a.name).String()
	}
	switch a.verb {
	case "get":
		name := a.name
		if name == "" {
			name = "no-such-object"
		}
		if a.resource.Resource == "patternprofiles" {
			client = dynamic.NewForConfigOrDie(config).Resource(a.resource.WithVersion(version)).Namespace(elsewhere)
		}
		_, err := client.Get(ctx, name, metav1.GetOptions{})
		return err
	case "list":
		_, err := client.List(ctx, options)
		return err
	case "watch":
		watcher, err := client.Watch(ctx, options)
		if err == nil {
			watcher.Stop()
		}
		return err
	}
	return nil
}

// TestNothingButTheTableIsAllowed asks for every verb on every resource.
func TestNothingButTheTableIsAllowed(t *testing.T) {
	rows := readTable(t)
	all := everyAccess(t, rowsOf(rows, identities()...), []string{namespace, selfCheck, elsewhere})
	everyone := allowed(t, serviceAccount("nobody"), all) // what every authenticated client may
	if len(everyone) > 200 {
		t.Fatalf("every client may do %d things: %q", len(everyone), everyone)
	}
	for _, identity := range identities() {
		t.Run(identity, func(t *testing.T) {
			want := append(permitted(rowsOf(rows, identity), all), everyone...)
			slices.Sort(want)
			if diff := cmp.Diff(slices.Compact(want), allowed(t, serviceAccount(identity), all)); diff != "" {
				t.Errorf("(-docs/security.md +authorizer):\n%s", diff)
			}
		})
	}
}

// TestNoOtherPermissionIsByName asks for all rules that hold for the ServiceAccounts' tokens.
func TestNoOtherPermissionIsByName(t *testing.T) {
	rows := readTable(t)
	for _, identity := range identities() {
		client := kubernetes.NewForConfigOrDie(configOf(t, identity))
		found := 0
		for _, in := range []string{namespace, selfCheck, elsewhere} {
			review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}
			answer, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil || answer.Status.Incomplete {
				t.Fatalf("incomplete: %v %s", err, answer.Status.EvaluationError)
			}
			for _, rule := range answer.Status.ResourceRules {
				for _, a := range named(rule, in) {
					found++
					if !slices.ContainsFunc(rowsOf(rows, identity), func(r row) bool { return r.covers(a) }) {
						t.Errorf("%s may %s, which docs/security.md does not say", identity, a)
					}
				}
			}
		}
		if found == 0 {
			t.Errorf("%s has no permissions by name", identity)
		}
	}
}

// named returns what a rule permits by name in a namespace.
func named(rule authorizationv1.ResourceRule, in string) []access {
	var all []access
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range rule.ResourceNames {
				for _, verb := range rule.Verbs {
					all = append(all, access{
						verb: verb, name: name, namespace: in, resource: schema.GroupResource{Group: group, Resource: resource},
					})
				}
			}
		}
	}
	return all
}

func TestNoPathBesideTheAPIIsAllowedThatEveryClientMayNotRead(t *testing.T) {
	paths := []string{
		"/", "/metrics", "/metrics/slis", "/logs", "/debug/pprof/profile", "/debug/flags/v", "/configz", "/api", "/apis",
		"/healthz", "/readyz", "/livez", "/version", "/openapi/v3", "/.well-known/openid-configuration", "/openid/v1/jwks", anything,
	}
	for _, identity := range identities() {
		for _, path := range paths {
			for _, verb := range []string{"get", "post", "put", "delete", anything} {
				want, got := allowedPath(t, serviceAccount("nobody"), verb, path), allowedPath(t, serviceAccount(identity), verb, path)
				if got != want {
					t.Errorf("%s may %s %s: %v, every client: %v", identity, verb, path, got, want)
				}
			}
		}
	}
}

func allowedPath(t *testing.T, who subject, verb, path string) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.user, Groups: who.groups,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: verb, Path: path},
	}}
	answer, err := server.Clientset.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Allowed
}

// TestRequestsOutsideTheTableAreRefused makes real ones.
func TestRequestsOutsideTheTableAreRefused(t *testing.T) {
	configurations := schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"}
	core := func(resource string) schema.GroupResource { return schema.GroupResource{Resource: resource} }
	for _, identity := range identities() {
		for _, a := range []access{
			{verb: "list", resource: core("secrets")},
			{verb: "list", resource: core("secrets"), namespace: namespace},
			{verb: "get", resource: core("secrets"), namespace: elsewhere, name: "pillion-webhook-tls"},
			{verb: "get", resource: core("pods"), namespace: elsewhere, name: "web"},
			{verb: "list", resource: core("services"), namespace: elsewhere},
			{verb: "get", resource: core("secrets"), namespace: selfCheck, name: "pillion-webhook-tls"},
			{verb: "list", resource: core("secrets"), namespace: selfCheck},
			{verb: "list", resource: core("configmaps"), namespace: namespace},
			{verb: "list", resource: configurations},
		} {
			t.Run(identity+" may not "+a.String(), func(t *testing.T) {
				if err := read(t.Context(), configOf(t, identity), a); !apierrors.IsForbidden(err) {
					t.Errorf("%v, want it forbidden", err)
				}
			})
		}
	}
}

func configOf(t *testing.T, identity string) *rest.Config {
	t.Helper()
	config, err := server.ServiceAccountConfig(t.Context(), namespace, identity)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestRolesOfNamespacesHaveWhatTheTableAggregates binds Kubernetes' own roles in one namespace, and for the whole cluster.
func TestRolesOfNamespacesHaveWhatTheTableAggregates(t *testing.T) {
	aggregate(t)
	var all []access
	for _, a := range everyAccess(t, nil, []string{namespace, elsewhere}) {
		if a.resource.Group == v1alpha1.Group {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		t.Fatal("the API server has no resources of Pillion's")
	}
	readProfiles := access{
		verb: "list", namespace: elsewhere, resource: schema.GroupResource{Group: v1alpha1.Group, Resource: "patternprofiles"},
	}
	rows := readTable(t)
	for role, has := range map[string][]row{
		"view": rowsOf(rows, "view"), "edit": rowsOf(rows, "view", "edit"), "admin": rowsOf(rows, "view", "edit", "admin"),
	} {
		t.Run(role+" in a namespace", func(t *testing.T) {
			who := subject{user: "jane-" + role}
			bind(t, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who.user}},
			})
			want := slices.DeleteFunc(permitted(has, all), func(sentence string) bool {
				return !strings.HasSuffix(sentence, `in namespace "`+elsewhere+`"`)
			})
			if err := awaitAllowed(t.Context(), who, readProfiles); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, allowed(t, who, all)); diff != "" || len(want) == 0 {
				t.Errorf("%d permissions (-docs/security.md +authorizer):\n%s", len(want), diff)
			}
		})
		t.Run(role+" in the whole cluster", func(t *testing.T) {
			who := subject{user: "joe-" + role}
			binding := &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "test-" + role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: who.user}},
			}
			if err := server.Client.Create(t.Context(), binding); err != nil {
				t.Fatal(err)
			}
			if err := awaitAllowed(t.Context(), who, readProfiles); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(permitted(has, all), allowed(t, who, all)); diff != "" {
				t.Errorf("(-docs/security.md +authorizer):\n%s", diff)
			}
		})
	}
}

func bind(t *testing.T, binding *rbacv1.RoleBinding) {
	t.Helper()
	if err := server.Client.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
}

// aggregate does what the controller manager, which does not run here, does with ClusterRoles that aggregate others.
func aggregate(t *testing.T) {
	t.Helper()
	roles := &rbacv1.ClusterRoleList{}
	// view first, then edit and admin, which aggregate it.
	for _, name := range []string{"view", "edit", "admin"} {
		if err := server.Client.List(t.Context(), roles); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(roles.Items, func(role rbacv1.ClusterRole) bool { return role.Name == name })
		if i < 0 || roles.Items[i].AggregationRule == nil {
			t.Fatalf("ClusterRole %s aggregates nothing", name)
		}
		role := &roles.Items[i]
		role.Rules = nil
		for _, selector := range role.AggregationRule.ClusterRoleSelectors {
			selects, err := metav1.LabelSelectorAsSelector(&selector)
			if err != nil {
				t.Fatal(err)
			}
			for _, other := range roles.Items {
				if selects.Matches(labels.Set(other.Labels)) {
					role.Rules = append(role.Rules, other.Rules...)
				}
			}
		}
		if err := server.Client.Update(t.Context(), role); err != nil {
			t.Fatal(err)
		}
	}
}
