package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/controller"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// heldProfiles are profiles as a controller leaves them that is gone.
const heldProfiles = `apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: v1
kind: Namespace
metadata: {name: db}
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: deleted, finalizers: [pillion.dev/in-use]}
spec: {gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}}
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: free}
spec: {gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}}
---
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: site, finalizers: [pillion.dev/in-use]}
spec: {gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}}
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: cache, namespace: web, finalizers: [pillion.dev/in-use]}
spec: {cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}}
---
apiVersion: pillion.dev/v1alpha1
kind: PatternProfile
metadata: {name: shared, namespace: db, finalizers: [example.com/theirs, pillion.dev/in-use]}
spec: {cacheAmbassador: {protocol: Memcached, local: {memory: 64Mi}}}
`

// abandoned is a cluster with profiles whose controller is gone.
type abandoned struct {
	*apiserver.Server
	admin string // a kubeconfig
}

func abandon(t *testing.T) *abandoned {
	t.Helper()
	a := &abandoned{Server: fixture.Installed(t), admin: filepath.Join(t.TempDir(), "admin")}
	objects, err := apiserver.Read(strings.NewReader(heldProfiles))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := a.Apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range []client.Object{
		&v1alpha1.ClusterPatternProfile{ObjectMeta: metav1.ObjectMeta{Name: "deleted"}},
		&v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: "shared"}},
	} {
		if err := a.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if err := apiserver.WriteKubeconfig(a.Config, a.admin); err != nil {
		t.Fatal(err)
	}
	return a
}

// release runs the command as a cluster admin.
func (a *abandoned) release(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return run(t, nil, "", append([]string{"release", "--kubeconfig", a.admin}, args...)...)
}

// finalizers returns those of a profile, and whether it is there.
func (a *abandoned) finalizers(t *testing.T, kind, namespace, name string) (finalizers []string, isThere bool) {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	err := a.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	return object.GetFinalizers(), err == nil
}

func TestReleaseTakesFinalizersOff(t *testing.T) {
	a := abandon(t)
	const dry = `ClusterPatternProfile deleted: would be released; it was deleted, and would be gone
ClusterPatternProfile free: has no finalizer
ClusterPatternProfile site: would be released
PatternProfile db/shared: would be released; it was deleted, and waits for finalizers of others: example.com/theirs
PatternProfile web/cache: would be released
`
	const wet = `ClusterPatternProfile deleted: released; it was deleted, and is gone
ClusterPatternProfile free: has no finalizer
ClusterPatternProfile site: released
PatternProfile db/shared: released; it was deleted, and waits for finalizers of others: example.com/theirs
PatternProfile web/cache: has no finalizer
`
	steps := []struct {
		name        string
		args        []string
		stdout, err string
	}{
		{name: "a dry run of all", args: []string{"--all", "--dry-run"}, stdout: dry},
		{
			name: "one by its name that is in another namespace", args: []string{"pp/cache"},
			err: "there is no PatternProfile cache in namespace default; name another namespace by --namespace",
		},
		{
			name: "one that there is not, beside one that there is", args: []string{"patternprofile", "cache", "nothing", "-n", "web"},
			stdout: "PatternProfile web/cache: released\n",
			err:    "there is no PatternProfile nothing in namespace web; name another namespace by --namespace",
		},
		{name: "one that has been released", args: []string{"PatternProfile/cache", "-n", "web"}, stdout: "PatternProfile web/cache: has no finalizer\n"},
		{name: "a ClusterPatternProfile that there is not", args: []string{"cpp/nothing"}, err: "there is no ClusterPatternProfile nothing"},
		{name: "those of a namespace", args: []string{"--all", "-n", "web"}, stdout: "PatternProfile web/cache: has no finalizer\n"},
		{name: "those of a namespace without any", args: []string{"--all", "-n", "default"}, stdout: "There are no profiles.\n"},
		{name: "all", args: []string{"--all"}, stdout: wet},
		{
			name: "what another waits for", args: []string{"pp/shared", "-n", "db"},
			stdout: "PatternProfile db/shared: has only finalizers of others: example.com/theirs\n",
		},
	}
	for i, step := range steps {
		stdout, stderr, err := a.release(t, step.args...)
		if stdout != step.stdout || stderr != "" || message(err) != step.err {
			t.Fatalf("%s: got %q, %q, %v; want %q, %s", step.name, stdout, stderr, err, step.stdout, step.err)
		}
		held, isThere := a.finalizers(t, "ClusterPatternProfile", "", "deleted")
		if wasReleased := i >= 7; isThere == wasReleased || len(held) > 0 == wasReleased {
			t.Fatalf("after %s the deleted profile is there: %t, with %v", step.name, isThere, held)
		}
	}
	if held, isThere := a.finalizers(t, "ClusterPatternProfile", "", "site"); !isThere || len(held) > 0 {
		t.Errorf("site is there: %t, with %v: nobody has deleted it", isThere, held)
	}
	if held, _ := a.finalizers(t, "PatternProfile", "db", "shared"); len(held) != 1 || held[0] != "example.com/theirs" {
		t.Errorf("shared has %v left: the finalizer of another is not Pillion's to take off", held)
	}
}

