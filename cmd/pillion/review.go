package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/manifest"
	"github.com/pillion-dev/pillion/webhook"
)

func reviewCommand() *cobra.Command {
	var filename string
	var failOnDenial bool
	command := &cobra.Command{
		Use:   "review [-f FILE] --profiles DIR...",
		Short: "Answer an admission review, as the webhook would",
		Long: `review reads an AdmissionReview of admission.k8s.io/v1, in JSON or YAML, and prints the one that the webhook would
answer, from the same handler. It needs no cluster. The patch in an answer is in base64, as the API server gets it. A review of
a profile that is written is answered beside the profiles given.

Namespaces' labels come from the Namespaces among the profiles; any other namespace has no label of its own. What the webhook
would answer with an HTTP error is an error here.`,
		Example: `  pillion review -f review.json --profiles profiles/

  # What is added?
  pillion review -f review.json --profiles profiles/ | jq -r '.response.patch // "" | @base64d'

  # Test a policy
  pillion review --profiles profiles/ --fail-on-denial < review.yaml`,
		Args: cobra.NoArgs,
	}
	command.Flags().StringVarP(&filename, "filename", "f", manifest.Stdin, "admission review: a file, or - for stdin")
	command.Flags().BoolVar(&failOnDenial, "fail-on-denial", false, "exit with status 1 if the answer is no")
	offline := addOfflineFlags(command)
	command.RunE = func(command *cobra.Command, _ []string) error {
		decider, err := offline.load(corev1.NamespaceDefault)
		if err != nil {
			return err
		}
		request, err := readReview(filename, command.InOrStdin())
		if err != nil {
			return err
		}
		review, err := decider.review(command.Context(), request)
		if err != nil {
			return err
		}
		encoded, err := json.MarshalIndent(review, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		if err := writeLine(command.OutOrStdout(), string(encoded)); err != nil {
			return err
		}
		if failOnDenial && !review.Response.Allowed {
			return errors.New(review.Response.Result.Message)
		}
		return nil
	}
	return command
}

// readReview returns an admission review as JSON; nothing if the file is empty, of which the handler says what is wrong.
func readReview(filename string, stdin io.Reader) ([]byte, error) {
	files, errs := manifest.ReadFiles([]string{filename}, stdin)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the admission review: %w", err)
	}
	var review *manifest.Document
	for i := range files {
		for _, document := range files[i].Documents {
			switch {
			case document.Empty():
			case document.Err != nil:
				return nil, fmt.Errorf("read the admission review: %w", document.Err)
			case review != nil:
				return nil, fmt.Errorf("read the admission review: %w", document.Errorf(0, "this is a second one; give one at a time"))
			default:
				review = document
			}
		}
	}
	if review == nil {
		return nil, nil
	}
	return review.JSON(), nil
}

// review sends an admission review to the webhook's handler.
func (o *decider) review(ctx context.Context, body []byte) (*admissionv1.AdmissionReview, error) {
	asked := admissionv1.AdmissionReview{}
	_ = json.Unmarshal(body, &asked) // the handler says what is wrong with it
	known := webhook.Static{Profiles: o.snapshot, Namespaces: o.namespaces}
	return webhook.Ask(ctx, webhook.NewHandler(known, webhook.Options{Compiler: o.compiler}), webhook.PathFor(&asked), body)
}
