package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/profiles"
)

// dryRun is what the API server made of a Pod that it was asked to try to create.
type dryRun struct {
	// Answer says whether the Pod would be created.
	Answer dryRunAnswer `json:"answer"`
	// Message is why not.
	Message  string   `json:"message,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Woven is what the Pod's marks say, and Skipped why profiles were left out.
	Woven   []profiles.Carried `json:"woven,omitempty"`
	Skipped map[string]string  `json:"skipped,omitempty"`
	// Differences are those from what was decided by what was read; nil if they were not compared.
	Differences []string `json:"differences,omitempty"`
	// Agrees says that there are none.
	Agrees bool `json:"agrees,omitempty"`

	sent, got *corev1.Pod
}

// dryRunAnswer is what the API server says.
type dryRunAnswer string

const (
	dryRunCreated   dryRunAnswer = "Created"
	dryRunDenied    dryRunAnswer = "Denied"     // by Pillion
	dryRunDeniedBy  dryRunAnswer = "DeniedElse" // by somebody else
	dryRunForbidden dryRunAnswer = "Forbidden"  // to the user
	dryRunFailed    dryRunAnswer = "Failed"     // nobody knows
	pillionsDenial               = ".pillion.dev\" denied the request: "
	pillionsFailure              = "failed calling webhook"
)

// tryOut asks the API server to try to create a Pod, which is JSON, and stores nothing. The Pod's name may be taken, so that it
// gets another one.
func (e *explaining) tryOut(ctx context.Context, namespace string, raw []byte) *dryRun {
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, &object.Object); err != nil {
		return &dryRun{Answer: dryRunFailed, Message: fmt.Sprintf("encode the Pod: %v", err)}
	}
	name := strings.TrimSuffix(object.GetName(), "-")
	object.SetGenerateName(shortName(name) + "-")
	object.SetName("")
	object.SetNamespace(namespace)
	result := &dryRun{sent: decodePod(object)}
	err := e.connected.Create(withWarnings(ctx, &result.Warnings), object, client.DryRunAll)
	switch message := errorMessage(err); {
	case err == nil:
		result.Answer, result.got = dryRunCreated, decodePod(object)
		result.Woven, result.Skipped = profiles.CarriedBy(result.got), profiles.SkippedIn(result.got)
	case strings.Contains(message, pillionsDenial):
		_, denial, _ := strings.Cut(message, pillionsDenial)
		result.Answer, result.Message = dryRunDenied, denial
	case apierrors.IsForbidden(err) && strings.Contains(message, "cannot create resource"):
		result.Answer = dryRunForbidden
		result.Message = fmt.Sprintf("you may not create Pods in namespace %s (permission: create pods), and so not try it", namespace)
	case strings.Contains(message, pillionsFailure) && strings.Contains(message, ".pillion.dev"):
		result.Answer, result.Message = dryRunFailed, "the API server does not reach Pillion's webhook, and so refuses the Pod: "+message
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		result.Answer, result.Message = dryRunDeniedBy, message
	default:
		result.Answer, result.Message = dryRunFailed, message
	}
	return result
}

// shortName cuts a name so that a generated one is as long as a Pod's may be for its host name.
func shortName(name string) string {
	const most = 57
	if name == "" {
		return "pillion-explain"
	}
	return strings.TrimRight(name[:min(len(name), most)], "-.")
}

func errorMessage(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return status.Status().Message
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func decodePod(object *unstructured.Unstructured) *corev1.Pod {
	pod := &corev1.Pod{}
	if encoded, err := json.Marshal(object.Object); err == nil {
		_ = json.Unmarshal(encoded, pod) // the API server reads it strictly
	}
	return pod
}

// creatable returns a Pod of the cluster as JSON of one that can be created again, without what the API server and the scheduler
// set.
func creatable(pod *corev1.Pod) ([]byte, error) {
	again := pod.DeepCopy()
	again.ObjectMeta = *pod.ObjectMeta.DeepCopy()
	again.UID, again.ResourceVersion, again.OwnerReferences, again.ManagedFields, again.Finalizers = "", "", nil, nil, nil
	again.CreationTimestamp.Reset()
	again.DeletionTimestamp, again.DeletionGracePeriodSeconds, again.Generation = nil, nil, 0
	again.Spec.NodeName, again.Spec.EphemeralContainers, again.Spec.Priority, again.Spec.PreemptionPolicy = "", nil, nil, nil
	again.Status = corev1.PodStatus{}
	again.APIVersion, again.Kind = "v1", "Pod"
	encoded, err := json.Marshal(again)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return encoded, nil
}

// explainByDryRun explains a Pod, which is JSON, by what a dry run tells, for who may not read what decides.
func (e *explaining) explainByDryRun(ctx context.Context, explained *explanation, known *knownNamespace, raw []byte) error {
	tried := e.tryOut(ctx, explained.Namespace, raw)
	explained.DryRun = tried
	cannot := fmt.Sprintf("you may not read %s", enumerate(explained.Unreadable))
	switch tried.Answer {
	case dryRunForbidden:
		return fmt.Errorf("%s, and %s: ask for one of these permissions, or for somebody who has it", cannot, tried.Message)
	case dryRunFailed:
		return fmt.Errorf("%s, and a dry run fails: %s", cannot, tried.Message)
	case dryRunDenied:
		explained.Verdict, explained.Summary = verdictRefused, tried.Message
		return nil
	case dryRunDeniedBy:
		explained.Verdict, explained.Summary = verdictUnknown, "The Pod is refused, but not by Pillion: "+tried.Message
		return nil
	case dryRunCreated:
	}
	names := make([]string, len(tried.Woven))
	for i := range tried.Woven {
		names[i] = tried.Woven[i].Profile
	}
	explained.Verdict, explained.Summary = verdictUnchanged, "A dry run adds nothing to the Pod."
	if len(names) > 0 {
		explained.Verdict, explained.Summary = verdictWoven, "The Pod gets "+enumerate(names)+", as a dry run shows."
	}
	if !e.showDiff || len(names) == 0 {
		return nil
	}
	without := known.snapshot.Without(known.namespaces.Get(explained.Namespace), tried.got)
	withoutAdditions(without, tried.sent)
	var err error
	explained.Diff, err = podDiff("pod", without, tried.got)
	return err
}

// withoutAdditions takes from a Pod the labels, annotations and variables that it did not have as it was sent. Other webhooks may
// have added some of them.
func withoutAdditions(pod, sent *corev1.Pod) {
	for _, of := range [][2]map[string]string{{pod.Labels, sent.Labels}, {pod.Annotations, sent.Annotations}} {
		for key := range of[0] {
			if _, was := of[1][key]; !was {
				delete(of[0], key)
			}
		}
	}
	for _, of := range [][2][]corev1.Container{
		{pod.Spec.InitContainers, sent.Spec.InitContainers}, {pod.Spec.Containers, sent.Spec.Containers},
	} {
		for i := range of[0] {
			c := &of[0][i]
			at := slices.IndexFunc(of[1], func(s corev1.Container) bool { return s.Name == c.Name })
			if at < 0 {
				continue
			}
			c.Env = slices.DeleteFunc(c.Env, func(v corev1.EnvVar) bool {
				return !slices.ContainsFunc(of[1][at].Env, func(s corev1.EnvVar) bool { return s.Name == v.Name })
			})
		}
	}
}

// carried returns the names of what a Pod carries.
func (x *explanation) carried() []string {
	names := make([]string, len(x.Carries))
	for i := range x.Carries {
		names[i] = x.Carries[i].Profile
	}
	return names
}

// compareCarried says what a Pod carries beside what a dry run of creating it again has.
func (e *explaining) compareCarried(explained *explanation) {
	if explained.DryRun.Answer != dryRunCreated {
		if len(explained.Carries) > 0 {
			explained.Summary = "The Pod carries " + enumerate(explained.carried()) + ". Created today: " + explained.Summary
		}
		return
	}
	same := true
	for i := range explained.Carries {
		carried := &explained.Carries[i]
		carried.State = profiles.CarriedNoMore
		for _, woven := range explained.DryRun.Woven {
			if woven.Profile == carried.Profile && woven.Namespace == carried.Namespace {
				carried.State = profiles.CarriedOutdated
				if woven.Revision == carried.Revision {
					carried.State = profiles.CarriedCurrent
				}
			}
		}
		same = same && carried.State == profiles.CarriedCurrent
	}
	names := explained.carried()
	switch {
	case len(names) == 0:
		explained.Summary = "The Pod carries nothing of Pillion's. Created today: " + explained.Summary
	case same && len(names) == len(explained.DryRun.Woven):
		explained.Summary = "The Pod carries " + enumerate(names) + ". Created today it would get the same, as a dry run shows."
	default:
		explained.Summary = "The Pod carries " + enumerate(names) + ". Created today: " + explained.Summary
	}
}

// compare holds what was decided against what the API server made of the Pod.
func (d *dryRun) compare(decided *profiles.Explanation) {
	differ := func(format string, args ...any) { d.Differences = append(d.Differences, fmt.Sprintf(format, args...)) }
	switch {
	case d.Answer == dryRunForbidden || d.Answer == dryRunFailed || d.Answer == dryRunDeniedBy:
		return
	case d.Answer == dryRunDenied && !decided.Allowed:
		d.Agrees = true
		return
	case d.Answer == dryRunDenied:
		differ("the API server refuses the Pod, which what was read allows: %s", d.Message)
		return
	case !decided.Allowed:
		differ("the API server takes the Pod, which what was read refuses")
	default:
		d.compareProfiles(decided, differ)
	}
	d.Agrees = len(d.Differences) == 0
}

func (d *dryRun) compareProfiles(decided *profiles.Explanation, differ func(string, ...any)) {
	woven := map[[2]string]profiles.Carried{}
	for _, one := range d.Woven {
		woven[[2]string{one.Namespace, one.Profile}] = one
	}
	for i := range decided.Profiles {
		entry := &decided.Profiles[i]
		if entry.Reason != profiles.ReasonApplied {
			continue
		}
		key := [2]string{entry.Namespace, entry.Profile}
		got, is := woven[key]
		switch {
		case !is:
			differ("the API server's Pod does not have %s", entry.Scope())
		case got.Revision != entry.Revision:
			differ("the API server's Pod has %s at revision %s, and what was read is at %s", entry.Scope(), got.Revision, entry.Revision)
		}
		delete(woven, key)
	}
	sentMarks := profiles.CarriedBy(d.sent)
	for _, one := range d.Woven {
		key := [2]string{one.Namespace, one.Profile}
		_, more := woven[key]
		if more && !slices.ContainsFunc(sentMarks, func(c profiles.Carried) bool { return c.Profile == one.Profile }) {
			differ("the API server's Pod has profile %s, which by what was read it does not get", one.Profile)
		}
	}
}

// whyDifferent is what people are told where cluster and decision differ.
const whyDifferent = "Pillion may be configured otherwise there than here (see the flags for its settings), be down or not asked, " +
	"or not know yet what was written a moment ago; and conditions that read request.userInfo see you in a dry run, and a controller in earnest."
