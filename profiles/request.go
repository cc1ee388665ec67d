package profiles

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// Request is what decisions know of the request by which a Pod is created.
type Request struct {
	Namespace Namespace

	// Pod must have been decoded from JSON (see weave.NewWeaver) and is not changed; its own namespace is not read, for it may be
	// empty.
	Pod *corev1.Pod

	// User is who creates the Pod: conditions and the exemptions of Pod Security see it.
	User authenticationv1.UserInfo

	// DryRun is for conditions to see.
	DryRun bool

	// ClaimVolumes are the names of the volumes that the Pod's controller will add to it: those of a StatefulSet's volume claim
	// templates, which its Pod template does not have.
	ClaimVolumes []string

	// Final says that the Pod is what will be stored: all webhooks are done with it. The profiles that enforce have to be in it.
	Final bool
}

// ControllerUser returns who creates the Pods of a workload of a kind: the ServiceAccount of its controller in kube-controller-manager.
// Of a Pod that nothing creates for its author it is nobody in particular. Names are those of Kubernetes'
// pkg/controlplane/controller (cmd/kube-controller-manager/names).
func ControllerUser(kind string) authenticationv1.UserInfo {
	names := map[string]string{
		"Deployment": "replicaset-controller", "ReplicaSet": "replicaset-controller", "StatefulSet": "statefulset-controller",
		"DaemonSet": "daemon-set-controller", "Job": "job-controller", "CronJob": "job-controller",
		"ReplicationController": "replication-controller",
	}
	name, ok := names[kind]
	if !ok {
		return authenticationv1.UserInfo{}
	}
	return authenticationv1.UserInfo{
		Username: "system:serviceaccount:kube-system:" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
	}
}

// Decide decides about a Pod of a namespace of which no more is known than they are.
func Decide(snapshot *Snapshot, namespace Namespace, pod *corev1.Pod) Decision {
	return Request{Namespace: namespace, Pod: pod}.Decide(snapshot)
}
