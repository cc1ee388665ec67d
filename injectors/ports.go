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
	next, ok := nextFree(*port, unprivileged, highestPort, func(port int32) bool {
		return !slices.Contains(wellKnown, port) && isFree(port)
	})
	if ok {
		*port = next
	}
	return ok
}

const (
	// unprivileged is the first port on which a program needs no privilege to listen.
	unprivileged = 1024
	highestPort  = 65535
)

// nextFree returns the next port above one that is free, of those from the lowest to the highest, then the others from the
// lowest on, those that need privileges last. It is false if none is.
func nextFree(port, lowest, highest int32, isFree func(port int32) bool) (int32, bool) {
	for _, search := range [][2]int32{
		{max(port+1, lowest), highest},
		{max(lowest, unprivileged), min(port-1, highest)},
		{lowest, min(port, unprivileged, highest+1) - 1},
	} {
		for next := search[0]; next <= search[1]; next++ {
			if isFree(next) {
				return next, true
			}
		}
	}
	return 0, false
}
