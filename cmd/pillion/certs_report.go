package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/pillion-dev/pillion/certs"
)

// injectedFrom is the annotation by which cert-manager injects a caBundle from a Secret.
const injectedFrom = "cert-manager.io/inject-ca-from-secret"

// How long after it was due something is a problem: the controller needs seconds.
const overdue = 10 * time.Minute

// certsReport is what certs status says.
type certsReport struct {
	printedKind
	// Healthy says that no problem was found in what could be read.
	Healthy   bool   `json:"healthy"`
	Namespace string `json:"namespace"`
	// Mode is builtin or cert-manager, by what stands in the cluster; empty if that could not be read.
	Mode     string         `json:"mode,omitempty"`
	Rotation *shownRotation `json:"rotation,omitempty"`

	Certificates []shownCertificate `json:"certificates"`
	Entries      []shownEntry       `json:"entries"`
	Replicas     []shownReplica     `json:"replicas"`

	// Problems are sentences that say what is wrong and what to do, Unreadable what could not be read and why.
	Problems   []string `json:"problems"`
	Unreadable []string `json:"unreadable,omitempty"`

	now time.Time
}

// shownRotation is how far the replacement of the CA has come.
type shownRotation struct {
	Phase   certs.Phase  `json:"phase"`
	Since   *time.Time   `json:"since,omitempty"`
	Reason  certs.Reason `json:"reason,omitempty"`
	Message string       `json:"message,omitempty"`
	Next    string       `json:"next,omitempty"`
	NextAt  *time.Time   `json:"nextAt,omitempty"`
}

// shownCertificate is a certificate without its key.
type shownCertificate struct {
	Role      certs.Role `json:"role"`
	Subject   string     `json:"subject"`
	Issuer    string     `json:"issuer"`
	Serial    string     `json:"serial"`
	Names     []string   `json:"names"`
	NotBefore time.Time  `json:"notBefore"`
	NotAfter  time.Time  `json:"notAfter"`
	Remaining string     `json:"remaining"`
	RenewAt   *time.Time `json:"renewAt,omitempty"`
}

// shownEntry is an entry of a webhook configuration.
type shownEntry struct {
	Configuration string `json:"configuration"`
	Name          string `json:"name"`
	// Trusts says whether what is in the Secret to be served verifies by the entry's caBundle, and Why why not; nil: nobody knows.
	Trusts *bool  `json:"trusts,omitempty"`
	Why    string `json:"why,omitempty"`
	// Exact says whether the caBundle is what is recorded; nil: nobody knows.
	Exact *bool `json:"exact,omitempty"`
	CAs   int   `json:"cas"`
}

func (c *certsInspection) inspect(ctx context.Context) (*certsReport, error) {
	report := &certsReport{
		printedKind: kindOfOutput("CertificateStatus"), Namespace: c.settings.Namespace, now: c.now,
		Certificates: []shownCertificate{}, Entries: []shownEntry{}, Replicas: []shownReplica{}, Problems: []string{},
	}
	ca, hasCA, err := c.secret(ctx, c.settings.Certs.CASecret, "how far the replacement of the CA has come")
	if err != nil {
		return nil, err
	}
	serving, hasServing, err := c.secret(ctx, c.settings.Webhook.CertificateSecret, "the serving certificate")
	if err != nil {
		return nil, err
	}
	registrations, err := c.registrations(ctx)
	if err != nil {
		return nil, err
	}
	report.Mode = modeOf(registrations)
	state := certs.Inspect(ca, serving, c.settings.Certs.Settle)
	var missing []string
	if !hasServing {
		missing = append(missing, c.settings.Namespace+"/"+c.settings.Webhook.CertificateSecret)
	}
	if !hasCA && report.Mode != modeCertManager {
		missing = append(missing, c.settings.Namespace+"/"+c.settings.Certs.CASecret)
	}
	for _, name := range missing {
		report.problem("Secret %s does not exist: the controller makes it within seconds; %s", name, c.seeController())
	}
	if !hasServing && !hasCA {
		report.problem("Secrets of these names are not in namespace %s: if Pillion is installed in another, name that with --namespace",
			c.settings.Namespace)
	}
	for _, fault := range state.Faults {
		report.problem("%s; the controller makes it anew within seconds; %s", fault, c.seeController())
	}
	report.addRotation(&state, c.seeController())
	report.addCertificates(&state, c.seeController())
	report.addEntries(c, &state, registrations)
	c.addReplicas(ctx, report, &state)
	report.Unreadable = c.unreadable
	report.Healthy = len(report.Problems) == 0
	if ca == nil && serving == nil && len(registrations) == 0 && hasCA && hasServing {
		return nil, fmt.Errorf("you may read nothing of what tells about certificates: %s", strings.Join(c.unreadable, "; "))
	}
	return report, nil
}

const (
	modeBuiltin     = "builtin"
	modeCertManager = "cert-manager"
)

// modeOf returns who keeps the caBundles, by what is asked for on the configurations.
func modeOf(registrations []registration) string {
	mode := ""
	for i := range registrations {
		if !registrations[i].isThere {
			continue
		}
		if registrations[i].annotations[injectedFrom] != "" {
			return modeCertManager
		}
		mode = modeBuiltin
	}
	return mode
}

func (c *certsInspection) seeController() string {
	return fmt.Sprintf("see whether it runs, and what it says: kubectl --namespace %s logs --tail 100 --selector "+
		"app.kubernetes.io/name=pillion,app.kubernetes.io/component=controller", c.settings.Namespace)
}

func (r *certsReport) problem(format string, values ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, values...))
}

