package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/installation"
)

// commandLine is the pillion binary, and a kubeconfig of the API server's administrator.
type commandLine struct {
	binary, kubeconfig string
}

var buildOnce sync.Mutex

// newCommandLine builds the binary. The build cache makes the second time short.
func newCommandLine(t *testing.T) commandLine {
	t.Helper()
	buildOnce.Lock()
	defer buildOnce.Unlock()
	binary, err := installation.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := apiserver.WriteKubeconfig(server.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return commandLine{binary, kubeconfig}
}

func (c commandLine) run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	command := exec.CommandContext(ctx, c.binary, append(args, "--kubeconfig", c.kubeconfig)...)
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	return out.String(), errs.String(), err
}

// told is what explain says, as far as these tests read it.
type told struct {
	Items []struct {
		Verdict, Summary string
		Advice           string
		Carries          []struct{ Profile, State string }
		Profiles         []struct{ Profile, Reason string }
		Unreadable       []string
		DryRun           *struct {
			Answer      string
			Woven       []struct{ Profile, Revision string }
			Agrees      bool
			Differences []string
		}
		Diff string
	}
}

func (c commandLine) explain(t *testing.T, args ...string) told {
	t.Helper()
	out, errs, err := c.run(t.Context(), append([]string{"explain", "-o", "json"}, args...)...)
	if err != nil || errs != "" {
		t.Fatalf("%q: %v\n%s", args, err, errs)
	}
	var all told
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(all.Items) != 1 {
		t.Fatalf("want one explanation: %s", out)
	}
	return all
}

// bind gives a user ClusterRoles in a namespace.
func bind(t *testing.T, user, namespace string, roles ...string) {
	t.Helper()
	for _, role := range roles {
		create(t, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: user + "." + strings.ReplaceAll(role, ":", ".")},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		})
	}
}

// The roles view and edit are aggregated from these by the controller manager, which does not run here.
func viewRoles() []string { return []string{"system:aggregate-to-view", "pillion-profiles-view"} }
func editRoles() []string { return append(viewRoles(), "system:aggregate-to-edit") }

