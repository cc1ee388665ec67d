package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/defaults"
	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/fixture"
)

// theDefaults returns the default profiles of this release.
func theDefaults(t *testing.T) []v1alpha1.ClusterPatternProfile {
	t.Helper()
	all, err := defaults.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// nextRelease returns default profiles that are other than those of this release: Pods may do less.
func nextRelease(t *testing.T) []v1alpha1.ClusterPatternProfile {
	t.Helper()
	all := theDefaults(t)
	for i := range all {
		profile := &all[i]
		profile.Spec.Overridable = slices.DeleteFunc(profile.Spec.Overridable, func(name string) bool { return name == "resources" })
		if profile.Spec.PrometheusAdapter != nil {
			profile.Spec.PrometheusAdapter.MetricsPort = 9999
		}
	}
	return all
}

// TestTheDefaultProfilesOnARealAPIServer runs controllers with their own ServiceAccount's permissions. Each part begins where the one
// before it ended.
func TestTheDefaultProfilesOnARealAPIServer(t *testing.T) {
	server := fixture.APIServer(t, apiserver.Options{WithoutCRDs: true})
	c := &shelf{cluster{Client: server.Client}, server}
	if err := server.InstallDeploy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		run  func(*shelf, *testing.T)
	}{
		{"they are made once their kind is served, however late", (*shelf).installs},
		{"nothing is written when nothing changed", (*shelf).rests},
		{"a controller that does not lead writes nothing", (*shelf).standsBy},
		{"they follow the release, and what others said beside the spec stays", (*shelf).upgrades},
		{"one that is deleted comes back, though somebody asks for it", (*shelf).restores},
		{"what somebody changed is left as it is, and told once", (*shelf).leaves},
		{"what was there before is left as it is", (*shelf).leavesWhatWasThere},
		{"what is not to be managed is left alone, and nobody hears of it", (*shelf).optsOut},
		{"they are left as they are where they are not wanted", (*shelf).notWanted},
		{"what the API server does not take is tried again", (*shelf).refused},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(c, t) }) {
			break
		}
	}
}

// shelf is a cluster for default profiles.
type shelf struct {
	cluster

	server *apiserver.Server
}

// run runs a controller until the returned function is called, and counts what it writes of profiles.
func (c *shelf) run(t *testing.T, wanted []v1alpha1.ClusterPatternProfile) (stop func(), wrote func() []string) {
	t.Helper()
	config, err := c.server.ServiceAccountConfig(t.Context(), "pillion-system", "pillion-controller")
	if err != nil {
		t.Fatal(err)
	}
	writes := &writes{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(request *http.Request) (*http.Response, error) {
			writes.note(request)
			return next.RoundTrip(request)
		})
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, config, Options{
			Namespace: "pillion-system", CASecret: "pillion-ca", CertificateSecret: "pillion-webhook-tls", WebhookConfiguration: "pillion",
			WebhookURL: "https://127.0.0.1:1", LeaderElection: true, DefaultProfiles: wanted, Logger: testr.New(t),
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop, writes.taken
}

// writes are the requests that write default profiles, but for their status.
type writes struct {
	mu   sync.Mutex
	told []string
}

func (w *writes) note(request *http.Request) {
	const path = "/apis/pillion.dev/v1alpha1/clusterpatternprofiles"
	if request.Method == http.MethodGet || !strings.HasPrefix(request.URL.Path, path) || strings.HasSuffix(request.URL.Path, "/status") {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, request.Method+" "+strings.TrimPrefix(request.URL.Path, path))
}

func (w *writes) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

func (c *shelf) profile(t *testing.T, name string) *v1alpha1.ClusterPatternProfile {
	t.Helper()
	profile := &v1alpha1.ClusterPatternProfile{}
	c.get(t, types.NamespacedName{Name: name}, profile)
	return profile
}

// awaitSpecs waits until the profiles are what is wanted, and ready.
func (c *shelf) awaitSpecs(t *testing.T, wanted []v1alpha1.ClusterPatternProfile) {
	t.Helper()
	for i := range wanted {
		c.await(t, func() (bool, error) {
			profile := &v1alpha1.ClusterPatternProfile{}
			err := c.Get(t.Context(), types.NamespacedName{Name: wanted[i].Name}, profile)
			if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
				return false, err
			}
			if want := specOf(t, &wanted[i]); profile.Annotations[v1alpha1.DefaultKey] != want {
				return false, fmt.Errorf("profile %s is said to be %q, want %q", wanted[i].Name, profile.Annotations[v1alpha1.DefaultKey], want)
			}
			if profile.Status.ObservedGeneration != profile.Generation {
				return false, fmt.Errorf("the status is of generation %d, the profile of %d", profile.Status.ObservedGeneration, profile.Generation)
			}
			return conditionsAre(profile.Status, "Accepted True Accepted", "Ready True Ready")
		})
		profile := c.profile(t, wanted[i].Name)
		if !holds(decoded(t, profile.Spec), decoded(t, wanted[i].Spec)) || !slices.Equal(profile.Spec.Overridable, wanted[i].Spec.Overridable) {
			t.Errorf("the spec of %s is not what is wanted: %+v", profile.Name, profile.Spec)
		}
	}
}

