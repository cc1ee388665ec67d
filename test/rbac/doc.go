// Package rbac holds the table of docs/security.md to the authorizer of a real API server: what deploy/rbac.yaml grants is allowed,
// and nothing else is.
package rbac
