package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/test/apiserver"
	"github.com/pillion-dev/pillion/test/node/installed"
)

// appImage is of the program that says when it started.
const appImage = "localhost/bench-app:1"

// appContainer is the name of its container.
const appContainer = "app"

// lane is one way for a Pod to be.
type lane struct {
	name string

	// inject are the profiles that the Pod asks for.
	inject string

	// promises are arguments for the app: what has to be there at its first instruction.
	promises []string

	// pod is one that somebody wrote. Nil: a bare one.
	pod *corev1.Pod
}

// The lanes that the others, or the targets, are about.
const (
	bareLane       = "bare"
	askedAboutLane = "asked about, for nothing"
	allLane        = "all four"
	allFromGitLane = "all four, templates from git"
)

// What the patterns promise to an app.
const (
	filesOfGit    = "--file=/srv/site/current/index.html"
	renderedFile  = "--file=/etc/site/app.conf"
	cacheListens  = "--tcp=$(CACHE_ADDRESS)"
	statsdListens = "--udp=$(STATSD_HOST):$(STATSD_PORT)"
)

func builtInLanes() []lane {
	return []lane{
		{name: bareLane},
		{name: askedAboutLane},
		{name: "git-sync", inject: "site", promises: []string{filesOfGit}},
		{name: "template-processor", inject: "site-config", promises: []string{renderedFile}},
		{name: "cache-ambassador, memcached", inject: "cache", promises: []string{cacheListens}},
		{name: "cache-ambassador, twemproxy", inject: "cache-proxy", promises: []string{cacheListens}},
		{name: "prometheus-adapter, statsd", inject: "metrics", promises: []string{statsdListens}},
		{name: "prometheus-adapter, json", inject: "metrics-from-json"},
		{
			name: allLane, inject: "site, site-config, cache, metrics",
			promises: []string{filesOfGit, renderedFile, cacheListens, statsdListens},
		},
		{
			name: allFromGitLane, inject: "site, site-config-from-git, cache, metrics",
			promises: []string{filesOfGit, renderedFile, cacheListens, statsdListens},
		},
	}
}

// chosen returns the lanes to measure, with those of Pods that somebody wrote.
func chosen(o *options, values map[string]string) ([]lane, error) {
	all := builtInLanes()
	if o.pods != "" {
		own, err := readPods(o.pods, values)
		if err != nil {
			return nil, err
		}
		all = append(all, own...)
	}
	var lanes []lane
	for _, l := range all {
		if l.name == bareLane || l.pod != nil || o.only.MatchString(l.name) {
			lanes = append(lanes, l)
		}
	}
	return lanes, nil
}

// readPods reads lanes from a file of Pods, named as these are, in which {{.Repository}} is the one of git.
func readPods(path string, values map[string]string) ([]lane, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	objects, err := render(string(content), values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var lanes []lane
	for _, object := range objects {
		pod := &corev1.Pod{}
		if object.GetKind() != "Pod" {
			return nil, fmt.Errorf("%s: there is a %s in it; write Pods alone", path, object.GetKind())
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, pod, true); err != nil {
			return nil, fmt.Errorf("%s: Pod %s: %w", path, object.GetName(), err)
		}
		lanes = append(lanes, lane{name: pod.Name, pod: pod})
	}
	return lanes, nil
}

// render fills in what is known only when the node runs, and reads the documents.
func render(documents string, values map[string]string) ([]*unstructured.Unstructured, error) {
	text, err := template.New("").Parse(documents)
	if err != nil {
		return nil, err
	}
	var filled bytes.Buffer
	if err := text.Execute(&filled, values); err != nil {
		return nil, err
	}
	return apiserver.Read(&filled)
}

// build returns the Pod of a lane.
func (l *lane) build(namespace, name, report string) (*corev1.Pod, error) {
	app := installed.Container(appContainer, appImage, append(l.promises, "--report="+report)...)
	if l.pod != nil {
		return l.complete(namespace, name, app)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{app}},
	}
	if l.inject != "" {
		pod.Annotations = map[string]string{v1alpha1.InjectKey: l.inject}
	}
	if l.name == askedAboutLane {
		pod.Labels = map[string]string{"bench": "asked-about"}
	}
	return pod, nil
}

// complete puts the app into a Pod that somebody wrote. The arguments and mounts of its container app stay.
func (l *lane) complete(namespace, name string, app corev1.Container) (*corev1.Pod, error) {
	pod := l.pod.DeepCopy()
	pod.Namespace, pod.Name = namespace, name
	for i := range pod.Spec.Containers {
		if written := &pod.Spec.Containers[i]; written.Name == appContainer {
			app.Args = append(app.Args, written.Args...)
			app.Env, app.VolumeMounts, app.Resources = written.Env, written.VolumeMounts, written.Resources
			*written = app
			return pod, nil
		}
	}
	return nil, fmt.Errorf("lane %s: the Pod has no container app; write one, the benchmark replaces it", l.name)
}

// slug is the lane's name where a Pod's may be.
func (l *lane) slug() string {
	return strings.Trim(strings.Join(strings.FieldsFunc(strings.ToLower(l.name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-"), "-")
}
