package injectors

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// Where gomplate finds its things. The schema keeps templates.image.path off the last three.
const (
	templatesDirectory  = "/templates"
	outputDirectory     = "/out"
	parametersDirectory = "/parameters"
	valuesDirectory     = "/values"
)

// maxValuesSize is how large the values of a profile may be, as JSON. They travel in annotations, of which a Pod has 256 KiB.
const maxValuesSize = 64 << 10

// templateProcessorInjector is the Configuration Template pattern: files rendered before the app starts, by gomplate v4.3.
func templateProcessorInjector() Injector {
	return Injector{
		Kind:  v1alpha1.KindTemplateProcessor,
		Field: "templateProcessor",
		Required: []Required{
			{Field: "templates", Path: "templates.configMap.name", Example: "app-templates"},
			{Field: "mountPath", Path: "mountPath", Example: "/etc/app"},
		},
		Validate: validateTemplateProcessor,
		Fragment: templateProcessorFragment,
		Problems: templateProcessorProblems,
		Sources:  templateProcessorSources,
	}
}

func templateProcessorSources(pattern *v1alpha1.Pattern) []string {
	if source := pattern.TemplateProcessor.Templates.GitSync; source != nil {
		return []string{source.Profile}
	}
	return nil
}

func validateTemplateProcessor(pattern *v1alpha1.Pattern, path *field.Path) field.ErrorList {
	spec := pattern.TemplateProcessor
	var errs field.ErrorList
	if source := spec.Templates.ConfigMap; source != nil {
		errs = append(errs, validateTemplateKeys(source.Keys, spec.Suffix, path.Child("templates", "configMap", "keys"))...)
	}
	size := 0
	for i := range spec.Parameters {
		size += len(valuesJSON(spec.Parameters[i].Values))
	}
	if size > maxValuesSize {
		errs = append(errs, field.Invalid(path.Child("parameters"), fmt.Sprintf("%d bytes", size),
			"values may take 64 KiB in all, as JSON: put them into a ConfigMap and name its key"))
	}
	return errs
}

// validateTemplateKeys refuses templates that would be rendered to the same file.
func validateTemplateKeys(keys []string, suffix string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rendered := map[string]string{}
	for i, key := range keys {
		name := strings.TrimSuffix(key, suffix)
		other, taken := rendered[name]
		switch {
		case name == "":
			errs = append(errs, field.Invalid(path.Index(i), key, "nothing is left of the name without the suffix "+suffix))
		case taken:
			errs = append(errs, field.Invalid(path.Index(i), key, "is rendered to the same file as "+other+": "+name))
		}
		rendered[name] = key
	}
	return errs
}

// templateProcessorProblems says which templates the Pod does not have.
func templateProcessorProblems(request Request, pod *corev1.Pod) []Problem {
	switch source := request.Pattern.TemplateProcessor.Templates; {
	case source.Volume != nil && !hasVolume(pod, source.Volume.Name):
		return []Problem{{Reason: ReasonVolumeNotFound, Message: fmt.Sprintf(
			"profile %q reads templates from the volume %q, which the Pod does not have: add it to the Pod's spec.volumes, or "+
				"name one that is there in templates.volume", request.Profile, source.Volume.Name)}}
	case source.GitSync != nil:
		if pattern := request.Applied[source.GitSync.Profile]; pattern == nil || pattern.GitSync == nil {
			return []Problem{{Reason: ReasonSourceNotApplied, Message: fmt.Sprintf(
				"profile %q reads templates from the profile %q, which the Pod does not get or which is not a gitSync profile: ask "+
					"for one as well", request.Profile, source.GitSync.Profile)}}
		}
	}
	return nil
}

func templateProcessorFragment(request Request) weave.Fragment {
	spec := request.Pattern.TemplateProcessor
	fragment := weave.Fragment{Profile: request.Profile}

	container := newContainer(request, "", request.Images.Gomplate, &spec.ContainerSettings, resources{
		cpuRequest: "10m", cpuLimit: "500m",
		memoryRequest: "64Mi", memoryLimit: "128Mi",
	})
	addTemplates(&fragment, &container, request)
	addDelimiters(&container, spec.Delimiters)
	addParameters(&fragment, &container, spec.Parameters)
	addOutput(&fragment, &container, spec)
	addEnv(&container, &spec.ContainerSettings)

	fragment.InitContainers = []corev1.Container{container}
	return fragment
}

