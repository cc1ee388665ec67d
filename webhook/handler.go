// Package webhook answers admission reviews of Pods, and of profiles that are written: the handler, what it knows of the cluster,
// and the TLS server around it.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/weave"
)

// PathPods is where a Pod that asks is sent. See profiles for the other paths.
const PathPods = profiles.PathPods

// Cluster is what the handler knows of the cluster.
type Cluster interface {
	// Snapshot returns the profiles in memory.
	Snapshot() *profiles.Snapshot

	// Namespace returns what memory has of a namespace. The labels must not be changed.
	Namespace(name string) (namespace profiles.Namespace, known bool)

	// Live reads from the API server: a namespace, the profiles of these names that its Pods may mean, and with policy all
	// ClusterPatternProfiles as well. A profile that does not exist is left out; a namespace that does not exist is an error.
	Live(ctx context.Context, namespace string, names []string, policy bool) (profiles.Namespace, []*profiles.Profile, error)
}

// Options are the bounds of the handler. Zero values mean the defaults.
type Options struct {
	// MaxBodyBytes bounds the body of a request. Default: 7 MiB, twice what the API server takes for an object and some; what it writes
	// as six bytes (<, >, & and control characters) may make more of it.
	MaxBodyBytes int64
	// MaxRequestsInFlight and MaxBytesInFlight bound what is answered at a time; what is more is refused with HTTP 429 before its body
	// is read. Defaults: 600, 28 MiB.
	MaxRequestsInFlight, MaxBytesInFlight int64
	// LiveReadTimeout bounds what is asked of the API server before an answer is no. Default: one second.
	LiveReadTimeout time.Duration
	// Logger gets faults and refusals, with names and reasons and never with values. Default: none.
	Logger *slog.Logger
	// Metrics count requests. Default: none.
	Metrics *Metrics
	// Compiler compiles the profiles that are written. Default: none, and they are not reviewed.
	Compiler *profiles.Compiler
}

func (o Options) withDefaults() Options {
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 7 << 20
	}
	if o.MaxRequestsInFlight == 0 {
		o.MaxRequestsInFlight = 600
	}
	if o.MaxBytesInFlight == 0 {
		o.MaxBytesInFlight = max(28<<20, o.MaxBodyBytes)
	}
	if o.LiveReadTimeout == 0 {
		o.LiveReadTimeout = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// NewHandler returns the handler of admission reviews. A decision is answered with HTTP 200 and allowed true or false; whatever
// keeps the handler from deciding is an HTTP error, so that the failurePolicy of the entry decides.
func NewHandler(cluster Cluster, options Options) http.Handler {
	h := &handler{cluster: cluster, options: options.withDefaults()}
	h.inFlight = &inFlight{mostRequests: h.options.MaxRequestsInFlight, mostBytes: h.options.MaxBytesInFlight}
	h.options.Metrics.tellInFlight(h.inFlight)
	mux := http.NewServeMux()
	mux.Handle("/inject/", h.serve(endpointMutate, h.answer))
	mux.Handle(profiles.PathVerify, h.serve(endpointVerify, h.answer))
	mux.Handle(profiles.PathWorkloads, h.serve(endpointWorkloads, h.answerWorkload))
	if options.Compiler != nil {
		mux.Handle(profiles.PathProfiles, h.serve(endpointProfiles, h.answerProfile))
	}
	return mux
}

type handler struct {
	cluster  Cluster
	options  Options
	inFlight *inFlight
}

// answerer turns the body of a request into a response.
type answerer func(r *http.Request, body []byte) (*admissionv1.AdmissionResponse, error)

func (h *handler) serve(endpoint string, answer answerer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		faulty := func(reason string) {
			h.options.Metrics.observe(endpoint, resultFault, start)
			if endpoint == endpointMutate || endpoint == endpointVerify {
				h.options.Metrics.admitted(resultFault, reason)
			}
		}
		defer h.recover(w, r, func() { faulty(causePanic) })
		unread := false
		defer func() {
			if unread {
				discard(w, r)
			}
		}()
		allowed, ok := h.inFlight.enter()
		if !ok {
			err := h.tooMany(limitRequests, h.inFlight.mostRequests, "requests")
			unread = answersBefore(w, r)
			h.fail(w, r, err)
			faulty(reasonOfFault(statusOf(err)))
			return
		}
		defer allowed.leave()
		body, err := h.read(w, r, &allowed)
		start = time.Now()
		if err == nil {
			err = h.weigh(body, &allowed)
		}
		if err != nil {
			status := statusOf(err)
			unread = (status == http.StatusRequestEntityTooLarge || status == http.StatusTooManyRequests) && answersBefore(w, r)
		}
		var response *admissionv1.AdmissionResponse
		switch {
		case err == nil:
			response, err = answer(r, body)
		case statusOf(err) == http.StatusRequestEntityTooLarge && isEnforced(r.URL.Path):
			response, err = h.refuseUnread(r, body, err)
		}
		if err != nil {
			h.fail(w, r, err)
			faulty(reasonOfFault(statusOf(err)))
			return
		}
		h.write(w, r, response)
		h.options.Metrics.observe(endpoint, resultOf(endpoint, response), start)
	}
}

