package main

import (
	"context"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/config"
	"github.com/pillion-dev/pillion/profiles"
)

// registered is what the cluster's webhook configuration tells who may read it.
type registered struct {
	// known says that the excluded namespaces are the cluster's.
	known bool
	notes []string
}

// readWebhooks learns from the cluster's webhook configuration whether Pillion is called at all, and, unless the user says so
// himself, which namespaces are excluded. Most users may not read it, and it is no error that they may not.
func (e *explaining) readWebhooks(ctx context.Context) registered {
	found, name := &admissionregistrationv1.MutatingWebhookConfiguration{}, e.settings.WebhookConfiguration
	err := e.connected.Get(ctx, client.ObjectKey{Name: name}, found)
	switch {
	case apierrors.IsNotFound(err):
		return registered{notes: []string{fmt.Sprintf("the cluster has no MutatingWebhookConfiguration %s, by which the API server "+
			"calls Pillion: unless its name is another (webhookConfiguration in Pillion's configuration), Pods get nothing", name)}}
	case err != nil:
		return registered{}
	}
	at := slices.IndexFunc(found.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool { return w.Name == "pods."+v1alpha1.Group })
	if at < 0 {
		return registered{notes: []string{fmt.Sprintf("MutatingWebhookConfiguration %s has no entry for Pods that ask, so that they get "+
			"nothing: Pillion's controller writes it; see whether it runs", name)}}
	}
	excluded := excludedBy(found.Webhooks[at].NamespaceSelector)
	if excluded == nil || !e.isDefault(e.settings.ExcludedNamespaces) {
		return registered{}
	}
	e.settings.ExcludedNamespaces = excluded
	return registered{known: true}
}

// isDefault tells whether excluded namespaces are those of a configuration that says nothing of them.
func (e *explaining) isDefault(excluded []string) bool {
	standard, err := config.Load(nil, nil)
	return err == nil && slices.Equal(slices.Sorted(slices.Values(excluded)), slices.Sorted(slices.Values(standard.ExcludedNamespaces)))
}

// excludedBy returns the namespaces that the controller keeps out of an entry; nil if it says nothing of them.
func excludedBy(selector *metav1.LabelSelector) []string {
	if selector == nil {
		return nil
	}
	for _, requirement := range selector.MatchExpressions {
		if requirement.Key == corev1.LabelMetadataName && requirement.Operator == metav1.LabelSelectorOpNotIn {
			return requirement.Values
		}
	}
	return nil
}

// doubts tells what the cluster may do otherwise.
func (e *explaining) doubts(explained *explanation) []string {
	if e.connected == nil || e.webhooks.known || explained.Exempt == nil || explained.Exempt.Reason != profiles.ReasonNamespaceExcluded {
		return nil
	}
	return []string{"that the namespace is excluded is what this command is told by --excluded-namespaces, or takes by default; " +
		"--dry-run shows what the cluster does"}
}
