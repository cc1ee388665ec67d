package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = v1.Platform{OS: "linux", Architecture: "arm64"}
)

// newTestBuilder returns a builder of a small repository in a folder of its own, which holds a module with a program.
func newTestBuilder(t *testing.T) *builder {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"images/build/main.go": "package main\n",
		"images/build/go.mod":  "module example.com/build\n",
		"images/build/go.sum":  "",
		"hello/go.mod":         "module example.com/hello\n\ngo 1.26.0\n",
		"hello/main.go":        "package main\n\nvar greeting = \"\"\n\nfunc main() { println(greeting) }\n",
	} {
		writeTestFile(t, filepath.Join(root, name), content)
	}
	b, err := newBuilder(t.Context(), options{root: root, out: filepath.Join(root, "bin", "images")}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeTestFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// helloImage is an image of the program, for these platforms.
func helloImage(platforms ...v1.Platform) image {
	return image{
		name: "hello", ref: "registry.example.com/team/hello:v1.2.3", version: "v1.2.3", revision: "abc",
		title: "Hello", description: "Says hello", licenses: "Apache-2.0", created: time.Unix(1700000000, 0).UTC(),
		platforms: platforms, entrypoint: []string{"/hello"}, user: "65533:65533", hasSBOM: true,
		parts: []part{
			goProgram{module: "hello", pkg: ".", path: "hello", variables: []string{"main.greeting=hello"}, version: "v1.2.3"},
			files{"etc/hello.conf": "greeting\n"},
			users("hello"),
			directories{"tmp"},
		},
	}
}

// realBuilder returns a builder of this repository. What it downloads and compiles is kept in bin/images/cache, as in a real
// run.
func realBuilder(t *testing.T) *builder {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBuilder(t.Context(), options{root: root, out: t.TempDir()}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// needDebian skips a test where Debian's packages cannot be had.
func needDebian(t *testing.T) {
	t.Helper()
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("images of Debian's packages are made on Debian, by apt-get and dpkg-deb: %v", err)
		}
	}
}

func mustBuild(ctx context.Context, t *testing.T, b *builder, i image) result {
	t.Helper()
	r, err := b.ensure(ctx, &i)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readTestFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
