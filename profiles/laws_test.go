package profiles_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	jsonpatchv4 "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	kjson "sigs.k8s.io/json"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
	"github.com/pillion-dev/pillion/test/gen"
	"github.com/pillion-dev/pillion/weave"
)

// laws are what every decision about a Pod holds to.
func laws() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"an injection only adds":                               checkAdditive,
		"a woven Pod is not woven again":                       checkIdempotent,
		"the patch makes the Pod":                              checkExact,
		"the same inputs give the same bytes":                  checkDeterministic,
		"a decision changes nothing but what it returns":       checkIsolated,
		"a Pod is refused with a reason or gets what it wants": checkAnswered,
	}
}

func TestLaws(t *testing.T) {
	for name, law := range laws() {
		t.Run(name, rapid.MakeCheck(law))
	}
}

func FuzzAdditive(f *testing.F)      { fuzz(f, checkAdditive) }
func FuzzIdempotent(f *testing.F)    { fuzz(f, checkIdempotent) }
func FuzzExact(f *testing.F)         { fuzz(f, checkExact) }
func FuzzDeterministic(f *testing.F) { fuzz(f, checkDeterministic) }
func FuzzIsolated(f *testing.F)      { fuzz(f, checkIsolated) }
func FuzzAnswered(f *testing.F)      { fuzz(f, checkAnswered) }

// fuzz runs a law as a fuzz target, from seeds long enough to draw a whole case from.
func fuzz(f *testing.F, law func(*rapid.T)) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // seeds that are the same each time
	for range 8 {
		seed := make([]byte, 16<<10)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(rapid.MakeFuzz(law))
}

// checkAdditive: every operation is an "add" at an explicit index or at a key that is not there, and nothing of the
// user's is replaced, removed or reordered, whether this build knows it or not.
func checkAdditive(t *rapid.T) {
	w := draw(t)
	decision := w.decide()
	document := decodeTree(t, w.raw)
	for _, operation := range patchOf(t, &decision) {
		if err := addTo(&document, operation); err != nil {
			t.Fatalf("%s at %s: %v", operation.Op, operation.Path, err)
		}
	}
	after := apply(t, w.raw, &decision)
	if diff := cmp.Diff(decodeTree(t, after), document); diff != "" {
		t.Fatalf("operations taken as plain additions make another document:\n%s", diff)
	}
	if err := onlyAdds(w.raw, after, ""); err != nil {
		t.Fatal(err)
	}
}

// checkIdempotent: weaving a woven Pod adds nothing, neither as the patch makes it nor as the API server and other
// webhooks hand it back.
func checkIdempotent(t *rapid.T) {
	w := draw(t)
	decision := w.decide()
	if !decision.Allowed {
		return
	}
	once := decodePod(t, apply(t, w.raw, &decision))
	expectNothing := func(pod *corev1.Pod, what string) {
		again := profiles.Decide(w.snapshot, w.namespace, pod)
		if !again.Allowed || len(again.Patch) > 0 {
			t.Fatalf("%s: allowed %t, patch %s\nfirst:  %s\nsecond: %s %s", what, again.Allowed, encode(t, patchOf(t, &again)),
				encode(t, decision.Outcomes), encode(t, again.Outcomes), again.Denial())
		}
	}
	expectNothing(once, "the woven Pod")
	setDefaults(once)
	expectNothing(decodePod(t, encode(t, once)), "the woven Pod with the API server's defaults")
	editByOthers(t, once)
	edited := decodePod(t, encode(t, once))
	if again := profiles.Decide(w.snapshot, w.namespace, edited); enforcedAndChanged(&again) {
		return // what is enforced may not be edited
	}
	expectNothing(edited, "the woven Pod edited by other webhooks")
}

func enforcedAndChanged(decision *profiles.Decision) bool {
	return len(decision.Patch) == 0 && slices.ContainsFunc(decision.Outcomes, func(outcome profiles.Outcome) bool {
		return outcome.Reason == profiles.ReasonInjectionChanged
	})
}

