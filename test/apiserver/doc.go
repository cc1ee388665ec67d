// Package apiserver runs a real Kubernetes API server with etcd, on loopback, for tests, benchmarks and demonstrations. Nothing
// else of a cluster runs: no controller manager, so that nothing makes default ServiceAccounts, empties namespaces or aggregates
// roles, and no kubelet.
package apiserver
