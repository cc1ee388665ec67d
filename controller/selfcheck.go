package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
)

// SelfCheckNamespace is where the self-check creates its Pod, by dry run. It belongs to the installation, and nothing else is in it but
// the PatternProfile SelfCheckProfile, which the controller makes and keeps: an installation cannot bring an object of a kind that it
// brings as well.
const (
	SelfCheckNamespace = "pillion-selfcheck"
	SelfCheckProfile   = "self-check"
)

const (
	// selfCheckTimeout bounds one check. The API server gives the creation of a Pod 34 s at most.
	selfCheckTimeout = 40 * time.Second
	// betweenSelfChecks is the least time between two checks, whatever happens.
	betweenSelfChecks = time.Second
	// maxSelfCheckWait is the longest time between two checks while they fail: it is a second at first, and doubled each time.
	maxSelfCheckWait = 15 * time.Second
	// settleSelfCheck is how long failures are not told of after the start where no result was told before: an installation starts in any
	// order.
	settleSelfCheck = 30 * time.Second
	// rewordSelfCheck is how often the condition is written for its message alone, which may hold a time or a port.
	rewordSelfCheck = time.Minute
	// tellFrom is the number of failures in a row from which on they are told. The first may be a replica that has just ended.
	tellFrom = 2
)

// selfCheck proves the whole path: the API server calls the webhook as the configuration says, trusts it, and gets the answer that the
// profiles ask for. It creates a Pod by dry run and compares what comes back with what Decide says of it.
type selfCheck struct {
	// interval is the time between two checks; zero: there are none, and the condition says so.
	interval time.Duration
	client   client.Client
	live     client.Reader // the API server itself
	catalog  *catalog
	desired  *desired
	// decisions are the options that the webhook decides with.
	decisions profiles.Options
	excluded  []string
	// namespace is Pillion's own, where Events go if there is no other place.
	namespace string
	announcer *announcer
	now       func() time.Time
	logger    logr.Logger
	metrics   *selfCheckMetrics
	// settle is settleSelfCheck.
	settle time.Duration

	// What follows is Reconcile's alone, which never runs twice at once.
	began, ended time.Time
	failures     int       // in a row
	worded       time.Time // when the condition was written last
	missing      string    // the reason that was told last for lack of a namespace
}

// Reconcile makes a check, unless one was made just now, and says when the next is due.
func (s *selfCheck) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if s.interval == 0 {
		return reconcile.Result{}, s.tellOff(ctx)
	}
	snapshot := s.catalog.current()
	if snapshot == nil {
		return reconcile.Result{RequeueAfter: betweenSelfChecks}, nil
	}
	if s.began.IsZero() {
		s.began = s.now()
	}
	if wait := s.ended.Add(betweenSelfChecks).Sub(s.now()); wait > 0 && wait <= betweenSelfChecks {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	timed, cancel := context.WithTimeout(ctx, selfCheckTimeout)
	defer cancel()
	profile, result := s.check(timed, snapshot)
	s.ended = s.now()
	if ctx.Err() != nil { // the controller ends: what was not answered is no failure
		return reconcile.Result{}, nil
	}
	s.metrics.observe(&result, s.now())
	next := s.interval
	if result.ok {
		s.failures = 0
	} else {
		next = min(next, maxSelfCheckWait, betweenSelfChecks<<min(s.failures, 8))
		s.failures++
	}
	s.tell(ctx, profile, &result)
	return reconcile.Result{RequeueAfter: next}, nil
}

// check makes one check. It returns the profile that the result is told on; nil if there is none.
func (s *selfCheck) check(ctx context.Context, snapshot *profiles.Snapshot) (*v1alpha1.PatternProfile, checkResult) {
	namespace, problem := s.readNamespace(ctx)
	if problem != nil {
		return nil, checkResult{verdict: *problem}
	}
	profile, err := s.keepProfile(ctx)
	if err != nil {
		return profile, checkResult{verdict: ofCreation(err, "the PatternProfile of the self-check")}
	}
	if slices.Contains(s.excluded, SelfCheckNamespace) {
		return profile, checkResult{verdict: verdict{reason: ReasonNamespaceExcluded, message: fmt.Sprintf(
			"Namespace %s is in excludedNamespaces, so that no Pod there is ever sent to Pillion and nothing can be proved: take it off the "+
				"list, or set controller.selfCheckInterval to none.", SelfCheckNamespace)}}
	}
	pod := selfCheckPod(s.image(), suffix())
	expected, err := s.expect(namespace, profile, pod)
	if err != nil {
		return profile, checkResult{verdict: verdict{reason: ReasonAPIServerFailed, message: err.Error()}}
	}
	start := time.Now()
	got := pod.DeepCopy()
	err = s.client.Create(ctx, got, client.DryRunAll)
	result := checkResult{took: time.Since(start), asked: true}
	if err != nil {
		result.verdict = ofCreation(err, "a Pod, by dry run")
		return profile, result
	}
	result.verdict = compare(pod, got, expected)
	if result.reason == ReasonNotWoven {
		result.message += s.whyNotCalled(ctx, snapshot)
	}
	return profile, result
}

