package controller

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/profiles"
)

// needsUsers tells whether a profile is served only for those who use it.
func needsUsers(served *profiles.Profile) bool { return served.Deleted || len(served.Broken) > 0 }

// users are those for whom a profile that is deleted or broken is still served.
type users struct {
	// number is how many ask for it by name, and asking the first of them, as "Deployment NAMESPACE/NAME", sorted. counted is false
	// if it is not known who, and err why if that is a fault.
	number  int
	asking  []string
	counted bool
	err     error
	// policy says that the profile's match chooses Pods.
	policy bool
	// readers are the profiles that read from it, sorted.
	readers []string
}

// any tells whether there may be some.
func (u *users) any() bool { return !u.counted || u.policy || len(u.readers) > 0 || u.number > 0 }

func (u *users) verdict() verdict {
	switch {
	case u.number > 0:
		some := strings.Join(u.asking, ", ")
		if more := u.number - len(u.asking); more > 0 {
			some += fmt.Sprintf(" and %d more", more)
		}
		return verdict{ok: true, reason: ReasonAskedFor, message: fmt.Sprintf("%d still ask for the profile: %s.", u.number, some)}
	case len(u.readers) > 0:
		return verdict{ok: true, reason: ReasonReadBy, message: fmt.Sprintf(
			"%s reads its files, so that Pods get it as before.", u.readers[0])}
	case u.policy:
		return verdict{ok: true, reason: ReasonChosenByMatch, message: "The profile's match chooses Pods."}
	case u.err != nil:
		return verdict{unknown: true, reason: ReasonCannotList, message: fmt.Sprintf(
			"It cannot be looked up who asks for the profile: %v", u.err)}
	case !u.counted:
		return verdict{unknown: true, reason: ReasonCounting, message: "It is not known yet who asks for the profile."}
	default:
		return verdict{reason: ReasonNobodyAsks, message: "Nobody asks for the profile."}
	}
}

// workloadKind is a kind that creates Pods from a template, or creates what does.
type workloadKind struct {
	kind    string
	newList func() client.ObjectList
}

func workloadKinds() []workloadKind {
	return []workloadKind{
		{"Deployment", func() client.ObjectList { return &appsv1.DeploymentList{} }},
		{"StatefulSet", func() client.ObjectList { return &appsv1.StatefulSetList{} }},
		{"DaemonSet", func() client.ObjectList { return &appsv1.DaemonSetList{} }},
		{"ReplicaSet", func() client.ObjectList { return &appsv1.ReplicaSetList{} }},
		{"Job", func() client.ObjectList { return &batchv1.JobList{} }},
		{"CronJob", func() client.ObjectList { return &batchv1.CronJobList{} }},
	}
}

// workload is what is read of one.
type workload struct {
	kind string
	// annotations are those of its Pods.
	annotations map[string]string
	// creates says that it may create Pods by this template.
	creates bool
	// deployment names the Deployment that a ReplicaSet is of.
	deployment string
}

func workloadOf(object client.Object) workload {
	switch object := object.(type) {
	case *appsv1.Deployment:
		return workload{"Deployment", object.Spec.Template.Annotations, true, ""}
	case *appsv1.StatefulSet:
		return workload{"StatefulSet", object.Spec.Template.Annotations, true, ""}
	case *appsv1.DaemonSet:
		return workload{"DaemonSet", object.Spec.Template.Annotations, true, ""}
	case *appsv1.ReplicaSet:
		owner := metav1.GetControllerOf(object)
		// Whoever has some keeps old ones, too, which have no replicas once the newest has them all.
		creates := owner == nil || object.Spec.Replicas == nil || *object.Spec.Replicas > 0
		return workload{"ReplicaSet", object.Spec.Template.Annotations, creates, deploymentOf(owner)}
	case *batchv1.Job:
		return workload{"Job", object.Spec.Template.Annotations, !isFinished(object), ""}
	case *batchv1.CronJob:
		return workload{"CronJob", object.Spec.JobTemplate.Spec.Template.Annotations, true, ""}
	default:
		return workload{}
	}
}

// deploymentOf returns the name of an owner that is a Deployment, and not of some other group's kind of that name.
func deploymentOf(owner *metav1.OwnerReference) string {
	if owner == nil || owner.Kind != "Deployment" {
		return ""
	}
	if group, _, _ := strings.Cut(owner.APIVersion, "/"); group != appsv1.GroupName {
		return ""
	}
	return owner.Name
}

func isFinished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(condition batchv1.JobCondition) bool {
		ended := condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed
		return ended && condition.Status == corev1.ConditionTrue
	})
}