func (r *certsReport) addRotation(state *certs.State, remedy string) {
	if !state.HasRotation {
		return
	}
	r.Rotation = &shownRotation{
		Phase: state.Phase, Since: optionalTime(state.Since), Reason: state.Reason, Message: state.Message,
		Next: state.Next, NextAt: optionalTime(state.NextAt),
	}
	switch {
	case !state.NextAt.IsZero() && r.now.Sub(state.NextAt) > overdue:
		r.problem("phase %s should have ended at %s, when %s; %s", state.Phase, inUTC(state.NextAt), state.Next, remedy)
	case state.NextAt.IsZero() && state.Next != "" && r.now.Sub(state.Since) > overdue:
		r.problem("phase %s lasts since %s, and what it waits for comes within seconds (%s); %s", state.Phase, inUTC(state.Since),
			state.Next, remedy)
	}
}

func (r *certsReport) addCertificates(state *certs.State, remedy string) {
	for _, one := range state.Certificates {
		certificate := one.Certificate
		shown := shownCertificate{
			Role: one.Role, Subject: certificate.Subject.String(), Issuer: certificate.Issuer.String(),
			Serial: certificate.SerialNumber.Text(16), Names: certs.NamesOf(certificate),
			NotBefore: certificate.NotBefore.UTC(), NotAfter: certificate.NotAfter.UTC(),
			Remaining: duration.HumanDuration(certificate.NotAfter.Sub(r.now)), RenewAt: optionalTime(one.RenewAt),
		}
		if r.now.After(certificate.NotAfter) {
			shown.Remaining = "expired"
		}
		r.Certificates = append(r.Certificates, shown)
		if one.Role == certs.RolePreviousCA {
			continue // it is trusted until what it signed has expired, and may expire itself
		}
		switch {
		case r.now.After(certificate.NotAfter):
			r.problem("%s expired at %s; %s", spoken(one.Role), inUTC(certificate.NotAfter), remedy)
		case r.now.Before(certificate.NotBefore):
			r.problem("%s is not valid before %s: a clock is wrong, here or where the controller runs; %s", spoken(one.Role),
				inUTC(certificate.NotBefore), remedy)
		case !one.RenewAt.IsZero() && r.now.Sub(one.RenewAt) > overdue:
			r.problem("%s was due to be renewed at %s and expires at %s; %s", spoken(one.Role), inUTC(one.RenewAt),
				inUTC(certificate.NotAfter), remedy)
		}
	}
}

// spoken is what a certificate is called in a sentence.
func spoken(role certs.Role) string {
	switch role {
	case certs.RoleCA:
		return "the CA that signs"
	case certs.RoleNextCA:
		return "the next CA"
	case certs.RolePreviousCA:
		return "a CA of before"
	case certs.RoleServing:
	}
	return "the serving certificate"
}

// addEntries tells of each entry whether it trusts what is served.
func (r *certsReport) addEntries(c *certsInspection, state *certs.State, registrations []registration) {
	var untrusting, inexact allConcerned
	for i := range registrations {
		of := &registrations[i]
		switch {
		case !of.isThere:
			r.problem("%s %s does not exist, so that the API server sends nothing by it: install it again, empty, and the controller fills it",
				of.kind, of.name)
		case len(of.entries) == 0:
			r.problem("%s %s has no entries, so that the API server sends nothing by it: the controller fills it within seconds; %s",
				of.kind, of.name, c.seeController())
		}
		for _, entry := range of.entries {
			shown := shownEntry{Configuration: of.kind, Name: entry.name, CAs: strings.Count(string(entry.client.CABundle), "BEGIN CERTIFICATE")}
			where := fmt.Sprintf("entry %s of %s %s", entry.name, of.kind, of.name)
			if len(state.Chain) > 0 {
				why := trusts(&entry, state.Chain, r.now)
				shown.Trusts, shown.Why = new(why == ""), why
				if why != "" {
					untrusting.add(why, where)
				}
			}
			if len(state.Recorded) > 0 {
				exact := bytes.Equal(entry.client.CABundle, state.Recorded)
				if r.Mode == modeCertManager {
					exact = certs.Covers(entry.client.CABundle, state.Recorded, r.now)
				}
				shown.Exact = &exact
				if !exact {
					inexact.add("", where)
				}
			}
			r.Entries = append(r.Entries, shown)
		}
	}
	for _, of := range untrusting {
		r.problem("the serving certificate is not trusted by %s: %s; the controller repairs it within seconds; %s", of.where(), of.why,
			c.seeController())
	}
	for _, of := range inexact {
		r.problem("the caBundle of %s is not what is recorded: somebody or something else writes it, or the controller does not; %s",
			of.where(), c.seeController())
	}
}

// concerned are entries with which the same is wrong, so that it is told once.
type concerned struct {
	why     string
	entries []string
}

type allConcerned []*concerned

func (a *allConcerned) add(why, where string) {
	at := slices.IndexFunc(*a, func(of *concerned) bool { return of.why == why })
	if at < 0 {
		at, *a = len(*a), append(*a, &concerned{why: why})
	}
	(*a)[at].entries = append((*a)[at].entries, where)
}

// where names some of them: all are in the table.
func (c *concerned) where() string {
	const most = 3
	if more := len(c.entries) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(c.entries[:most], ", "), more)
	}
	return strings.Join(c.entries, ", ")
}

// trusts says why an entry does not trust a chain; empty: it does.
func trusts(entry *registeredEntry, chain []byte, now time.Time) string {
	var namespace, service, url string
	if entry.client.Service != nil {
		namespace, service = entry.client.Service.Namespace, entry.client.Service.Name
	}
	if entry.client.URL != nil {
		url = *entry.client.URL
	}
	names, err := certs.Names(namespace, service, url)
	if err == nil {
		err = certs.Check(chain, entry.client.CABundle, names, now)
	}
	if err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return ""
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }
