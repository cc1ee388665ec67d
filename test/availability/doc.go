// Package availability proves, on a real API server that reaches two replicas by a Service, that Pods are created under traffic
// whatever happens to certificates, processes and the API server. go test runs it in a short form, make soak in the long one.
package availability
