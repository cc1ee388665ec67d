package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings is what the flags say.
type settings struct {
	repo, ref, root, link string
	depth                 int
	submodules            string
	sparseFile            string
	syncTimeout           time.Duration

	oneTime      bool
	period       time.Duration
	initPeriod   time.Duration
	maxFailures  int
	errorFile    string
	staleTimeout time.Duration

	sshKeyFile        string
	sshKnownHosts     bool
	sshKnownHostsFile string
	username          string
	passwordFile      string

	webhook webhookSettings
}

// How submodules are checked out.
const (
	submodulesRecursive = "recursive"
	submodulesShallow   = "shallow"
	submodulesOff       = "off"
)

// usernameVariable is the one variable of git-sync that the pattern sets.
const usernameVariable = "GITSYNC_USERNAME"

// flag reads the value of one flag.
type flag struct {
	read func(value string) error
	// when says which runs have the flag: always, or only those that go on or are done once. Others have it if they need it.
	when when
	// bare flags have no value.
	bare bool
}

type when int

const (
	ifNeeded when = iota
	always
	continuous // and never with --one-time
)

// flags are all flags that the pattern emits.
func (s *settings) flags() map[string]flag {
	return map[string]flag{
		"repo":         {read: text(&s.repo), when: always},
		"ref":          {read: text(&s.ref), when: always},
		"root":         {read: absolute(&s.root), when: always},
		"link":         {read: absolute(&s.link), when: always},
		"depth":        {read: number(&s.depth, 0), when: always},
		"submodules":   {read: oneOf(&s.submodules, submodulesRecursive, submodulesShallow, submodulesOff), when: always},
		"sync-timeout": {read: duration(&s.syncTimeout), when: always},

		"one-time":               {read: func(string) error { s.oneTime = true; return nil }, bare: true},
		"period":                 {read: duration(&s.period), when: continuous},
		"max-failures":           {read: number(&s.maxFailures, -1), when: continuous},
		"error-file":             {read: absolute(&s.errorFile), when: continuous},
		"init-period":            {read: duration(&s.initPeriod), when: continuous},
		"stale-worktree-timeout": {read: duration(&s.staleTimeout), when: continuous},

		"ssh-key-file":         {read: absolute(&s.sshKeyFile)},
		"ssh-known-hosts":      {read: isFalse(&s.sshKnownHosts)},
		"ssh-known-hosts-file": {read: absolute(&s.sshKnownHostsFile)},
		"username":             {read: text(&s.username)},
		"password-file":        {read: absolute(&s.passwordFile)},
		"sparse-checkout-file": {read: absolute(&s.sparseFile)},

		"webhook-url":            {read: webURL(&s.webhook.url)},
		"webhook-method":         {read: text(&s.webhook.method)},
		"webhook-success-status": {read: number(&s.webhook.status, -1)},
		"webhook-timeout":        {read: duration(&s.webhook.timeout)},
		"webhook-backoff":        {read: duration(&s.webhook.backoff)},
	}
}

// parse reads the command line and the environment. It reports all that is wrong.
func parse(args, environment []string) (settings, error) {
	s := settings{sshKnownHosts: true}
	known, seen := s.flags(), map[string]bool{}
	var errs []error
	for _, arg := range args {
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		flag, ok := known[name]
		switch {
		case !strings.HasPrefix(arg, "--") || !ok:
			errs = append(errs, fmt.Errorf("%q is no flag that Pillion gives git-sync", arg))
		case seen[name]:
			errs = append(errs, fmt.Errorf("--%s is given twice", name))
		case flag.bare && hasValue:
			errs = append(errs, fmt.Errorf("--%s is given without a value", name))
		case !flag.bare && !hasValue:
			errs = append(errs, fmt.Errorf("--%s is given as --%s=VALUE", name, name))
		default:
			if err := flag.read(value); err != nil {
				errs = append(errs, fmt.Errorf("--%s=%s: %w", name, value, err))
			}
		}
		seen[name] = true
	}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case name == usernameVariable:
			s.username = value
			if seen["username"] {
				errs = append(errs, fmt.Errorf("--username and %s are both given", usernameVariable))
			}
		case strings.HasPrefix(name, "GITSYNC_"), strings.HasPrefix(name, "GIT_SYNC_"):
			errs = append(errs, fmt.Errorf("%s is no variable that Pillion gives git-sync", name))
		}
	}
	return s, errors.Join(append(errs, s.misfits(known, seen)...)...)
}

// misfits returns what is wrong with the flags as a whole.
func (s *settings) misfits(known map[string]flag, seen map[string]bool) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(known)) {
		isMissing := known[name].when == always || known[name].when == continuous && !s.oneTime
		switch {
		case isMissing && !seen[name]:
			errs = append(errs, fmt.Errorf("--%s is missing", name))
		case known[name].when == continuous && s.oneTime && seen[name]:
			errs = append(errs, fmt.Errorf("--%s has no meaning with --one-time", name))
		}
	}
	if s.passwordFile != "" && s.username == "" {
		errs = append(errs, fmt.Errorf("--password-file wants --username or %s", usernameVariable))
	}
	if s.username != "" && s.passwordFile == "" {
		errs = append(errs, errors.New("a user name wants --password-file"))
	}
	if s.sshKeyFile != "" && s.sshKnownHosts && s.sshKnownHostsFile == "" {
		errs = append(errs, errors.New("--ssh-key-file wants --ssh-known-hosts-file or --ssh-known-hosts=false"))
	}
	if s.sshKeyFile == "" && (!s.sshKnownHosts || s.sshKnownHostsFile != "") {
		errs = append(errs, errors.New("known hosts want --ssh-key-file"))
	}
	hooks := []string{"webhook-url", "webhook-method", "webhook-success-status", "webhook-timeout", "webhook-backoff"}
	if some, all := slices.ContainsFunc(hooks, func(n string) bool { return seen[n] }),
		!slices.ContainsFunc(hooks, func(n string) bool { return !seen[n] }); some && !all {
		errs = append(errs, fmt.Errorf("the webhook's flags come together: --%s", strings.Join(hooks, ", --")))
	}
	return errs
}

// failureLimit returns how many failures in a row end the run; below 0 there is no such number.
func (s *settings) failureLimit() int {
	if s.oneTime {
		return 0
	}
	return s.maxFailures
}

func text(to *string) func(string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("must not be empty")
		}
		*to = value
		return nil
	}
}

func absolute(to *string) func(string) error {
	return func(value string) error {
		if !filepath.IsAbs(value) {
			return errors.New("must be an absolute path")
		}
		*to = filepath.Clean(value)
		return nil
	}
}

func number(to *int, least int) func(string) error {
	return func(value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least {
			return fmt.Errorf("must be a number from %d", least)
		}
		*to = n
		return nil
	}
}

func duration(to *time.Duration) func(string) error {
	return func(value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return errors.New("must be a duration, such as 30s")
		}
		*to = d
		return nil
	}
}

func oneOf(to *string, values ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("must be one of %s", strings.Join(values, ", "))
		}
		*to = value
		return nil
	}
}

func isFalse(to *bool) func(string) error {
	return func(value string) error {
		if value != "false" {
			return errors.New("is given only to say false")
		}
		*to = false
		return nil
	}
}

func webURL(to *string) func(string) error {
	return func(value string) error {
		if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("must be a URL of http or https")
		}
		*to = value
		return nil
	}
}