func specOf(t *testing.T, profile *v1alpha1.ClusterPatternProfile) string {
	t.Helper()
	encoded, err := json.Marshal(profile.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func decoded(t *testing.T, value any) any {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var into any
	if err := json.Unmarshal(encoded, &into); err != nil {
		t.Fatal(err)
	}
	return into
}

// awaitEvents waits until there are so many Events of a reason on a profile, and returns what they say.
func (c *shelf) awaitEvents(t *testing.T, name, reason string, count int) []string {
	t.Helper()
	var notes []string
	c.await(t, func() (bool, error) {
		notes = nil
		events := &eventsv1.EventList{}
		if err := c.List(t.Context(), events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
			return false, err
		}
		for i := range events.Items {
			if event := &events.Items[i]; event.Regarding.Name == name && event.Reason == reason {
				notes = append(notes, event.Note)
			}
		}
		return len(notes) == count, fmt.Errorf("there are %d Events %s on %s, want %d: %q", len(notes), reason, name, count, notes)
	})
	return notes
}

func (c *shelf) installs(t *testing.T) {
	stop, _ := c.run(t, theDefaults(t))
	defer stop()
	definitions, err := apiserver.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	c.awaitLeader(t)
	for _, definition := range definitions {
		c.create(t, definition)
	}
	c.awaitSpecs(t, theDefaults(t))
	for _, wanted := range theDefaults(t) {
		profile := c.profile(t, wanted.Name)
		if len(profile.Finalizers) > 0 {
			t.Errorf("%s has the finalizers %q, which its CustomResourceDefinition would wait for", profile.Name, profile.Finalizers)
		}
		if diff := cmp.Diff(managedBy(), profile.Labels); diff != "" {
			t.Errorf("%s: labels (-want +got):\n%s", profile.Name, diff)
		}
		if !meta.IsStatusConditionTrue(profile.Status.Conditions, v1alpha1.ConditionRestricted) {
			t.Errorf("%s does not meet restricted: %+v", profile.Name, profile.Status.Conditions)
		}
		if profile.Spec.Match != nil || slices.Contains(profile.Spec.Overridable, "image") || slices.Contains(profile.Spec.Overridable, "env") {
			t.Errorf("%s: nobody may choose Pods by default, or what runs in them: %+v", profile.Name, profile.Spec)
		}
	}
}

// awaitLeader waits until some controller leads.
func (c *shelf) awaitLeader(t *testing.T) {
	t.Helper()
	c.await(t, func() (bool, error) {
		lease, err := c.server.Clientset.CoordinationV1().Leases("pillion-system").Get(t.Context(), LeaseName, metav1.GetOptions{})
		if err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "", nil
	})
}

func (c *shelf) rests(t *testing.T) {
	before := c.versions(t)
	stop, wrote := c.run(t, theDefaults(t))
	defer stop()
	// Something that the controller does last shows that it has looked at all of them.
	probe := c.onDemand("probe")
	c.create(t, probe)
	c.awaitProfile(t, "probe", "Accepted True Accepted", "Ready True Ready")
	c.change(t, probe, func() { probe.Spec.Overridable = []string{"ref"} })
	c.awaitGeneration(t, "probe")
	stop()
	if got := slices.DeleteFunc(wrote(), func(request string) bool { return strings.Contains(request, "probe") }); len(got) > 0 {
		t.Errorf("a controller that starts anew writes %q", got)
	}
	if diff := cmp.Diff(before, c.versions(t)); diff != "" {
		t.Errorf("the profiles were written (-before +after):\n%s", diff)
	}
}

func (c *shelf) awaitGeneration(t *testing.T, name string) {
	t.Helper()
	c.await(t, func() (bool, error) {
		profile := c.profile(t, name)
		observed := profile.Status.ObservedGeneration
		return observed == profile.Generation, fmt.Errorf("generation %d, observed %d", profile.Generation, observed)
	})
}

func (c *shelf) versions(t *testing.T) map[string]string {
	t.Helper()
	versions := map[string]string{}
	for _, wanted := range theDefaults(t) {
		versions[wanted.Name] = c.profile(t, wanted.Name).ResourceVersion
	}
	return versions
}

func (c *shelf) standsBy(t *testing.T) {
	stop, leads := c.run(t, theDefaults(t))
	defer stop()
	c.awaitLeader(t)
	stopOther, wrote := c.run(t, nextRelease(t)) // it would have much to write
	defer stopOther()
	for range 2 { // what is deleted now is made again by the leader, who wrote nothing else
		profile := c.profile(t, "git-sync")
		c.remove(t, profile)
		c.awaitAnother(t, profile)
		c.awaitSpecs(t, theDefaults(t))
	}
	if got := wrote(); len(got) > 0 {
		t.Errorf("the controller that does not lead writes %q", got)
	}
	if got := leads(); !slices.Equal(got, []string{"POST ", "POST "}) {
		t.Errorf("the leader writes %q", got)
	}
	stopOther()
}

// awaitAnother waits until another profile of the name is there.
func (c *shelf) awaitAnother(t *testing.T, before *v1alpha1.ClusterPatternProfile) {
	t.Helper()
	c.await(t, func() (bool, error) {
		profile := &v1alpha1.ClusterPatternProfile{}
		err := c.Get(t.Context(), client.ObjectKeyFromObject(before), profile)
		return err == nil && profile.UID != before.UID, client.IgnoreNotFound(err)
	})
}

func (c *shelf) upgrades(t *testing.T) {
	profile := c.profile(t, "prometheus-adapter")
	c.change(t, profile, func() {
		metav1.SetMetaDataLabel(&profile.ObjectMeta, "theirs", "kept")
		metav1.SetMetaDataAnnotation(&profile.ObjectMeta, "theirs", "kept")
	})
	stop, _ := c.run(t, nextRelease(t))
	defer stop()
	c.awaitSpecs(t, nextRelease(t))
	upgraded := c.profile(t, "prometheus-adapter")
	if upgraded.UID != profile.UID || upgraded.Labels["theirs"] != "kept" || upgraded.Annotations["theirs"] != "kept" {
		t.Errorf("the profile is another, or lost what others said: %+v", upgraded.ObjectMeta)
	}
	if upgraded.Spec.PrometheusAdapter.MetricsPort != 9999 || slices.Contains(upgraded.Spec.Overridable, "resources") {
		t.Errorf("the spec is not the next release's: %+v", upgraded.Spec)
	}
	notes := c.awaitEvents(t, "prometheus-adapter", ReasonDefaultProfileUpdated, 1)
	if !strings.Contains(notes[0], `pillion.dev/managed: "false"`) {
		t.Errorf("it is not said how to keep a spec: %s", notes[0])
	}
	stop()
	stop, _ = c.run(t, theDefaults(t)) // and back, as after a rollback
	defer stop()
	c.awaitSpecs(t, theDefaults(t))
}

func (c *shelf) restores(t *testing.T) {
	stop, _ := c.run(t, theDefaults(t))
	defer stop()
	deployment := deploymentIn("default", "site", "git-sync")
	c.create(t, deployment)
	for _, wanted := range theDefaults(t) {
		profile := c.profile(t, wanted.Name)
		c.remove(t, profile)
		c.awaitAnother(t, profile)
	}
	c.awaitSpecs(t, theDefaults(t))
	c.remove(t, deployment)
}

func (c *shelf) leaves(t *testing.T) {
	edits := map[string]func(*v1alpha1.ClusterPatternProfileSpec){
		"git-sync":           func(spec *v1alpha1.ClusterPatternProfileSpec) { spec.GitSync.Ref = "main" },
		"prometheus-adapter": func(spec *v1alpha1.ClusterPatternProfileSpec) { spec.Overridable = spec.Overridable[1:] },
		"cache-ambassador": func(spec *v1alpha1.ClusterPatternProfileSpec) {
			spec.AllowedNamespaces = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "web"}}
		},
		"template-processor": func(spec *v1alpha1.ClusterPatternProfileSpec) { spec.TemplateProcessor.MountPath = "/etc/app" },
	}
	edited := map[string]v1alpha1.ClusterPatternProfileSpec{}
	for name, edit := range edits {
		profile := c.profile(t, name)
		c.change(t, profile, func() { edit(&profile.Spec) })
		edited[name] = profile.Spec
	}
	for range 2 { // the second time nobody is told again
		stop, wrote := c.run(t, nextRelease(t))
		for name := range edits {
			c.awaitFinalizer(t, name)
			notes := c.awaitEvents(t, name, ReasonDefaultProfileLeft, 1)
			for _, says := range []string{"changed its spec", "delete this one", `pillion.dev/managed: "false"`} {
				if name != "prometheus-adapter" && !strings.Contains(notes[0], says) {
					t.Errorf("%s: it is not said %q but: %s", name, says, notes[0])
				}
			}
			if diff := cmp.Diff(edited[name], c.profile(t, name).Spec); diff != "" {
				t.Errorf("%s is not as it was left (-want +got):\n%s", name, diff)
			}
		}
		stop()
		for _, request := range wrote() {
			if request[:5] == "POST " {
				t.Errorf("somebody's profile is written: %s", request)
			}
		}
	}
	notes := c.awaitEvents(t, "prometheus-adapter", ReasonDefaultProfileLeft, 1)
	if !strings.Contains(notes[0], "its spec is not what the annotation pillion.dev/default says that Pillion wrote") {
		t.Errorf("what was taken away is told so: %s", notes[0])
	}
	stop, _ := c.run(t, theDefaults(t)) // whoever deletes his own has the default one
	defer stop()
	for name := range edits {
		profile := c.profile(t, name)
		c.remove(t, profile)
		c.awaitAnother(t, profile)
	}
	c.awaitSpecs(t, theDefaults(t))
}

