package main

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/pillion-dev/pillion/config"
)

// mostArguments is how many arguments commands take that take any; -1: as many as there are.
var mostArguments = map[string]int{"docs": 1, "explain": -1, "lint": -1, "profiles": 1, "release": -1, "test": -1}

func TestCommands(t *testing.T) {
	root := rootCommand()
	var names []string
	for _, command := range root.Commands() {
		names = append(names, command.Name())
		if command.Short == "" || command.RunE == nil {
			t.Errorf("%s wants a Short and a RunE", command.Name())
		}
		if command.GroupID != groupPod && (command.Example == "" || command.Long == "") {
			t.Errorf("%s wants an example, and a text that says what it is for", command.Name())
		}
		for line := range strings.SplitSeq(command.Long+"\n"+command.Example, "\n") {
			if len(line) > 130 {
				t.Errorf("the help of %s has a line of %d characters: %s", command.Name(), len(line), line)
			}
		}
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Usage == "" {
				t.Errorf("--%s of %s is not explained", flag.Name, command.Name())
			}
		})
		most := mostArguments[command.Name()]
		if most < 0 {
			continue
		}
		if command.Args == nil || command.Args(command, slices.Repeat([]string{"superfluous"}, most+1)) == nil {
			t.Errorf("%s takes arguments that it does not read", command.Name())
		}
	}
	slices.Sort(names)
	want := []string{
		"certs", "controller", "docs", "explain", "inject", "lint", "metrics-proxy", "profiles", "release", "review", "test",
		"version", "webhook",
	}
	if !slices.Equal(names, want) {
		t.Errorf("there are the commands %v, want %v", names, want)
	}
}

// exampleCalls returns the arguments of each call of a program in the examples of a command. Words are those of a shell, which
// these examples ask nothing else of: quotes, pipes, redirections and comments.
func exampleCalls(t *testing.T, example, program string) [][]string {
	t.Helper()
	var calls [][]string
	for line := range strings.SplitSeq(strings.ReplaceAll(example, "\\\n", " "), "\n") {
		words, err := shellWords(line)
		if err != nil {
			t.Errorf("%v: %s", err, line)
		}
		call := []string(nil)
		for _, word := range append(words, "|") {
			if word != "|" && word != "&&" && word != ";" {
				call = append(call, word)
				continue
			}
			if given := strings.Fields(program); len(call) >= len(given) && slices.Equal(call[:len(given)], given) {
				calls = append(calls, call[len(given):])
			}
			call = nil
		}
	}
	return calls
}

// shellWords splits a line into words. What follows a redirection or begins a comment is left out.
func shellWords(line string) ([]string, error) {
	var words []string
	word, quote := "", rune(0)
	within := false
	end := func() {
		if within {
			words = append(words, word)
		}
		word, within = "", false
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, within = r, true
		case r == ' ':
			end()
		case r == '#' && !within, r == '<', r == '>':
			end()
			return words, nil
		default:
			word, within = word+string(r), true
		}
	}
	end()
	if quote != 0 {
		return words, errors.New("a quote is not closed")
	}
	return words, nil
}

func TestExamplesAreOfFlagsThatThereAre(t *testing.T) {
	for program, binary := range map[string]string{"pillion": "/usr/bin/pillion", "kubectl pillion": "/usr/bin/kubectl-pillion"} {
		all := append(commandLine(binary).Commands(), commandLine(binary))
		for _, command := range commandLine(binary).Commands() {
			all = append(all, command.Commands()...)
		}
		for _, of := range all {
			if of.Example == "" {
				continue
			}
			calls := exampleCalls(t, of.Example, program)
			if len(calls) == 0 {
				t.Errorf("no example of %s calls %s: %s", of.Name(), program, of.Example)
			}
			for _, call := range calls {
				command, rest, err := commandLine(binary).Find(call)
				if err != nil || (of.HasParent() && command.Name() != of.Name() && command.Parent().Name() != of.Name()) {
					t.Errorf("an example of %s is of another command: %v, %v", of.Name(), call, err)
					continue
				}
				if err := command.ParseFlags(rest); err != nil {
					t.Errorf("%s: %v", call, err)
				}
				if err := errors.Join(command.ValidateRequiredFlags(), command.ValidateArgs(command.Flags().Args())); err != nil {
					t.Errorf("%s: %v", call, err)
				}
			}
		}
	}
}

func TestKubectlPillionCallsItselfSo(t *testing.T) {
	for _, of := range append(commandLine("/usr/bin/kubectl-pillion").Commands(), commandLine("/usr/bin/kubectl-pillion")) {
		if usage := of.UsageString(); !strings.Contains(usage, "kubectl pillion") {
			t.Errorf("%s is told to be used otherwise: %s", of.Name(), usage)
		}
		for line := range strings.SplitSeq(of.Example, "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "pillion ") || strings.Contains(line, "| pillion ") {
				t.Errorf("an example of %s is of another name: %s", of.Name(), line)
			}
		}
	}
	if usage := commandLine("./pillion").UsageString(); strings.Contains(usage, "kubectl pillion") {
		t.Errorf("pillion calls itself kubectl: %s", usage)
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
	stdout, _, err = run(t, nil, "", "version", "-o", "yaml")
	if err != nil || !strings.HasPrefix(stdout, "apiVersion: pillion.dev/v1alpha1\n") {
		t.Errorf("version -o yaml: %q, %v", stdout, err)
	}
	_, _, err = run(t, nil, "", "version", "-o", "xml")
	if err == nil || !strings.Contains(err.Error(), `--output "xml" is unknown`) {
		t.Errorf("version -o xml: %v", err)
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
	settings.Certs.Issuer, settings.Webhook.ClientCA = "Issuer/internal", "/etc/pillion/client-ca.crt"
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
	unset(webhookOptions, "SilentAfter")                           // Run's own default
	unset(webhookOptions.Handler, "Logger", "Metrics", "Compiler") // Run sets them
	unset(webhookOptions.Profiles)
	unset(webhookOptions.Profiles.Images)
	controllerOptions, err := p.controllerOptions()
	if err != nil {
		t.Fatal(err)
	}
	unset(controllerOptions, "Now", "RecheckUsers", "CountsInterval") // tests set them

	p.settings.Controller.DefaultProfiles = false
	if controllerOptions, err = p.controllerOptions(); err != nil || len(controllerOptions.DefaultProfiles) > 0 {
		t.Errorf("%d default profiles are made though they are not wanted: %v", len(controllerOptions.DefaultProfiles), err)
	}
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
