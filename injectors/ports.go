package injectors

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Taken tells whether a port is taken in the Pod.
type Taken func(port int32, protocol corev1.Protocol) bool

// wellKnownPorts are what the patterns' programs listen on by default. They are not picked for another program: a profile that
// comes later would find its port taken.
func wellKnownPorts() []int32 {
	ports := []int32{7979, 9102, 3903, 9121, 9150, 9113, 9187, 9104, 9125, memcachedPort, redisPort}
	for _, port := range ports {
		ports = append(ports, loopbackPort(port))
	}
	return ports
}

// pickPort replaces a port that is not free by the next that is and is not well known. It is false if none is.
func pickPort(port *int32, isFree func(port int32) bool) bool {
	if isFree(*port) {
		return true
	}
	wellKnown := wellKnownPorts()
	next, ok := nextFree(*port, func(port int32) bool { return !slices.Contains(wellKnown, port) && isFree(port) })
	if ok {
		*port = next
	}
	return ok
}

// nextFree returns the next port above one that is free, then the next from 1024 on, or false if none is.
func nextFree(port int32, isFree func(port int32) bool) (int32, bool) {
	const lowest, highest = 1024, 65535
	for next := max(port+1, lowest); next <= highest; next++ {
		if isFree(next) {
			return next, true
		}
	}
	for next := int32(lowest); next < port; next++ {
		if isFree(next) {
			return next, true
		}
	}
	return 0, false
}