func TestReleaseForPrograms(t *testing.T) {
	a := abandon(t)
	stdout, stderr, err := a.release(t, "--all", "--dry-run", "-o", "json")
	list := struct {
		Kind     string
		DryRun   bool
		Profiles []released
	}{}
	if err != nil || stderr != "" || json.Unmarshal([]byte(stdout), &list) != nil {
		t.Fatal(stdout, stderr, err)
	}
	if list.Kind != "ReleaseList" || !list.DryRun || len(list.Profiles) != 5 || !list.Profiles[0].Released || !list.Profiles[0].Deleted ||
		list.Profiles[1].Released || len(list.Profiles[3].Finalizers) != 1 {
		t.Errorf("%+v", list)
	}
}

// TestReleaseEndsWhatWaits: with the definitions deleted, and no controller, everything waits for the finalizers.
func TestReleaseEndsWhatWaits(t *testing.T) {
	a := abandon(t)
	shared := client.ObjectKey{Namespace: "db", Name: "shared"}
	other := &v1alpha1.PatternProfile{ObjectMeta: metav1.ObjectMeta{Namespace: shared.Namespace, Name: shared.Name}}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"finalizers": ["pillion.dev/in-use"]}}`))
	if err := a.Client.Patch(t.Context(), other, patch); err != nil {
		t.Fatal(err)
	}
	names := []string{"clusterpatternprofiles.pillion.dev", "patternprofiles.pillion.dev"}
	definition := func(name string) *metav1.PartialObjectMetadata {
		d := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
		d.APIVersion, d.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
		return d
	}
	for _, name := range names {
		if err := a.Client.Delete(t.Context(), definition(name)); err != nil {
			t.Fatal(err)
		}
	}
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { // all profiles are deleted by then
		stdout, _, err := a.release(t, "--all", "--dry-run")
		return strings.Count(stdout, "would be gone") == 4, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.release(t, "--all"); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		err := apiserver.Await(t.Context(), func(ctx context.Context) (bool, error) {
			err := a.Client.Get(ctx, client.ObjectKey{Name: name}, definition(name))
			return apierrors.IsNotFound(err), err
		})
		if err != nil {
			t.Errorf("definition %s stays: %v", name, err)
		}
	}
	for args, want := range map[string]string{
		"--all": "", "cpp/site": "there is no ClusterPatternProfile site: this cluster does not know Pillion's kinds",
	} {
		err := apiserver.Await(t.Context(), func(context.Context) (bool, error) { // what discovery says lags
			_, _, err := a.release(t, args)
			return message(err) == want, err
		})
		if err != nil {
			t.Errorf("%s where there are no profiles any more: %v", args, err)
		}
	}
}

func TestReleaseRefusesBesideAController(t *testing.T) {
	a := abandon(t)
	const refused = "which takes the finalizer off by itself"
	pod := a.startController(t)
	_, stderr, err := a.release(t, "--all")
	if !strings.Contains(message(err), "a controller runs (Pod pillion-system/pillion-controller-x), "+refused) || stderr != "" {
		t.Errorf("beside a controller: %v, %s", err, stderr)
	}
	stdout, stderr, err := a.release(t, "--all", "--dry-run")
	if err != nil || !strings.Contains(stdout, "would be released") ||
		!strings.HasPrefix(stderr, "warning: without --dry-run this is refused: a controller runs (Pod ") {
		t.Errorf("a dry run beside a controller: %q, %q, %v", stdout, stderr, err)
	}
	if stdout, _, err := a.release(t, "pp/cache", "-n", "web", "--force"); err != nil || stdout != "PatternProfile web/cache: released\n" {
		t.Errorf("by force: %q, %v", stdout, err)
	}

	// It is told to end, and ends a little later.
	if err := a.Client.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	time.AfterFunc(time.Second, func() { ended <- a.Client.Delete(context.Background(), pod, client.GracePeriodSeconds(0)) })
	stdout, stderr, err = a.release(t, "cpp/deleted")
	if err != nil || stdout != "ClusterPatternProfile deleted: released; it was deleted, and is gone\n" ||
		stderr != "waiting for the end of Pod pillion-system/pillion-controller-x\n" {
		t.Errorf("while a controller ends: %q, %q, %v", stdout, stderr, err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	// One outside of the cluster has a Lease alone.
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: controller.LeaseName}}
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: new("laptop"), LeaseDurationSeconds: new(int32(3)), RenewTime: &metav1.MicroTime{Time: time.Now()},
	}
	if err := a.Client.Create(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err = a.release(t, "cpp/site")
	if err != nil || stdout != "ClusterPatternProfile site: released\n" ||
		stderr != "waiting for the end of laptop, who holds Lease pillion-system/pillion-controller\n" {
		t.Errorf("while a Lease lasts whose holder was killed: %q, %q, %v", stdout, stderr, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	renewing := make(chan error, 1)
	renew := func() error {
		lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = new(int32(60)), &metav1.MicroTime{Time: time.Now()}
		return a.Client.Update(context.WithoutCancel(ctx), lease)
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				renewing <- nil
				return
			case <-time.After(100 * time.Millisecond):
			}
			if err := renew(); err != nil {
				renewing <- err
				return
			}
		}
	}()
	_, _, err = a.release(t, "cpp/site")
	stop()
	if !strings.Contains(message(err), "a controller runs (laptop, who holds Lease pillion-system/pillion-controller), "+refused) {
		t.Errorf("while a Lease is renewed: %v", err)
	}
	if err := <-renewing; err != nil {
		t.Fatal(err)
	}
	lease.Spec.HolderIdentity = new("")
	if err := a.Client.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := a.release(t, "cpp/site"); err != nil || stderr != "" {
		t.Errorf("when the Lease is given up: %v, %s", err, stderr)
	}
}

// startController makes a Pod of a controller as a node would run it.
func (a *abandoned) startController(t *testing.T) *corev1.Pod {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: "default"}}
	if err := a.Client.Create(t.Context(), account); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pillion-system", Name: "pillion-controller-x", Labels: map[string]string{
			"app.kubernetes.io/name": "pillion", "app.kubernetes.io/component": "controller",
		}},
		Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{
			Name: "controller", Image: "registry.example.com/pillion:1", SecurityContext: &corev1.SecurityContext{
				RunAsNonRoot: new(true), AllowPrivilegeEscalation: new(false),
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
		}}},
	}
	if err := a.Client.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// TestReleaseByATenant: who may change the PatternProfiles of a namespace cannot see whether a controller runs.
func TestReleaseByATenant(t *testing.T) {
	a := abandon(t)
	tenant := filepath.Join(t.TempDir(), "tenant")
	if err := apiserver.WriteKubeconfig(tenantOf(t, a.Server), tenant); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, nil, "", "release", "pp/cache", "-n", "web", "--kubeconfig", tenant)
	if !strings.Contains(message(err), "you may not see whether a controller runs (permission: list pods and leases in all namespaces)") {
		t.Error(err)
	}
	force := []string{"release", "pp/cache", "-n", "web", "--force", "--kubeconfig", tenant}
	if _, _, err := run(t, nil, "", force...); !strings.Contains(message(err), "release PatternProfile web/cache: ") ||
		!apierrors.IsForbidden(err) {
		t.Errorf("without the permission to change profiles: %v", err)
	}
	role := &rbacv1.Role{}
	if err := a.Client.Get(t.Context(), client.ObjectKey{Namespace: "web", Name: "tenant"}, role); err != nil {
		t.Fatal(err)
	}
	role.Rules[0].Verbs = append(role.Rules[0].Verbs, "patch")
	if err := a.Client.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	err = apiserver.Await(t.Context(), func(context.Context) (bool, error) { // the authorizer sees it a moment later
		_, _, err := run(t, nil, "", force...)
		return err == nil, err
	})
	if held, _ := a.finalizers(t, "PatternProfile", "web", "cache"); err != nil || len(held) > 0 {
		t.Errorf("with it: %v, %v", held, err)
	}
}

func TestReleaseSaysWhatToWrite(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"nothing": {nil, "nothing is named: write TYPE/NAME, for example clusterpatternprofile/site, or --all for every profile"},
		"both":    {[]string{"cpp/site", "--all"}, "--all is every profile: leave out either --all or the names"},
		"a name without a type": {
			[]string{"site"}, `"site" names no object: write it as TYPE/NAME, for example clusterpatternprofile/site`,
		},
		"a type alone": {[]string{"cpp"}, "cpp is not enough: name the object too, as in cpp/NAME"},
		"another type": {
			[]string{"deploy/site"}, `"deploy" is no type of profiles: write clusterpatternprofile or patternprofile`,
		},
		"a type without a name": {
			[]string{"pp/"}, `"pp/" names no object: write it as TYPE/NAME, for example clusterpatternprofile/site`,
		},
		"an output that there is not": {
			[]string{"--all", "-o", "xml"}, `--output "xml" is unknown; write one of text, json, yaml`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, _, err := run(t, nil, "", append([]string{"release"}, test.args...)...); message(err) != test.want {
				t.Error(err)
			}
		})
	}
}
