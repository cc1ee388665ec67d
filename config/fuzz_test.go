package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// FuzzValue gives a key any value: the environment and a flag say the same by it, and a value that is taken is a good one.
func FuzzValue(f *testing.F) {
	for i := range keys() {
		f.Add(uint(i), keys()[i].text())
	}
	for i, value := range []string{
		"", " ", "a,b", ",", "a,,b", "true", "TRUE", "1", "-1", "0x10", "1e3", "9223372036854775808", "5s", "-5s", "1d", "none", ":1", "[::1]:1",
		"a:b", "a:99999", "https://a/b", "HTTPS://A", "https://a\x00", "\xff", "a\nb", "../a", "*", strings.Repeat("a", 300),
	} {
		f.Add(uint(i), value)
		f.Add(uint(2*i+1), value)
	}
	f.Fuzz(func(t *testing.T, index uint, value string) {
		key := keys()[index%uint(len(keys()))]
		byVariable, variableErr := load(nil, []string{key.variable() + "=" + value}, "", nil, nil)
		byFlag, flagErr := load(fuzzedFlags(t, "--"+key.flag()+"="+value), nil, "", nil, nil)
		expectWhole(t, byVariable, variableErr)
		expectWhole(t, byFlag, flagErr)
		if (variableErr == nil) != (flagErr == nil) {
			t.Fatalf("%s=%q: the variable says %v, the flag %v", key.path, value, variableErr, flagErr)
		}
		if diff := cmp.Diff(byVariable, byFlag); diff != "" {
			t.Fatalf("%s=%q: variable and flag differ:\n%s", key.path, value, diff)
		}
	})
}

// FuzzSources gives a file, variables and flags at once, one a line: they load twice the same, or are told all that is wrong.
func FuzzSources(f *testing.F) {
	for _, seed := range [][3]string{
		{"logLevel: debug\n", "PILLION_LOG_LEVEL=warn", "--log-level=error"},
		{"webhook: {listenAddress: ':1'}\n", "PILLION_WEBHOOK_HEALTH_ADDRESS=:1", "--webhook-metrics-address=:1"},
		{"nosuch: 1\n", "PILLION_NOSUCH=1\nPILLION_NAMESPACE=\nPILLION_NAMESPACE=a", "--namespace=B"},
		{"controller: {webhookURL: 'https://a/b'}\n", "PILLION_CONTROLLER_SERVICE=a:1", "--controller-leader-election"},
		{"", "PILLION_PORT=tcp://10.0.0.1:1\nPILLION_SERVICE_HOST=10.0.0.1\nPATH=/bin\n=\n", "--excluded-namespaces=a\n--excluded-namespaces=b"},
		{"certs: {caLifetime: 9s, leafLifetime: 3s, settle: 500ms}\n", "PILLION_CERTS_CA_LIFETIME=1h", "--certs-leaf-lifetime=2h"},
	} {
		f.Add([]byte(seed[0]), seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, file []byte, variables, arguments string) {
		read := func() (Config, error) {
			return load(fuzzedFlags(t, strings.Split(arguments, "\n")...), strings.Split(variables, "\n"), "config.yaml", file, nil)
		}
		config, err := read()
		expectWhole(t, config, err)
		again, againErr := read()
		if (err == nil) != (againErr == nil) || err != nil && err.Error() != againErr.Error() {
			t.Fatalf("loaded twice, with two errors:\n%v\n%v", err, againErr)
		}
		if diff := cmp.Diff(config, again); diff != "" {
			t.Fatalf("loaded twice, and differs:\n%s", diff)
		}
	})
}

// fuzzedFlags parses arguments. What the command line itself refuses never comes so far.
func fuzzedFlags(t *testing.T, arguments ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("pillion", pflag.ContinueOnError)
	flags.SetOutput(&strings.Builder{})
	AddFlags(flags, Cluster, Logging, Decisions, WebhookServer, ControllerManager)
	if err := flags.Parse(arguments); err != nil {
		t.Skip("the command line refuses them")
	}
	return flags
}

// expectWhole fails unless there is a good configuration, or none and what is wrong.
func expectWhole(t *testing.T, config Config, err error) {
	t.Helper()
	if err == nil {
		if err := config.Validate(); err != nil {
			t.Fatalf("it loads but does not validate: %v", err)
		}
		return
	}
	if told := (*Error)(nil); !errors.As(err, &told) || len(told.Problems) == 0 {
		t.Fatalf("an error without problems: %v", err)
	}
	if diff := cmp.Diff(Config{}, config); diff != "" {
		t.Fatalf("a configuration with an error:\n%s", diff)
	}
}
