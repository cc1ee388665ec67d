package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/injectors"
	"github.com/pillion-dev/pillion/profiles"
)

// The bounds of what is measured in process.
const (
	// maxCustomRatio is of the time that Decide takes with a custom pattern of ten expressions, over that with a built-in one.
	maxCustomRatio = 2.0
	// maxRebuild is how long it takes until one changed profile among rebuildProfiles is in a new snapshot.
	maxRebuild      = 20 * time.Millisecond
	rebuildProfiles = 1000
)

const builtIn = `
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: shipped}
spec:
  gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}
  match: {podSelector: {matchLabels: {app: web}}}
`

// tenExpressions reads the Pod, its namespace and parameters; five of its expressions differ from Pod to Pod.
const tenExpressions = `
apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: shipped}
spec:
  match: {podSelector: {matchLabels: {app: web}}}
  custom:
    parameters:
    - {name: port, type: integer, default: 2020}
    - {name: level, default: info, enum: [debug, info, warn]}
    - {name: buffer, type: quantity, default: 16Mi}
    template:
      initContainers:
      - image: registry.example.com/shipper:v3
        restartPolicy: Always
        args:
        - --listen=127.0.0.1:${params.port}
        - --level=${params.level}
        - --profile=${profile.name}
        - --app=${pod.metadata.labels.app}
        - --containers=${size(pod.spec.containers)}
        - --main=${pod.spec.containers[0].name}
        env:
        - {name: TEAM, value: "${namespace.metadata.labels.team}"}
        - {name: TIER, value: "${pod.metadata.?labels.?tier.orValue('none')}"}
        startupProbe: {exec: {command: [shipper, check, "--port=${params.port}"]}}
        volumeMounts: [{name: buffer, mountPath: /buffer}]
      volumes: [{name: buffer, emptyDir: {sizeLimit: "${params.buffer}"}}]
      app: [{env: [{name: SHIPPER, value: "127.0.0.1:2020"}]}]
`

const decidedPod = `
apiVersion: v1
kind: Pod
metadata:
  generateName: web-6d4b75cb6d-
  labels: {app: web, pod-template-hash: 6d4b75cb6d}
  annotations: {example.com/team: web}
spec:
  containers:
  - name: web
    image: nginx:1.29
    ports: [{containerPort: 8080}]
    env: [{name: A, value: "1"}, {name: B, value: "2"}]
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
    volumeMounts: [{name: data, mountPath: /data}]
  - {name: log, image: "busybox:1.37", args: [tail, -F, /data/log], volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, emptyDir: {}}]
`

// decisions measures Decide with a custom pattern against a built-in one, in turns, and the rebuilding of a snapshot.
func (b *bench) decisions() error {
	compiler, err := profiles.NewCompiler()
	if err != nil {
		return err
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(decidedPod), pod); err != nil {
		return err
	}
	// The third lane is of Pods of which each is new: nothing that was made for another serves it.
	asked := 0
	lanes := make([]func() time.Duration, 3)
	for i, manifest := range []string{builtIn, tenExpressions, tenExpressions} {
		profile, err := compileManifest(compiler, manifest)
		if err != nil {
			return err
		}
		snapshot := profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, []*profiles.Profile{profile})
		namespace, pod := profiles.Namespace{Name: "web", Labels: map[string]string{"team": "web"}}, pod.DeepCopy()
		if decision := profiles.Decide(snapshot, namespace, pod); len(decision.Patch) == 0 {
			return fmt.Errorf("nothing was woven: %+v", decision.Outcomes)
		}
		lanes[i] = func() time.Duration {
			const decisions = 500
			start := time.Now()
			for range decisions {
				if i == 2 {
					asked++
					pod.Labels["tier"] = fmt.Sprintf("tier-%d", asked)
				}
				profiles.Decide(snapshot, namespace, pod)
			}
			return time.Since(start) / decisions
		}
	}
	const rounds = 41
	var times [3][]time.Duration
	for range rounds {
		for i, lane := range lanes {
			times[i] = append(times[i], lane())
		}
	}
	shipped, custom := medianOf(times[0]), medianOf(times[1])
	ratio := float64(custom) / float64(shipped)
	fmt.Printf("Decide: built-in pattern %v, custom pattern with ten expressions %v: ratio %.2f (bound %.2f; medians of %d rounds)\n",
		shipped, custom, ratio, maxCustomRatio, rounds)
	fresh := medianOf(times[2])
	fmt.Printf("Decide: of Pods each of which makes the expressions yield something new, %v: ratio %.2f (no bound: once for a workload)\n",
		fresh, float64(fresh)/float64(shipped))
	if ratio > maxCustomRatio {
		b.over = append(b.over, fmt.Sprintf("a custom pattern costs %.2f times a built-in one in Decide, bound %.2f", ratio, maxCustomRatio))
	}
	if err := b.rebuild(compiler, "most of which come after another", numbered); err != nil {
		return err
	}
	return b.rebuild(compiler, "each of which comes after as many others as it may", entangled)
}

