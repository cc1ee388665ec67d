package injectors

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

// imageReference is the form of an image.
var imageReference = regexp.MustCompile(
	`^([a-zA-Z0-9][a-zA-Z0-9._-]*(:[0-9]{1,5})?|\[[0-9a-fA-F:]{2,39}\](:[0-9]{1,5})?/[a-z0-9]+([._-]+[a-z0-9]+)*)` +
		`(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?` +
		`(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$`)

// templateCheck finds what the API server would refuse of a template, and what no profile may add. It is no full copy of the API
// server's validation: it finds what people get wrong, where they wrote it, and not in a Pod that cannot be created.
type templateCheck struct {
	profile string
	// unknown are the paths of expressions: what is not there may be there once they have their values. They are those of what was
	// said to be wrong too.
	unknown []string
	errs    field.ErrorList
}

// invalid reports a value that is wrong, unless an expression yields it: what stands there is no more than a placeholder.
func (c *templateCheck) invalid(path *field.Path, value any, detail string) {
	at := path.String()
	if slices.ContainsFunc(c.unknown, func(unknown string) bool { return isWithin(at, unknown) }) {
		return
	}
	if text, ok := value.(string); ok {
		value = shortened(text)
	}
	c.errs = append(c.errs, field.Invalid(path, value, detail))
}

func (c *templateCheck) forbidden(path *field.Path, detail string) {
	c.errs = append(c.errs, field.Forbidden(path, detail))
}

// required reports what is missing, unless an expression may yield it.
func (c *templateCheck) required(path *field.Path, detail string) {
	if !c.isOpen(path) {
		c.errs = append(c.errs, field.Required(path, detail))
	}
}

// requiredOf reports at a path that none of its keys is there, unless an expression may yield one.
func (c *templateCheck) requiredOf(path *field.Path, detail string, keys ...string) {
	if !slices.ContainsFunc(keys, func(key string) bool { return c.isOpen(path.Child(key)) }) {
		c.errs = append(c.errs, field.Required(path, detail))
	}
}

// isOpen tells whether an expression stands at a path, above it or below it.
func (c *templateCheck) isOpen(path *field.Path) bool {
	at := path.String()
	return slices.ContainsFunc(c.unknown, func(unknown string) bool { return isWithin(at, unknown) || isWithin(unknown, at) })
}