// addTemplates gives gomplate its templates, and their volume unless they are in the image.
func addTemplates(fragment *weave.Fragment, container *corev1.Container, request Request) {
	spec := request.Pattern.TemplateProcessor
	mount := func(volume string) {
		container.VolumeMounts = append(container.VolumeMounts,
			corev1.VolumeMount{Name: volume, MountPath: templatesDirectory, ReadOnly: true})
	}
	switch source := spec.Templates; {
	case source.ConfigMap != nil:
		volume := templatesVolume(request.Profile, source.ConfigMap)
		fragment.Volumes = append(fragment.Volumes, volume)
		mount(volume.Name)
		if len(source.ConfigMap.Keys) > 0 {
			container.Args = append(container.Args, fileArgs(source.ConfigMap, spec.Suffix)...)
		} else {
			container.Args = append(container.Args, directoryArgs(templatesDirectory, spec)...)
		}

	case source.Volume != nil:
		mount(source.Volume.Name)
		container.Args = append(container.Args,
			directoryArgs(path.Join(templatesDirectory, string(source.Volume.Path)), spec)...)

	case source.GitSync != nil:
		var link string // empty where the profile is not applied, of which templateProcessorProblems tells
		if pattern := request.Applied[source.GitSync.Profile]; pattern != nil && pattern.GitSync != nil {
			link = pattern.GitSync.Link
		}
		mount(v1alpha1.ReservedName(source.GitSync.Profile, ""))
		container.Args = append(container.Args,
			directoryArgs(path.Join(templatesDirectory, link, string(source.GitSync.Path)), spec)...)

	case source.Image != nil:
		container.Args = append(container.Args, directoryArgs(source.Image.Path, spec)...)
	}
}

// templatesVolume is a ConfigMap with templates. Where the keys are known it is optional, so that gomplate says in the Pod's
// status which one is missing. Where they are not, gomplate would find nothing to do and be content: the kubelet has to wait.
func templatesVolume(profile string, source *v1alpha1.TemplateConfigMap) corev1.Volume {
	configMap := &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: source.Name}}
	for _, key := range source.Keys {
		configMap.Items = append(configMap.Items, corev1.KeyToPath{Key: key, Path: path.Join(source.Name, key)})
		configMap.Optional = new(true)
	}
	return corev1.Volume{
		Name:         v1alpha1.ReservedName(profile, "templates"),
		VolumeSource: corev1.VolumeSource{ConfigMap: configMap},
	}
}

// fileArgs renders files by name: unlike files of a directory, one that is missing is an error, which shows its path.
func fileArgs(source *v1alpha1.TemplateConfigMap, suffix string) []string {
	args := make([]string, 0, 2*len(source.Keys))
	for _, key := range source.Keys {
		args = append(args,
			"--file="+path.Join(templatesDirectory, source.Name, key),
			"--out="+path.Join(outputDirectory, strings.TrimSuffix(key, suffix)))
	}
	return args
}

// directoryArgs renders every file under a directory, but for git's own and the ..2026_… directories that the kubelet keeps the
// files of a ConfigMap in.
func directoryArgs(directory string, spec *v1alpha1.TemplateProcessor) []string {
	left, right := "{{", "}}"
	if spec.Delimiters != nil { // gomplate reads its own arguments by them, too
		left, right = spec.Delimiters.Left, spec.Delimiters.Right
	}
	// The schema leaves a suffix and delimiters no character that means something between delimiters.
	outputMap := outputDirectory + "/" + left + " .in | strings.TrimSuffix " + strconv.Quote(spec.Suffix) + " " + right
	return []string{
		"--input-dir=" + literal(directory),
		"--exclude=..*",
		"--exclude=.git",
		"--output-map=" + literal(outputMap),
	}
}

func hasVolume(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return true
		}
	}
	return false
}

func addDelimiters(container *corev1.Container, delimiters *v1alpha1.TemplateDelimiters) {
	if delimiters == nil {
		return
	}
	container.Args = append(container.Args,
		"--left-delim="+literal(delimiters.Left),
		"--right-delim="+literal(delimiters.Right))
}

