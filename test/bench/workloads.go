package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
)

// unknownProfile is what the Deployments ask for, so that there is something to warn of.
const unknownProfile = "site-contnt"

// workloadPath is that of the no-op webhook for workloads.
const workloadPath = "/noop-workload"

// workloadLane is one way for a Deployment to be created.
type workloadLane struct {
	name, lane, key string
	warns           bool
}

func workloadLanes() []workloadLane {
	return []workloadLane{
		{"no webhook", "none", otherKey, false},
		{"no-op, the same warning", "noop-workload", otherKey, true},
		{"Pillion", "pillion", v1alpha1.InjectKey, true},
	}
}

// workloads prints what the warnings of a workload cost whoever applies it, against a no-op webhook that gives the very same.
func (b *bench) workloads(ctx context.Context, creates int) error {
	recorder := &warningRecorder{}
	config := rest.CopyConfig(b.server.Config)
	config.WarningHandler = recorder
	c, err := client.New(config, client.Options{Scheme: b.server.Client.Scheme()})
	if err != nil {
		return err
	}
	if err := b.prepareWorkloads(ctx, c, recorder); err != nil {
		return err
	}
	const warmUp = 30
	lanes := workloadLanes()
	times := make([][]time.Duration, len(lanes))
	for i := range creates + warmUp {
		for l, lane := range lanes {
			deployment := benchDeployment(lane)
			start := time.Now()
			if err := c.Create(ctx, deployment, client.DryRunAll); err != nil {
				return err
			}
			took := time.Since(start)
			if warnings := recorder.take(); (len(warnings) == 1) != lane.warns {
				return fmt.Errorf("lane %s warns %q", lane.name, warnings)
			}
			if i >= warmUp {
				times[l] = append(times[l], took)
			}
		}
	}
	fmt.Printf("\ndry-run Deployment creates, %d per lane, 1 client, lanes interleaved\n", creates)
	fmt.Printf("%-32s %10s %10s %12s\n", "lane", "p50", "p90", "added p50")
	medians := make([]time.Duration, len(lanes))
	for l := range lanes {
		slices.Sort(times[l])
		medians[l] = times[l][len(times[l])/2]
		fmt.Printf("%-32s %10s %10s %12s\n", lanes[l].name, round(medians[l]), round(times[l][len(times[l])*9/10]), round(medians[l]-medians[0]))
	}
	const figure = "ratio to no-op (workloads)"
	value := float64(medians[2]-medians[0]) / float64(medians[1]-medians[0])
	fmt.Printf("%s: %.2f %s\n", figure, value, b.bounded(figure, value, maxRatio))
	return nil
}

// prepareWorkloads installs the no-op webhook for workloads, and gives it the warning that Pillion gives.
func (b *bench) prepareWorkloads(ctx context.Context, c client.Client, recorder *warningRecorder) error {
	lanes := workloadLanes()
	var warnings []string
	err := apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		err := c.Create(ctx, benchDeployment(lanes[2]), client.DryRunAll)
		warnings = recorder.take()
		return err == nil && len(warnings) == 1, errors.Join(err, fmt.Errorf("the warnings of Pillion are %q", warnings))
	})
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(warnings)
	if err != nil {
		return err
	}
	if err := b.floor.give(workloadPath+warningsSuffix, encoded); err != nil {
		return err
	}
	if err := b.server.Client.Create(ctx, b.workloadFloor()); err != nil {
		return err
	}
	return apiserver.Await(ctx, func(ctx context.Context) (bool, error) {
		err := c.Create(ctx, benchDeployment(lanes[1]), client.DryRunAll)
		same := recorder.take()
		return err == nil && slices.Equal(warnings, same), errors.Join(err, fmt.Errorf("the warnings of the no-op webhook are %q", same))
	})
}

// workloadFloor sends Deployments to the no-op webhook by their label "lane".
func (b *bench) workloadFloor() *admissionregistrationv1.ValidatingWebhookConfiguration {
	url := b.floor.url + workloadPath
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "a-workload-floor"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    "workload.example.com",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: b.floor.ca},
			AdmissionReviewVersions: []string{"v1"},
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			ObjectSelector:          &metav1.LabelSelector{MatchLabels: map[string]string{"lane": "noop-workload"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{appsv1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"deployments"},
				},
			}},
		}},
	}
}

// benchDeployment is a Deployment of ordinary Pods.
func benchDeployment(lane workloadLane) *appsv1.Deployment {
	pod := benchPod(lane.lane, lane.key, unknownProfile)
	delete(pod.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "web-", Namespace: namespace, Labels: map[string]string{"lane": lane.lane}},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec,
			},
		},
	}
}

// warningRecorder keeps the warnings of responses. It is not for several requests at once.
type warningRecorder struct{ messages []string }

// HandleWarningHeader keeps a warning.
func (r *warningRecorder) HandleWarningHeader(_ int, _, message string) {
	r.messages = append(r.messages, message)
}

// take returns the warnings since it was called last.
func (r *warningRecorder) take() []string {
	taken := r.messages
	r.messages = nil
	return taken
}
