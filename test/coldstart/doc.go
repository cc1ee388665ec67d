// Package coldstart proves, with a real API server and Pillion's own processes, that a cluster comes up by itself with every Pod of
// Pillion gone, that a second controller takes over, and that the self-check tells of an outage.
package coldstart