// resultOf says in a word of a fixed set what became of a request.
func resultOf(endpoint string, response *admissionv1.AdmissionResponse) string {
	switch {
	case !response.Allowed:
		return resultDenied
	case len(response.Patch) > 0:
		return resultWoven
	case endpoint == endpointWorkloads && len(response.Warnings) > 0:
		return resultWarned
	default:
		return resultUntouched
	}
}

// isEnforced tells whether a path is of an entry of policy that enforces.
func isEnforced(path string) bool {
	return strings.HasPrefix(path, profiles.PathEnforce) || strings.HasPrefix(path, profiles.PathVerify)
}

// refuseUnread refuses a Pod that is too large to be read and that policy enforces something on: a fault, which failurePolicy Ignore
// lets pass, would be a way round it. The beginning of the review holds the uid that the answer has to bear.
func (h *handler) refuseUnread(r *http.Request, body []byte, fault error) (*admissionv1.AdmissionResponse, error) {
	uid, ok := uidOf(body)
	if !ok {
		return nil, fault
	}
	h.options.Logger.Info("decided", "path", r.URL.Path, "uid", uid, "allowed", false, "error", fault.Error())
	h.options.Metrics.admitted(resultDenied, string(profiles.ReasonPodTooLarge)) // whether it is a dry run was not read
	response := &admissionv1.AdmissionResponse{UID: uid}
	deny(response, fmt.Sprintf("Pillion refuses this Pod: policy enforces what is added to it, and its admission review %s; "+
		"make the Pod's manifest smaller (%s)", strings.TrimPrefix(fault.Error(), "the body "), profiles.ReasonPodTooLarge))
	return response, nil
}

// uidOf returns the uid of the request of an admission review of which only the beginning is there.
func uidOf(body []byte) (types.UID, bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if !enter(decoder, "request") || !enter(decoder, "uid") {
		return "", false
	}
	token, _ := decoder.Token()
	uid, _ := token.(string)
	return types.UID(uid), uid != ""
}

// enter reads an object up to the value of a key. It is false if that does not come.
func enter(decoder *json.Decoder, key string) bool {
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return false
	}
	for decoder.More() {
		if token, err := decoder.Token(); err != nil || token == key {
			return err == nil
		}
		if err := decoder.Decode(&json.RawMessage{}); err != nil {
			return false
		}
	}
	return false
}

// answer answers the review of a Pod: with what is added to it, or on the path of the verification with whether it has what is
// enforced.
func (h *handler) answer(r *http.Request, body []byte) (*admissionv1.AdmissionResponse, error) {
	request, err := decode(body)
	if err != nil {
		return nil, err
	}
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	if !createsPod(request) {
		return response, nil
	}
	if !utf8.Valid(body) {
		deny(response, "Pillion refuses this Pod: its manifest holds bytes that are not UTF-8; write it without them")
		if !request.DryRun {
			h.options.Metrics.admitted(resultDenied, string(profiles.ReasonInvalidRequest))
		}
		return response, nil
	}
	decision, err := h.decide(r, request)
	if err != nil {
		return nil, err
	}
	all := toldOf(&decision, h.cluster.Snapshot())
	if err := respond(response, &decision); err != nil {
		return nil, err
	}
	if err := annotate(response, request.Object.Annotations, all); err != nil {
		return nil, err
	}
	h.log(r, request, &decision, all)
	h.count(r, request, &decision, all)
	return response, nil
}

// count counts a decision, unless it comes to nothing: in a dry run, or where the API server has gone.
func (h *handler) count(r *http.Request, request *request, decision *profiles.Decision, all []told) {
	switch {
	case request.DryRun:
	case r.Context().Err() != nil:
		h.options.Metrics.admitted(resultFault, causeCanceled)
	default:
		h.options.Metrics.decided(decision, all)
	}
}

// createsPod tells whether a request is what weaving is for. Everything else is let pass untouched.
func createsPod(request *request) bool {
	return request.Operation == admissionv1.Create && request.SubResource == "" &&
		request.Resource == (metav1.GroupVersionResource{Version: "v1", Resource: "pods"})
}

