package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// goProgram is a static program that is built of a Go module.
type goProgram struct {
	module string // its folder, from the repository's root
	pkg    string
	path   string // in the image
	// variables are set at link time: package.name=value.
	variables []string
	version   string
	// pinned says that the module only requires the program of others, so that its go.mod and go.sum tell all there is to
	// tell.
	pinned bool
}

// levels are the least processors that the programs run on: what this machine's environment asks for must not get in.
var levels = []string{"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off"}

func (p goProgram) inputs(ctx context.Context, b *builder, platform v1.Platform) (string, error) {
	var sum string
	var err error
	if p.pinned {
		folder := filepath.Join(b.opts.root, p.module)
		sum, err = hashFiles(filepath.Join(folder, "go.mod"), filepath.Join(folder, "go.sum"))
	} else {
		// Go knows best whether anything has changed.
		var file string
		if file, err = p.build(ctx, b, platform); err == nil {
			sum, err = hashOf(file)
		}
	}
	return fmt.Sprint(p.module, p.pkg, p.path, p.variables, p.version, sum), err
}

func (p goProgram) add(ctx context.Context, b *builder, platform v1.Platform, t *tree) ([]component, error) {
	file, err := p.build(ctx, b, platform)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	if err := t.addFile(p.path, 0o755, content); err != nil {
		return nil, err
	}
	return p.components(file)
}

// build compiles the program into the cache and returns its file. Go does nothing if nothing has changed.
func (p goProgram) build(ctx context.Context, b *builder, platform v1.Platform) (string, error) {
	folder := filepath.Join(b.cache, "go", platform.OS+"-"+platform.Architecture)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	module := filepath.Join(b.opts.root, p.module)
	// Programs of one name must not be taken for each other. That it is of other variables, or of other code, Go sees by itself.
	target := filepath.Join(folder, filepath.Base(p.path)+"-"+hash([]byte(module + " " + p.pkg))[:12])

	flags := "-s -w"
	for _, variable := range p.variables {
		flags += " -X " + variable
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", target, p.pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	cmd.Env = append(cmd.Env, levels...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if _, err := os.Stat(target); err != nil { // else it is done in a moment, or takes as long as what has changed
		fmt.Fprintf(b.log, "compiling %s for %s, which may take minutes the first time\n", p.pkg, platform)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build %s: %w: %s", p.pkg, err, strings.TrimSpace(string(out))), ctx.Err())
	}
	return target, nil
}

// components returns the program and the modules that Go wrote into it.
func (p goProgram) components(file string) ([]component, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the program's modules: %w", err)
	}
	toolchain := strings.TrimPrefix(info.GoVersion, "go")
	components := []component{{name: "stdlib", version: toolchain, purl: "pkg:golang/stdlib@" + toolchain}}
	if !p.pinned {
		components = append(components, component{
			name: info.Main.Path, version: p.version, purl: "pkg:golang/" + info.Main.Path + "@" + p.version, licenses: "Apache-2.0",
		})
	}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		if module.Version == "" || module.Version == "(devel)" {
			continue // a folder of this repository
		}
		components = append(components, component{
			name: module.Path, version: module.Version, purl: "pkg:golang/" + module.Path + "@" + module.Version,
		})
	}
	return components, nil
}
