package injectors

import (
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
)

func (c *templateCheck) container(container *corev1.Container, path *field.Path, isInit bool) {
	c.image(container.Image, path.Child("image"))
	c.restartPolicy(container, path, isInit)
	c.choice(string(container.ImagePullPolicy), path.Child("imagePullPolicy"), "Always", "IfNotPresent", "Never")
	c.choice(string(container.TerminationMessagePolicy), path.Child("terminationMessagePolicy"), "File", "FallbackToLogsOnError")
	c.env(container.Env, path.Child("env"))
	for i := range container.EnvFrom {
		if source := &container.EnvFrom[i]; (source.ConfigMapRef == nil) == (source.SecretRef == nil) {
			c.requiredOf(path.Child("envFrom").Index(i), "write configMapRef or secretRef, and not both", "configMapRef", "secretRef")
		}
	}
	c.ports(container.Ports, path.Child("ports"))
	c.mounts(container.VolumeMounts, path.Child("volumeMounts"))
	for i, device := range container.VolumeDevices {
		c.mountedName(device.Name, path.Child("volumeDevices").Index(i).Child("name"))
	}
	c.resources(&container.Resources, path.Child("resources"))
	c.securityContext(container.SecurityContext, path.Child("securityContext"))
	c.probe(container.LivenessProbe, path.Child("livenessProbe"), true)
	c.probe(container.ReadinessProbe, path.Child("readinessProbe"), false)
	c.probe(container.StartupProbe, path.Child("startupProbe"), true)
	if lifecycle := container.Lifecycle; lifecycle != nil {
		c.oneOf(lifecycle.PostStart, path.Child("lifecycle", "postStart"))
		c.oneOf(lifecycle.PreStop, path.Child("lifecycle", "preStop"))
	}
}

func (c *templateCheck) image(image string, path *field.Path) {
	switch {
	case image == "":
		c.required(path, "of the container")
	case len(image) > 512 || !imageReference.MatchString(image):
		c.invalid(path, image, "is no image reference; write one such as registry.example.com/team/program:1.2.3")
	}
}

func (c *templateCheck) restartPolicy(container *corev1.Container, path *field.Path, isInit bool) {
	isSidecar := container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways
	switch {
	case len(container.RestartPolicyRules) > 0:
		c.forbidden(path.Child("restartPolicyRules"), "a profile sets none: leave it out")
	case container.RestartPolicy == nil:
		if c.isOpen(path.Child("restartPolicy")) {
			return
		}
	case !isInit:
		c.forbidden(path.Child("restartPolicy"),
			"is the Pod's for a regular container: leave it out, or move the container to initContainers")
	case !isSidecar:
		c.errs = append(c.errs, field.NotSupported(path.Child("restartPolicy"), *container.RestartPolicy, []string{"Always"}))
		return
	}
	if !isInit || isSidecar {
		return
	}
	const detail = "goes with restartPolicy: Always, for an init container ends before anybody asks"
	refuse := func(set bool, name string) {
		if set {
			c.forbidden(path.Child(name), detail)
		}
	}
	refuse(container.Lifecycle != nil, "lifecycle")
	refuse(container.LivenessProbe != nil, "livenessProbe")
	refuse(container.ReadinessProbe != nil, "readinessProbe")
	refuse(container.StartupProbe != nil, "startupProbe")
}

func (c *templateCheck) choice(value string, path *field.Path, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		c.errs = append(c.errs, field.NotSupported(path, shortened(value), allowed))
	}
}

func (c *templateCheck) env(env []corev1.EnvVar, path *field.Path) {
	seen := map[string]bool{}
	for i := range env {
		variable, path := &env[i], path.Index(i)
		switch {
		case variable.Name == "":
			c.required(path.Child("name"), "of the variable")
			continue
		case seen[variable.Name]:
			c.errs = append(c.errs, field.Duplicate(path.Child("name"), shortened(variable.Name)))
		}
		seen[variable.Name] = true
		for _, problem := range validation.IsEnvVarName(variable.Name) {
			c.invalid(path.Child("name"), variable.Name, problem)
		}
		if variable.ValueFrom == nil {
			continue
		}
		if variable.Value != "" {
			c.invalid(path.Child("valueFrom"), field.OmitValueType{}, "goes without value: leave one of them out")
		}
		c.oneOf(variable.ValueFrom, path.Child("valueFrom"))
	}
}