// awaitFinalizer waits until a profile that somebody has changed is kept for those who ask for it, as every other is.
func (c *shelf) awaitFinalizer(t *testing.T, name string) {
	t.Helper()
	c.await(t, func() (bool, error) {
		finalizers := c.profile(t, name).Finalizers
		return slices.Contains(finalizers, v1alpha1.InUseFinalizer), fmt.Errorf("%s has the finalizers %q", name, finalizers)
	})
}

func (c *shelf) leavesWhatWasThere(t *testing.T) {
	profile := c.profile(t, "git-sync")
	c.remove(t, profile)
	mine := c.onDemand("git-sync")
	c.create(t, mine)
	want := mine.Spec
	stop, _ := c.run(t, theDefaults(t))
	defer stop()
	notes := c.awaitEvents(t, "git-sync", ReasonDefaultProfileLeft, 2) // with that of the part before
	if !slices.ContainsFunc(notes, func(note string) bool { return strings.Contains(note, "somebody else made it") }) {
		t.Errorf("it is not said who made it: %q", notes)
	}
	c.awaitProfile(t, "git-sync", "Accepted True Accepted", "Ready True Ready")
	if diff := cmp.Diff(want, c.profile(t, "git-sync").Spec); diff != "" {
		t.Errorf("it is not as it was (-want +got):\n%s", diff)
	}
	c.remove(t, mine)
	c.awaitAnother(t, mine)
	c.awaitSpecs(t, theDefaults(t))
}

