package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source is the repository that the images are made from.
const source = "https://github.com/pillion-dev/pillion"

// tag is what a registry takes for one.
var tag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// stamp is what an image says of where it comes from.
type stamp struct {
	version  string
	revision string
	created  time.Time
}

// readStamp asks git for what neither the options nor SOURCE_DATE_EPOCH say. Without git, as in a source archive, the version
// must be given.
func readStamp(ctx context.Context, opts options) (stamp, error) {
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", opts.root}, args...)...).Output()
		if err != nil {
			return "" // no git, or no repository: the caller says what that means
		}
		return strings.TrimSpace(string(out))
	}
	s := stamp{version: opts.version, revision: git("rev-parse", "HEAD"), created: time.Unix(0, 0).UTC()}
	if s.version == "" {
		s.version = git("describe", "--always", "--dirty")
	}
	if s.version == "" {
		return stamp{}, errors.New("there is no git repository to take the version from; give it by VERSION=v1.2.3")
	}
	if !tag.MatchString(s.version) {
		return stamp{}, fmt.Errorf("the version %q cannot be an image's tag; write letters, digits, dots and hyphens, such as v1.2.3",
			s.version)
	}
	seconds, from := os.Getenv("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
	if seconds == "" {
		seconds, from = git("log", "-1", "--format=%ct"), "the commit's time"
	}
	if seconds != "" {
		n, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || n < 0 {
			return stamp{}, fmt.Errorf("%s is %q; it must be a number of seconds since 1970", from, seconds)
		}
		s.created = time.Unix(n, 0).UTC()
	}
	return s, nil
}