// readNamespace reads the namespace of the self-check, or says why there can be none.
func (s *selfCheck) readNamespace(ctx context.Context) (profiles.Namespace, *verdict) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	err := s.live.Get(ctx, types.NamespacedName{Name: SelfCheckNamespace}, object)
	switch {
	case apierrors.IsNotFound(err):
		return profiles.Namespace{}, &verdict{reason: ReasonNamespaceNotFound, message: fmt.Sprintf(
			"Namespace %s does not exist, where the self-check creates a Pod by dry run: install Pillion's manifests again, which have it with "+
				"its Role and RoleBinding, or set controller.selfCheckInterval to none.", SelfCheckNamespace)}
	case err != nil:
		failed := ofCreation(err, "nothing: namespace "+SelfCheckNamespace+" cannot be read")
		return profiles.Namespace{}, &failed
	case object.DeletionTimestamp != nil:
		return profiles.Namespace{}, &verdict{reason: ReasonNamespaceNotFound, message: fmt.Sprintf(
			"Namespace %s is being deleted: install it again, or set controller.selfCheckInterval to none.", SelfCheckNamespace)}
	}
	delete(object.Annotations, corev1.LastAppliedConfigAnnotation)
	return profiles.Namespace{Name: object.Name, Labels: object.Labels, Annotations: object.Annotations}, nil
}

// keepProfile makes the profile of the self-check, or makes it again what it should be.
func (s *selfCheck) keepProfile(ctx context.Context) (*v1alpha1.PatternProfile, error) {
	profile := &v1alpha1.PatternProfile{}
	err := s.live.Get(ctx, types.NamespacedName{Namespace: SelfCheckNamespace, Name: SelfCheckProfile}, profile)
	if apierrors.IsNotFound(err) {
		profile = selfCheckProfile(s.image())
		if err := s.client.Create(ctx, profile); err != nil {
			return nil, err
		}
		return profile, nil
	}
	if err != nil {
		return nil, err
	}
	want := selfCheckProfile(s.image()).Spec
	if sameJSON(profile.Spec, want) {
		return profile, nil
	}
	before := profile.DeepCopy()
	profile.Spec = want
	if err := s.client.Patch(ctx, profile, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return before, err
	}
	s.logger.Info("The profile of the self-check was not as it should be, and is again", "profile", client.ObjectKeyFromObject(profile))
	return profile, nil
}

// expect returns what has to become of the Pod, by the profiles as the controller knows them and that of the self-check as it is now.
func (s *selfCheck) expect(
	namespace profiles.Namespace, profile *v1alpha1.PatternProfile, pod *corev1.Pod,
) (profiles.Decision, error) {
	decoded, err := decodedPod(pod)
	if err != nil {
		return profiles.Decision{}, err
	}
	snapshot := profiles.NewSnapshot(s.decisions, s.catalog.profiles()).With(s.catalog.compiler.Namespaced(profile))
	return profiles.Request{Namespace: namespace, Pod: decoded, DryRun: true}.Decide(snapshot), nil
}

// isSelfCheck tells whether a profile is that of the self-check.
func isSelfCheck(o client.Object) bool {
	return o.GetNamespace() == SelfCheckNamespace && o.GetName() == SelfCheckProfile
}

func (s *selfCheck) image() string { return s.decisions.Images.Pillion }

