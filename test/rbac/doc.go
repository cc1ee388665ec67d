// Package rbac holds the table of docs/security.md to the authorizer of a real API server: what the table says is allowed with
// deploy/rbac.yaml, and nothing else is.
package rbac
