// Package certs makes, checks, keeps and serves the certificate with which the API server knows the webhook.
//
// Issuing and checking are pure but for the randomness of keys and serial numbers: the time is always a parameter. Ensure keeps
// two Secrets at what the cluster needs; Serving holds what the webhook's listener presents.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The lifetimes that are used where none is configured.
const (
	DefaultCALifetime   = 365 * 24 * time.Hour
	DefaultLeafLifetime = 7 * 24 * time.Hour
)

// backdate is how long before it is issued a certificate becomes valid, for API servers whose clocks are behind.
const backdate = time.Hour

// pathLen is how many CA certificates may stand between the CA and a leaf. One leaves room for a successor that this CA signs,
// so that a leaf of the successor verifies under both while the CA is replaced.
const pathLen = 1

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// Pair is a certificate, followed by its intermediates if it has any, and its private key, both in PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// Names returns the names that the API server may know the webhook by: that of its Service, and the host of a URL. Each is left
// out where it is empty; neither is a mistake. An IP address is a name as well.
func Names(namespace, service, webhookURL string) ([]string, error) {
	var names []string
	if service != "" {
		names = append(names, service+"."+namespace+".svc")
	}
	if webhookURL != "" {
		parsed, err := url.Parse(webhookURL)
		if err != nil {
			return nil, fmt.Errorf("parse the webhook's URL: %w", err)
		}
		if parsed.Scheme != "https" || parsed.Hostname() == "" {
			return nil, fmt.Errorf("webhook URL %q is not of the form https://HOST[:PORT][/PATH]", webhookURL)
		}
		names = append(names, strings.ToLower(parsed.Hostname()))
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the webhook has neither a Service nor a URL: name one of them")
	}
	return names, nil
}

// NewCA makes a self-signed CA that can vouch for the given names, servers only, and is valid from an hour before now until
// lifetime after it.
func NewCA(names []string, lifetime time.Duration, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the CA's key: %w", err)
	}
	id, err := keyID(key)
	if err != nil {
		return Pair{}, fmt.Errorf("identify the CA's key: %w", err)
	}
	template := &x509.Certificate{
		// The name differs from that of every other CA, so that verifiers which look issuers up by name find one only.
		Subject:               pkix.Name{CommonName: "Pillion CA " + hex.EncodeToString(id[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		SubjectKeyId:          id,
		AuthorityKeyId:        id,
	}
	constrain(template, names)
	// No serial number: CreateCertificate chooses a random one.
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Pair{}, fmt.Errorf("make the CA: %w", err)
	}
	return encode(der, key)
}

// NewLeaf makes a serving certificate for the given names, signed by the CA. It is valid from an hour before now until lifetime
// after it, but never longer than the CA.
func NewLeaf(ca Pair, names []string, lifetime time.Duration, now time.Time) (Pair, error) {
	issuer, issuerKey, err := parseCA(ca)
	if err != nil {
		return Pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the serving certificate's key: %w", err)
	}
	id, err := keyID(key)
	if err != nil {
		return Pair{}, fmt.Errorf("identify the serving certificate's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "pillion-webhook"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          id,
	}
	if template.NotAfter.After(issuer.NotAfter) {
		template.NotAfter = issuer.NotAfter
	}
	template.DNSNames, template.IPAddresses = split(names)
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return Pair{}, fmt.Errorf("make the serving certificate: %w", err)
	}
	return encode(der, key)
}

// crossSign returns the certificate of a CA as another CA signs it, in PEM, so that what the first one signs verifies by the second,
// too. It ends with the certificate that ends first.
func crossSign(ca []byte, by Pair) ([]byte, error) {
	subject, err := firstOf(ca)
	if err != nil {
		return nil, err
	}
	issuer, issuerKey, err := parseCA(by)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:                     subject.Subject,
		NotBefore:                   latest(subject.NotBefore, issuer.NotBefore),
		NotAfter:                    earliest(subject.NotAfter, issuer.NotAfter),
		KeyUsage:                    subject.KeyUsage,
		ExtKeyUsage:                 subject.ExtKeyUsage,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true, // only leaves follow
		SubjectKeyId:                subject.SubjectKeyId,
		PermittedDNSDomainsCritical: subject.PermittedDNSDomainsCritical,
		PermittedDNSDomains:         subject.PermittedDNSDomains,
		ExcludedDNSDomains:          subject.ExcludedDNSDomains,
		PermittedIPRanges:           subject.PermittedIPRanges,
		ExcludedIPRanges:            subject.ExcludedIPRanges,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, subject.PublicKey, issuerKey)
	if err != nil {
		return nil, fmt.Errorf("sign the next CA by the one that signs: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), nil
}

// constrain permits the CA to vouch for the names and for no other host (RFC 5280, 4.2.1.10). A kind of name that none of them
// is has to be excluded whole: a constraint on one kind says nothing of the other. A permitted DNS name covers its subdomains.
func constrain(template *x509.Certificate, names []string) {
	template.PermittedDNSDomainsCritical = true
	dnsNames, ips := split(names)
	template.PermittedDNSDomains = dnsNames
	for _, ip := range ips {
		template.PermittedIPRanges = append(template.PermittedIPRanges, single(ip))
	}
	if len(dnsNames) == 0 {
		template.ExcludedDNSDomains = []string{""}
	}
	if len(ips) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 8*net.IPv4len)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 8*net.IPv6len)},
		}
	}
}

// permits tells whether the CA is constrained to exactly these names.
func permits(ca *x509.Certificate, names []string) bool {
	wanted := &x509.Certificate{}
	constrain(wanted, names)
	return ca.PermittedDNSDomainsCritical &&
		slices.Equal(ca.PermittedDNSDomains, wanted.PermittedDNSDomains) &&
		slices.Equal(ca.ExcludedDNSDomains, wanted.ExcludedDNSDomains) &&
		slices.Equal(texts(ca.PermittedIPRanges), texts(wanted.PermittedIPRanges)) &&
		slices.Equal(texts(ca.ExcludedIPRanges), texts(wanted.ExcludedIPRanges))
}

func texts(networks []*net.IPNet) []string {
	var out []string
	for _, network := range networks {
		out = append(out, network.String())
	}
	return out
}

// single returns the range that holds one address.
func single(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// split tells DNS names and IP addresses apart.
func split(names []string) (dnsNames []string, ips []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dnsNames = append(dnsNames, name)
		}
	}
	return dnsNames, ips
}

// keyID identifies a key by a hash of its public half (RFC 7093, section 2, method 1).
func keyID(key *ecdsa.PrivateKey) ([]byte, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(point)
	return sum[:20], nil
}

func encode(der []byte, key *ecdsa.PrivateKey) (Pair, error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode a private key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: keyDER}),
	}, nil
}
