package injectors

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
	"github.com/pillion-dev/pillion/weave"
)

// The most that a template may hold: what nobody writes by hand is a mistake, and a Pod has to bear it.
const (
	maxTemplateBytes = 64 << 10
	maxRenderedBytes = 256 << 10
	maxContainers    = 16
	maxVolumes       = 32
	maxAdditions     = 16
	maxMetadata      = 64
)

// Custom is the compiled custom pattern of one profile. It is immutable and safe for concurrent use.
type Custom struct {
	profile, namespace string
	parameters         []parameter // sorted by name
	template           *expressions.Template
	containers         []string
	ports              []parameterPort
	fixedPorts         []fixedPort
}

// CompileCustom compiles the custom pattern of the profile of a name, in a namespace or "". Everything that is wrong is reported
// at once: what needs no Pod is evaluated here with the defaults, whatever else is wrong, and what comes of it is checked.
func CompileCustom(name, namespace string, spec *v1alpha1.Custom, path *field.Path) (*Custom, field.ErrorList) {
	c := &Custom{profile: name, namespace: namespace}
	parameters, errs := compileParameters(spec.Parameters, path.Child("parameters"))
	c.parameters = parameters

	path = path.Child("template")
	document, problem := readTemplate(spec.Template.Raw, path)
	if problem != nil {
		return nil, append(errs, problem)
	}
	if tooMany := tooManyItems(document, path); len(tooMany) > 0 {
		return nil, append(errs, tooMany...)
	}
	environment, err := c.environment()
	if err != nil {
		return nil, append(errs, field.InternalError(path, err))
	}
	places := &places{document: document}
	template, wrong := environment.CompileTemplate(document, path, expressions.TemplateOptions{
		Rules: places.rules, Check: checkExpression, Early: []string{"params", "profile"},
	})
	errs = append(errs, wrong...)
	errs = append(errs, places.checkVariables(path)...)
	tried, wrong := template.TryOut(c.variables(c.defaults()), map[string][]string{"params": c.lacking()})
	errs = append(errs, wrong...)
	decoded, wrong := c.decode(tried, document, path)
	errs = append(errs, wrong...)
	if len(errs) == 0 && !places.hasExpressions && decoded.isEmpty() {
		errs = append(errs, nothingAdded(path))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	c.template = template
	decoded.allContainers(path, func(container *corev1.Container, _ *field.Path, _ bool) {
		c.containers = append(c.containers, v1alpha1.ReservedName(c.profile, container.Name))
	})
	c.ports, c.fixedPorts = templatePorts(document, template, c.parameters)
	return c, nil
}

func readTemplate(raw []byte, path *field.Path) (map[string]any, *field.Error) {
	if len(raw) > maxTemplateBytes {
		return nil, field.TooLong(path, "", maxTemplateBytes)
	}
	document := map[string]any{}
	if err := utiljson.Unmarshal(raw, &document); err != nil {
		return nil, field.Invalid(path, field.OmitValueType{}, "must be an object: "+err.Error())
	}
	return document, nil
}

// nothingAdded is what is wrong with a template of nothing.
func nothingAdded(path *field.Path) *field.Error {
	return field.Required(path, "write what is added: containers, initContainers, volumes, app, labels, annotations, "+
		"imagePullSecrets or hostAliases")
}

// tooManyItems comes before all else: of 500 containers one problem is enough.
func tooManyItems(document map[string]any, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(most int, names ...string) {
		total := 0
		for _, name := range names {
			switch items := document[name].(type) {
			case []any:
				total += len(items)
			case map[string]any:
				total += len(items)
			}
		}
		if total > most {
			errs = append(errs, field.Invalid(path.Child(names[0]), total, fmt.Sprintf("%s are too many: at most %d are allowed",
				strings.Join(names, " and "), most)))
		}
	}
	check(maxContainers, "containers", "initContainers")
	check(maxVolumes, "volumes")
	check(maxAdditions, "app")
	check(maxMetadata, "labels", "annotations")
	return errs
}

// environment declares what expressions may read.
func (c *Custom) environment() (*expressions.Environment, error) {
	fields := map[string]expressions.Kind{}
	for i := range c.parameters {
		fields[c.parameters[i].name] = c.parameters[i].kindOf()
	}
	return expressions.NewEnvironment(
		expressions.Variable{Name: "params", Fields: fields},
		expressions.Variable{Name: "profile", Fields: map[string]expressions.Kind{
			"name": expressions.String, "namespace": expressions.String,
		}},
		expressions.Variable{Name: "pod"},
		expressions.Variable{Name: "namespace"},
	)
}

// decode holds a template whose expressions have their values, or are open, to what a Pod can hold. The document is the template
// as it is written, nil if that was checked before.
func (c *Custom) decode(rendered, document any, path *field.Path) (*customTemplate, field.ErrorList) {
	walk := &shapeWalk{document: document}
	value := walk.value(rendered, templateShape(), path, nil)
	template, err := decodeTemplate(value)
	if err != nil {
		return nil, append(walk.errs, field.Invalid(path, field.OmitValueType{}, err.Error()))
	}
	check := &templateCheck{profile: c.profile, unknown: walk.unknown}
	check.template(template, path)
	return template, append(walk.errs, check.errs...)
}

// Parameters returns the names of the parameters, sorted.
func (c *Custom) Parameters() []string {
	names := make([]string, len(c.parameters))
	for i := range c.parameters {
		names[i] = c.parameters[i].name
	}
	return names
}

// Parse reads the value of a parameter from an annotation: a string as it is, others as they are written in JSON or YAML.
func (c *Custom) Parse(name, text string) (any, error) {
	for i := range c.parameters {
		if c.parameters[i].name == name {
			return c.parameters[i].parse(text)
		}
	}
	if len(c.parameters) == 0 {
		return nil, fmt.Errorf("there is no parameter %q; the profile has none", shortened(name))
	}
	return nil, fmt.Errorf("there is no parameter %q; there are %s", shortened(name), strings.Join(c.Parameters(), ", "))
}

// Containers returns the names of all containers that the pattern adds, as they are in the Pod.
func (c *Custom) Containers() []string { return c.containers }

// ReadsPod tells whether any expression reads the Pod or its namespace. Where none does, the values of the parameters decide what
// the pattern adds.
func (c *Custom) ReadsPod() bool { return c.template.Reads("pod") || c.template.Reads("namespace") }

func (c *Custom) defaults() map[string]any {
	values := map[string]any{}
	for i := range c.parameters {
		if c.parameters[i].standard != nil {
			values[c.parameters[i].name] = c.parameters[i].standard
		}
	}
	return values
}

// lacking returns the names of the parameters whose value is not known before there is a Pod, or for a default that is wrong.
func (c *Custom) lacking() []string {
	var names []string
	for i := range c.parameters {
		if p := &c.parameters[i]; p.isWrong || p.required && p.standard == nil {
			names = append(names, p.name)
		}
	}
	return names
}

func (c *Custom) variables(values map[string]any) map[string]any {
	return map[string]any{
		"params":  values,
		"profile": map[string]any{"name": c.profile, "namespace": c.namespace},
	}
}

// Bind sets the parameters: those given, as Parse returned them, and the defaults of the others.
func (c *Custom) Bind(given map[string]any) (*BoundCustom, []Problem) {
	values := c.defaults()
	maps.Copy(values, given)
	var problems []Problem
	for i := range c.parameters {
		if _, there := values[c.parameters[i].name]; c.parameters[i].required && !there {
			problems = append(problems, Problem{Reason: ReasonParameterRequired, Message: fmt.Sprintf(
				"profile %s wants the parameter %s, a value of type %s: write the annotation %s", c.profile, c.parameters[i].name,
				c.parameters[i].kind, v1alpha1.OverrideKey(c.profile, c.parameters[i].name))})
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	bound, errs := c.template.Bind(c.variables(values))
	if len(errs) > 0 {
		return nil, c.problems(ReasonExpressionFailed, errs)
	}
	return &BoundCustom{custom: c, values: values, bound: bound}, nil
}

// problems are errors, as what is wrong with the profile for a Pod.
func (c *Custom) problems(reason Reason, errs field.ErrorList) []Problem {
	problems := make([]Problem, len(errs))
	for i := range errs {
		problems[i] = Problem{Reason: reason, Message: fmt.Sprintf("profile %s: %s", c.profile, errs[i].Error())}
	}
	return problems
}

// BoundCustom is a Custom with the values of its parameters. It is immutable and safe for concurrent use.
type BoundCustom struct {
	custom *Custom
	values map[string]any
	bound  *expressions.Bound
}

// Values returns the values of the parameters that have one. It must not be changed.
func (b *BoundCustom) Values() map[string]any { return b.values }

// Evaluate evaluates the template for a Pod and its namespace: views as expressions see them.
func (b *BoundCustom) Evaluate(pod, namespace any) (*CustomResult, []Problem) {
	return b.EvaluateWithin(nil, pod, namespace)
}

// EvaluateWithin is Evaluate that costs no more than is left of a budget, and takes its cost from that.
func (b *BoundCustom) EvaluateWithin(budget *expressions.Budget, pod, namespace any) (*CustomResult, []Problem) {
	values := b.custom.variables(b.values)
	values["pod"], values["namespace"] = pod, namespace
	leaves, errs := b.bound.EvaluateWithin(budget, values)
	if len(errs) > 0 {
		return nil, b.custom.problems(ReasonExpressionFailed, errs)
	}
	return &CustomResult{bound: b, leaves: leaves, key: leaves.Key()}, nil
}

// CustomResult is a template whose expressions have their values.
type CustomResult struct {
	bound  *BoundCustom
	leaves expressions.Leaves
	key    string
}

// Key identifies what the result adds among the results of one BoundCustom.
func (r *CustomResult) Key() string { return r.key }

// Fragment returns what the pattern adds, with names reserved and what the template leaves open hardened.
func (r *CustomResult) Fragment(hardening Hardening) (weave.Fragment, []Problem) {
	custom := r.bound.custom
	template, errs := custom.decode(r.bound.bound.Render(r.leaves), nil, field.NewPath("spec", "custom", "template"))
	if len(errs) > 0 {
		return weave.Fragment{}, custom.problems(ReasonInvalidTemplate, errs)
	}
	reserveNames(template, custom.profile)
	fragment := weave.Fragment{
		Profile:          custom.profile,
		InitContainers:   template.InitContainers,
		Containers:       template.Containers,
		Volumes:          template.Volumes,
		Labels:           template.Labels,
		Annotations:      template.Annotations,
		ImagePullSecrets: template.ImagePullSecrets,
		HostAliases:      template.HostAliases,
	}
	for i := range template.App {
		fragment.Additions = append(fragment.Additions, weave.Addition(template.App[i]))
	}
	hardenCustom(&fragment, hardening)
	return fragment, nil
}

// reserveNames gives containers and volumes the names that they have in the Pod, wherever the template mentions them.
func reserveNames(template *customTemplate, profile string) {
	volumes, containers := map[string]bool{}, map[string]bool{}
	for i := range template.Volumes {
		volumes[template.Volumes[i].Name] = true
		template.Volumes[i].Name = v1alpha1.ReservedName(profile, template.Volumes[i].Name)
	}
	template.allContainers(nil, func(container *corev1.Container, _ *field.Path, _ bool) { containers[container.Name] = true })
	rename := func(name *string, known map[string]bool) {
		if *name != "" && known[*name] {
			*name = v1alpha1.ReservedName(profile, *name)
		}
	}
	renameMounts := func(mounts []corev1.VolumeMount) {
		for i := range mounts {
			rename(&mounts[i].Name, volumes)
		}
	}
	template.allContainers(nil, func(container *corev1.Container, _ *field.Path, _ bool) {
		container.Name = v1alpha1.ReservedName(profile, container.Name)
		renameMounts(container.VolumeMounts)
		for i := range container.VolumeDevices {
			rename(&container.VolumeDevices[i].Name, volumes)
		}
		for i := range container.Env {
			if source := container.Env[i].ValueFrom; source != nil && source.ResourceFieldRef != nil {
				rename(&source.ResourceFieldRef.ContainerName, containers)
			}
		}
	})
	for i := range template.App {
		renameMounts(template.App[i].VolumeMounts)
	}
	for i := range template.Volumes {
		for _, item := range downwardItems(&template.Volumes[i]) {
			if item.ResourceFieldRef != nil {
				rename(&item.ResourceFieldRef.ContainerName, containers)
			}
		}
	}
}

// downwardItems returns the files of a volume that show fields of the Pod.
func downwardItems(volume *corev1.Volume) []corev1.DownwardAPIVolumeFile {
	var items []corev1.DownwardAPIVolumeFile
	if volume.DownwardAPI != nil {
		items = append(items, volume.DownwardAPI.Items...)
	}
	if volume.Projected != nil {
		for i := range volume.Projected.Sources {
			if source := volume.Projected.Sources[i].DownwardAPI; source != nil {
				items = append(items, source.Items...)
			}
		}
	}
	return items
}

// CustomProblems says why what a custom pattern adds cannot be woven into a Pod: a volume that it does not have, containers that
// would keep it from completing. The Pod is without what is reserved.
func CustomProblems(fragment *weave.Fragment, pod *corev1.Pod) []Problem {
	var problems []Problem
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever || pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		for i := range fragment.Containers {
			problems = append(problems, Problem{Reason: ReasonNeverCompletes, Message: fmt.Sprintf(
				"container %s of profile %s would keep the Pod, whose restartPolicy is %s, from completing: let the profile make it an init "+
					"container with restartPolicy: Always", fragment.Containers[i].Name, fragment.Profile, pod.Spec.RestartPolicy)})
		}
	}
	problems = append(problems, missingVolumes(fragment, pod)...)
	if !pod.Spec.HostNetwork {
		return problems
	}
	for _, container := range slices.Concat(fragment.InitContainers, fragment.Containers) {
		for _, port := range container.Ports {
			problems = append(problems, Problem{Reason: ReasonHostNetwork, Message: fmt.Sprintf(
				"profile %s would open port %d on the node, for the Pod uses the host's network: remove hostNetwork from the Pod, "+
					"or do not ask for the profile", fragment.Profile, port.ContainerPort)})
		}
	}
	return problems
}

// missingVolumes finds, each once, the volumes that are mounted and that neither the Fragment nor the Pod has.
func missingVolumes(fragment *weave.Fragment, pod *corev1.Pod) []Problem {
	known := map[string]bool{}
	var present []string
	for i := range pod.Spec.Volumes {
		known[pod.Spec.Volumes[i].Name] = true
		present = append(present, pod.Spec.Volumes[i].Name)
	}
	for i := range fragment.Volumes {
		known[fragment.Volumes[i].Name] = true
	}
	if len(present) == 0 {
		present = []string{"none"}
	}
	var problems []Problem
	need := func(name, who string) {
		if known[name] {
			return
		}
		known[name] = true
		problems = append(problems, Problem{Reason: ReasonVolumeNotFound, Message: fmt.Sprintf(
			"profile %s mounts the volume %s %s, which neither the profile's template nor the Pod has; the Pod has %s",
			fragment.Profile, shortened(name), who, strings.Join(present, ", "))})
	}
	for _, container := range slices.Concat(fragment.InitContainers, fragment.Containers) {
		for i := range container.VolumeMounts {
			need(container.VolumeMounts[i].Name, "into its container "+container.Name)
		}
		for i := range container.VolumeDevices {
			need(container.VolumeDevices[i].Name, "into its container "+container.Name)
		}
	}
	for i := range fragment.Additions {
		for j := range fragment.Additions[i].VolumeMounts {
			need(fragment.Additions[i].VolumeMounts[j].Name, "into the app")
		}
	}
	return problems
}
