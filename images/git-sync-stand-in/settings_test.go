package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// continuousArgs and onceArgs are the least that the pattern emits in its two modes.
var (
	commonArgs = []string{
		"--repo=https://git.example.com/site.git", "--ref=main", "--root=/git/.git-sync", "--link=/git/current",
		"--depth=1", "--submodules=recursive", "--sync-timeout=2m0s",
	}
	continuousArgs = append(slices.Clone(commonArgs),
		"--period=30s", "--max-failures=-1", "--init-period=2s", "--error-file=/tmp/error.json", "--stale-worktree-timeout=60s")
	onceArgs = append(slices.Clone(commonArgs), "--one-time")

	webhookArgs = []string{
		"--webhook-url=http://localhost:8080/-/reload", "--webhook-method=PUT", "--webhook-success-status=204",
		"--webhook-timeout=5s", "--webhook-backoff=10s",
	}
)

func TestFlags(t *testing.T) {
	tests := map[string]struct {
		args, without, more, environment []string
		// want are parts of the error; none is no error.
		want []string
	}{
		"the least of a run that goes on":      {args: continuousArgs},
		"the least of a run that is done once": {args: onceArgs},
		"an ssh key with known hosts": {
			args: continuousArgs, more: []string{"--ssh-key-file=/etc/git-secret/ssh", "--ssh-known-hosts-file=/etc/git-secret/known_hosts"},
		},
		"an ssh key without known hosts": {
			args: continuousArgs, more: []string{"--ssh-key-file=/etc/git-secret/ssh", "--ssh-known-hosts=false"},
		},
		"a password, the user by a flag": {
			args: onceArgs, more: []string{"--username=git", "--password-file=/etc/git-secret/password"},
		},
		"a password, the user by the environment": {
			args: onceArgs, more: []string{"--password-file=/etc/git-secret/password"}, environment: []string{"GITSYNC_USERNAME=git"},
		},
		"a webhook":         {args: continuousArgs, more: webhookArgs},
		"a sparse checkout": {args: continuousArgs, more: []string{"--sparse-checkout-file=/etc/git-sync/sparse-checkout"}},
		"other variables are git's": {
			args: onceArgs, environment: []string{"HOME=/tmp", "GIT_SSL_NO_VERIFY=true", "https_proxy=http://proxy.example.com"},
		},

		"a flag of git-sync that Pillion does not give": {
			args: continuousArgs, more: []string{"--verbose=2"}, want: []string{`"--verbose=2" is no flag that Pillion gives git-sync`},
		},
		"a flag of git-sync v3":     {args: continuousArgs, more: []string{"--branch=main"}, want: []string{`"--branch=main" is no flag`}},
		"a flag with one hyphen":    {args: continuousArgs, more: []string{"-repo=x"}, want: []string{`"-repo=x" is no flag`}},
		"a word":                    {args: continuousArgs, more: []string{"main"}, want: []string{`"main" is no flag`}},
		"a value as a word":         {args: onceArgs, without: []string{"--ref"}, more: []string{"--ref", "main"}, want: []string{"given as --ref=VALUE"}},
		"a flag twice":              {args: continuousArgs, more: []string{"--ref=other"}, want: []string{"--ref is given twice"}},
		"a switch with a value":     {args: commonArgs, more: []string{"--one-time=true"}, want: []string{"--one-time is given without a value"}},
		"nothing":                   {want: []string{"--repo is missing", "--ref is missing", "--period is missing", "--max-failures is missing"}},
		"an empty ref":              {args: onceArgs, without: []string{"--ref"}, more: []string{"--ref="}, want: []string{"--ref=: must not be empty"}},
		"a root that is relative":   {args: onceArgs, without: []string{"--root"}, more: []string{"--root=git"}, want: []string{"must be an absolute path"}},
		"a depth below 0":           {args: onceArgs, without: []string{"--depth"}, more: []string{"--depth=-1"}, want: []string{"must be a number from 0"}},
		"failures below -1":         {args: continuousArgs, without: []string{"--max-failures"}, more: []string{"--max-failures=-2"}, want: []string{"from -1"}},
		"a period without a unit":   {args: continuousArgs, without: []string{"--period"}, more: []string{"--period=30"}, want: []string{"such as 30s"}},
		"a timeout of nothing":      {args: onceArgs, without: []string{"--sync-timeout"}, more: []string{"--sync-timeout=0s"}, want: []string{"such as 30s"}},
		"unknown submodules":        {args: onceArgs, without: []string{"--submodules"}, more: []string{"--submodules=Off"}, want: []string{"recursive, shallow, off"}},
		"known hosts said to be on": {args: onceArgs, more: []string{"--ssh-known-hosts=true"}, want: []string{"only to say false"}},
		"a period of what is done once": {
			args: onceArgs, more: []string{"--period=30s"}, want: []string{"--period has no meaning with --one-time"},
		},
		"a password without a user": {
			args: onceArgs, more: []string{"--password-file=/p"}, want: []string{"--password-file wants --username or GITSYNC_USERNAME"},
		},
		"a user without a password": {args: onceArgs, more: []string{"--username=git"}, want: []string{"wants --password-file"}},
		"two users": {
			args: onceArgs, more: []string{"--username=git", "--password-file=/p"}, environment: []string{"GITSYNC_USERNAME=x"},
			want: []string{"both given"},
		},
		"an ssh key and no word of known hosts": {args: onceArgs, more: []string{"--ssh-key-file=/k"}, want: []string{"wants --ssh-known-hosts-file or"}},
		"known hosts without an ssh key":        {args: onceArgs, more: []string{"--ssh-known-hosts-file=/k"}, want: []string{"want --ssh-key-file"}},
		"half a webhook":                        {args: continuousArgs, more: webhookArgs[:2], want: []string{"the webhook's flags come together"}},
		"a webhook of no scheme": {
			args: continuousArgs, more: append([]string{"--webhook-url=localhost:80"}, webhookArgs[1:]...), want: []string{"must be a URL of http"},
		},
		"a variable of git-sync that Pillion does not set": {
			args: onceArgs, environment: []string{"GITSYNC_DEPTH=3"}, want: []string{"GITSYNC_DEPTH is no variable that Pillion gives git-sync"},
		},
		"a variable of git-sync v3": {
			args: onceArgs, environment: []string{"GIT_SYNC_DEPTH=3"}, want: []string{"GIT_SYNC_DEPTH is no variable"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := slices.DeleteFunc(slices.Clone(test.args), func(arg string) bool {
				name, _, _ := strings.Cut(arg, "=")
				return slices.Contains(test.without, name)
			})
			_, err := parse(append(args, test.more...), test.environment)
			if err == nil {
				if len(test.want) > 0 {
					t.Fatalf("it was accepted; want an error with %q", test.want)
				}
				return
			}
			if len(test.want) == 0 {
				t.Fatalf("it was refused: %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error is %q; want %q in it", err, want)
				}
			}
		})
	}
}