// rebuild measures how long one changed profile among many takes: it is compiled, and a snapshot made of all.
func (b *bench) rebuild(compiler *profiles.Compiler, kind string, manifest func(i int) string) error {
	const rounds = 21
	all := make([]*profiles.Profile, rebuildProfiles)
	for i := range all {
		var err error
		if all[i], err = compileManifest(compiler, manifest(i)); err != nil {
			return err
		}
	}
	var times []time.Duration
	for i := range rounds {
		start := time.Now()
		changed, err := compileManifest(compiler, manifest(i))
		if err != nil {
			return err
		}
		all[i] = changed
		profiles.NewSnapshot(profiles.Options{Images: injectors.DefaultImages("")}, all)
		times = append(times, time.Since(start))
	}
	median := medianOf(times)
	fmt.Printf("Snapshot of %d profiles, %s, one of them changed: %v (bound %v; median of %d rounds)\n",
		rebuildProfiles, kind, median.Round(10*time.Microsecond), maxRebuild, rounds)
	if median > maxRebuild {
		b.over = append(b.over, fmt.Sprintf("a snapshot of profiles, %s, takes %v to rebuild, bound %v", kind, median, maxRebuild))
	}
	return nil
}

// numbered is one of many profiles: a third are custom ones, each has a match of its own, and most come after another.
func numbered(i int) string {
	pattern := `gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}`
	if i%3 == 0 {
		pattern = `custom: {parameters: [{name: level, default: info}], template: {initContainers: [{image: shipper, args: ["--level=${params.level}"]}]}}`
	}
	after := ""
	if i%10 > 0 {
		after = fmt.Sprintf(", after: [profile-%d]", i-1)
	}
	return fmt.Sprintf(`{apiVersion: pillion.dev/v1alpha1, kind: ClusterPatternProfile, metadata: {name: profile-%d},
  spec: {%s, match: {podSelector: {matchLabels: {app: app-%d}}}%s}}`, i, pattern, i, after)
}

// entangled is one of many profiles of a namespace that come after each other in every way that makes no circle.
func entangled(i int) string {
	const most = 32 // that the schema allows
	var after []string
	for j := max(0, i-most); j < i; j++ {
		after = append(after, fmt.Sprintf("profile-%d", j))
	}
	return fmt.Sprintf(`{apiVersion: pillion.dev/v1alpha1, kind: PatternProfile, metadata: {namespace: web, name: profile-%d},
  spec: {gitSync: {repo: "https://git.example.com/site.git", mountPath: /srv/site}, match: {}, after: [%s]}}`, i, strings.Join(after, ", "))
}

func compileManifest(compiler *profiles.Compiler, manifest string) (*profiles.Profile, error) {
	object := map[string]any{}
	if err := yaml.Unmarshal([]byte(manifest), &object); err != nil {
		return nil, err
	}
	profile, _ := compiler.Object(object)
	if len(profile.Problems) > 0 {
		return nil, profile.Problems.ToAggregate()
	}
	return profile, nil
}

func medianOf(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}
