package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// DefaultsManager is the field manager by which the default profiles are written.
const DefaultsManager = "pillion-defaults"

// The reasons of Events on default profiles.
const (
	// ReasonDefaultProfileUpdated: this release has another spec for the profile than the one before it.
	ReasonDefaultProfileUpdated = "DefaultProfileUpdated"
	// ReasonDefaultProfileLeft: the profile has the name of a default one and is somebody else's, or was changed by somebody.
	ReasonDefaultProfileLeft = "DefaultProfileLeft"
)

// retryRefused is when it is tried again to write a default profile that the API server does not take.
const retryRefused = 30 * time.Second

// defaultProfiles makes and keeps the default profiles, each for as long as nobody else has a hand in it.
type defaultProfiles struct {
	wanted map[string]wantedProfile
	// live reads the API server itself: memory holds no managed fields.
	live      client.Reader
	client    client.Client
	announcer *announcer
	logger    logr.Logger
	// changed tells whoever keeps the finalizer of a profile.
	changed func(ctx context.Context, name string)

	mu     sync.Mutex
	judged map[string]judgement // by name

	// told is what was said last of a profile, so that it is said once. It is Reconcile's alone, which never runs twice at once.
	told map[string]string
}

// wantedProfile is a default profile of this release.
type wantedProfile struct {
	spec map[string]any
	// written is the spec as the annotation has it.
	written string
}

func newDefaultProfiles(
	wanted []v1alpha1.ClusterPatternProfile, live client.Reader, writer client.Client, announcer *announcer, logger logr.Logger,
	changed func(ctx context.Context, name string),
) (*defaultProfiles, error) {
	d := &defaultProfiles{
		wanted: map[string]wantedProfile{}, live: live, client: writer, announcer: announcer, logger: logger, changed: changed,
		judged: map[string]judgement{}, told: map[string]string{},
	}
	for i := range wanted {
		written, err := json.Marshal(wanted[i].Spec)
		if err != nil {
			return nil, fmt.Errorf("encode the default profile %s: %w", wanted[i].Name, err)
		}
		spec := map[string]any{}
		if err := utiljson.Unmarshal(written, &spec); err != nil {
			return nil, fmt.Errorf("decode the default profile %s: %w", wanted[i].Name, err)
		}
		d.wanted[wanted[i].Name] = wantedProfile{spec, string(written)}
	}
	return d, nil
}

// isWanted tells whether an object has the name of a default profile.
func (d *defaultProfiles) isWanted(o client.Object) bool {
	_, ok := d.wanted[o.GetName()]
	return ok
}

// judgement is what was found of one generation of a profile.
type judgement struct {
	uid        types.UID
	generation int64
	isOurs     bool
}

// judge notes whether a profile is as Pillion wrote it, and tells whoever keeps its finalizer.
func (d *defaultProfiles) judge(ctx context.Context, profile client.Object, isOurs bool) {
	found := judgement{profile.GetUID(), profile.GetGeneration(), isOurs}
	d.mu.Lock()
	isNew := d.judged[profile.GetName()] != found
	d.judged[profile.GetName()] = found
	d.mu.Unlock()
	if isNew {
		d.changed(ctx, profile.GetName())
	}
}