// decide decides from memory. Only where memory lacks or contradicts what the request says is the API server asked, before the
// answer is no.
func (h *handler) decide(r *http.Request, request *request) (profiles.Decision, error) {
	snapshot := h.cluster.Snapshot()
	namespace, known := h.cluster.Namespace(request.Namespace)
	asked := profiles.Request{
		Namespace: namespaceOr(namespace, request.Namespace), Pod: &request.Object, User: request.UserInfo, DryRun: request.DryRun,
		ClaimVolumes: request.claimVolumes, Final: strings.HasPrefix(r.URL.Path, profiles.PathVerify),
	}
	decision := asked.Decide(snapshot)
	behind := contradicts(r.URL.Path, snapshot.Plan(), namespace, &decision)
	if known && len(decision.Unknown) == 0 && !behind {
		return decision, nil
	}
	policy := behind && r.URL.Path != profiles.PathNamespaces
	ctx, cancel := context.WithTimeout(r.Context(), h.options.LiveReadTimeout)
	defer cancel()
	// The namespace as it is now may ask for other names than the one in memory: twice is enough.
	for range 2 {
		live, read, err := h.cluster.Live(ctx, request.Namespace, decision.Unknown, policy)
		if err != nil {
			return decision, faultf(http.StatusServiceUnavailable, "read namespace %s and its profiles: %s", request.Namespace, readProblem(err))
		}
		if len(read) == 0 && isSameNamespace(&live, &asked.Namespace) {
			break // memory said it all
		}
		names := decision.Unknown
		snapshot = snapshot.With(read...)
		asked.Namespace = live
		decision = asked.Decide(snapshot)
		if subset(decision.Unknown, names) {
			break
		}
	}
	return decision, nil
}

func namespaceOr(namespace profiles.Namespace, name string) profiles.Namespace {
	namespace.Name = name
	return namespace
}

func isSameNamespace(a, b *profiles.Namespace) bool {
	return a.Name == b.Name && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

func subset(names, of []string) bool {
	known := map[string]bool{}
	for _, name := range of {
		known[name] = true
	}
	for _, name := range names {
		if !known[name] {
			return false
		}
	}
	return true
}

// contradicts tells whether the entry that called us should not have, by what memory says: then memory is behind. So it may be
// where it says that a final Pod lacks what is enforced: another webhook of ours has woven it, by what it knew.
func contradicts(path string, plan *profiles.Plan, namespace profiles.Namespace, decision *profiles.Decision) bool {
	switch {
	case path == profiles.PathNamespaces:
		value := namespace.Labels[v1alpha1.InjectKey]
		return value == "" || value == v1alpha1.None
	case strings.HasPrefix(path, profiles.PathMatch), strings.HasPrefix(path, profiles.PathEnforce):
		return !plan.Expects(path, decision.Outcomes)
	case strings.HasPrefix(path, profiles.PathVerify):
		return !decision.Allowed || !plan.Expects(path, decision.Outcomes)
	default:
		return false
	}
}

// respond writes a decision into a response.
func respond(response *admissionv1.AdmissionResponse, decision *profiles.Decision) error {
	response.Warnings = decision.Warnings
	if !decision.Allowed {
		deny(response, decision.Denial())
		return nil
	}
	if len(decision.Patch) == 0 {
		return nil
	}
	patch, err := weave.Encode(decision.Patch)
	if err != nil {
		return err
	}
	patchType := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &patchType
	return nil
}

func deny(response *admissionv1.AdmissionResponse, message string) {
	response.Allowed = false
	response.Result = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: message,
	}
}

// write sends a response in a review, without the request, which the API server knows.
func (h *handler) write(w http.ResponseWriter, r *http.Request, response *admissionv1.AdmissionResponse) {
	for i, warning := range response.Warnings {
		response.Warnings[i] = inHeader(warning)
	}
	body, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	})
	if err != nil {
		h.fail(w, r, fmt.Errorf("encode the response: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // or a patch of some size would be sent in chunks
	_, _ = w.Write(body)                                      // an error here is the API server's leaving, which it knows
}

// inHeader returns a warning as the API server can send it: it leaves out one with control characters, without a word.
func inHeader(warning string) string {
	return strings.ToValidUTF8(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, warning), "\uFFFD")
}

// log tells what was decided: names and reasons, never values.
func (h *handler) log(r *http.Request, request *request, decision *profiles.Decision, all []told) {
	if len(all) == 0 || !h.options.Logger.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	name := request.Object.Name
	if name == "" {
		name = request.Object.GenerateName
	}
	h.options.Logger.Info("decided", "path", r.URL.Path, "namespace", request.Namespace, "pod", name, "allowed", decision.Allowed,
		"dryRun", request.DryRun, "outcomes", logged(all))
}

// logged returns outcomes as logs tell them. A name that no profile has is what somebody wrote into an annotation.
func logged(all []told) string {
	outcomes := make([]string, len(all))
	for i := range all {
		profile := all[i].Profile
		switch {
		case profile == "":
		case !all[i].exists:
			profile = unknownProfiles
		case all[i].Namespace != "":
			profile = all[i].Namespace + "/" + profile
		}
		outcomes[i] = fmt.Sprintf("%s=%s", profile, all[i].Reason)
	}
	return strings.Join(outcomes, " ")
}
