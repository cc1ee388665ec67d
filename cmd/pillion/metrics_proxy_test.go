package main

import (
	"io"
	"strings"
	"testing"
)

func TestMetricsProxyRefusesFlags(t *testing.T) {
	const upstream = "--upstream=http://127.0.0.1:17979/metrics"
	tests := map[string]struct {
		args []string
		want string
	}{
		"no upstream":                   {want: `required flag(s) "upstream" not set`},
		"an upstream elsewhere":         {args: []string{"--upstream=http://169.254.169.254/"}, want: "is not on loopback"},
		"a path that is none":           {args: []string{upstream, "--path=metrics"}, want: `--path "metrics" is no path`},
		"a path of everything":          {args: []string{upstream, "--path=/"}, want: `--path "/" is no path`},
		"a path with a wildcard":        {args: []string{upstream, "--path=/{x}"}, want: `--path "/{x}" is no path`},
		"an address that is none":       {args: []string{upstream, "--listen-address=127.0.0.1:x"}, want: "listen for scrapes"},
		"an argument that is no option": {args: []string{upstream, "x"}, want: "unknown command"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			command := metricsProxyCommand()
			command.SetArgs(test.args)
			command.SetOut(io.Discard)
			command.SetErr(io.Discard)
			if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}
