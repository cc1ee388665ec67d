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

// fixedPort is a port of a container that is a number.
type fixedPort struct {
	port     int64
	protocol corev1.Protocol
}

// templatePorts finds the ports that Pick may move, and those that are numbers.
func templatePorts(
	document any, template *expressions.Template, parameters []parameter,
) (found []parameterPort, fixed []fixedPort) {
	for _, list := range []string{"initContainers", "containers"} {
		containers, _ := valueAt(document, []string{list}).([]any)
		for i := range containers {
			path := []string{list, strconv.Itoa(i), "ports"}
			ports, _ := valueAt(document, path).([]any)
			for j, port := range ports {
				if number, ok := valueAt(port, []string{"containerPort"}).(int64); ok {
					fixed = append(fixed, fixedPort{number, protocolOf(port)})
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

// anyProtocol stands for one that an expression yields.
const anyProtocol corev1.Protocol = ""

func protocolOf(port any) corev1.Protocol {
	written, ok := valueAt(port, []string{"protocol"}).(string)
	switch {
	case !ok || written == "":
		return corev1.ProtocolTCP
	case hasExpression(written):
		return anyProtocol
	default:
		return corev1.Protocol(written)
	}
}

// meet tells whether two ports of one number may be one.
func meet(a, b corev1.Protocol) bool { return a == b || a == anyProtocol || b == anyProtocol }

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

// isFree tells whether a parameter may be a port, for all protocols that it is used with: neither the Pod nor another port of
// the template has it.
func (b *BoundCustom) isFree(values map[string]any, p *parameter, port int64, taken Taken) bool {
	for _, used := range b.custom.ports {
		if used.parameter == p && (isTaken(taken, port, used.protocol) || b.isOthers(values, used, port)) {
			return false
		}
	}
	return true
}

func isTaken(taken Taken, port int64, protocol corev1.Protocol) bool {
	if protocol != anyProtocol {
		return taken(int32(port), protocol)
	}
	return slices.ContainsFunc([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP},
		func(protocol corev1.Protocol) bool { return taken(int32(port), protocol) })
}

// isOthers tells whether another port of the template would be the same.
func (b *BoundCustom) isOthers(values map[string]any, used parameterPort, port int64) bool {
	return slices.ContainsFunc(b.custom.fixedPorts, func(fixed fixedPort) bool {
		return fixed.port == port && meet(fixed.protocol, used.protocol)
	}) || slices.ContainsFunc(b.custom.ports, func(other parameterPort) bool {
		return other.parameter != used.parameter && values[other.parameter.name] == port && meet(other.protocol, used.protocol)
	})
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
	lowest, highest := p.portRange()
	next, ok := nextFree(int32(port), lowest, highest, func(candidate int32) bool {
		return !slices.Contains(wellKnown, candidate) && p.check(int64(candidate)) == nil &&
			b.isFree(values, p, int64(candidate), taken)
	})
	return int64(next), ok
}

// portRange returns the ports that the parameter's own bounds allow. Without bounds they are those that need no privilege.
func (p *parameter) portRange() (lowest, highest int32) {
	lowest, highest = unprivileged, highestPort
	within := func(bound int64) int32 { return int32(min(max(bound, 1), highestPort)) }
	if most, bounded := p.maximum.(int64); bounded {
		highest = within(most)
		if highest < lowest {
			lowest = 1
		}
	}
	if least, bounded := p.minimum.(int64); bounded {
		lowest = within(least)
	}
	return lowest, highest
}