// oneOf wants exactly one of the pointers of a struct to be set, if there is the struct.
func (c *templateCheck) oneOf(object any, path *field.Path) {
	value := reflect.ValueOf(object)
	if value.Kind() == reflect.Pointer {
		if value.IsNil() {
			return
		}
		value = value.Elem()
	}
	var choices, set []string
	for i := range value.NumField() {
		if value.Field(i).Kind() != reflect.Pointer || value.Field(i).Type().Elem().Kind() != reflect.Struct {
			continue
		}
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		choices = append(choices, name)
		if !value.Field(i).IsNil() {
			set = append(set, name)
		}
	}
	switch {
	case len(set) == 0:
		c.requiredOf(path, "write one of "+strings.Join(choices, ", "), choices...)
	case len(set) > 1:
		c.invalid(path, strings.Join(set, ", "), "goes one at a time: write one of them")
	}
}

func (c *templateCheck) ports(ports []corev1.ContainerPort, path *field.Path) {
	names := map[string]bool{}
	for i := range ports {
		port, path := &ports[i], path.Index(i)
		if port.ContainerPort == 0 {
			c.required(path.Child("containerPort"), "from 1 to 65535")
		} else {
			c.port(int(port.ContainerPort), path.Child("containerPort"))
		}
		if port.HostPort != 0 {
			c.port(int(port.HostPort), path.Child("hostPort"))
		}
		c.choice(string(port.Protocol), path.Child("protocol"), "TCP", "UDP", "SCTP")
		if port.Name == "" {
			continue
		}
		for _, problem := range validation.IsValidPortName(port.Name) {
			c.invalid(path.Child("name"), port.Name, problem)
		}
		if names[port.Name] {
			c.errs = append(c.errs, field.Duplicate(path.Child("name"), port.Name))
		}
		names[port.Name] = true
	}
}

func (c *templateCheck) port(port int, path *field.Path) {
	if port < 1 || port > 65535 {
		c.invalid(path, port, "must be from 1 to 65535")
	}
}

// uniquePorts finds two containers that would listen on one port of the Pod.
func (c *templateCheck) uniquePorts(t *customTemplate, path *field.Path) {
	type key struct {
		port     int32
		protocol corev1.Protocol
	}
	seen := map[key]string{}
	t.allContainers(path, func(container *corev1.Container, path *field.Path, isInit bool) {
		if isInit && container.RestartPolicy == nil {
			return // it has ended when the next one listens
		}
		for i := range container.Ports {
			port := &container.Ports[i]
			at, k := path.Child("ports").Index(i).Child("containerPort"), key{port.ContainerPort, port.Protocol}
			if k.protocol == "" {
				k.protocol = corev1.ProtocolTCP
			}
			if first, taken := seen[k]; taken && port.ContainerPort != 0 && !c.isOpen(path.Child("ports").Index(i).Child("protocol")) {
				c.invalid(at, port.ContainerPort, "is that of "+first+" too: give one of them another port")
			} else {
				seen[k] = at.String()
			}
		}
	})
}

func (c *templateCheck) mounts(mounts []corev1.VolumeMount, path *field.Path) {
	seen := map[string]bool{}
	for i := range mounts {
		mount, path := &mounts[i], path.Index(i)
		c.mountedName(mount.Name, path.Child("name"))
		switch {
		case mount.MountPath == "":
			c.required(path.Child("mountPath"), "where the volume appears in the container")
		case seen[mount.MountPath]:
			c.errs = append(c.errs, field.Duplicate(path.Child("mountPath"), shortened(mount.MountPath)))
		case strings.Contains(mount.MountPath, ":"):
			c.invalid(path.Child("mountPath"), mount.MountPath, "must not contain a colon")
		}
		seen[mount.MountPath] = true
		c.subPath(mount.SubPath, path.Child("subPath"))
		c.subPath(mount.SubPathExpr, path.Child("subPathExpr"))
		if mount.SubPath != "" && mount.SubPathExpr != "" {
			c.invalid(path.Child("subPathExpr"), mount.SubPathExpr, "goes without subPath: leave one of them out")
		}
	}
}

func (c *templateCheck) subPath(text string, at *field.Path) {
	if path.IsAbs(text) || slices.Contains(strings.Split(text, "/"), "..") {
		c.invalid(at, text, "must be a relative path without ..")
	}
}

// mountedName checks the name of a volume that a container mounts: the template's, or one of the Pod.
func (c *templateCheck) mountedName(name string, path *field.Path) {
	switch {
	case name == "":
		c.required(path, "of a volume in the template, or of the Pod")
	case v1alpha1.IsReservedName(name):
		c.invalid(path, name, "is the name of an injected volume: write a volume of this template as it is called there; those of "+
			"other profiles cannot be mounted")
	}
}

