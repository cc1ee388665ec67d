package main

import (
	"encoding/json"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pillion-dev/pillion/config"
)

func TestCommands(t *testing.T) {
	root := rootCommand()
	var names []string
	for _, command := range root.Commands() {
		names = append(names, command.Name())
		if command.Short == "" || command.RunE == nil {
			t.Errorf("%s wants a Short and a RunE", command.Name())
		}
		if command.GroupID != groupPod && command.Example == "" {
			t.Errorf("%s wants an example", command.Name())
		}
		for line := range strings.SplitSeq(command.Long+"\n"+command.Example, "\n") {
			if len(line) > 130 {
				t.Errorf("the help of %s has a line of %d characters: %s", command.Name(), len(line), line)
			}
		}
		if err := command.Args(command, []string{"superfluous"}); err == nil {
			t.Errorf("%s takes arguments that it does not read", command.Name())
		}
	}
	slices.Sort(names)
	for _, want := range []string{"controller", "inject", "metrics-proxy", "review", "version", "webhook"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no command %s; there are %v", want, names)
		}
	}
}

func TestVersion(t *testing.T) {
	stdout, _, err := run(t, nil, "", "version")
	if want := "pillion " + thisBuild().Version + " " + runtime.Version(); err != nil || !strings.HasPrefix(stdout, want) {
		t.Errorf("version: %q, %v; want %q", stdout, err, want)
	}
	stdout, _, err = run(t, nil, "", "version", "-o", "json")
	got := map[string]string{}
	if err != nil || json.Unmarshal([]byte(stdout), &got) != nil || got["goVersion"] != runtime.Version() || got["version"] == "" {
		t.Errorf("version -o json: %q, %v", stdout, err)
	}
	_, _, err = run(t, nil, "", "version", "-o", "yaml")
	if err == nil || !strings.Contains(err.Error(), `--output "yaml" is unknown`) {
		t.Errorf("version -o yaml: %v", err)
	}
}

func TestCommandsOfAClusterSayHowToReachOne(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, name := range []string{"webhook", "controller"} {
		if _, _, err := run(t, nil, "", name); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
			t.Errorf("%s outside a cluster: %v", name, err)
		}
		if _, _, err := run(t, nil, "", name, "--kubeconfig", "missing"); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("%s with a kubeconfig that is not there: %v", name, err)
		}
		if _, _, err := run(t, nil, "", name, "--log-level", "loud"); err == nil || !strings.Contains(err.Error(), "--log-level") {
			t.Errorf("%s with a wrong flag: %v", name, err)
		}
	}
}

// Every setting must arrive: one that is forgotten would be silently at its zero value.
func TestOptionsAreSet(t *testing.T) {
	settings, err := config.Load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	settings.Controller.WebhookURL = "https://127.0.0.1:9443"
	logger, err := newLogger(io.Discard, settings)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{settings: settings, logger: logger}
	unset := func(options any, may ...string) {
		value := reflect.ValueOf(options)
		for i := range value.NumField() {
			if name := value.Type().Field(i).Name; value.Field(i).IsZero() && !slices.Contains(may, name) {
				t.Errorf("%T.%s is not set", options, name)
			}
		}
	}
	webhookOptions := p.webhookOptions()
	unset(webhookOptions)
	unset(webhookOptions.Handler, "Logger", "Metrics", "Compiler") // Run sets them
	unset(webhookOptions.Profiles)
	unset(webhookOptions.Profiles.Images)
	unset(p.controllerOptions(), "Now", "RecheckUsers", "CountsInterval") // tests set them
}

func TestPodsRunPillionsImageOfTheSameRelease(t *testing.T) {
	tests := map[string]struct{ version, want string }{
		"a release":         {"v1.2.3", "registry.example.com:5000/pillion:v1.2.3"},
		"a build between":   {"v1.2.3-4-gabcdef0", "registry.example.com:5000/pillion:v0.1.0"},
		"a build of no tag": {"abcdef0-dirty", "registry.example.com:5000/pillion:v0.1.0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ofRelease("registry.example.com:5000/pillion:v0.1.0", test.version); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