func (c *shelf) optsOut(t *testing.T) {
	profile := c.profile(t, "cache-ambassador")
	c.change(t, profile, func() { metav1.SetMetaDataAnnotation(&profile.ObjectMeta, v1alpha1.ManagedKey, "false") })
	stop, wrote := c.run(t, nextRelease(t))
	defer stop()
	for _, name := range []string{"git-sync", "prometheus-adapter", "template-processor"} {
		c.await(t, func() (bool, error) { return !slices.Contains(c.profile(t, name).Spec.Overridable, "resources"), nil })
	}
	c.awaitFinalizer(t, "cache-ambassador") // it is somebody's now
	c.change(t, profile, func() { profile.Spec.CacheAmbassador.Port = 11311 })
	c.awaitGeneration(t, "cache-ambassador")
	c.awaitEvents(t, "cache-ambassador", ReasonDefaultProfileLeft, 1) // that of an earlier part
	if got := c.profile(t, "cache-ambassador"); !slices.Contains(got.Spec.Overridable, "resources") || got.Spec.CacheAmbassador.Port != 11311 {
		t.Errorf("it was written: %+v after %q", got.Spec, wrote())
	}
	c.change(t, profile, func() {
		delete(profile.Annotations, v1alpha1.ManagedKey)
		profile.Spec.CacheAmbassador.Port = 0
	})
	c.awaitSpecs(t, nextRelease(t)) // what was changed is as it was, so that nobody is in the way
}