func (c *templateCheck) resources(requirements *corev1.ResourceRequirements, path *field.Path) {
	check := func(list corev1.ResourceList, path *field.Path) {
		for _, key := range slices.Sorted(maps.Keys(list)) {
			if quantity := list[key]; quantity.Sign() < 0 {
				c.invalid(path.Key(string(key)), quantity.String(), "must not be negative")
			}
			for _, problem := range validation.IsQualifiedName(string(key)) {
				c.invalid(path.Key(shortened(string(key))), string(key), problem)
			}
		}
	}
	check(requirements.Requests, path.Child("requests"))
	check(requirements.Limits, path.Child("limits"))
	isNone := func(key corev1.ResourceName, limit resource.Quantity) bool {
		return limit.IsZero() && (key == corev1.ResourceCPU || key == corev1.ResourceMemory)
	}
	for _, key := range slices.Sorted(maps.Keys(requirements.Limits)) {
		if limit := requirements.Limits[key]; isNone(key, limit) {
			c.invalid(path.Child("limits").Key(string(key)), limit.String(),
				"bounds nothing: write a limit of more than 0, or leave it out")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(requirements.Requests)) {
		request := requirements.Requests[key]
		limit, ok := requirements.Limits[key]
		if !ok || limit.Sign() < 0 || isNone(key, limit) || c.isOpen(path.Child("limits").Key(shortened(string(key)))) {
			continue // or the limit itself is wrong
		}
		if request.Cmp(limit) > 0 {
			c.invalid(path.Child("requests").Key(string(key)), request.String(), "is more than the limit, "+limit.String())
		}
	}
}

func (c *templateCheck) securityContext(security *corev1.SecurityContext, path *field.Path) {
	if security == nil {
		return
	}
	isSet := func(value *bool, want bool) bool { return value != nil && *value == want }
	if isSet(security.Privileged, true) && isSet(security.AllowPrivilegeEscalation, false) {
		c.invalid(path.Child("allowPrivilegeEscalation"), false, "contradicts privileged: true")
	}
	if isSet(security.RunAsNonRoot, true) && security.RunAsUser != nil && *security.RunAsUser == 0 {
		c.invalid(path.Child("runAsUser"), 0, "contradicts runAsNonRoot: true")
	}
	checkID := func(id *int64, name string) {
		if id != nil && (*id < 0 || *id > 1<<31-1) {
			c.invalid(path.Child(name), *id, "must be from 0 to 2147483647")
		}
	}
	checkID(security.RunAsUser, "runAsUser")
	checkID(security.RunAsGroup, "runAsGroup")
}

// probe checks a probe; once is for those whose successThreshold is always 1.
func (c *templateCheck) probe(probe *corev1.Probe, path *field.Path, once bool) {
	if probe == nil {
		return
	}
	c.oneOf(&probe.ProbeHandler, path)
	checkNumber := func(value int32, name string) {
		if value < 0 {
			c.invalid(path.Child(name), value, "must not be negative")
		}
	}
	checkNumber(probe.InitialDelaySeconds, "initialDelaySeconds")
	checkNumber(probe.TimeoutSeconds, "timeoutSeconds")
	checkNumber(probe.PeriodSeconds, "periodSeconds")
	checkNumber(probe.SuccessThreshold, "successThreshold")
	checkNumber(probe.FailureThreshold, "failureThreshold")
	if once && probe.SuccessThreshold > 1 {
		c.invalid(path.Child("successThreshold"), probe.SuccessThreshold, "must be 1 for this probe: leave it out")
	}
	if grace := probe.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		c.invalid(path.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0")
	}
	if get := probe.HTTPGet; get != nil {
		c.probedPort(get.Port, path.Child("httpGet", "port"))
	}
	if socket := probe.TCPSocket; socket != nil {
		c.probedPort(socket.Port, path.Child("tcpSocket", "port"))
	}
	if probe.GRPC != nil {
		c.probedPort(intstr.FromInt32(probe.GRPC.Port), path.Child("grpc", "port"))
	}
}

func (c *templateCheck) probedPort(port intstr.IntOrString, path *field.Path) {
	switch {
	case c.isOpen(path):
	case port.Type == intstr.Int:
		c.port(port.IntValue(), path)
	default:
		for _, problem := range validation.IsValidPortName(port.StrVal) {
			c.invalid(path, port.StrVal, problem)
		}
	}
}