func TestExplainAgainstTheCluster(t *testing.T) {
	pillionCommand := newCommandLine(t)
	createReady(t, site("explain-site"))
	in := namespace(t, nil)
	_, shop := deployment(t, in, "explain-site")
	running, _ := admit(t, podOf(shop))
	bind(t, "explain-editor", in, editRoles()...)
	bind(t, "explain-viewer", in, viewRoles()...)
	here := func(args ...string) []string { return append(args, "-n", in) }

	t.Run("a Pod that is up to date", func(t *testing.T) {
		item := pillionCommand.explain(t, here("pod/"+running.Name)...).Items[0]
		if item.Verdict != "Woven" || item.Summary != "The Pod carries explain-site. Created today it would get the same." {
			t.Errorf("got %s: %s", item.Verdict, item.Summary)
		}
		if len(item.Carries) != 1 || item.Carries[0].State != "Current" {
			t.Errorf("got %+v", item.Carries)
		}
		for _, want := range []string{"+  - args:", "+    name: pillion-explain-site", "+      name: pillion-explain-site"} {
			if !strings.Contains(item.Diff, want) {
				t.Errorf("want %q in\n%s", want, item.Diff)
			}
		}
		if strings.Contains(item.Diff, "\n-  ") {
			t.Errorf("something is taken away:\n%s", item.Diff)
		}
	})
	t.Run("workloads, and that the API server agrees", func(t *testing.T) {
		for _, name := range []string{"deploy/shop", "rs/shop-1", "deployments.apps/shop"} {
			item := pillionCommand.explain(t, here(name, "--dry-run")...).Items[0]
			if item.Verdict != "Woven" || item.DryRun == nil || !item.DryRun.Agrees {
				t.Errorf("%s: got %s %s %+v", name, item.Verdict, item.Summary, item.DryRun)
			}
			if !strings.Contains(item.Diff, "+      - name: pillion-explain-site") {
				t.Errorf("%s: the diff is\n%s", name, item.Diff)
			}
		}
	})
	t.Run("the same of a Pod that runs", func(t *testing.T) {
		item := pillionCommand.explain(t, here("pod", running.Name, "--dry-run")...).Items[0]
		if item.DryRun == nil || !item.DryRun.Agrees {
			t.Errorf("got %+v", item.DryRun)
		}
	})
	t.Run("settings that the cluster does not have are told", func(t *testing.T) {
		item := pillionCommand.explain(t, here("deploy/shop", "--dry-run", "--excluded-namespaces", in)...).Items[0]
		if item.Verdict != "Unchanged" || item.DryRun.Agrees || len(item.DryRun.Differences) == 0 {
			t.Errorf("got %s, %+v", item.Verdict, item.DryRun)
		}
	})
	t.Run("who may not read ClusterPatternProfiles is told what a dry run tells", func(t *testing.T) {
		for _, name := range []string{"deploy/shop", "pod/" + running.Name} {
			item := pillionCommand.explain(t, here(name, "--as", "explain-editor")...).Items[0]
			if !slices.Equal(item.Unreadable, []string{"the ClusterPatternProfiles"}) || item.DryRun == nil {
				t.Fatalf("%s: got %+v", name, item)
			}
			if item.Verdict != "Woven" || len(item.DryRun.Woven) != 1 || item.DryRun.Woven[0].Profile != "explain-site" || len(item.Profiles) > 0 {
				t.Errorf("%s: got %s %s %+v", name, item.Verdict, item.Summary, item.DryRun)
			}
			if !strings.Contains(item.Diff, "pillion-explain-site") || strings.Contains(item.Diff, "\n-  ") {
				t.Errorf("%s: the diff is\n%s", name, item.Diff)
			}
		}
		pods, err := server.Clientset.CoreV1().Pods(in).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 1 {
			t.Errorf("a dry run leaves a Pod behind: %v", err)
		}
	})
	t.Run("he is told why a Pod is refused", func(t *testing.T) {
		labels := map[string]string{"app": "nosuch"}
		nosuch := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "nosuch"},
			Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{v1alpha1.InjectKey: "explain-sit"}}, Spec: pod(in).Spec,
			}},
		}
		create(t, nosuch)
		item := pillionCommand.explain(t, here("deploy/nosuch", "--as", "explain-editor")...).Items[0]
		if item.Verdict != "Refused" || !strings.Contains(item.Summary, "did you mean explain-site? (ProfileNotAvailable)") {
			t.Errorf("got %s: %s", item.Verdict, item.Summary)
		}
		_, errs, err := pillionCommand.run(t.Context(), here("explain", "deploy/nosuch", "--fail-on-denial")...)
		if err == nil || !strings.Contains(errs, "refused: Deployment nosuch in namespace "+in) {
			t.Errorf("got %v: %s", err, errs)
		}
	})
	t.Run("files against the cluster", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "in.yaml")
		const asks = "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: explain-new}\nspec: {containers: [{name: app}]}\n"
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("apiVersion: v1\nkind: Namespace\nmetadata: {name: explain-new, labels: {pillion.dev/inject: explain-site}}" + asks)
		if item := pillionCommand.explain(t, "-f", file).Items[0]; item.Verdict != "Woven" || item.Summary != "The Pod gets explain-site." {
			t.Errorf("with its namespace: got %s: %s", item.Verdict, item.Summary)
		}
		write(asks)
		_, errs, err := pillionCommand.run(t.Context(), "explain", "-f", file)
		if err == nil || !strings.Contains(errs, "Pod p: there is no namespace explain-new; name another one by --namespace") {
			t.Errorf("without its namespace: got %v: %s", err, errs)
		}
	})
	t.Run("people are told what they may not do", func(t *testing.T) {
		for want, args := range map[string][]string{
			"Deployment shop: you may not read the ClusterPatternProfiles, and you may not create Pods in namespace " + in +
				" (permission: create pods)": {"deploy/shop", "--as", "explain-viewer"},
			"you may not read Deployment shop in namespace " + in + " (permission: get deployments)": {"deploy/shop", "--as", "nobody"},
			"there is no Deployment shoe in namespace " + in + "; name another namespace":            {"deploy/shoe"},
			"there is no namespace " + in + "-2; name another one by --namespace":                    {"deploy/shoe", "-n", in + "-2"},
		} {
			_, errs, err := pillionCommand.run(t.Context(), append([]string{"explain", "-n", in}, args...)...)
			if err == nil || !strings.Contains(errs, want) {
				t.Errorf("want %q, got %v: %s", want, err, errs)
			}
		}
	})
	t.Run("a Pod that is outdated", func(t *testing.T) { // last, as it changes the profile
		change(t, "explain-site", func(profile *v1alpha1.ClusterPatternProfile) { profile.Spec.GitSync.Ref = "v2" })
		item := pillionCommand.explain(t, here("pod/"+running.Name)...).Items[0]
		if item.Summary != "The Pod carries explain-site. Created today it would get another revision of explain-site." {
			t.Errorf("got %s", item.Summary)
		}
		if len(item.Carries) != 1 || item.Carries[0].State != "Outdated" {
			t.Errorf("got %+v", item.Carries)
		}
		if want := "A Pod that runs stays as it is; to create it anew: kubectl rollout restart deployment/shop -n " + in; item.Advice != want {
			t.Errorf("want %q, got %q", want, item.Advice)
		}
	})
	t.Run("a Pod that would be refused by now", func(t *testing.T) {
		change(t, "explain-site", func(profile *v1alpha1.ClusterPatternProfile) {
			profile.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "where"}}
		})
		for _, args := range [][]string{{}, {"--as", "explain-editor"}} {
			item := pillionCommand.explain(t, here(append(args, "pod/"+running.Name)...)...).Items[0]
			if item.Verdict != "Refused" || !strings.HasPrefix(item.Summary, "The Pod carries explain-site. Created today") {
				t.Errorf("%q: got %s: %s", args, item.Verdict, item.Summary)
			}
		}
	})
}
