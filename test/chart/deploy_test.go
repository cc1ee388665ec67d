package chart

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pillion-dev/pillion/test/apiserver"
)

// assets is the folder of kubectl.
func assets() string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	return filepath.Join(root, "bin", "k8s")
}

// kubectl runs kubectl as a cluster admin.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t.Context(), filepath.Join(assets(), "kubectl"), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// documented runs the commands of docs/install.md that stand in a block of code below a heading, in the repository's folder.
func documented(t *testing.T, heading string, index int) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "# "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if !found || len(blocks) <= index {
		t.Fatalf("docs/install.md has no block %d below %q", index, heading)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", blocks[index][1])
	command.Dir = root
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+strings.Join(
		[]string{assets(), filepath.Dir(helmBinary()), os.Getenv("PATH")}, string(os.PathListSeparator)))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s%s", heading, err, blocks[index][1], out)
	}
}

// TestTheBaseIsTheFile: the base of kustomize has what the file has.
func TestTheBaseIsTheFile(t *testing.T) {
	names := func(documents string) (all []string, by map[string]*unstructured.Unstructured) {
		objects, err := apiserver.Read(strings.NewReader(documents))
		if err != nil {
			t.Fatal(err)
		}
		by = map[string]*unstructured.Unstructured{}
		for _, object := range objects {
			key := object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName()
			all, by[key] = append(all, key), object
		}
		slices.Sort(all)
		return all, by
	}
	content, err := os.ReadFile(filepath.Join(root, "deploy", "pillion.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	inFile, file := names(string(content))
	inBase, base := names(kubectl(t, "kustomize", filepath.Join(root, "deploy")))
	if diff := cmp.Diff(inFile, inBase); diff != "" || len(inFile) < 25 {
		t.Fatalf("(-deploy/pillion.yaml +deploy/):\n%s", diff)
	}
	for key := range file {
		if diff := cmp.Diff(file[key].Object, base[key].Object); diff != "" {
			t.Errorf("%s:\n%s", key, diff)
		}
	}
}

// TestKubectlInstalls does what docs/install.md says for those without Helm: it installs, upgrades and uninstalls twice.
func TestKubectlInstalls(t *testing.T) {
	finishNamespaces(t)
	binary := build(t)
	before, err := inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	documented(t, "With kubectl", 0)
	createDefaultAccounts(t, namespace, selfCheck)
	countQuota(t)
	for _, deployment := range []string{"pillion-webhook", "pillion-controller"} {
		createPodOf(t, deployment)
	}
	pillion := startProcesses(t, binary)
	awaitEntries(t)
	weavePod(t)

	pillion.controller.stop(t) // or it could mend what applying again breaks
	mutating, validating, err := entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	documented(t, "With kubectl", 0)
	haveMutating, haveValidating, err := entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(mutating, haveMutating) + cmp.Diff(validating, haveValidating); diff != "" {
		t.Errorf("applying the file again changes entries (-before +after):\n%s", diff)
	}
	documented(t, "Profiles stay", 1)
	pillion.webhook.stop(t)
	left := withoutTests(added(t, before))
	for _, key := range left {
		if !strings.HasPrefix(key, "customresourcedefinitions /") && !strings.HasPrefix(key, "clusterpatternprofiles /") {
			t.Errorf("%s is left", key)
		}
	}
	if !slices.Contains(left, "clusterpatternprofiles /site") {
		t.Errorf("the profile is gone; there are %q", left)
	}

	documented(t, "With kubectl", 0)
	createDefaultAccounts(t, namespace, selfCheck)
	pillion = startProcesses(t, binary)
	awaitEntries(t)
	documented(t, "Everything goes", 0)
	documented(t, "Everything goes", 2)
	pillion.controller.stop(t)
	pillion.webhook.stop(t)
	if left := withoutTests(added(t, before)); len(left) > 0 {
		t.Errorf("it leaves %q", left)
	}
}

// TestMonitoringApplies: deploy/monitoring.yaml beside it.
func TestMonitoringApplies(t *testing.T) {
	finishNamespaces(t)
	createMonitoringKinds(t)
	file := filepath.Join(root, "deploy", "monitoring.yaml")
	kubectl(t, "create", "namespace", namespace)
	kubectl(t, "apply", "--server-side", "-f", file)
	for _, resource := range []string{"servicemonitors", "prometheusrules"} {
		kubectl(t, "get", resource+".monitoring.coreos.com", "pillion", "-n", namespace)
	}
	kubectl(t, "delete", "-f", file)
	removeNamespace(t, namespace)
}
