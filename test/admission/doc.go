// Package admission holds webhook and controller together to a real API server: real Pods, over TLS, with the identities and
// permissions of deploy/.
package admission
