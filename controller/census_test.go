package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// liveReader is the API server that workloads are listed of.
type liveReader struct {
	client.Reader
	lists int
	// before is called before each list, and may make it fail.
	before func(client.ObjectList) error
}

func (r *liveReader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	r.lists++
	if r.before != nil {
		if err := r.before(list); err != nil {
			return err
		}
	}
	return r.Reader.List(ctx, list, options...)
}

// countLists counts the lists of workloads from now on.
func countLists(f *fakeCluster) *liveReader {
	live := &liveReader{Reader: f.client}
	f.finder.live = live
	return live
}

// onePass is how many lists a census makes of a few workloads.
var onePass = len(workloadKinds())

// brokenProfiles has a cluster of profiles, for each of which there is a Deployment that asks; good ones that are not broken yet.
func brokenProfiles(t *testing.T, number int) (*fakeCluster, []*v1alpha1.ClusterPatternProfile) {
	t.Helper()
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	all := make([]*v1alpha1.ClusterPatternProfile, 0, number)
	for i := range number {
		name := fmt.Sprintf("p%02d", i)
		profile := gitSyncProfile(withoutMatch(clusterProfile(name, "", "", "")))
		profile.Generation = 1
		all = append(all, profile)
		objects = append(objects, profile, deploymentIn("shop", name, name))
	}
	f := newFakeCluster(t, func(err error) error { return err }, objects...)
	f.tick = 0
	f.pods.index = newPodIndex()
	f.settle(t)
	for _, profile := range all {
		f.look(t, profile)
	}
	return f, all
}

func (f *fakeCluster) breakProfiles(t *testing.T, all ...*v1alpha1.ClusterPatternProfile) {
	t.Helper()
	f.changeSpecs(t, []string{"noSuchField"}, all...)
}

func (f *fakeCluster) mendProfiles(t *testing.T, all ...*v1alpha1.ClusterPatternProfile) {
	t.Helper()
	f.changeSpecs(t, nil, all...)
}