// isWithin tells whether a path is another or leads on from it.
func isWithin(path, other string) bool {
	rest, ok := strings.CutPrefix(path, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (c *templateCheck) template(t *customTemplate, path *field.Path) {
	c.names(t, path)
	c.metadata(t, path)
	t.allContainers(path, c.container)
	c.uniquePorts(t, path)
	for i := range t.Volumes {
		c.volume(&t.Volumes[i], path.Child("volumes").Index(i))
	}
	for i := range t.App {
		c.addition(&t.App[i], path.Child("app").Index(i))
	}
	c.overlappingAdditions(t.App, path.Child("app"))
	for i := range t.ImagePullSecrets {
		c.objectName(t.ImagePullSecrets[i].Name, path.Child("imagePullSecrets").Index(i).Child("name"))
	}
	for i := range t.HostAliases {
		c.hostAlias(&t.HostAliases[i], path.Child("hostAliases").Index(i))
	}
}

// names checks the names of containers and volumes, which no expression yields.
func (c *templateCheck) names(t *customTemplate, path *field.Path) {
	containers := map[string]bool{}
	t.allContainers(path, func(container *corev1.Container, path *field.Path, _ bool) {
		path = path.Child("name")
		switch {
		case containers[container.Name] && container.Name == "":
			c.required(path, "only one container may be without a name: it is the one called "+v1alpha1.ReservedName(c.profile, ""))
		case containers[container.Name]:
			c.errs = append(c.errs, field.Duplicate(path, shortened(container.Name)))
		case container.Name != "":
			c.name(container.Name, path)
		}
		containers[container.Name] = true
	})
	volumes := map[string]bool{}
	for i := range t.Volumes {
		name, path := t.Volumes[i].Name, path.Child("volumes").Index(i).Child("name")
		switch {
		case name == "":
			c.required(path, "by which containers mount the volume")
		case volumes[name]:
			c.errs = append(c.errs, field.Duplicate(path, shortened(name)))
		case name == noTokenVolume:
			c.invalid(path, name, "is kept for the volume that hides the ServiceAccount's token: choose another name")
		default:
			c.name(name, path)
		}
		volumes[name] = true
	}
}

func (c *templateCheck) name(name string, path *field.Path) {
	for _, problem := range validation.IsDNS1123Label(name) {
		c.invalid(path, name, problem)
	}
	switch full := v1alpha1.ReservedName(c.profile, name); {
	case v1alpha1.IsReservedName(name):
		c.invalid(path, name, fmt.Sprintf("is too much: the name in the Pod is %s already", full))
	case len(full) > validation.DNS1123LabelMaxLength:
		c.invalid(path, name, fmt.Sprintf("is too long: the name in the Pod, %s, has %d characters of at most %d",
			shortened(full), len(full), validation.DNS1123LabelMaxLength))
	}
}

func (c *templateCheck) metadata(t *customTemplate, path *field.Path) {
	for _, key := range slices.Sorted(maps.Keys(t.Labels)) {
		at := path.Child("labels").Key(shortened(key))
		c.key(key, at)
		if key == "pod-template-hash" || key == "controller-revision-hash" {
			c.forbidden(at, "the label is a controller's own, which would take the Pod for another's")
		}
		for _, problem := range validation.IsValidLabelValue(t.Labels[key]) {
			c.invalid(at, t.Labels[key], problem)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(t.Annotations)) {
		c.key(key, path.Child("annotations").Key(shortened(key)))
	}
}

// key refuses keys by which Kubernetes and Pillion themselves are told what to do.
func (c *templateCheck) key(key string, path *field.Path) {
	if CheckText(key) == nil { // or that was said
		for _, problem := range validation.IsQualifiedName(key) {
			c.errs = append(c.errs, field.Invalid(path, shortened(key), problem))
		}
	}
	prefix, _, found := strings.Cut(key, "/")
	if !found {
		return
	}
	for _, domain := range []string{"kubernetes.io", "k8s.io", v1alpha1.Group} {
		if strings.EqualFold(prefix, domain) || strings.HasSuffix(strings.ToLower(prefix), "."+domain) {
			c.forbidden(path, fmt.Sprintf("keys under %s are not a profile's to set: remove it, or write it on the Pods", domain))
		}
	}
}

func (c *templateCheck) volume(volume *corev1.Volume, path *field.Path) {
	c.oneOf(&volume.VolumeSource, path)
	if volume.EmptyDir != nil && volume.EmptyDir.SizeLimit != nil && volume.EmptyDir.SizeLimit.Sign() < 0 {
		c.invalid(path.Child("emptyDir", "sizeLimit"), volume.EmptyDir.SizeLimit.String(), "must not be negative")
	}
}

func (c *templateCheck) addition(addition *customAddition, path *field.Path) {
	for i, name := range addition.Containers {
		at := path.Child("containers").Index(i)
		for _, problem := range validation.IsDNS1123Label(name) {
			c.invalid(at, name, problem)
		}
		if v1alpha1.IsReservedName(name) {
			c.invalid(at, name, "is the name of an injected container: app is for those of the app")
		}
	}
	if len(addition.Env) == 0 && len(addition.VolumeMounts) == 0 {
		c.requiredOf(path, "write env or volumeMounts: what the containers gain", "env", "volumeMounts")
	}
	c.env(addition.Env, path.Child("env"))
	c.mounts(addition.VolumeMounts, path.Child("volumeMounts"))
}

// overlappingAdditions finds what a container would gain twice.
func (c *templateCheck) overlappingAdditions(additions []customAddition, path *field.Path) {
	for i := range additions {
		for j := range i {
			if !mayMeet(additions[i].Containers, additions[j].Containers) {
				continue
			}
			for k := range additions[i].Env {
				name := additions[i].Env[k].Name
				if name != "" && slices.ContainsFunc(additions[j].Env, func(v corev1.EnvVar) bool { return v.Name == name }) {
					c.invalid(path.Index(i).Child("env").Index(k).Child("name"), name, "is set by "+path.Index(j).String()+" too")
				}
			}
			for k := range additions[i].VolumeMounts {
				mountPath := additions[i].VolumeMounts[k].MountPath
				if mountPath != "" && slices.ContainsFunc(additions[j].VolumeMounts,
					func(m corev1.VolumeMount) bool { return m.MountPath == mountPath }) {
					c.invalid(path.Index(i).Child("volumeMounts").Index(k).Child("mountPath"), mountPath,
						"is mounted by "+path.Index(j).String()+" too")
				}
			}
		}
	}
}

// mayMeet tells whether a container of the app may be meant by both lists of names.
func mayMeet(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(name string) bool { return slices.Contains(b, name) })
}

func (c *templateCheck) objectName(name string, path *field.Path) {
	if name == "" {
		c.required(path, "of the Secret")
		return
	}
	for _, problem := range validation.IsDNS1123Subdomain(name) {
		c.invalid(path, name, problem)
	}
}

func (c *templateCheck) hostAlias(alias *corev1.HostAlias, path *field.Path) {
	switch {
	case alias.IP == "":
		c.required(path.Child("ip"), "of the host names")
	case net.ParseIP(alias.IP) == nil:
		c.invalid(path.Child("ip"), alias.IP, "is no IP address")
	}
	for i, name := range alias.Hostnames {
		for _, problem := range validation.IsDNS1123Subdomain(name) {
			c.invalid(path.Child("hostnames").Index(i), name, problem)
		}
	}
}
