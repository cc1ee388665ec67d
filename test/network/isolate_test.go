package network_test

import (
	"net"
	"os"
	"testing"

	"github.com/pillion-dev/pillion/test/network"
)

func TestMain(m *testing.M) { os.Exit(network.Isolate(m.Run)) }

func TestEveryAddressOfTheSubnetCanBeListenedOnAndReached(t *testing.T) {
	for _, host := range []byte{1, 2, 77, 254} {
		listener, err := net.Listen("tcp", net.JoinHostPort(network.Address(host), "0"))
		if err != nil {
			t.Fatal(err)
		}
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Error(err)
		} else {
			_ = connection.Close()
		}
		_ = listener.Close()
	}
}

func TestNothingElseIsThere(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(interfaces) != 1 || interfaces[0].Name != "lo" {
		t.Errorf("the interfaces are %v, want loopback alone", interfaces)
	}
}
