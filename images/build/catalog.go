package main

import (
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pillion-dev/pillion/injectors"
)

const (
	// pillionUser is the uid and gid of Pillion's own containers, injectedUser that of what Pillion injects.
	pillionUser  = 65532
	injectedUser = 65533

	// pillionLimit is the most that Pillion's image may have, compressed.
	pillionLimit = 40 << 20
)

// shell are the commands that an image has for the command lines and probes of injected containers.
var shell = []string{"sh", "date", "grep", "sleep", "test"}

// user returns how an image's configuration names a user: by number, so that the kubelet can tell that it is not root.
func user(id int) string { return fmt.Sprintf("%d:%d", id, id) }

// releaseImages are the images that a release of Pillion publishes: its own, and those of programs that nobody else publishes.
func releaseImages(s stamp, platforms []v1.Platform) []image {
	defaults := injectors.DefaultImages("")
	pillion := pillionImage(s)
	pillion.ref = defaults.Pillion[:strings.LastIndex(defaults.Pillion, ":")+1] + s.version
	images := []image{pillion, twemproxyImage(), mtailImage()}
	for i := range images {
		images[i].revision, images[i].created, images[i].platforms = s.revision, s.created, platforms
		images[i].hasSBOM = true
	}
	return images
}

// pillionImage holds a static binary and nothing that it does not need: it opens no connection but to the API server, whose
// certificate the kubelet mounts a CA for, and to loopback. So there are no public CAs in it.
func pillionImage(s stamp) image {
	return image{
		name: "pillion", version: s.version,
		title:       "Pillion",
		description: "Injects Kubernetes patterns into Pods: webhook, controller and command line",
		licenses:    "Apache-2.0",
		entrypoint:  []string{"/pillion"}, user: user(pillionUser), limit: pillionLimit,
		parts: []part{
			goProgram{
				module: ".", pkg: "./cmd/pillion", path: "pillion", version: s.version,
				variables: []string{"main.version=" + s.version},
			},
		},
	}
}

func twemproxyImage() image {
	ref := injectors.DefaultImages("").Twemproxy
	return image{
		name: "twemproxy", ref: ref, version: tagOf(ref), upstream: "nutcracker",
		title:       "twemproxy",
		description: "twemproxy (nutcracker), a proxy for memcached and redis, of Debian's package, with a shell",
		licenses:    "Apache-2.0",
		entrypoint:  []string{"/usr/sbin/nutcracker"}, user: user(injectedUser),
		programs: []string{"nutcracker", "sh", "date", "grep", "sleep"},
		parts:    []part{packages{names: []string{"nutcracker", "busybox-static"}, tools: shell}, users("injected")},
	}
}

func mtailImage() image {
	ref := injectors.DefaultImages("").Mtail
	return image{
		name: "mtail", ref: ref, version: tagOf(ref), upstream: "mtail",
		title:       "mtail",
		description: "mtail, which makes metrics of logs, of Debian's package",
		licenses:    "Apache-2.0",
		entrypoint:  []string{"/usr/bin/mtail"}, user: user(injectedUser), programs: []string{"mtail"},
		parts: []part{packages{names: []string{"mtail"}}, users("injected")},
	}
}

// tagOf returns what follows the last colon of an image's name.
func tagOf(ref string) string { return ref[strings.LastIndex(ref, ":")+1:] }

// beginning is the time in images of the tests: a commit that changes nothing in them changes nothing about them.
func beginning() time.Time { return time.Unix(0, 0).UTC() }
