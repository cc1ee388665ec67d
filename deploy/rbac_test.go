package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// all stands for any name, or the whole cluster.
const all = "*"

// permission is one verb on one object, as far as it can be told: the table's rows and the manifest's rules, multiplied out.
type permission struct {
	Identity, Verb, Resource, Name, Namespace string
}

func TestTheTableOfPermissionsIsWhatIsGranted(t *testing.T) {
	table, granted := tablePermissions(t, "../docs/security.md"), grantedPermissions(t, "rbac.yaml")
	if len(granted) < 40 {
		t.Fatalf("only %d permissions were found in the manifest", len(granted))
	}
	if diff := cmp.Diff(table, granted); diff != "" {
		t.Errorf("(-docs/security.md +deploy/rbac.yaml):\n%s", diff)
	}
}

func TestTheWebhookWritesNothing(t *testing.T) {
	for _, p := range grantedPermissions(t, "rbac.yaml") {
		if p.Identity == "pillion-webhook" && !slices.Contains([]string{"get", "list", "watch"}, p.Verb) {
			t.Errorf("%+v", p)
		}
	}
}

func TestNothingIsGrantedByWildcard(t *testing.T) {
	for _, p := range grantedPermissions(t, "rbac.yaml") {
		if strings.Contains(p.Verb+p.Resource, all) {
			t.Errorf("%+v", p)
		}
	}
}

// tablePermissions reads the rows of the page's table whose header begins with "identity".
func tablePermissions(t *testing.T, file string) []permission {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []permission
	inTable := false
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "identity":
			inTable = true
		case len(cells) != 6:
			inTable = false
		case inTable && !strings.HasPrefix(cells[0], "---"):
			for _, verb := range strings.Split(cells[1], ", ") {
				for _, name := range strings.Split(cells[3], ", ") {
					out = append(out, permission{cells[0], verb, cells[2], name, cells[4]})
				}
			}
		}
	}
	return sorted(out)
}

// grantedPermissions reads what a manifest grants to its ServiceAccounts, and to the roles that it aggregates to.
func grantedPermissions(t *testing.T, file string) []permission {
	t.Helper()
	var out []permission
	roles := map[string][]rbacv1.PolicyRule{}
	objects := decode(t, file)
	for _, object := range objects {
		if object.Kind == "ClusterRole" || object.Kind == "Role" {
			roles[object.Kind+"/"+object.Namespace+"/"+object.Name] = object.Rules
			for _, role := range []string{"admin", "edit", "view"} {
				if object.Labels["rbac.authorization.k8s.io/aggregate-to-"+role] == "true" {
					out = append(out, multiply(role, all, object.Rules)...)
				}
			}
		}
	}
	for _, object := range objects {
		namespace := object.Namespace
		switch object.Kind {
		case "ClusterRoleBinding":
			namespace = all
		case "RoleBinding":
		default:
			continue
		}
		in := object.Namespace
		if object.RoleRef.Kind == "ClusterRole" {
			in = ""
		}
		rules, ok := roles[object.RoleRef.Kind+"/"+in+"/"+object.RoleRef.Name]
		if !ok {
			t.Errorf("%s %s binds %s %s, which is not in the manifest", object.Kind, object.Name, object.RoleRef.Kind, object.RoleRef.Name)
		}
		for _, subject := range object.Subjects {
			if subject.Kind != "ServiceAccount" || subject.Namespace != "pillion-system" {
				t.Errorf("%s %s is for %s %s/%s", object.Kind, object.Name, subject.Kind, subject.Namespace, subject.Name)
			}
			out = append(out, multiply(subject.Name, namespace, rules)...)
		}
	}
	return sorted(out)
}

func multiply(identity, namespace string, rules []rbacv1.PolicyRule) []permission {
	var out []permission
	for _, rule := range rules {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{all}
		}
		for _, group := range rule.APIGroups {
			if group == "" {
				group = "core"
			}
			for _, resource := range rule.Resources {
				for _, name := range names {
					for _, verb := range rule.Verbs {
						out = append(out, permission{identity, verb, group + "/" + resource, name, namespace})
					}
				}
			}
		}
	}
	return out
}

// object is what the manifest's kinds have between them.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Rules    []rbacv1.PolicyRule `json:"rules"`
	RoleRef  rbacv1.RoleRef      `json:"roleRef"`
	Subjects []rbacv1.Subject    `json:"subjects"`
}

func decode(t *testing.T, file string) []object {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	var out []object
	for {
		next := object{}
		if err := decoder.Decode(&next); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, next)
	}
}

func sorted(permissions []permission) []permission {
	slices.SortFunc(permissions, func(a, b permission) int {
		return strings.Compare(
			strings.Join([]string{a.Identity, a.Resource, a.Namespace, a.Name, a.Verb}, " "),
			strings.Join([]string{b.Identity, b.Resource, b.Namespace, b.Name, b.Verb}, " "))
	})
	return permissions
}
