package controller

import (
	"cmp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

func TestWhoAsksIsFound(t *testing.T) {
	asking := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.InjectKey: "other, a"}}}
	declining := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.InjectKey: "none"}}}
	shop := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	in := func(namespace string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: "web"} }
	ownedBy := func(kind string) metav1.ObjectMeta {
		meta := shop
		meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "owner", Controller: new(true)}}
		return meta
	}
	owner := metav1.ObjectMeta{Namespace: "shop", Name: "owner"}
	strangers := ownedBy("Deployment")
	strangers.OwnerReferences[0].APIVersion = "example.com/v1"
	replicas := func(number int32) appsv1.ReplicaSetSpec {
		return appsv1.ReplicaSetSpec{Template: asking, Replicas: &number}
	}
	finished := batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}
	tests := map[string]struct {
		object client.Object
		other  client.Object // may be there, too
		// want is who asks for ClusterPatternProfile a, wantIn for PatternProfile shop/a.
		want, wantIn []string
	}{
		"a Deployment": {
			object: &appsv1.Deployment{ObjectMeta: in("blog"), Spec: appsv1.DeploymentSpec{Template: asking}},
			want:   []string{"Deployment blog/web"},
		},
		"a Deployment where the namespace has its own": {
			object: &appsv1.Deployment{ObjectMeta: shop, Spec: appsv1.DeploymentSpec{Template: asking}},
			wantIn: []string{"Deployment shop/web"},
		},
		"a Deployment where the profile may not be used": {
			object: &appsv1.Deployment{ObjectMeta: in("strange"), Spec: appsv1.DeploymentSpec{Template: asking}},
		},
		"a Deployment in a namespace that is about to go": {
			object: &appsv1.Deployment{ObjectMeta: in("going"), Spec: appsv1.DeploymentSpec{Template: asking}},
		},
		"a Deployment in an excluded namespace": {
			object: &appsv1.Deployment{ObjectMeta: in("kube-system"), Spec: appsv1.DeploymentSpec{Template: asking}},
		},
		"a Deployment that declines": {
			object: &appsv1.Deployment{ObjectMeta: shop, Spec: appsv1.DeploymentSpec{Template: declining}},
		},
		"a Deployment that does not say": {object: &appsv1.Deployment{ObjectMeta: shop}},
		"a StatefulSet": {
			object: &appsv1.StatefulSet{ObjectMeta: shop, Spec: appsv1.StatefulSetSpec{Template: asking}},
			wantIn: []string{"StatefulSet shop/web"},
		},
		"a DaemonSet": {
			object: &appsv1.DaemonSet{ObjectMeta: shop, Spec: appsv1.DaemonSetSpec{Template: asking}},
			wantIn: []string{"DaemonSet shop/web"},
		},
		"a ReplicaSet of its own": {
			object: &appsv1.ReplicaSet{ObjectMeta: shop, Spec: replicas(0)},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"a ReplicaSet of a Deployment that asks too, which speaks for both": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Deployment"), Spec: replicas(3)},
			other:  &appsv1.Deployment{ObjectMeta: owner, Spec: appsv1.DeploymentSpec{Template: asking}},
			wantIn: []string{"Deployment shop/owner"},
		},
		"an old ReplicaSet of a Deployment that does not ask any more, which still runs": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Deployment"), Spec: replicas(10)},
			other:  &appsv1.Deployment{ObjectMeta: owner},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"an old ReplicaSet of a Deployment, which runs one Pod unless it says otherwise": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Deployment"), Spec: appsv1.ReplicaSetSpec{Template: asking}},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"an old ReplicaSet of a Deployment that runs no more": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Deployment"), Spec: replicas(0)},
		},
		"a ReplicaSet of another group's Deployment, and a Deployment of its name": {
			object: &appsv1.ReplicaSet{ObjectMeta: strangers, Spec: replicas(3)},
			other:  &appsv1.Deployment{ObjectMeta: owner, Spec: appsv1.DeploymentSpec{Template: asking}},
			wantIn: []string{"Deployment shop/owner", "ReplicaSet shop/web"},
		},
		"a ReplicaSet of something else": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Rollout"), Spec: appsv1.ReplicaSetSpec{Template: asking}},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"an old ReplicaSet of something else": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Rollout"), Spec: replicas(0)},
		},
		"a Job": {
			object: &batchv1.Job{ObjectMeta: shop, Spec: batchv1.JobSpec{Template: asking}}, wantIn: []string{"Job shop/web"},
		},
		"a Job that has finished": {
			object: &batchv1.Job{ObjectMeta: shop, Spec: batchv1.JobSpec{Template: asking}, Status: finished},
		},
		"a CronJob": {
			object: &batchv1.CronJob{ObjectMeta: shop, Spec: batchv1.CronJobSpec{
				JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: asking}},
			}},
			wantIn: []string{"CronJob shop/web"},
		},
		"a namespace": {
			object: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: "labeled", Labels: map[string]string{v1alpha1.InjectKey: "a.other", "team": "web"},
			}},
			want: []string{"Namespace labeled"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, snapshot := finderOf(t, test.object)
			if test.other != nil {
				if err := f.client.Create(t.Context(), test.other); err != nil {
					t.Fatal(err)
				}
			}
			f.pods.index = newPodIndex()
			for _, of := range []struct {
				namespace string
				want      []string
			}{{"", test.want}, {"shop", test.wantIn}} {
				f.finder.last = nil
				found, _ := f.finder.find(t.Context(), snapshot, snapshot.Profile(of.namespace, "a"))
				if found.err != nil || !found.counted || found.number != len(of.want) {
					t.Errorf("%+v", found)
				}
				if diff := gocmp.Diff(of.want, found.asking); diff != "" {
					t.Errorf("namespace %q (-want +got):\n%s", of.namespace, diff)
				}
			}
		})
	}
}