// isRemade tells whether a profile is made again when it is deleted, so that it need not wait for those who ask for it: a default one that
// nobody has changed. It is not known until that was looked at, which is told of.
func (d *defaultProfiles) isRemade(o profileObject) (isRemade, known bool) {
	if o.GetNamespace() != "" || !d.isWanted(o) || o.GetAnnotations()[v1alpha1.ManagedKey] == "false" {
		return false, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.judged[o.GetName()]
	return found.isOurs, found.uid == o.GetUID() && found.generation == o.GetGeneration()
}

// requests are those for all default profiles.
func (d *defaultProfiles) requests() []reconcile.Request {
	requests := make([]reconcile.Request, 0, len(d.wanted))
	for name := range d.wanted {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	}
	return requests
}

// Reconcile makes a default profile that is not there, and brings one up to date that nobody else has changed.
func (d *defaultProfiles) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	wanted, ok := d.wanted[request.Name]
	if !ok {
		return reconcile.Result{}, nil
	}
	stands := emptyProfile(request.Name)
	err := d.live.Get(ctx, request.NamespacedName, stands)
	switch {
	case apierrors.IsNotFound(err):
		return d.create(ctx, request.Name, &wanted)
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("read the default profile %s: %w", request.Name, err)
	case stands.GetDeletionTimestamp() != nil: // when it is gone that is told of
		return reconcile.Result{}, nil
	case stands.GetAnnotations()[v1alpha1.ManagedKey] == "false":
		return reconcile.Result{}, nil
	}
	whose := whoseIs(stands)
	d.judge(ctx, stands, whose == "")
	if whose != "" {
		d.leave(ctx, stands, whose)
		return reconcile.Result{}, nil
	}
	if stands.GetAnnotations()[v1alpha1.DefaultKey] == wanted.written {
		delete(d.told, request.Name)
		return reconcile.Result{}, nil
	}
	return d.update(ctx, stands, &wanted)
}

func emptyProfile(name string) *unstructured.Unstructured {
	profile := &unstructured.Unstructured{}
	profile.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ClusterPatternProfile"))
	profile.SetName(name)
	return profile
}

// create makes a profile that is not there. It is a creation and no server-side apply, which would change one that somebody made just now.
func (d *defaultProfiles) create(ctx context.Context, name string, wanted *wantedProfile) (reconcile.Result, error) {
	profile := emptyProfile(name)
	profile.SetLabels(managedBy())
	profile.SetAnnotations(map[string]string{v1alpha1.DefaultKey: wanted.written})
	profile.Object["spec"] = wanted.spec
	profile = profile.DeepCopy() // the answer is decoded into it
	err := d.client.Create(ctx, profile, client.FieldOwner(DefaultsManager), client.FieldValidation(metav1.FieldValidationStrict))
	if apierrors.IsAlreadyExists(err) {
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	}
	if err != nil {
		return d.refused(ctx, name, err)
	}
	d.judge(ctx, profile, true)
	delete(d.told, name)
	d.logger.Info("Made a default profile", "profile", name)
	return reconcile.Result{}, nil
}

// update gives a profile the spec of this release, unless somebody writes it at the same time.
func (d *defaultProfiles) update(ctx context.Context, stands *unstructured.Unstructured, wanted *wantedProfile) (reconcile.Result, error) {
	should := stands.DeepCopy()
	should.Object["spec"] = (&unstructured.Unstructured{Object: wanted.spec}).DeepCopy().Object
	annotations := should.GetAnnotations()
	annotations[v1alpha1.DefaultKey] = wanted.written
	should.SetAnnotations(annotations)
	patch := client.MergeFromWithOptions(stands, client.MergeFromWithOptimisticLock{})
	err := d.client.Patch(ctx, should, patch, client.FieldOwner(DefaultsManager), client.FieldValidation(metav1.FieldValidationStrict))
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: retryConflict}, nil
	case apierrors.IsNotFound(err): // that is told of
		return reconcile.Result{}, nil
	case err != nil:
		return d.refused(ctx, stands.GetName(), err)
	}
	d.judge(ctx, should, true)
	delete(d.told, stands.GetName())
	d.logger.Info("Brought a default profile up to date", "profile", stands.GetName())
	d.announcer.announce(ctx, announcement{
		regarding: profileReference(should), kind: corev1.EventTypeNormal, reason: ReasonDefaultProfileUpdated, action: "UpdateDefaultProfile",
		note: "This release of Pillion has another spec for this default profile than the one before it, and nobody else had changed it: " +
			"Pods that are created from now on get the new one. Set the annotation " + v1alpha1.ManagedKey + `: "false" to keep a spec as it is.`,
	})
	return reconcile.Result{}, nil
}

