package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apimachineryruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// What 100,000 Pods may take: maxPodsHeap at any moment, garbage included, and maxPodsKept of it for good. The whole process is
// to stay within 150 MiB.
const (
	maxPodsHeap = 80 << 20
	maxPodsKept = 20 << 20
)

func TestTheCountsOf100000PodsAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("lists 100,000 Pods")
	}
	tests := map[string]func(*metav1.PartialObjectMetadata, int){
		"of 1,000 ReplicaSets": func(*metav1.PartialObjectMetadata, int) {},
		"each of its own owner, whose name is the beginning of the Pod's": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.OwnerReferences[0].Name = pod.Name[:len(pod.Name)-1]
		},
		"each of its own owner, whose name is another": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.OwnerReferences[0] = metav1.OwnerReference{
				APIVersion: "tekton.dev/v1", Kind: "TaskRun", Name: fmt.Sprintf("build-the-shop-and-test-it-%d", i), Controller: new(true),
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			served := &manyPods{number: 100_000, change: change}
			before := heap(true)
			counter := startCounter(t, served)
			peak := uint64(0)
			err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
				peak = max(peak, heap(false))
				counts := counter.of("", "site", "new")
				return counts != nil && *counts == v1alpha1.PodCounts{Current: 50_000, Outdated: 50_000}, fmt.Errorf("counts %+v", counts)
			})
			if err != nil {
				t.Fatal(err)
			}
			kept := heap(true)
			t.Logf("%d MiB at most, %d MiB kept", (peak-min(peak, before))>>20, (kept-min(kept, before))>>20)
			if peak > before && peak-before > maxPodsHeap {
				t.Errorf("the heap grew by %d MiB", (peak-before)>>20)
			}
			if kept > before && kept-before > maxPodsKept {
				t.Errorf("%d MiB are kept", (kept-before)>>20)
			}
			if largest := served.largest.Load(); largest != podPage {
				t.Errorf("pages of %d Pods", largest)
			}
			runtime.KeepAlive(counter)
		})
	}
}

func TestForgedMarksAreSmall(t *testing.T) {
	const pods, length, bound = 200, 250 << 10, 8 << 20
	tests := map[string]func(pod *metav1.PartialObjectMetadata, i int){
		"a mark of very many profiles": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectedKey] = forgedMark(20_000, i)
		},
		"as many profiles as are read": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectedKey] = forgedMark(5_000, i)
		},
		"a mark in very many annotations": func(pod *metav1.PartialObjectMetadata, i int) {
			for j := range 2_000 {
				pod.Annotations[v1alpha1.InjectedKey+"."+strconv.Itoa(j)] = forgedMark(1, 2_000*i+j)
			}
		},
		"a mark with one long revision": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectedKey] = fmt.Sprintf(`{"a":{"revision":"%d%s"}}`, i, strings.Repeat("x", profiles.MaxMarkBytes/2))
		},
		"a request with one name in much space": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectKey] = strconv.Itoa(i) + strings.Repeat(" ", length)
		},
		"a request for very many names": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectKey] = strconv.Itoa(i) + strings.Repeat(",a", length/2)
		},
		"an owner with a long name": func(pod *metav1.PartialObjectMetadata, i int) {
			pod.Annotations[v1alpha1.InjectKey] = "a"
			pod.OwnerReferences[0].Name = strconv.Itoa(i) + strings.Repeat("x", length)
		},
	}
	for name, forge := range tests {
		t.Run(name, func(t *testing.T) {
			before := heap(true)
			index := newPodIndex()
			for i := range pods {
				pod := wovenPod("evil", strconv.Itoa(i), "{}")
				pod.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: strconv.Itoa(i), Controller: new(true)}}
				forge(pod, i)
				index.put(pod)
			}
			if kept := heap(true); kept > before+bound {
				t.Errorf("%d MiB are kept", (kept-before)>>20)
			}
			if len(index.pods) != pods {
				t.Errorf("%d Pods", len(index.pods))
			}
			runtime.KeepAlive(index)
		})
	}
}