func TestItIsKnownWhoAsksOnlyWhenPodsAreKnown(t *testing.T) {
	f, snapshot := finderOf(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "another"}})
	served := snapshot.Profile("shop", "a")
	live := countLists(f)
	if found, again := f.finder.find(t.Context(), snapshot, served); found.counted || !found.any() || again != f.finder.recheck {
		t.Errorf("%+v, again after %s", found, again)
	}
	if live.lists != 0 {
		t.Errorf("workloads were listed %d times in vain", live.lists)
	}
	f.pods.index = newPodIndex()
	if found, _ := f.finder.find(t.Context(), snapshot, served); !found.counted || found.any() {
		t.Errorf("%+v", found)
	}
}

func TestPodsThatRunKeepAProfileForTheirOwner(t *testing.T) {
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.InjectKey: "a"}}}
	shop := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	deployment := &appsv1.Deployment{ObjectMeta: shop, Spec: appsv1.DeploymentSpec{Template: template}}
	replicaSet := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment")),
		}},
		Spec: appsv1.ReplicaSetSpec{Template: template, Replicas: new(int32(0))},
	}
	tests := map[string]struct {
		objects                      []client.Object
		namespace, kind, owner, asks string
		want                         []string
	}{
		"of a kind that is not looked at": {kind: "Rollout", owner: "web", asks: "a", want: []string{"Rollout shop/web"}},
		"of an older revision of a StatefulSet that does not ask any more": {
			objects: []client.Object{&appsv1.StatefulSet{ObjectMeta: shop}},
			kind:    "StatefulSet", owner: "web", asks: "a", want: []string{"StatefulSet shop/web"},
		},
		"of a StatefulSet that asks too, which is named once": {
			objects: []client.Object{&appsv1.StatefulSet{ObjectMeta: shop, Spec: appsv1.StatefulSetSpec{Template: template}}},
			kind:    "StatefulSet", owner: "web", asks: "a", want: []string{"StatefulSet shop/web"},
		},
		"of a ReplicaSet of a Deployment that asks too, which speaks for them": {
			objects: []client.Object{deployment.DeepCopy(), replicaSet.DeepCopy()},
			kind:    "ReplicaSet", owner: "web-1", asks: "a", want: []string{"Deployment shop/web"},
		},
		"of a ReplicaSet that is gone":         {kind: "ReplicaSet", owner: "web", asks: "a", want: []string{"ReplicaSet shop/web"}},
		"that ask for something else":          {kind: "Rollout", owner: "web", asks: "b"},
		"in an excluded namespace":             {namespace: "kube-system", kind: "Rollout", owner: "web", asks: "a"},
		"of nobody, who are not created again": {asks: "a"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, snapshot := finderOf(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "another"}})
			for _, object := range test.objects {
				if err := f.client.Create(t.Context(), object); err != nil {
					t.Fatal(err)
				}
			}
			pod := wovenPod(cmp.Or(test.namespace, "shop"), "web-1-x", `{"a":{"revision":"1"}}`)
			pod.Annotations[v1alpha1.InjectKey] = test.asks
			if test.kind != "" {
				pod.OwnerReferences = []metav1.OwnerReference{{
					APIVersion: "example.com/v1", Kind: test.kind, Name: test.owner, Controller: new(true),
				}}
			}
			f.pods.index = newPodIndex()
			f.pods.index.put(pod)
			found, _ := f.finder.find(t.Context(), snapshot, snapshot.Profile("shop", "a"))
			if diff := gocmp.Diff(test.want, found.asking); diff != "" || !found.counted {
				t.Errorf("counted: %t (-want +got):\n%s", found.counted, diff)
			}
		})
	}
}