func (c *shelf) notWanted(t *testing.T) {
	before := c.profile(t, "prometheus-adapter")
	c.remove(t, c.profile(t, "git-sync"))
	stop, _ := c.run(t, nil)
	defer stop()
	c.awaitFinalizer(t, "prometheus-adapter") // it is one like any other
	probe := c.onDemand("another-probe")
	c.create(t, probe)
	c.awaitProfile(t, "another-probe", "Accepted True Accepted", "Ready True Ready")
	if diff := cmp.Diff(before.Spec, c.profile(t, "prometheus-adapter").Spec); diff != "" {
		t.Errorf("it was changed (-before +after):\n%s", diff)
	}
	if err := c.Get(t.Context(), types.NamespacedName{Name: "git-sync"}, &v1alpha1.ClusterPatternProfile{}); !apierrors.IsNotFound(err) {
		t.Errorf("the one that was deleted is there: %v", err)
	}
	stop()
	stop, _ = c.run(t, theDefaults(t))
	defer stop()
	c.awaitSpecs(t, theDefaults(t))
	c.await(t, func() (bool, error) {
		finalizers := c.profile(t, "prometheus-adapter").Finalizers
		return len(finalizers) == 0, fmt.Errorf("finalizers %q", finalizers)
	})
}

// refused has the controller bring a spec that the installed CustomResourceDefinitions do not take, as those of another release may not,
// and then one that they do.
func (c *shelf) refused(t *testing.T) {
	wrong := theDefaults(t)
	for i := range wrong {
		if wrong[i].Spec.GitSync != nil {
			wrong[i].Spec.Overridable = []string{"ref"} // and so nobody gives the repo
		}
	}
	before := c.profile(t, "git-sync")
	stop, wrote := c.run(t, wrong)
	defer stop()
	c.await(t, func() (bool, error) {
		return slices.Contains(wrote(), "PATCH /git-sync"), nil
	})
	probe := c.onDemand("last-probe")
	c.create(t, probe)
	c.awaitProfile(t, "last-probe", "Accepted True Accepted", "Ready True Ready")
	if got := c.profile(t, "git-sync"); got.ResourceVersion != before.ResourceVersion {
		t.Errorf("it was written: %+v", got)
	}
	stop()
	stop, _ = c.run(t, theDefaults(t))
	defer stop()
	c.awaitSpecs(t, theDefaults(t))
}
