package cases

import (
	"context"
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/webhook"
)

// answer is what the webhook says of a Pod.
type answer struct {
	*admissionv1.AdmissionResponse
	raw []byte // the Pod with what is added to it, as JSON; nil if it is refused
	pod *corev1.Pod
}

// message is why the Pod is refused.
func (a *answer) message() string {
	if a.Result == nil {
		return ""
	}
	return a.Result.Message
}

// admit sends the Pod of a request to the webhook's handler, and does with the answer what the API server does.
func (w *world) admit(ctx context.Context, path string, request request) (*answer, error) {
	review := webhook.NewReview(request.namespace, request.raw)
	review.Request.UserInfo, review.Request.DryRun = request.user, &request.dryRun
	body, err := json.Marshal(review)
	if err != nil {
		return nil, fmt.Errorf("encode the admission review: %w", err)
	}
	known := webhook.Static{Profiles: w.snapshot, Namespaces: request.namespaces}
	answered, err := webhook.Ask(ctx, webhook.NewHandler(known, webhook.Options{Compiler: w.compiler}), path, body)
	if err != nil {
		return nil, err
	}
	got := &answer{AdmissionResponse: answered.Response}
	if !got.Allowed {
		return got, nil
	}
	if got.raw, err = webhook.Apply(request.raw, got.Patch); err != nil {
		return nil, err
	}
	got.pod, err = decode(got.raw)
	return got, err
}

func decode(raw []byte) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, pod); err != nil {
		return nil, fmt.Errorf("decode the Pod: %w", err)
	}
	return pod, nil
}

// decide returns the decision that the handler makes, with every profile that was considered.
func (w *world) decide(request request) (profiles.Decision, error) {
	pod, err := decode(request.raw)
	if err != nil {
		return profiles.Decision{}, err
	}
	return profiles.Request{
		Namespace: request.namespaces.Get(request.namespace), Pod: pod, User: request.user, DryRun: request.dryRun,
	}.Decide(w.snapshot), nil
}