// Every flag of the stand-in is one that some golden Pod has, and the stand-in takes the flags of every golden Pod.
func TestTheFlagsAreThoseThatThePatternEmits(t *testing.T) {
	pods, err := filepath.Glob("../../test/golden/testdata/*/*/want.yaml")
	if err != nil || len(pods) == 0 {
		t.Fatalf("there are no golden Pods: %v", err)
	}
	emitted := map[string]bool{}
	for _, file := range pods {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pod := corev1.Pod{}
		if err := yaml.Unmarshal(content, &pod); err != nil || pod.Kind != "Pod" {
			continue // a refusal
		}
		for _, container := range pod.Spec.InitContainers {
			if !slices.ContainsFunc(container.Args, func(arg string) bool { return strings.HasPrefix(arg, "--repo=") }) {
				continue // another pattern's
			}
			args, environment := slices.Clone(container.Args), []string{}
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "$$(", "$(") // as the kubelet does
				name, _, _ := strings.Cut(strings.TrimPrefix(args[i], "--"), "=")
				emitted[name] = true
			}
			for _, variable := range container.Env {
				value := variable.Value
				if variable.ValueFrom != nil {
					value = "from-a-secret"
				}
				environment = append(environment, variable.Name+"="+value)
			}
			if _, err := parse(args, environment); err != nil {
				t.Errorf("%s: container %s: %v", file, container.Name, err)
			}
		}
	}
	known := (&settings{}).flags()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(emitted)), slices.Sorted(maps.Keys(known))); diff != "" {
		t.Errorf("flags of the golden Pods (-) and of the stand-in (+):\n%s", diff)
	}
}