// checkExact: the patch applied to the raw request is the woven Pod, by the library that the API server uses and by
// its successor.
func checkExact(t *rapid.T) {
	w := draw(t)
	decision := w.decide()
	patch := encode(t, decision.Patch)
	patched := map[string][]byte{"json-patch v5": apply(t, w.raw, &decision)}
	if len(decision.Patch) > 0 {
		v4, err := jsonpatchv4.DecodePatch(patch)
		if err != nil {
			t.Fatal(err)
		}
		if patched["json-patch v4"], err = v4.Apply(w.raw); err != nil {
			t.Fatal(err)
		}
	}
	for library, raw := range patched {
		pod := decodePod(t, raw)
		if !equality.Semantic.DeepEqual(pod, decision.Pod()) {
			t.Fatalf("%s makes another Pod than was returned:\n%s", library, cmp.Diff(decision.Pod(), pod))
		}
		if got, want := string(encode(t, pod)), string(encode(t, decision.Pod())); got != want {
			t.Fatalf("%s makes other JSON than the Pod that was returned:\n%s", library, cmp.Diff(want, got))
		}
	}
}

// checkDeterministic: neither repetition nor the order of maps and of profiles shows in what comes out.
func checkDeterministic(t *rapid.T) {
	w := draw(t)
	want := bytesOf(t, w.decide())
	check := func(decision profiles.Decision, what string) {
		if got := bytesOf(t, decision); got != want {
			t.Fatalf("%s gives other bytes:\n%s", what, cmp.Diff(want, got))
		}
	}
	for range 3 {
		check(w.decide(), "a repeated call")
	}

	pod, namespace := decodePod(t, w.raw), w.namespace
	pod.Annotations, pod.Labels = reinserted(t, pod.Annotations), reinserted(t, pod.Labels)
	namespace.Labels, namespace.Annotations = reinserted(t, namespace.Labels), reinserted(t, namespace.Annotations)
	check(profiles.Decide(w.snapshot, namespace, pod), "another order of insertion into maps")

	shuffled := slices.Clone(w.profiles)
	for i := range shuffled {
		j := rapid.IntRange(0, i).Draw(t, "shuffle")
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	check(profiles.Decide(profiles.NewSnapshot(options(), shuffled), w.namespace, decodePod(t, w.raw)), "another order of profiles")

	recompiled := compileAll(t, w.objects)
	check(profiles.Decide(profiles.NewSnapshot(options(), recompiled), w.namespace, decodePod(t, w.raw)), "compiling again")
}

// checkIsolated: the Pod of the request is not changed, and whoever changes the woven Pod does not change the snapshot, which all
// requests share.
func checkIsolated(t *rapid.T) {
	w := draw(t)
	pod := decodePod(t, w.raw)
	before := pod.DeepCopy()
	labelsBefore, annotationsBefore := maps.Clone(w.namespace.Labels), maps.Clone(w.namespace.Annotations)
	profilesBefore := w.patterns(t)

	decision := profiles.Decide(w.snapshot, w.namespace, pod)
	want := bytesOf(t, decision)
	if !reflect.DeepEqual(before, pod) {
		t.Fatalf("Decide changed the Pod of the request:\n%s", cmp.Diff(before, pod))
	}
	if !maps.Equal(labelsBefore, w.namespace.Labels) || !maps.Equal(annotationsBefore, w.namespace.Annotations) {
		t.Fatal("Decide changed the namespace's labels or annotations")
	}
	if len(decision.Patch) == 0 {
		return // the Pod of the request is returned as it is
	}
	scramble(reflect.ValueOf(decision.Pod()).Elem()) // and what it shares with the Pod of the request
	if diff := cmp.Diff(profilesBefore, w.patterns(t)); diff != "" {
		t.Fatalf("the woven Pod shares memory with the profiles:\n%s", diff)
	}
	if got := bytesOf(t, w.decide()); got != want {
		t.Fatalf("the woven Pod shares memory with the snapshot:\n%s", cmp.Diff(want, got))
	}
}

// checkAnswered: a refused Pod is left alone and told why, and of an allowed one nothing that was asked
// for is lost.
func checkAnswered(t *rapid.T) {
	w := draw(t)
	pod := decodePod(t, w.raw)
	decision := profiles.Decide(w.snapshot, w.namespace, pod)
	if (decision.Denial() == "") != decision.Allowed {
		t.Fatalf("allowed is %t and the denial is %q", decision.Allowed, decision.Denial())
	}
	for i := range decision.Outcomes {
		if outcome := &decision.Outcomes[i]; outcome.Message == "" || outcome.Reason == "" || outcome.Result == "" {
			t.Fatalf("an outcome that explains nothing: %s", encode(t, outcome))
		}
	}
	if !decision.Allowed {
		if len(decision.Patch) > 0 || !equality.Semantic.DeepEqual(decision.Pod(), pod) {
			t.Fatalf("a refused Pod is changed by %s", encode(t, decision.Patch))
		}
		return
	}
	applied := map[string][]string{}
	for i := range decision.Outcomes {
		switch outcome := &decision.Outcomes[i]; {
		case outcome.Result == profiles.Rejected && outcome.Source != profiles.SourceMatch:
			t.Fatalf("what was asked for is lost: %s", encode(t, outcome))
		case outcome.Result == profiles.Applied:
			applied[outcome.Profile] = outcome.Containers
		}
	}
	var want, got []string
	for _, containers := range applied {
		want = append(want, containers...)
	}
	there := map[string]bool{}
	for _, name := range slices.Concat(initNames(pod), containerNames(pod)) {
		there[name] = true
	}
	for _, name := range slices.Concat(initNames(decision.Pod()), containerNames(decision.Pod())) {
		if !there[name] {
			got = append(got, name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("the outcomes name other containers than were woven:\n%s", diff)
	}
}

// TestGeneratedCasesReachEverything keeps the laws from being true of nothing.
func TestGeneratedCasesReachEverything(t *testing.T) {
	seen := map[string]int{}
	for i := range 800 {
		w := newWorld(t, gen.Cases().Example(i))
		decision := w.decide()
		switch {
		case !decision.Allowed:
			seen["refused"]++
		case len(decision.Patch) > 0:
			seen["woven"]++
		default:
			seen["left alone"]++
		}
		for i := range decision.Outcomes {
			outcome := &decision.Outcomes[i]
			seen[string(outcome.Reason)]++
			if outcome.Result == profiles.Applied && decision.Allowed {
				seen[string(outcome.Kind)]++
				seen[string(outcome.Source)]++
			}
		}
		if len(decision.Warnings) > 0 {
			seen["warned"]++
		}
	}
	t.Logf("seen: %v", seen)
	for _, want := range []string{
		"refused", "woven", "left alone", "warned", "GitSync", "CacheAmbassador", "PrometheusAdapter", "TemplateProcessor", "Custom",
		"Annotation", "NamespaceLabel", "Match", "AlreadyInjected", "ProfileNotAvailable", "InvalidRequest",
		"FieldNotOverridable", "InvalidOverride", "MountPathCollision", "PortCollision", "MetadataCollision",
		"ConditionNotMet", "ConditionFailed", "ExpressionFailed", "ProfileNotReady",
	} {
		if seen[want] == 0 {
			t.Errorf("no generated case reaches %q", want)
		}
	}
}

// world is a generated case, ready to be decided.
type world struct {
	raw       []byte
	namespace profiles.Namespace
	objects   []map[string]any
	profiles  []*profiles.Profile
	snapshot  *profiles.Snapshot
}

func draw(t *rapid.T) world {
	return newWorld(t, gen.Cases().Draw(t, "case"))
}

func newWorld(t fataler, c gen.Case) world {
	w := world{
		raw:       []byte(c.Pod),
		namespace: profiles.Namespace{Name: c.Namespace, Labels: c.NamespaceLabels, Annotations: c.NamespaceAnnotations},
		objects:   c.Profiles,
		profiles:  compileAll(t, c.Profiles),
	}
	w.snapshot = profiles.NewSnapshot(options(), w.profiles)
	return w
}

func options() profiles.Options {
	return profiles.Options{
		Images:             injectors.DefaultImages(""),
		ExcludedNamespaces: []string{"kube-system"},
		Weave:              weave.Options{LeadingContainers: gen.Mesh()},
	}
}

// decide decodes the Pod anew each time, as a request does.
func (w *world) decide() profiles.Decision {
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(w.raw, pod); err != nil {
		panic(err)
	}
	return profiles.Decide(w.snapshot, w.namespace, pod)
}

func (w *world) patterns(t *rapid.T) string {
	var all []string
	for _, profile := range w.profiles {
		all = append(all, string(encode(t, profile.Pattern)))
	}
	return strings.Join(all, "\n")
}

// newCompiler makes the only Compiler of the tests, for its CEL rules take a while to compile.
var newCompiler = sync.OnceValues(profiles.NewCompiler)

// compileAll compiles copies of profiles, each of which must be valid: a generator that goes wrong must not pass for variety.
func compileAll(t fataler, objects []map[string]any) []*profiles.Profile {
	compiler, err := newCompiler()
	if err != nil {
		t.Fatal(err)
	}
	compiled := make([]*profiles.Profile, len(objects))
	for i, object := range objects {
		fresh := map[string]any{}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(encode(t, object), &fresh); err != nil {
			t.Fatal(err)
		}
		profile, ok := compiler.Object(fresh)
		if !ok || len(profile.Problems) > 0 {
			t.Fatalf("the generated profile %s is not valid: %v", encode(t, object), profile.Problems)
		}
		compiled[i] = profile
	}
	return compiled
}

type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func decodePod(t fataler, raw []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, pod); err != nil {
		t.Fatalf("decode Pod: %v\n%s", err, raw)
	}
	return pod
}

// apply applies a decision's patch to the raw request.
func apply(t fataler, raw []byte, decision *profiles.Decision) []byte {
	t.Helper()
	if len(decision.Patch) == 0 {
		return raw
	}
	patch, err := jsonpatch.DecodePatch(encode(t, decision.Patch))
	if err != nil {
		t.Fatalf("decode patch: %v", err)
	}
	options := jsonpatch.NewApplyOptions()
	options.EscapeHTML = false
	after, err := patch.ApplyWithOptions(raw, options)
	if err != nil {
		t.Fatalf("apply patch %s: %v", encode(t, decision.Patch), err)
	}
	return after
}

func encode(t fataler, value any) []byte {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// bytesOf is all that a decision says.
func bytesOf(t *rapid.T, d profiles.Decision) string {
	return string(encode(t, []any{d.Outcomes, d.Allowed, d.Patch, d.Pod(), d.Warnings, d.Unknown, d.Denial()}))
}

// reinserted is the same map, filled in another order.
func reinserted(t *rapid.T, m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) > 1 {
		keys = rapid.Permutation(keys).Draw(t, "keys")
	}
	other := map[string]string{}
	for _, key := range keys {
		other[key] = m[key]
	}
	return other
}

// operation is an operation of a patch, as whoever applies it reads it.
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value"`
}

func patchOf(t fataler, decision *profiles.Decision) []operation {
	t.Helper()
	var operations []operation
	if err := json.Unmarshal(encode(t, decision.Patch), &operations); err != nil {
		t.Fatal(err)
	}
	return operations
}

// decodeTree decodes JSON and keeps numbers as they are written.
func decodeTree(t fataler, raw []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

var index = regexp.MustCompile(`^(0|[1-9]\d*)$`)

// addTo applies an operation to a decoded document, and refuses whatever is not a plain addition.
func addTo(document *any, o operation) error {
	if o.Op != "add" {
		return fmt.Errorf("is not an add")
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(o.Value))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	tokens := strings.Split(o.Path, "/")
	if tokens[0] != "" || len(tokens) < 2 {
		return fmt.Errorf("is not a path into the document")
	}
	return add(document, tokens[1:], value)
}

func add(at *any, tokens []string, value any) error {
	token := strings.ReplaceAll(strings.ReplaceAll(tokens[0], "~1", "/"), "~0", "~")
	switch node := (*at).(type) {
	case map[string]any:
		child, there := node[token]
		if len(tokens) == 1 {
			if there && child != nil { // null is as good as absent
				return fmt.Errorf("%q is there already", token)
			}
			node[token] = value
			return nil
		}
		if !there {
			return fmt.Errorf("%q is not there", token)
		}
		err := add(&child, tokens[1:], value)
		node[token] = child
		return err
	case []any:
		if !index.MatchString(token) {
			return fmt.Errorf("%q is not an explicit index", token)
		}
		i, err := strconv.Atoi(token)
		if err != nil || i > len(node) || (i == len(node) && len(tokens) > 1) {
			return fmt.Errorf("index %q is beyond the list", token)
		}
		if len(tokens) == 1 {
			*at = slices.Insert(node, i, value)
			return nil
		}
		return add(&node[i], tokens[1:], value)
	default:
		return fmt.Errorf("%q is in neither an object nor a list", token)
	}
}

// mayGain says which fields may appear, or grow, where.
func mayGain(path, key string) bool {
	switch path {
	case "/metadata":
		return key == "annotations" || key == "labels"
	case "/metadata/annotations", "/metadata/labels":
		return true
	case "/spec":
		return slices.Contains([]string{"volumes", "initContainers", "imagePullSecrets", "hostAliases"}, key)
	case "/spec/containers/*", "/spec/initContainers/*":
		return key == "env" || key == "volumeMounts"
	default:
		return false
	}
}

// onlyAdds compares two documents byte for byte, but for additions where they are meant to be.
func onlyAdds(before, after json.RawMessage, path string) error {
	if compact(before) == compact(after) {
		return nil
	}
	switch path {
	case "/spec/containers", "/spec/initContainers", "/spec/volumes":
		return eachOnlyAdds(before, after, path, func(name string) bool { return strings.HasPrefix(name, "pillion-") })
	case "/spec/containers/*/env", "/spec/initContainers/*/env", "/spec/imagePullSecrets", "/spec/hostAliases",
		"/spec/containers/*/volumeMounts", "/spec/initContainers/*/volumeMounts":
		return startsWith(before, after, path)
	case "", "/metadata", "/spec", "/metadata/annotations", "/metadata/labels", "/spec/containers/*", "/spec/initContainers/*":
		return fieldsOnlyAdd(before, after, path)
	default:
		return fmt.Errorf("%s was %s and is %s", path, before, after)
	}
}

func fieldsOnlyAdd(before, after json.RawMessage, path string) error {
	var was, is map[string]json.RawMessage
	if json.Unmarshal(before, &was) != nil || json.Unmarshal(after, &is) != nil {
		return fmt.Errorf("%s is no longer an object", path)
	}
	for key, value := range was {
		now, there := is[key]
		if !there {
			return fmt.Errorf("%s/%s is gone", path, key)
		}
		if string(value) == "null" && mayGain(path, key) {
			continue
		}
		if err := onlyAdds(value, now, path+"/"+key); err != nil {
			return err
		}
	}
	for key := range is {
		if _, there := was[key]; !there && !mayGain(path, key) {
			return fmt.Errorf("%s/%s appeared", path, key)
		}
	}
	return nil
}

// eachOnlyAdds leaves out the elements that were added, by their names, and compares the others one by one.
func eachOnlyAdds(before, after json.RawMessage, path string, reserved func(name string) bool) error {
	was, is := elements(before), elements(after)
	there := map[string]bool{}
	for _, element := range was {
		there[nameOf(element)] = true
	}
	is = slices.DeleteFunc(is, func(element json.RawMessage) bool {
		name := nameOf(element)
		return reserved(name) && !there[name]
	})
	if len(was) != len(is) {
		return fmt.Errorf("%s had %d elements and has %d that are not Pillion's", path, len(was), len(is))
	}
	for i := range was {
		if nameOf(was[i]) != nameOf(is[i]) {
			return fmt.Errorf("%s: %s is where %s was", path, nameOf(is[i]), nameOf(was[i]))
		}
		if err := onlyAdds(was[i], is[i], path+"/*"); err != nil {
			return fmt.Errorf("%s: %w", nameOf(was[i]), err)
		}
	}
	return nil
}

func startsWith(before, after json.RawMessage, path string) error {
	was, is := elements(before), elements(after)
	if len(is) < len(was) {
		return fmt.Errorf("%s lost elements", path)
	}
	for i := range was {
		if compact(was[i]) != compact(is[i]) {
			return fmt.Errorf("%s/%d was %s and is %s", path, i, was[i], is[i])
		}
	}
	return nil
}

func elements(raw json.RawMessage) []json.RawMessage {
	var all []json.RawMessage
	_ = json.Unmarshal(raw, &all)
	return all
}

func nameOf(raw json.RawMessage) string {
	var named struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(raw, &named)
	return named.Name
}

func compact(raw json.RawMessage) string {
	var buffer bytes.Buffer
	_ = json.Compact(&buffer, raw)
	return buffer.String()
}

// setDefaults does to a Pod what the API server does after each webhook, where Pillion could be misled by it.
func setDefaults(pod *corev1.Pod) {
	spec := &pod.Spec
	setDefault(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	setDefault(&spec.DNSPolicy, corev1.DNSClusterFirst)
	setDefault(&spec.SchedulerName, corev1.DefaultSchedulerName)
	if spec.TerminationGracePeriodSeconds == nil {
		spec.TerminationGracePeriodSeconds = new(int64(corev1.DefaultTerminationGracePeriodSeconds))
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	spec.EnableServiceLinks = new(true)
	for i := range spec.Volumes {
		volume := &spec.Volumes[i]
		switch {
		case volume.DownwardAPI != nil:
			volume.DownwardAPI.DefaultMode = new(int32(0o644))
			for j := range volume.DownwardAPI.Items {
				volume.DownwardAPI.Items[j].FieldRef.APIVersion = "v1"
			}
		case volume.ConfigMap != nil && volume.ConfigMap.DefaultMode == nil:
			volume.ConfigMap.DefaultMode = new(int32(0o644))
		case volume.VolumeSource == (corev1.VolumeSource{}):
			volume.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			setContainerDefaults(&containers[i])
		}
	}
}

func setContainerDefaults(container *corev1.Container) {
	setDefault(&container.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setDefault(&container.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	pull := corev1.PullIfNotPresent
	if name := container.Image[strings.LastIndexByte(container.Image, '/')+1:]; !strings.ContainsAny(name, ":@") || strings.HasSuffix(name, ":latest") {
		pull = corev1.PullAlways
	}
	setDefault(&container.ImagePullPolicy, pull)
	for i := range container.Ports {
		setDefault(&container.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for name, limit := range container.Resources.Limits {
		if _, there := container.Resources.Requests[name]; !there {
			if container.Resources.Requests == nil {
				container.Resources.Requests = corev1.ResourceList{}
			}
			container.Resources.Requests[name] = limit.DeepCopy()
		}
	}
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if probe != nil {
			setDefault(&probe.SuccessThreshold, 1)
			setDefault(&probe.FailureThreshold, 3)
			setDefault(&probe.PeriodSeconds, 10)
			setDefault(&probe.TimeoutSeconds, 1)
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	if zero := *new(T); *field == zero {
		*field = value
	}
}

// editByOthers does to a Pod what other webhooks do: a mesh's containers come first, registries are rewritten, limits are set,
// labels and annotations appear.
func editByOthers(t *rapid.T, pod *corev1.Pod) {
	spec := &pod.Spec
	if rapid.Bool().Draw(t, "a mesh joins") {
		mesh := []corev1.Container{
			{Name: "late-init", Image: "mesh"},
			{Name: "late-proxy", Image: "mesh", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
		}
		at := rapid.IntRange(0, len(spec.InitContainers)).Draw(t, "where")
		spec.InitContainers = slices.Insert(spec.InitContainers, at, mesh...)
		spec.Volumes = append([]corev1.Volume{{Name: "late"}}, spec.Volumes...)
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].Image = "mirror.example.com/" + containers[i].Image
			containers[i].Env = append([]corev1.EnvVar{{Name: "LATE", Value: "1"}}, containers[i].Env...)
			if containers[i].Resources.Limits == nil {
				containers[i].Resources.Limits = corev1.ResourceList{}
			}
			containers[i].Resources.Limits[corev1.ResourceCPU] = resource.MustParse("3")
			delete(containers[i].Resources.Requests, corev1.ResourceCPU)
			containers[i].SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(7))}
		}
	}
	pod.Annotations = withKey(pod.Annotations, "late.example.com/status", "done")
	pod.Labels = withKey(pod.Labels, "late.example.com/mesh", "on")
	spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: "late"})
}

func withKey(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// scramble changes everything that can be reached from a value.
func scramble(v reflect.Value) {
	switch value := v.Addr().Interface().(type) {
	case *resource.Quantity:
		value.Add(resource.MustParse("1"))
		return
	case *metav1.Time:
		return // has no exported field
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			scramble(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scramble(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			scramble(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			element := reflect.New(v.Type().Elem()).Elem()
			element.Set(v.MapIndex(key))
			scramble(element)
			v.SetMapIndex(key, element)
		}
	case reflect.String:
		v.SetString(v.String() + "~")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	default:
		panic("scramble does not know " + v.Kind().String())
	}
}