func (f *fakeCluster) changeSpecs(t *testing.T, overridable []string, all ...*v1alpha1.ClusterPatternProfile) {
	t.Helper()
	for _, profile := range all {
		changed := f.cluster(t, profile.Name)
		changed.Spec.Overridable = overridable
		changed.Generation++
		if err := f.client.Update(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
	}
	f.settle(t)
}

// look keeps the status of a profile as it is now.
func (f *fakeCluster) look(t *testing.T, profile *v1alpha1.ClusterPatternProfile) reconcile.Result {
	t.Helper()
	f.settle(t)
	return f.reconcile(t, f.reconcileCluster, profile)
}

// use returns the condition InUse of a profile, as "STATUS REASON".
func (f *fakeCluster) use(t *testing.T, profile *v1alpha1.ClusterPatternProfile) string {
	t.Helper()
	condition := meta.FindStatusCondition(f.cluster(t, profile.Name).Status.Conditions, v1alpha1.ConditionInUse)
	if condition == nil {
		return ""
	}
	return string(condition.Status) + " " + condition.Reason
}

func TestWhoAsksForAllProfilesIsLookedUpOnceInAWhile(t *testing.T) {
	f, all := brokenProfiles(t, 20)
	f.breakProfiles(t, all...)
	live := countLists(f)
	for passes, wait := range []time.Duration{0, f.finder.recheck, f.finder.recheck} {
		f.clock = f.clock.Add(wait)
		for range 5 {
			f.clock = f.clock.Add(f.finder.recheck / 6)
			for _, profile := range all {
				f.look(t, profile)
				if got := f.use(t, profile); got != "True AskedFor" {
					t.Errorf("%s: InUse %s", profile.Name, got)
				}
			}
		}
		if want := onePass * (passes + 1); live.lists != want {
			t.Fatalf("%d lists after %d times %s, want %d", live.lists, passes, f.finder.recheck, want)
		}
	}
}

func TestItIsLookedUpAnewInTimeWhateverElseHappens(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	f.breakProfiles(t, all...)
	f.look(t, all[0])
	f.clock = f.clock.Add(29 * time.Second)
	f.pods.index.put(wovenPod("shop", "web", `{"p00":{"revision":"1"}}`))
	if again := f.look(t, all[0]).RequeueAfter; again != time.Second {
		t.Errorf("29 seconds after the last time again in %s", again)
	}
}

func TestAProfileThatBreaksBetweenIsLookedUpAtOnce(t *testing.T) {
	f, all := brokenProfiles(t, 3)
	f.breakProfiles(t, all[0])
	live := countLists(f)
	f.look(t, all[0])
	f.breakProfiles(t, all[1:]...)
	for _, profile := range all {
		f.look(t, profile)
		if got := f.use(t, profile); got != "True AskedFor" {
			t.Errorf("%s: InUse %s", profile.Name, got)
		}
	}
	if live.lists != 2*onePass {
		t.Errorf("%d lists for two that broke together, after one", live.lists)
	}
}

func TestProfilesThatBreakOneAfterAnotherDoNotKeepTheAPIServerBusy(t *testing.T) {
	f, all := brokenProfiles(t, 2)
	f.breakProfiles(t, all[0])
	live := countLists(f)
	live.before = func(client.ObjectList) error { // a slow one
		f.clock = f.clock.Add(time.Second)
		return nil
	}
	f.look(t, all[0])
	f.breakProfiles(t, all[1])
	took := time.Duration(onePass) * time.Second
	if again := f.look(t, all[1]).RequeueAfter; again != censusRest*took {
		t.Errorf("after a census of %s again in %s", took, again)
	}
	if got := f.use(t, all[1]); live.lists != onePass || got != "Unknown Counting" {
		t.Errorf("%d lists, InUse %s", live.lists, got)
	}
	f.clock = f.clock.Add(censusRest * took)
	f.look(t, all[1])
	if got := f.use(t, all[1]); live.lists != 2*onePass || got != "True AskedFor" {
		t.Errorf("%d lists, InUse %s", live.lists, got)
	}
}

func TestASlowCensusHoldsUntilTheNext(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	f.breakProfiles(t, all...)
	live := countLists(f)
	live.before = func(client.ObjectList) error {
		f.clock = f.clock.Add(10 * time.Second)
		return nil
	}
	f.look(t, all[0])
	f.clock = f.clock.Add(f.finder.recheck - time.Second) // and some since it began
	again := f.look(t, all[0]).RequeueAfter
	if got := f.use(t, all[0]); live.lists != onePass || got != "True AskedFor" || again != time.Second {
		t.Errorf("%d lists, InUse %s, again in %s", live.lists, got, again)
	}
}

func TestWhoComesToAskWhileAProfileIsMendedCountsWhenItBreaksAgain(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	deployment := deploymentIn("shop", all[0].Name, all[0].Name)
	if err := f.client.Delete(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	f.breakProfiles(t, all...)
	f.look(t, all[0])
	if got := f.use(t, all[0]); got != "False NobodyAsks" {
		t.Fatalf("InUse %s", got)
	}
	f.mendProfiles(t, all...)
	f.look(t, all[0])
	deployment.ResourceVersion = ""
	if err := f.client.Create(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	f.settle(t)
	f.breakProfiles(t, all...)
	f.look(t, all[0])
	if got := f.use(t, all[0]); got != "True AskedFor" {
		t.Errorf("InUse %s", got)
	}
}

func TestABrokenProfileThatIsDeletedIsLookedUpAnew(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	deployment := deploymentIn("shop", all[0].Name, all[0].Name)
	if err := f.client.Delete(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	asks := deploymentIn("shop", "other", all[0].Name)
	if err := f.client.Create(t.Context(), asks); err != nil {
		t.Fatal(err)
	}
	f.breakProfiles(t, all...)
	f.look(t, all[0])
	deployment.ResourceVersion = ""
	if err := errors.Join(
		f.client.Delete(t.Context(), asks), f.client.Create(t.Context(), deployment), f.client.Delete(t.Context(), all[0]),
	); err != nil {
		t.Fatal(err)
	}
	f.look(t, all[0])
	condition := meta.FindStatusCondition(f.cluster(t, all[0].Name).Status.Conditions, v1alpha1.ConditionInUse)
	if condition == nil || !strings.Contains(condition.Message, "Deployment shop/"+all[0].Name) {
		t.Errorf("InUse is %+v", condition)
	}
}

func TestACensusOfOneNamespacesProfilesListsNoOther(t *testing.T) {
	f, snapshot := finderOf(t, deploymentIn("shop", "web", "a"))
	f.pods.index = newPodIndex()
	var namespaces []string
	f.finder.live = listFunc(func(_ context.Context, _ client.ObjectList, options ...client.ListOption) error {
		namespaces = append(namespaces, (&client.ListOptions{}).ApplyOptions(options).Namespace)
		return nil
	})
	f.finder.find(t.Context(), snapshot, snapshot.Profile("shop", "a"))
	if got := strings.Join(namespaces, " "); got != strings.TrimSpace(strings.Repeat("shop ", onePass)) {
		t.Errorf("listed in %q", got)
	}
}

// listFunc is a client.Reader that only lists.
type listFunc func(context.Context, client.ObjectList, ...client.ListOption) error

func (listFunc) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("nothing is read")
}

func (f listFunc) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	return f(ctx, list, options...)
}

func TestACensusIsTakenOnceHoweverManyNeedIt(t *testing.T) {
	f, snapshot := finderOf(t, deploymentIn("shop", "web", "a"))
	f.pods.index = newPodIndex()
	f.tick = 0
	served := snapshot.Profile("shop", "a")
	var lists atomic.Int64
	release := make(chan struct{})
	f.finder.live = listFunc(func(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
		lists.Add(1)
		<-release
		return f.client.List(ctx, list, options...)
	})
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if found, _ := f.finder.find(t.Context(), snapshot, served); found.number != 1 {
				t.Errorf("%+v", found)
			}
		})
	}
	close(release)
	group.Wait()
	if got := lists.Load(); got != int64(onePass) {
		t.Errorf("%d lists", got)
	}
}

