package main

import (
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pillion-dev/pillion/injectors"
)

// testWebServer is the image that the documentation's examples serve pages with. No pattern injects it: it is an app.
const testWebServer = "docker.io/nginxinc/nginx-unprivileged:1.29"

// untested are the default images of patterns that no image of the tests stands for, and why.
func untested() map[string]string {
	defaults := injectors.DefaultImages("")
	return map[string]string{
		defaults.MemcachedExporter: "its module cannot be had from every Go module proxy, and Debian has no package of it",
		defaults.PostgresExporter:  "the tests run no PostgreSQL",
		defaults.MySQLExporter:     "the tests run no MySQL",
	}
}

// testImages are what stands for the default images of the patterns on the node of the tests, where no registry can be
// reached. Each has the default image's name, so that Pods run as they are, and says in its labels what it really is.
func testImages(s stamp) []image {
	defaults := injectors.DefaultImages("")
	pillion := pillionImage(s)
	pillion.ref = defaults.Pillion
	images := []image{
		pillion, twemproxyImage(), mtailImage(),
		gitSyncStandIn(defaults.GitSync),
		goTestImage("gomplate", defaults.Gomplate, "github.com/hairyhenderson/gomplate/v4/cmd/gomplate", "",
			"github.com/hairyhenderson/gomplate/v4/version.Version={}"),
		goTestImage("json-exporter", defaults.JSONExporter, "github.com/prometheus-community/json_exporter", "",
			"github.com/prometheus/common/version.Version={}"),
		goTestImage("statsd-exporter", defaults.StatsDExporter, "github.com/prometheus/statsd_exporter", strings.Join(shell, " "),
			"github.com/prometheus/common/version.Version={}"),
		goTestImage("nginx-exporter", defaults.NginxExporter, "github.com/nginx/nginx-prometheus-exporter", "",
			"github.com/prometheus/common/version.Version={}"),
		debianTestImage("redis-exporter", defaults.RedisExporter, []string{"prometheus-redis-exporter"}, "prometheus-redis-exporter"),
		debianTestImage("memcached", defaults.Memcached, []string{"memcached"}, "memcached"),
		debianTestImage("redis", defaults.Redis, []string{"redis-server", "redis-cli"}, "redis-server", "redis-tools"),
		webServer(),
	}
	for i := range images {
		images[i].created = beginning()
		images[i].platforms = []v1.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
		images[i].description += " (made for Pillion's tests)"
	}
	return images
}

// gitSyncStandIn stands for git-sync, which can be had neither as a Go module nor from Debian.
func gitSyncStandIn(ref string) image {
	// git's own scripts, of which `git submodule` is one, use these.
	tools := append([]string{
		"[", "awk", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "expr", "false", "find", "head", "hostname",
		"id", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "ps", "readlink", "rm", "sed", "sleep", "sort", "tail", "touch", "tr", "true",
		"uname", "uniq", "wc", "xargs",
	}, shell...)
	return image{
		name: "git-sync", ref: ref, version: "stand-in",
		title:       "git-sync-stand-in",
		description: "A stand-in for git-sync: it takes exactly the flags that Pillion gives git-sync, and runs git",
		licenses:    "Apache-2.0",
		entrypoint:  []string{"/git-sync-stand-in"}, user: user(injectedUser), programs: append([]string{"git", "ssh"}, shell...),
		parts: []part{
			packages{names: []string{"git", "openssh-client", "ca-certificates", "busybox-static"}, tools: tools},
			bundle{},
			users("git-sync"),
			goProgram{module: ".", pkg: "./images/git-sync-stand-in", path: "git-sync-stand-in", version: unreleased},
		},
	}
}

// unreleased is the version of a program that is not released.
const unreleased = "v0.0.0"

// goTestImage holds a static program of a module that is pinned in images/programs, and a busybox's commands.
func goTestImage(name, ref, pkg, tools, variable string) image {
	version := strings.TrimPrefix(tagOf(ref), "v")
	program := goProgram{
		module: "images/programs/" + name, pkg: pkg, path: "usr/bin/" + name, pinned: true,
		variables: []string{strings.ReplaceAll(variable, "{}", version)}, version: version,
	}
	i := image{
		name: name, ref: ref, version: version, title: name, description: "Built of the Go module " + pkg,
		entrypoint: []string{"/usr/bin/" + name}, user: user(injectedUser),
		parts: []part{program, users("injected"), directories{"tmp"}},
	}
	if tools != "" {
		i.programs = strings.Fields(tools)
		i.parts = append([]part{packages{names: []string{"busybox-static"}, tools: i.programs}}, i.parts...)
	}
	return i
}

// debianTestImage holds packages of Debian, with a shell. The first of its programs is the entrypoint.
func debianTestImage(name, ref string, programs []string, names ...string) image {
	return image{
		name: name, ref: ref, version: "debian-" + debianRelease, title: name, description: "Debian's " + strings.Join(names, ", "),
		entrypoint: []string{"/usr/bin/" + programs[0]}, user: user(injectedUser), programs: slices.Concat(programs, shell),
		parts: []part{
			packages{names: append(names, "busybox-static"), tools: shell},
			users("injected"),
			directories{"data"},
		},
	}
}

// webServer is an nginx as the image of its name has it: any user may run it, it listens on 8080 and reads /etc/nginx/conf.d.
func webServer() image {
	i := debianTestImage("nginx", testWebServer, []string{"nginx"}, "nginx", "nginx-common")
	i.entrypoint = []string{"/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"}
	i.parts = append(i.parts, files{
		"etc/nginx/nginx.conf": `worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    sendfile on;
    client_body_temp_path /tmp/client_temp;
    proxy_temp_path /tmp/proxy_temp;
    fastcgi_temp_path /tmp/fastcgi_temp;
    uwsgi_temp_path /tmp/uwsgi_temp;
    scgi_temp_path /tmp/scgi_temp;
    include /etc/nginx/conf.d/*.conf;
}
`,
		"etc/nginx/conf.d/default.conf": `server {
    listen 8080;
    location / {
        root /usr/share/nginx/html;
        index index.html;
    }
}
`,
	})
	return i
}
