package weave

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// serviceAccountPath is where the API server mounts the token of a Pod's ServiceAccount into every container.
const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

var (
	// unheldFields of a container are not compared as they are: the cluster may change them, most of them within bounds (bounds.go).
	unheldFields = []string{"name", "resources", "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"}

	// runningFields change what a container runs, how long, or as whom. One that the Fragment does not set must not be there.
	runningFields = []string{
		"args", "command", "envFrom", "lifecycle", "livenessProbe", "readinessProbe", "restartPolicy", "restartPolicyRules",
		"securityContext", "startupProbe", "stdin", "stdinOnce", "tty", "volumeDevices", "workingDir",
	}
)

// Differences returns, as sentences, how a Pod that should carry a Fragment differs from one that does: what is missing, and what
// is not as the Fragment says. None if it carries it. The Pod is one that the API server holds: what it and other webhooks set
// where the Fragment says nothing is no difference, unless it changes what the Fragment's containers run.
func Differences(pod *corev1.Pod, fragment *Fragment, options Options) []string {
	d := &differences{pod: pod, profile: fragment.Profile}
	for i := range fragment.InitContainers {
		d.container(&fragment.InitContainers[i], "an init container", pod.Spec.InitContainers, pod.Spec.Containers)
	}
	d.order(fragment.InitContainers)
	d.ahead(fragment.InitContainers, options)
	for i := range fragment.Containers {
		d.container(&fragment.Containers[i], "a regular container", pod.Spec.Containers, pod.Spec.InitContainers)
	}
	for i := range fragment.Volumes {
		d.volume(&fragment.Volumes[i])
	}
	d.additions(fragment.Additions, options)
	d.writers(fragment, options)
	d.keys("annotation", fragment.Annotations, pod.Annotations)
	d.keys("label", fragment.Labels, pod.Labels)
	d.secretsAndHosts(fragment)
	return d.sentences
}

type differences struct {
	pod       *corev1.Pod
	profile   string
	sentences []string
}

func (d *differences) report(format string, args ...any) {
	d.sentences = append(d.sentences, fmt.Sprintf(format, args...))
}

// container compares a container with that of its name in the list where it belongs.
func (d *differences) container(want *corev1.Container, kind string, list, otherList []corev1.Container) {
	where := "container " + want.Name
	got := find(list, want.Name)
	switch {
	case got != nil:
		if wanted, there, ok := d.asMaps(where, want, got); ok {
			c := comparison{d, where}
			c.containers(wanted, there)
			c.bounds(want, got)
		}
	case find(otherList, want.Name) != nil:
		d.report("%s has to be %s, as profile %s says", where, kind, d.profile)
	default:
		d.report("%s, which profile %s adds, is missing", where, d.profile)
	}
}