// addParameters gives gomplate a datasource per parameter, read before the first template is. Those of ConfigMaps and Secrets are
// optional, so that gomplate says in the Pod's status which one is missing; the kubelet would wait for it without end.
func addParameters(fragment *weave.Fragment, container *corev1.Container, parameters []v1alpha1.TemplateParameter) {
	var sources []corev1.VolumeProjection
	var values []configFile
	for i := range parameters {
		parameter := &parameters[i]
		var file string
		switch {
		case parameter.Values != nil:
			file = parameter.Name + ".json"
			values = append(values, configFile{key: strconv.Itoa(i), path: file, content: valuesJSON(parameter.Values)})
			file = path.Join(valuesDirectory, file)
		default:
			source, relative := projection(parameter)
			sources = append(sources, source)
			file = path.Join(parametersDirectory, relative)
		}
		container.Args = append(container.Args,
			"--context="+parameter.Name+"=file://"+file+"?type="+mediaType(parameter))
	}
	if len(sources) > 0 {
		volume := corev1.Volume{
			Name: v1alpha1.ReservedName(fragment.Profile, "parameters"),
			VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: sources, DefaultMode: new(int32(0o444)),
			}},
		}
		fragment.Volumes = append(fragment.Volumes, volume)
		container.VolumeMounts = append(container.VolumeMounts,
			corev1.VolumeMount{Name: volume.Name, MountPath: parametersDirectory, ReadOnly: true})
	}
	if len(values) > 0 {
		container.VolumeMounts = append(container.VolumeMounts, addConfig(fragment, valuesDirectory, values...))
	}
}

// projection returns a parameter's file and its path in the volume. gomplate's errors show it: it names the object and the key.
func projection(parameter *v1alpha1.TemplateParameter) (corev1.VolumeProjection, string) {
	if secret := parameter.Secret; secret != nil {
		file := path.Join(parameter.Name, "secret", secret.Name, secret.Key)
		return corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: secret.Name},
			Items:                []corev1.KeyToPath{{Key: secret.Key, Path: file}},
			Optional:             new(true),
		}}, file
	}
	configMap := parameter.ConfigMap
	file := path.Join(parameter.Name, "configmap", configMap.Name, configMap.Key)
	return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap.Name},
		Items:                []corev1.KeyToPath{{Key: configMap.Key, Path: file}},
		Optional:             new(true),
	}}, file
}

// mediaType is how gomplate is told the format of a parameter's file.
func mediaType(parameter *v1alpha1.TemplateParameter) string {
	switch formatOf(parameter) {
	case v1alpha1.TemplateFormatYAML:
		return "application/yaml"
	case v1alpha1.TemplateFormatJSON:
		return "application/json"
	case v1alpha1.TemplateFormatTOML:
		return "application/toml"
	default:
		return "text/plain"
	}
}

func formatOf(parameter *v1alpha1.TemplateParameter) v1alpha1.TemplateFormat {
	var key string
	switch {
	case parameter.Values != nil:
		return v1alpha1.TemplateFormatJSON
	case parameter.Format != "":
		return parameter.Format
	case parameter.Secret != nil:
		key = parameter.Secret.Key
	default:
		key = parameter.ConfigMap.Key
	}
	switch path.Ext(key) {
	case ".yaml", ".yml":
		return v1alpha1.TemplateFormatYAML
	case ".json":
		return v1alpha1.TemplateFormatJSON
	case ".toml":
		return v1alpha1.TemplateFormatTOML
	default:
		return v1alpha1.TemplateFormatText
	}
}

// valuesJSON is the same for the same values: keys are sorted.
func valuesJSON(values map[string]v1alpha1.TemplateValue) string {
	if values == nil {
		return ""
	}
	data, _ := json.Marshal(values) // a map of strings cannot fail
	return string(data)
}

// addOutput adds the volume of the rendered files to gomplate and the app. With a parameter from a Secret it is in memory, as
// Secret volumes are.
func addOutput(fragment *weave.Fragment, container *corev1.Container, spec *v1alpha1.TemplateProcessor) {
	output := emptyDir(v1alpha1.ReservedName(fragment.Profile, ""), spec.SizeLimit.DeepCopy())
	for i := range spec.Parameters {
		if spec.Parameters[i].Secret != nil {
			output.EmptyDir.Medium = corev1.StorageMediumMemory
		}
	}
	fragment.Volumes = append(fragment.Volumes, output)
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: output.Name, MountPath: outputDirectory})
	container.Args = append(container.Args, "--chmod="+spec.FileMode)
	fragment.Additions = append(fragment.Additions, weave.Addition{
		Containers: spec.Containers,
		VolumeMounts: []corev1.VolumeMount{{
			Name: output.Name, MountPath: string(spec.MountPath), ReadOnly: *spec.ReadOnly,
		}},
	})
}