func TestOfManyWhoAskSomeAreNamed(t *testing.T) {
	team := map[string]string{"team": "web"}
	f, snapshot := finderOf(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "blue", Labels: team}})
	for _, namespace := range []string{"blue", "blog"} {
		for i := range 6 {
			if err := f.client.Create(t.Context(), deploymentIn(namespace, string(rune('a'+i)), "a")); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.pods.index = newPodIndex()
	found, _ := f.finder.find(t.Context(), snapshot, snapshot.Profile("", "a"))
	const want = "12 still ask for the profile: Deployment blog/a, Deployment blog/b, Deployment blog/c, Deployment blog/d, " +
		"Deployment blog/e and 7 more."
	if got := found.verdict().message; got != want {
		t.Error(got)
	}
}

// finderOf has an object in a cluster of the profiles a, of the cluster for team web, and a, of namespace shop.
func finderOf(t *testing.T, object client.Object) (*fakeCluster, *profiles.Snapshot) {
	t.Helper()
	team := map[string]string{"team": "web"}
	cluster := gitSyncProfile(withoutMatch(clusterProfile("a", "", "", "")))
	cluster.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: team}
	namespaced := namespacedProfile("shop", "a", "")
	namespaced.Spec.GitSync = gitSync()
	f := newFakeCluster(t, func(err error) error { return err }, object, cluster, &namespaced,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: team}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "blog", Labels: team}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: team}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strange"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "going", Labels: team, Finalizers: []string{"kubernetes"}, DeletionTimestamp: new(metav1.Now()),
		}})
	f.settle(t)
	return f, f.catalog.current()
}

// Who reads the files of a profile needs it, and nobody need ask for it.
func TestADeletedProfileIsKeptForThoseThatReadItsFiles(t *testing.T) {
	site := gitSyncProfile(withoutMatch(clusterProfile("site", "", "", "")))
	site.Finalizers, site.Generation = []string{v1alpha1.InUseFinalizer}, 1
	reader := withoutMatch(clusterProfile("conf", "", "", ""))
	reader.Spec.TemplateProcessor = &v1alpha1.TemplateProcessor{
		MountPath: "/etc/app", Templates: v1alpha1.TemplateSource{GitSync: &v1alpha1.TemplateGitSync{Profile: "site", Path: "conf"}},
	}
	f := newFakeCluster(t, func(err error) error { return err }, site, &reader)
	f.pods.index = newPodIndex()
	if err := f.client.Delete(t.Context(), site); err != nil {
		t.Fatal(err)
	}
	f.settle(t)
	f.reconcile(t, f.reconcileCluster, site)
	condition := meta.FindStatusCondition(f.cluster(t, "site").Status.Conditions, v1alpha1.ConditionInUse)
	if condition == nil || condition.Reason != ReasonReadBy || !strings.Contains(condition.Message, "ClusterPatternProfile conf") {
		t.Errorf("%+v", condition)
	}
	if err := f.client.Delete(t.Context(), &reader); err != nil {
		t.Fatal(err)
	}
	f.settle(t)
	f.reconcile(t, f.reconcileCluster, site)
	if err := f.client.Get(t.Context(), client.ObjectKeyFromObject(site), site); !apierrors.IsNotFound(err) {
		t.Errorf("it stays: %v", err)
	}
}