// whyNotCalled says what is wrong with the entry by which the API server should have called.
func (s *selfCheck) whyNotCalled(ctx context.Context, snapshot *profiles.Snapshot) string {
	standing, err := stands(ctx, s.desired, mutatingKind(), snapshot.Plan(), podsEntry)
	switch {
	case err != nil:
		return ""
	case !standing.ok:
		return " " + standing.message
	default:
		return fmt.Sprintf(" Entry %s of MutatingWebhookConfiguration %s is in place; an API server may not have seen it yet.",
			podsEntry, s.desired.name)
	}
}

// tell tells a result by condition, Event and log, where it is another than the one that was told last.
func (s *selfCheck) tell(ctx context.Context, profile *v1alpha1.PatternProfile, result *checkResult) {
	if profile == nil {
		s.tellMissing(ctx, &result.verdict)
		return
	}
	s.missing = ""
	for range 3 {
		err := s.tellOn(ctx, profile, &result.verdict)
		if !apierrors.IsConflict(err) {
			if client.IgnoreNotFound(err) != nil && ctx.Err() == nil {
				s.logger.Info("The condition of the self-check could not be written", "cause", causeOf(err))
			}
			return
		}
		if s.live.Get(ctx, client.ObjectKeyFromObject(profile), profile) != nil {
			return
		}
	}
}

// tellOn writes the condition on the profile of the self-check, and an Event if it says something else than before.
func (s *selfCheck) tellOn(ctx context.Context, profile *v1alpha1.PatternProfile, is *verdict) error {
	before := meta.FindStatusCondition(profile.Status.Conditions, v1alpha1.ConditionSelfCheck)
	isNew := before == nil || before.Reason != is.reason
	switch {
	case !is.ok && !is.unknown && s.failures < tellFrom:
		return nil
	case !is.ok && !is.unknown && before == nil && s.now().Sub(s.began) < s.settle:
		return nil
	case !isNew && s.now().Sub(s.worded) < rewordSelfCheck:
		return nil
	}
	changed := profile.DeepCopy()
	setCondition(&changed.Status, v1alpha1.ConditionSelfCheck, *is, metav1.NewTime(s.now()))
	condition := meta.FindStatusCondition(changed.Status.Conditions, v1alpha1.ConditionSelfCheck)
	condition.ObservedGeneration = profile.Generation
	if equality.Semantic.DeepEqual(profile.Status, changed.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(profile.DeepCopy(), client.MergeFromWithOptimisticLock{})
	if err := s.client.Status().Patch(ctx, changed, patch); err != nil {
		return err
	}
	s.worded = s.now()
	if isNew && !is.unknown {
		s.announce(ctx, corev1.ObjectReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatternProfile",
			Namespace: profile.Namespace, Name: profile.Name, UID: profile.UID,
		}, is)
	}
	return nil
}

// tellMissing tells of a check that has no place for its condition, on the Lease that the controller holds.
func (s *selfCheck) tellMissing(ctx context.Context, is *verdict) {
	if s.failures < tellFrom || s.missing == is.reason {
		return
	}
	s.missing = is.reason
	s.announce(ctx, corev1.ObjectReference{
		APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: s.namespace, Name: LeaseName,
	}, is)
}

func (s *selfCheck) announce(ctx context.Context, regarding corev1.ObjectReference, is *verdict) {
	what := announcement{
		regarding: regarding, kind: corev1.EventTypeNormal, reason: ReasonSelfCheckPassed, action: "SelfCheck", note: is.message,
	}
	if is.ok {
		s.logger.Info("The self-check passes")
	} else {
		what.kind, what.reason = corev1.EventTypeWarning, ReasonSelfCheckFailed
		what.note = is.reason + ": " + is.message
		s.logger.Error(nil, "The self-check fails", "reason", is.reason, "message", is.message)
	}
	s.announcer.announce(ctx, what)
}

// tellOff says on a profile that is there from before that nothing is checked, so that no old result is taken for a new one.
func (s *selfCheck) tellOff(ctx context.Context) error {
	profile := &v1alpha1.PatternProfile{}
	err := s.live.Get(ctx, types.NamespacedName{Namespace: SelfCheckNamespace, Name: SelfCheckProfile}, profile)
	if err == nil {
		err = s.tellOn(ctx, profile, &verdict{unknown: true, reason: ReasonSelfCheckOff, message: "The self-check is switched off by " +
			"controller.selfCheckInterval."})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("say that the self-check is off: %w", err)
	}
	return nil
}
