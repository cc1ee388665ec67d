package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pillion-dev/pillion/config"
)

// certsCommand is what people ask about certificates.
func certsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "certs",
		Short: "Ask about the certificates that the API server knows Pillion by",
		Long: `certs has one command, status, which says whether the API server trusts what Pillion's webhook presents, what is due
next, and what is wrong.`,
		Example: `  pillion certs status`,
		Args:    cobra.NoArgs,
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(certsStatusCommand())
	return command
}

func certsStatusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "Say whether the webhook's certificates are in order, and what is due next",
		Long: `status tells how far the replacement of the CA has come and what comes next; each certificate, its names and when it is
renewed; for each entry of both webhook configurations whether its caBundle is exactly what is recorded and trusts the serving
certificate; and what each replica of the webhook presents, by its metrics, which it reads through the API server.

It reads the cluster as the user of the kubeconfig, and says what it may not read. It prints no private key. It ends with an
error if something is wrong, after it has said what to do.`,
		Example: `  pillion certs status
  pillion certs status --namespace pillion-system -o json`,
		Args: cobra.NoArgs,
	}
	cluster, settings, out := addClusterFlags(command), addCertsFlags(command), addOutputFlag(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		loaded, err := config.Load(settings, os.Environ())
		if err != nil {
			return err
		}
		if named := cluster.overrides.Context.Namespace; named != "" {
			loaded.Namespace = named
		}
		connected, restConfig, err := cluster.connectRaw()
		if err != nil {
			return err
		}
		inspection := &certsInspection{settings: loaded, reader: connected, restConfig: restConfig, now: time.Now().UTC()}
		report, err := inspection.inspect(command.Context())
		if err != nil {
			return err
		}
		if out.form != formText {
			err = out.print(command.OutOrStdout(), report)
		} else {
			err = report.write(command.OutOrStdout())
		}
		if err != nil {
			return err
		}
		if len(report.Problems) > 0 {
			return errors.New("the certificates are not in order: what to do is said above")
		}
		return nil
	}
	return command
}

// addCertsFlags adds the settings that say what the objects are called. The namespace is a flag of clusters'.
func addCertsFlags(command *cobra.Command) *pflag.FlagSet {
	set := pflag.NewFlagSet("configuration", pflag.ContinueOnError)
	config.AddFlags(set, config.Decisions, config.WebhookServer, config.ControllerManager)
	for _, name := range []string{
		"config", "webhook-configuration", "webhook-certificate-secret", "webhook-metrics-address", "certs-ca-secret", "certs-settle",
	} {
		command.Flags().AddFlag(set.Lookup(name))
	}
	return set
}

// certsInspection is one look at the certificates of a cluster.
type certsInspection struct {
	settings   config.Config
	reader     client.Reader
	restConfig *rest.Config
	now        time.Time

	// unreadable says what could not be read, and why.
	unreadable []string
}

// secret returns the data of a Secret; nil with false if it does not exist, nil with true if it may not be read.
func (c *certsInspection) secret(ctx context.Context, name, what string) (data map[string][]byte, exists bool, err error) {
	secret := &corev1.Secret{}
	err = c.reader.Get(ctx, client.ObjectKey{Namespace: c.settings.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case apierrors.IsForbidden(err):
		c.unreadable = append(c.unreadable, fmt.Sprintf("you may not read Secret %s/%s (permission: get secrets): %s is not shown",
			c.settings.Namespace, name, what))
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("read Secret %s/%s: %w", c.settings.Namespace, name, err)
	case secret.Data == nil:
		return map[string][]byte{}, true, nil
	}
	return secret.Data, true, nil
}

// registration is a webhook configuration.
type registration struct {
	kind, name  string
	isThere     bool
	annotations map[string]string
	entries     []registeredEntry
}

type registeredEntry struct {
	name   string
	client *admissionregistrationv1.WebhookClientConfig
}

// registrations returns both webhook configurations, as far as they may be read.
func (c *certsInspection) registrations(ctx context.Context) ([]registration, error) {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	var found []registration
	for _, one := range []struct {
		kind    string
		object  client.Object
		entries func() []registeredEntry
	}{
		{"MutatingWebhookConfiguration", mutating, func() (entries []registeredEntry) {
			for i := range mutating.Webhooks {
				entries = append(entries, registeredEntry{mutating.Webhooks[i].Name, &mutating.Webhooks[i].ClientConfig})
			}
			return entries
		}},
		{"ValidatingWebhookConfiguration", validating, func() (entries []registeredEntry) {
			for i := range validating.Webhooks {
				entries = append(entries, registeredEntry{validating.Webhooks[i].Name, &validating.Webhooks[i].ClientConfig})
			}
			return entries
		}},
	} {
		name := c.settings.WebhookConfiguration
		err := c.reader.Get(ctx, client.ObjectKey{Name: name}, one.object)
		switch {
		case apierrors.IsForbidden(err):
			c.unreadable = append(c.unreadable, fmt.Sprintf("you may not read %s %s: whether its entries trust the certificate is not shown",
				one.kind, name))
			continue
		case err != nil && !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("read %s %s: %w", one.kind, name, err)
		}
		found = append(found, registration{
			kind: one.kind, name: name, isThere: err == nil, annotations: one.object.GetAnnotations(), entries: one.entries(),
		})
	}
	return slices.Clip(found), nil
}