// order holds the Fragment's init containers to their order. What else there is may stand among them.
func (d *differences) order(containers []corev1.Container) {
	before, last := -1, ""
	for i := range containers {
		name := containers[i].Name
		place := slices.IndexFunc(d.pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
		if place < 0 {
			continue
		}
		if place < before {
			d.report("container %s starts before container %s, and profile %s has it start after it", name, last, d.profile)
		}
		before, last = place, name
	}
}

// ahead holds what starts ahead of the Fragment's init containers to names that may: an init container of the Pod's own that
// never ends would keep them from starting at all.
func (d *differences) ahead(containers []corev1.Container, options Options) {
	list := d.pod.Spec.InitContainers
	first := slices.IndexFunc(list, func(c corev1.Container) bool { return find(containers, c.Name) != nil })
	for i := range first {
		if !options.mayPrecede(list[i].Name) {
			d.report("container %s starts before container %s, and profile %s lets none of the Pod's own do so",
				list[i].Name, list[first].Name, d.profile)
		}
	}
}

func (d *differences) volume(want *corev1.Volume) {
	where := "volume " + want.Name
	got := findVolume(d.pod, want.Name)
	if got == nil {
		d.report("%s, which profile %s adds, is missing", where, d.profile)
		return
	}
	if wanted, there, ok := d.asMaps(where, want, got); ok {
		c := comparison{d, where}
		c.objects("", wanted, there)
	}
}

func (d *differences) keys(what string, added, present map[string]string) {
	for _, key := range sortedKeys(added) {
		switch value, there := present[key]; {
		case !there:
			d.report("%s %s, which profile %s adds, is missing", what, key, d.profile)
		case value != added[key]:
			d.report("%s %s is %s, and profile %s says %s", what, key, shown(value), d.profile, shown(added[key]))
		}
	}
}

func (d *differences) secretsAndHosts(fragment *Fragment) {
	secrets := pullSecretNames(d.pod)
	for _, secret := range fragment.ImagePullSecrets {
		if !secrets[secret.Name] {
			d.report("image pull secret %s, which profile %s adds, is missing", secret.Name, d.profile)
		}
	}
	hosts := hostEntries(d.pod)
	for _, alias := range fragment.HostAliases {
		for _, name := range alias.Hostnames {
			if !hosts[hostEntry{alias.IP, name}] {
				d.report("host alias %s for %s, which profile %s adds, is missing", name, alias.IP, d.profile)
			}
		}
	}
	addresses := hostAddresses(fragment.HostAliases)
	for _, alias := range d.pod.Spec.HostAliases {
		for _, name := range alias.Hostnames {
			if own := addresses[name]; own != nil && !slices.Contains(own, alias.IP) {
				d.report("host alias %s has the address %s, and profile %s gives it no other than %s",
					name, alias.IP, d.profile, strings.Join(own, ", "))
			}
		}
	}
}

// containers compares containers: what the Fragment sets is there, and nothing else that changes what runs.
func (c *comparison) containers(want, got map[string]any) {
	for _, field := range sortedFields(want) {
		if !slices.Contains(unheldFields, field) {
			c.field(field, want[field], got[field])
		}
	}
	for _, field := range runningFields {
		if _, set := want[field]; set || got[field] == nil {
			continue
		}
		if nested, ok := got[field].(map[string]any); ok && field == "securityContext" {
			c.objects(field, nil, nested) // one that sets nothing is none
			continue
		}
		c.extra(field, got[field])
	}
	c.extraMounts(want["volumeMounts"], got["volumeMounts"])
	c.extraEnv(want["env"], got["env"])
	c.orderOfEnv(want["env"], got["env"])
}

// extraMounts reports mounts that hide something of the image: all but that of the Pod's ServiceAccount.
func (c *comparison) extraMounts(want, got any) {
	paths := keysOf(want, "volumeMounts")
	for _, mount := range items(got) {
		mountPath, _ := mount["mountPath"].(string)
		if !paths[mountPath] && path.Clean(mountPath) != serviceAccountPath {
			c.extra("volumeMounts["+mountPath+"]", mount)
		}
	}
}

// extraEnv reports variables: there are programs that run what one names.
func (c *comparison) extraEnv(want, got any) {
	names := keysOf(want, "env")
	for _, variable := range items(got) {
		if name, _ := variable["name"].(string); !names[name] {
			c.extra("env["+name+"]", variable)
		}
	}
}

// orderOfEnv holds the Fragment's variables to their order: in a value, $(NAME) is one that stands before it.
func (c *comparison) orderOfEnv(want, got any) {
	names := keysOf(want, "env")
	var wanted, there []string
	for _, variable := range items(want) {
		wanted = append(wanted, text(variable, "name"))
	}
	for _, variable := range items(got) {
		if name := text(variable, "name"); names[name] {
			there = append(there, name)
		}
	}
	if len(there) != len(wanted) {
		return // told already
	}
	for i := range wanted {
		if there[i] != wanted[i] {
			c.report("%s has env[%s] before env[%s], and profile %s has it after it", c.where, there[i], wanted[i], c.profile)
			return
		}
	}
}

// asMaps returns two API objects as their JSON has them. What has none differs.
func (d *differences) asMaps(where string, want, got any) (wanted, there map[string]any, ok bool) {
	wanted, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err == nil {
		there, err = runtime.DefaultUnstructuredConverter.ToUnstructured(got)
	}
	if err != nil {
		d.report("%s cannot be compared with what profile %s says: %v", where, d.profile, err)
	}
	return wanted, there, err == nil
}