func TestAKindThatCannotBeListedHidesNothingElse(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	f.breakProfiles(t, all...)
	live := countLists(f)
	live.before = func(list client.ObjectList) error {
		if _, ok := list.(*batchv1.CronJobList); ok {
			return errors.New("no answer")
		}
		return nil
	}
	_, err := f.reconcileCluster(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(all[0])})
	if err == nil || !strings.Contains(err.Error(), "CronJobs: no answer") {
		t.Errorf("the error is %v: it would not be tried again", err)
	}
	status := f.cluster(t, all[0].Name).Status
	for conditionType, want := range map[string]string{
		v1alpha1.ConditionAccepted: ReasonInvalidSpec, v1alpha1.ConditionReady: ReasonServingLastGood,
		v1alpha1.ConditionInUse: ReasonCannotList,
	} {
		if got := meta.FindStatusCondition(status.Conditions, conditionType); got == nil || got.Reason != want {
			t.Errorf("%s is %+v", conditionType, got)
		}
	}
	if status.LastGood == nil {
		t.Error("the last good spec is gone although it is not known who asks")
	}
	live.before = nil
	f.clock = f.clock.Add(time.Second)
	f.look(t, all[0])
	if got := f.use(t, all[0]); got != "True AskedFor" {
		t.Errorf("once it can be listed again InUse is %s", got)
	}
}

func TestThereIsNoneOfAKindThatTheAPIServerDoesNotHave(t *testing.T) {
	f, all := brokenProfiles(t, 1)
	f.breakProfiles(t, all...)
	countLists(f).before = func(list client.ObjectList) error {
		if _, ok := list.(*batchv1.CronJobList); ok {
			return fmt.Errorf("map the kind: %w", &meta.NoKindMatchError{})
		}
		return nil
	}
	f.look(t, all[0])
	if got := f.use(t, all[0]); got != "True AskedFor" {
		t.Errorf("InUse %s", got)
	}
}
