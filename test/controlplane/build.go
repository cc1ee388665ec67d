package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/semver"
)

// keptErrors bounds how many lines of a failed build are shown: the first ones name the cause.
const keptErrors = 30

// buildFlags is how every program is built: small, alike on every machine, and calling itself by the pinned version,
// which a build from modules would not know.
func buildFlags(version string) []string {
	major := strings.TrimPrefix(semver.Major(version), "v")
	minor := strings.TrimPrefix(semver.MajorMinor(version), semver.Major(version)+".")
	const versionPackage = "k8s.io/component-base/version"
	return []string{
		"-mod=readonly",
		"-trimpath",
		"-buildvcs=false",
		"-ldflags=-s -w" +
			" -X " + versionPackage + ".gitVersion=" + version +
			" -X " + versionPackage + ".gitMajor=" + major +
			" -X " + versionPackage + ".gitMinor=" + minor,
	}
}

// buildComponent builds one program from its Go module and installs it. step says which of how many it is.
func buildComponent(
	ctx context.Context, opts options, pinned pins, inv *inventory, c component, step string, out *screen,
) error {
	pin := pinned.of(c)
	out.printf("%s building %s %s from Go modules: a first build takes %s, later ones seconds",
		step, c.name, pin.version, c.usually)

	tmp := inv.tempName(c.name)
	defer func() { _ = os.Remove(tmp) }()
	// go build runs in the module's folder, where a path relative to ours means nothing.
	target, err := filepath.Abs(tmp)
	if err != nil {
		return fmt.Errorf("build %s: %w", c.name, err)
	}
	log := &buildLog{}
	stop := out.watch(func() string { return fmt.Sprintf("%s %s: %s", step, c.name, log.status()) })
	err = goBuild(ctx, filepath.Join(opts.modules, c.dir), c.pkg, target, pin.version, log)
	took := stop()
	if err != nil {
		return fmt.Errorf("build %s %s: %w%s", c.name, pin.version, err, log.errors())
	}

	version, err := askVersion(ctx, target, c)
	if err != nil {
		return err
	}
	if version != pin.version {
		return fmt.Errorf("build %s: it calls itself %s, not %s as it is pinned", c.name, version, pin.version)
	}
	if err := inv.install(c, tmp, entry{Version: version, Source: sourceBuild, Fingerprint: pin.fingerprint}); err != nil {
		return err
	}
	out.printf("%s built %s %s in %s", step, c.name, version, seconds(took))
	return nil
}

// goBuild runs go build in a module's folder.
func goBuild(ctx context.Context, dir, pkg, target, version string, log io.Writer) error {
	args := append([]string{"build", "-v", "-o", target}, buildFlags(version)...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = dir
	// Without cgo no C compiler is needed, and the program runs on any machine with the same kernel and processor. A
	// workspace or flags of whoever calls us would build something else than what is pinned.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	cmd.Stderr = log
	// An interrupt lets go build remove its work folder; what ignores it is killed after a while.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// askVersion runs a program for its version. That it answers also shows that it runs on this machine at all.
func askVersion(ctx context.Context, program string, c component) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, program, c.versionArgs...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w\n%s", c.name, err, text)
	}
	version := findVersion(string(text))
	if version == "" {
		return "", fmt.Errorf("ask %s for its version: none in %q", c.name, text)
	}
	return version, nil
}

// findVersion finds the first word of a text that is a full version: "Kubernetes v1.37.1", "etcd Version: 3.7.3".
func findVersion(text string) string {
	for _, word := range strings.Fields(text) {
		v := "v" + strings.TrimPrefix(word, "v")
		if semver.IsValid(v) && strings.Count(v, ".") >= 2 {
			return v
		}
	}
	return ""
}

// buildLog reads what go build -v writes as it is written: a line for each package that it compiles, and for each
// module that it downloads, among the errors.
type buildLog struct {
	mu       sync.Mutex
	partial  string
	packages int
	modules  int
	last     string
	problems []string
}

// Write takes a piece of the log, which may end within a line.
func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial += string(p)
	for {
		line, rest, found := strings.Cut(l.partial, "\n")
		if !found {
			return len(p), nil
		}
		l.partial = rest
		l.take(line)
	}
}

func (l *buildLog) take(line string) {
	switch {
	case strings.TrimSpace(line) == "":
	case strings.HasPrefix(line, "go: downloading "):
		l.modules++
		l.last = strings.TrimPrefix(line, "go: ")
	case !strings.ContainsAny(line, " \t:"):
		l.packages++
		l.last = line
	case len(l.problems) < keptErrors:
		l.problems = append(l.problems, line)
	}
}

// status sums up how far the build is.
func (l *buildLog) status() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.packages > 0:
		return fmt.Sprintf("%d packages compiled, at %s", l.packages, l.last)
	case l.modules > 0:
		return fmt.Sprintf("%d modules, %s", l.modules, l.last)
	default:
		return "reading packages"
	}
}

// errors gives the lines that say what went wrong, each on a line of its own.
func (l *buildLog) errors() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.partial != "" {
		l.take(l.partial)
		l.partial = ""
	}
	var text strings.Builder
	for _, line := range l.problems {
		text.WriteString("\n\t" + line)
	}
	return text.String()
}

var _ io.Writer = (*buildLog)(nil)
