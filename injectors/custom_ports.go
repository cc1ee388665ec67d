package injectors

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/expressions"
)

// parameterPort is a port of a container that is one integer parameter and no more.
type parameterPort struct {
	parameter *parameter
	protocol  corev1.Protocol
}

// templatePorts finds the ports that Pick may move, and those that are numbers.
func templatePorts(document any, template *expressions.Template, parameters []parameter) (found []parameterPort, fixed []int64) {
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := valueAt(document, []string{list}).([]any)
		for i := range containers {
			path := []string{list, strconv.Itoa(i), "ports"}
			ports, _ := valueAt(document, path).([]any)
			for j, port := range ports {
				if number, ok := valueAt(port, []string{"containerPort"}).(int64); ok {
					fixed = append(fixed, number)
				}
				variable, name, ok := template.OnlyReads(append(slices.Clone(path), strconv.Itoa(j), "containerPort"))
				if p := integerOf(parameters, name); ok && variable == "params" && p != nil {
					found = append(found, parameterPort{p, protocolOf(port)})
				}
			}
		}
	}
	return found, fixed
}

// integerOf returns the integer parameter of a name, or nil.
func integerOf(parameters []parameter, name string) *parameter {
	for i := range parameters {
		if parameters[i].name == name && parameters[i].kind == v1alpha1.ParameterInteger {
			return &parameters[i]
		}
	}
	return nil
}

func protocolOf(port any) corev1.Protocol {
	if written, ok := valueAt(port, []string{"protocol"}).(string); ok {
		return corev1.Protocol(written)
	}
	return corev1.ProtocolTCP
}

// Pick returns the pattern with other values of those parameters that alone are a port of its containers, where that port is
// taken: the next that is free, for everything that the parameter reaches. It is false if no parameter can be changed so.
func (b *BoundCustom) Pick(taken Taken) (*BoundCustom, bool) {
	values, changed := maps.Clone(b.values), false
	for i := range b.custom.ports {
		p := b.custom.ports[i].parameter
		port, ok := values[p.name].(int64)
		if !ok || port < 1 || port > 65535 || b.isFree(values, p, port, taken) {
			continue
		}
		next, ok := b.nextPort(values, p, port, taken)
		if !ok {
			return nil, false
		}
		values[p.name], changed = next, true
	}
	if !changed {
		return nil, false
	}
	bound, errs := b.custom.template.Bind(b.custom.variables(values))
	if len(errs) > 0 {
		return nil, false
	}
	return &BoundCustom{custom: b.custom, values: values, bound: bound}, true
}

// isFree tells whether a parameter may be a port, for all protocols that it is used with: neither the Pod nor another port of the
// template has it.
func (b *BoundCustom) isFree(values map[string]any, p *parameter, port int64, taken Taken) bool {
	if slices.Contains(b.custom.fixedPorts, port) {
		return false
	}
	for _, other := range b.custom.ports {
		if other.parameter == p && taken(int32(port), other.protocol) {
			return false
		}
		if other.parameter != p && values[other.parameter.name] == port {
			return false
		}
	}
	return true
}

// nextPort returns the next value of a parameter that is a free port and that the parameter may have.
func (b *BoundCustom) nextPort(values map[string]any, p *parameter, port int64, taken Taken) (int64, bool) {
	for _, allowed := range p.enum {
		if candidate := allowed.(int64); candidate >= 1 && candidate <= 65535 && b.isFree(values, p, candidate, taken) {
			return candidate, true
		}
	}
	if len(p.enum) > 0 {
		return 0, false
	}
	wellKnown := wellKnownPorts()
	next, ok := nextFree(int32(port), func(candidate int32) bool {
		return !slices.Contains(wellKnown, candidate) && p.check(int64(candidate)) == nil &&
			b.isFree(values, p, int64(candidate), taken)
	})
	return int64(next), ok
}
