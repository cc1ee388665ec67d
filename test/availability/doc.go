// Package availability proves, on a real API server and under traffic, that Pods are created while certificates are replaced and
// processes end.
package availability
