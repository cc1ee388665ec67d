package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
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
		meta.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: "owner", Controller: new(true)}}
		return meta
	}
	finished := batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}
	tests := map[string]struct {
		object client.Object
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
			object: &appsv1.ReplicaSet{ObjectMeta: shop, Spec: appsv1.ReplicaSetSpec{Template: asking, Replicas: new(int32(0))}},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"a ReplicaSet of a Deployment, which speaks for it": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Deployment"), Spec: appsv1.ReplicaSetSpec{Template: asking}},
		},
		"a ReplicaSet of something else": {
			object: &appsv1.ReplicaSet{ObjectMeta: ownedBy("Rollout"), Spec: appsv1.ReplicaSetSpec{Template: asking}},
			wantIn: []string{"ReplicaSet shop/web"},
		},
		"an old ReplicaSet of something else": {
			object: &appsv1.ReplicaSet{
				ObjectMeta: ownedBy("Rollout"), Spec: appsv1.ReplicaSetSpec{Template: asking, Replicas: new(int32(0))},
			},
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
			for _, of := range []struct {
				namespace string
				want      []string
			}{{"", test.want}, {"shop", test.wantIn}} {
				found, err := f.finder.find(t.Context(), snapshot, snapshot.Profile(of.namespace, "a"))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(of.want, found.asking); diff != "" {
					t.Errorf("namespace %q (-want +got):\n%s", of.namespace, diff)
				}
			}
		})
	}
}

func TestItIsKnownWhoAsksOnlyWhenPodsAreKnown(t *testing.T) {
	f, snapshot := finderOf(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "another"}})
	served := snapshot.Profile("shop", "a")
	if found, err := f.finder.find(t.Context(), snapshot, served); err != nil || found.counted || !found.any() {
		t.Errorf("%+v, %v", found, err)
	}
	f.pods.index = newPodIndex()
	if found, err := f.finder.find(t.Context(), snapshot, served); err != nil || !found.counted || found.any() {
		t.Errorf("%+v, %v", found, err)
	}
	pod := wovenPod("shop", "web", `{"a":{"revision":"1"}}`)
	pod.Annotations[v1alpha1.InjectKey] = "a"
	pod.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "example.com/v1", Kind: "Rollout", Name: "web", Controller: new(true),
	}}
	f.pods.index.put(pod)
	found, err := f.finder.find(t.Context(), snapshot, served)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Rollout shop/web"}, found.asking); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// finderOf has an object in a cluster of the profiles a, of the cluster for team web, and a, of namespace shop.
func finderOf(t *testing.T, object client.Object) (*fixture, *profiles.Snapshot) {
	t.Helper()
	team := map[string]string{"team": "web"}
	cluster := gitSyncProfile(withoutMatch(clusterProfile("a", "", "", "")))
	cluster.Spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: team}
	namespaced := namespacedProfile("shop", "a", "")
	namespaced.Spec.GitSync = gitSync()
	f := newFixture(t, func(err error) error { return err }, object, cluster, &namespaced,
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
