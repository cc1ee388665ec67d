// Command build makes Pillion's container images without a daemon: those of a release, and those that tests run on a real
// node.
//
// Equal inputs give equal bytes: nothing of the machine, the clock or the order of things gets into an image. What is in each
// is said in catalog.go; docs/images.md says what users need to know.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// exitInterrupted is what a shell reports for a program that SIGINT ended; make stops at it, as it should.
const exitInterrupted = 130

// options is what the command line says.
type options struct {
	root      string // of the repository
	out       string
	test      bool
	version   string
	platforms []v1.Platform
	push      string
	names     []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once

	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "images: interrupted; what was finished before is kept")
		os.Exit(exitInterrupted)
	default:
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

// run makes the images that the command line asks for, says what came out, and pushes it if asked to.
func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parseOptions(args, os.Stderr)
	if err != nil {
		return err
	}
	stamp, err := readStamp(ctx, opts)
	if err != nil {
		return err
	}
	images := releaseImages(stamp, opts.platforms)
	if opts.test {
		images = testImages(stamp)
	}
	chosen, err := choose(images, opts.names)
	if err != nil {
		return err
	}
	b, err := newBuilder(ctx, opts, out)
	if err != nil {
		return err
	}

	var results []result
	for i := range chosen {
		built, err := b.ensure(ctx, &chosen[i])
		if err != nil {
			return fmt.Errorf("build image %s: %w", chosen[i].name, err)
		}
		fmt.Fprint(out, built.describe())
		results = append(results, built)
	}
	if len(opts.names) == 0 {
		if err := b.conclude(results); err != nil {
			return err
		}
	}
	if opts.push == "" {
		return nil
	}
	for i := range results {
		if err := push(ctx, results[i], opts.push, out); err != nil {
			return fmt.Errorf("push image %s: %w", results[i].Name, err)
		}
	}
	return nil
}

// parseOptions reads the command line; usage and complaints go to out.
func parseOptions(args []string, out io.Writer) (options, error) {
	opts := options{}
	platforms := ""
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&opts.root, "root", "../..", "folder of the repository")
	flags.StringVar(&opts.out, "out", "", "folder of the tarballs (default bin/images, or bin/images/test with --test)")
	flags.BoolVar(&opts.test, "test", false, "build the images of the tests instead, for this machine's architecture")
	flags.StringVar(&opts.version, "version", "", "version and tag of Pillion's image (default: as git describes the commit)")
	flags.StringVar(&platforms, "platforms", "linux/amd64,linux/arm64", "platforms of the release's images, by commas")
	flags.StringVar(&opts.push, "push", "", "registry to push the release's images to, such as registry.example.com/x")
	flags.Usage = func() {
		fmt.Fprint(out, "usage: build [flags] [IMAGE...]\n\nWithout names it builds all images.\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	opts.names = flags.Args()
	if opts.test && opts.push != "" {
		return options{}, errors.New("images of the tests are not pushed: they bear the names of others; leave out --push or --test")
	}
	var err error
	if opts.platforms, err = parsePlatforms(platforms); err != nil {
		return options{}, err
	}
	if opts.root, err = filepath.Abs(opts.root); err != nil {
		return options{}, fmt.Errorf("find the repository: %w", err)
	}
	if opts.out == "" {
		opts.out = filepath.Join(opts.root, "bin", "images")
		if opts.test {
			opts.out = filepath.Join(opts.out, "test")
		}
	}
	opts.out, err = filepath.Abs(opts.out)
	return opts, err
}

// parsePlatforms reads platforms such as linux/amd64, separated by commas or spaces.
func parsePlatforms(list string) ([]v1.Platform, error) {
	var platforms []v1.Platform
	for word := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if _, known := triplets[strings.TrimPrefix(word, "linux/")]; !known || !strings.HasPrefix(word, "linux/") {
			return nil, fmt.Errorf("platform %q: images are made for linux/amd64 and linux/arm64; write one of these, or both with a comma",
				word)
		}
		platform := v1.Platform{OS: "linux", Architecture: strings.TrimPrefix(word, "linux/")}
		if slices.ContainsFunc(platforms, platform.Equals) {
			return nil, fmt.Errorf("platform %q is named twice", word)
		}
		platforms = append(platforms, platform)
	}
	if len(platforms) == 0 {
		return nil, errors.New("no platform is named; write for example linux/amd64,linux/arm64")
	}
	return platforms, nil
}

// choose returns the images of these names, or all.
func choose(images []image, names []string) ([]image, error) {
	if len(names) == 0 {
		return images, nil
	}
	var chosen []image
	for _, name := range names {
		i := slices.IndexFunc(images, func(i image) bool { return i.name == name })
		if i < 0 {
			known := make([]string, 0, len(images))
			for _, image := range images {
				known = append(known, image.name)
			}
			return nil, fmt.Errorf("there is no image %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, images[i])
	}
	return chosen, nil
}
