// Package network gives the tests of a package a network of their own, so that servers may listen on addresses that are neither
// loopback nor the machine's: an API server reaches a Service's endpoints at no loopback address.
package network

import "net/netip"

// Subnet holds the addresses that may be listened on where Isolate runs. All of them are this network's own.
var Subnet = netip.MustParsePrefix("10.88.0.0/24")

// Address returns an address of Subnet, 1 to 254.
func Address(host byte) string {
	bytes := Subnet.Addr().As4()
	bytes[3] = host
	return netip.AddrFrom4(bytes).String()
}