func TestAListThatExpiresBeginsAnew(t *testing.T) {
	served := &manyPods{number: 2*podPage + 1, expires: true}
	counter := startCounter(t, served)
	err := apiserver.Await(t.Context(), func(context.Context) (bool, error) {
		counts := counter.of("", "site", "new")
		return counts != nil && counts.Current+counts.Outdated == 2*podPage+1, fmt.Errorf("counts %+v", counts)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestChangesOfPodsAreToldTogether(t *testing.T) {
	var told [][]types.NamespacedName
	knows := false
	counter := newPodCounter(nil, func(_ context.Context, changed []types.NamespacedName) bool {
		if knows {
			told = append(told, changed)
		}
		return knows
	})
	store := (*podStore)(counter)
	counter.listed = newPodIndex()
	if err := store.Replace(nil, "1"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := store.Add(wovenPod("shop", strconv.Itoa(i), `{"site":{"revision":"1"}}`)); err != nil {
			t.Fatal(err)
		}
	}
	counter.flush(t.Context()) // nobody knows yet what they are
	knows = true
	counter.flush(t.Context())
	counter.flush(t.Context())
	if err := store.Delete(wovenPod("shop", "0", "")); err != nil {
		t.Fatal(err)
	}
	counter.flush(t.Context())
	// Once they have been listed of all, also of those that no Pod carries.
	if diff := cmp.Diff([][]types.NamespacedName{nil, {{Name: "site"}}}, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := store.Add("nonsense"); err == nil {
		t.Error("a string was taken for a Pod")
	}
}

func TestPodsThatAreGoneWhenTheListIsReadAgainAreNotCounted(t *testing.T) {
	counter := newPodCounter(nil, nil)
	for _, names := range [][]string{{"a", "b", "c"}, {"b"}} {
		counter.listed = newPodIndex()
		for _, name := range names {
			counter.listed.put(wovenPod("shop", name, `{"site":{"revision":"new"}}`))
		}
		if err := (*podStore)(counter).Replace(nil, ""); err != nil {
			t.Fatal(err)
		}
		if got := counter.of("", "site", "new"); got.Current != int32(len(names)) {
			t.Errorf("%d of %q", got.Current, names)
		}
	}
	if !counter.anew {
		t.Error("it is not told")
	}
}

func TestNumbersFromBeforeARestartAreMendedWhereNoPodIsLeft(t *testing.T) {
	profile := gitSyncProfile(withoutMatch(clusterProfile("a", "", "", "")))
	namespaced := namespacedProfile("shop", "a", "")
	namespaced.Spec.GitSync = gitSync()
	f := newFakeCluster(t, func(err error) error { return err }, profile, &namespaced)
	f.pods.index = newPodIndex()
	f.pods.index.put(wovenPod("shop", "web", `{"a":{"revision":"1"}}`))
	f.pods.index.put(wovenPod("shop", "own", `{"a":{"revision":"1","namespace":"shop"}}`))
	f.settle(t)
	f.reconcile(t, f.reconcileCluster, profile)
	f.reconcile(t, f.reconcileNamespaced, &namespaced)
	if got := f.cluster(t, "a").Status.Pods; got == nil || got.Outdated != 1 {
		t.Fatalf("%+v", got)
	}
	f.settle(t)
	told(f.catalog)

	counter := newPodCounter(nil, f.catalog.tellCounts) // of the new process
	f.pods, f.finder.pods = counter, counter
	f.reconcile(t, f.reconcileCluster, profile) // as long as the Pods are not listed
	counter.listed = newPodIndex()
	if err := (*podStore)(counter).Replace(nil, "1"); err != nil {
		t.Fatal(err)
	}
	counter.flush(t.Context())
	if diff := cmp.Diff([]string{"a", "shop/a"}, told(f.catalog)); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
	f.reconcile(t, f.reconcileCluster, profile)
	if got := f.cluster(t, "a").Status.Pods; got == nil || *got != (v1alpha1.PodCounts{}) {
		t.Errorf("status.pods is %+v", got)
	}
}

// heap returns the size of the heap; with collection, of what is reachable.
func heap(collect bool) uint64 {
	if collect {
		debug.FreeOSMemory()
	}
	stats := runtime.MemStats{}
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}

// startCounter runs a podCounter on an API server that has nothing but Pods.
func startCounter(t *testing.T, served http.Handler) *podCounter {
	t.Helper()
	server := httptest.NewServer(served)
	t.Cleanup(server.Close)
	config := metadata.ConfigFor(&rest.Config{Host: server.URL, QPS: -1})
	client, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	counter := newPodCounter(client, func(context.Context, []types.NamespacedName) bool { return true })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- counter.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return counter
}

// manyPods serves the metadata of Pods of 1,000 workloads, half of which have been woven with revision "new" of profile site.
type manyPods struct {
	number  int
	expires bool // the second page, once
	change  func(pod *metav1.PartialObjectMetadata, i int)

	expired atomic.Bool
	largest atomic.Int64
}

func (m *manyPods) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	if request.URL.Path != "/api/v1/pods" || query.Get("labelSelector") != "pillion.dev/injected=true" ||
		query.Get("fieldSelector") != "status.phase!=Succeeded,status.phase!=Failed" {
		http.Error(response, "unexpected "+request.URL.String(), http.StatusNotFound)
		return
	}
	if query.Get("watch") != "" {
		response.Header().Set("Content-Type", "application/json;stream=watch")
		response.WriteHeader(http.StatusOK)
		if flusher, ok := response.(http.Flusher); ok {
			flusher.Flush()
		}
		<-request.Context().Done()
		return
	}
	from, _ := strconv.Atoi(query.Get("continue"))
	limit, _ := strconv.Atoi(query.Get("limit"))
	if from > 0 && m.expires && m.expired.CompareAndSwap(false, true) {
		status := apierrors.NewResourceExpired("too old").Status()
		write(response, http.StatusGone, &status)
		return
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for i := from; i < min(from+limit, m.number); i++ {
		pod := realisticPod(i)
		if m.change != nil {
			m.change(&pod, i)
		}
		list.Items = append(list.Items, pod)
	}
	m.largest.Store(max(m.largest.Load(), int64(len(list.Items))))
	if next := from + len(list.Items); next < m.number {
		list.Continue = strconv.Itoa(next)
	}
	write(response, http.StatusOK, list)
}

// realisticPod has about as much metadata as a Pod of a Deployment has.
func realisticPod(i int) metav1.PartialObjectMetadata {
	workload, revision := i%1000, [2]string{"new", "old"}[i%2]
	labels := map[string]string{v1alpha1.InjectedKey: "true", "app": "web", "pod-template-hash": "7d9f8c6b5", "team": "shop"}
	return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: fmt.Sprintf("namespace-%d", workload%100), Name: fmt.Sprintf("workload-%d-7d9f8c6b5-%05d", workload, i),
		UID: types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), ResourceVersion: strconv.Itoa(i),
		CreationTimestamp: metav1.NewTime(time.Unix(1000, 0)), Labels: labels,
		Annotations: map[string]string{
			v1alpha1.InjectKey: "site",
			v1alpha1.InjectedKey: fmt.Sprintf(
				`{"site":{"kind":"GitSync","revision":%q,"containers":["pillion-site"]}}`, revision),
			"kubectl.kubernetes.io/restartedAt": "2026-11-21T09:00:00Z",
		},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("workload-%d-7d9f8c6b5", workload), Controller: new(true),
		}},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kubelet", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:status":{` + strings.Repeat(`"f:x":{},`, 300) + `}}`),
		}},
	}}
}

// write answers in the form that the API server answers clients in that prefer protobuf.
func write(response http.ResponseWriter, code int, object apimachineryruntime.Object) {
	scheme := apimachineryruntime.NewScheme()
	err := metav1.AddMetaToScheme(scheme)
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	serializer := protobuf.NewSerializer(scheme, scheme)
	switch object := object.(type) {
	case *metav1.Status:
		object.SetGroupVersionKind(metav1.Unversioned.WithKind("Status"))
	case *metav1.PartialObjectMetadataList:
		object.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"))
	}
	response.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
	response.WriteHeader(code)
	if err = errors.Join(err, serializer.Encode(object, response)); err != nil {
		panic(err)
	}
}