// refused tells that the API server does not take a profile, once. It may be for its CustomResourceDefinition, which is of another
// release, for a policy of somebody's, or because the definition is about to go.
func (d *defaultProfiles) refused(ctx context.Context, name string, err error) (reconcile.Result, error) {
	if ctx.Err() != nil || (!apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) && !apierrors.IsForbidden(err) &&
		!apierrors.IsMethodNotSupported(err) && !apierrors.IsNotFound(err)) {
		return reconcile.Result{}, fmt.Errorf("write the default profile %s: %w", name, withoutValues(err))
	}
	if cause := withoutValues(err).Error(); d.told[name] != cause {
		d.told[name] = cause
		d.logger.Info("The API server does not take a default profile; trying again now and then", "profile", name, "cause", cause)
	}
	return reconcile.Result{RequeueAfter: retryRefused}, nil
}

// leave tells that a profile is left as it is, once for each of its specs.
func (d *defaultProfiles) leave(ctx context.Context, stands *unstructured.Unstructured, whose string) {
	what := fmt.Sprintf("%s-%d", stands.GetUID(), stands.GetGeneration())
	if d.told[stands.GetName()] == what {
		return
	}
	d.told[stands.GetName()] = what
	note := fmt.Sprintf("Pillion has a default profile of this name, and leaves this one as it is, for %s. To have the default one, delete "+
		`this one. Set the annotation %s: "false" on it to hear no more of that.`, whose, v1alpha1.ManagedKey)
	d.logger.Info("Left a profile with the name of a default one as it is", "profile", stands.GetName(), "cause", whose)
	d.announcer.announce(ctx, announcement{
		regarding: profileReference(stands), kind: corev1.EventTypeNormal, reason: ReasonDefaultProfileLeft, action: "KeepDefaultProfile",
		note: note, name: stands.GetName() + ".default." + what,
	})
}

func profileReference(o client.Object) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPatternProfile", Name: o.GetName(), UID: o.GetUID(),
	}
}

// whoseIs says who else has a hand in a profile; nobody, if its spec is what Pillion wrote.
func whoseIs(profile *unstructured.Unstructured) string {
	written, isOurs := profile.GetAnnotations()[v1alpha1.DefaultKey]
	if !isOurs {
		return "somebody else made it"
	}
	var others []string
	for _, entry := range profile.GetManagedFields() {
		if entry.Manager != DefaultsManager && entry.Subresource == "" && managesSpec(entry.FieldsV1) && !slices.Contains(others, entry.Manager) {
			others = append(others, entry.Manager)
		}
	}
	slices.Sort(others)
	if len(others) > 0 {
		return strings.Join(others, " and ") + " changed its spec"
	}
	var spec any
	if err := utiljson.Unmarshal([]byte(written), &spec); err != nil || !holds(profile.Object["spec"], spec) {
		return "its spec is not what the annotation " + v1alpha1.DefaultKey + " says that Pillion wrote"
	}
	return ""
}

// managesSpec tells whether a field manager has set anything of the spec.
func managesSpec(fields *metav1.FieldsV1) bool {
	var set map[string]json.RawMessage
	if fields == nil || json.Unmarshal(fields.GetRawBytes(), &set) != nil {
		return false
	}
	_, ok := set["f:spec"]
	return ok
}

// holds tells whether all of one value is in another, which may have more keys: the defaults of its schema.
func holds(stands, wrote any) bool {
	object, isObject := wrote.(map[string]any)
	if !isObject {
		return reflect.DeepEqual(stands, wrote)
	}
	in, ok := stands.(map[string]any)
	if !ok {
		return false
	}
	for key, value := range object {
		if is, has := in[key]; !has || !holds(is, value) {
			return false
		}
	}
	return true
}
