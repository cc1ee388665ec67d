package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// Role is what a certificate is for.
type Role string

// The roles, in the order in which they are told.
const (
	RoleServing    Role = "serving"
	RoleCA         Role = "ca"
	RoleNextCA     Role = "next-ca"
	RolePreviousCA Role = "previous-ca"
)

// Roles returns all roles in their order.
func Roles() []Role { return []Role{RoleServing, RoleCA, RoleNextCA, RolePreviousCA} }

// Certificate is one that is served or trusted.
type Certificate struct {
	Role        Role
	Certificate *x509.Certificate
	// RenewAt is when it is due to be replaced; zero: it is not to be, for it has been, or nothing is left that could.
	RenewAt time.Time
}

// certificatesOf returns the certificates of a rotation and the serving one. What does not parse is left out.
func certificatesOf(r *rotation, leaf Pair) []Certificate {
	var found []Certificate
	var seen [][]byte
	add := func(role Role, data []byte, renewed bool) {
		for _, block := range blocksOf(data) {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil || slices.ContainsFunc(seen, func(der []byte) bool { return bytes.Equal(der, block.Bytes) }) {
				continue
			}
			seen = append(seen, block.Bytes)
			one := Certificate{Role: role, Certificate: certificate}
			if renewed {
				one.RenewAt = renewAt(certificate)
			}
			found = append(found, one)
		}
	}
	canSign := len(r.Signing.Key) > 0
	if blocks := blocksOf(leaf.Certificate); len(blocks) > 0 {
		add(RoleServing, pem.EncodeToMemory(blocks[0]), canSign) // what follows vouches for the CA
	}
	add(RoleCA, r.Signing.Certificate, canSign && len(r.Next.Certificate) == 0)
	add(RoleNextCA, r.Next.Certificate, false)
	add(RolePreviousCA, r.Previous, false)
	return found
}
