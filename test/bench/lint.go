package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// maxLint bounds how long lint takes for lintWorkloads and lintProfiles files, the start of the process included.
const (
	maxLint       = 2 * time.Second
	lintWorkloads = 1000
	lintProfiles  = 100
)

// lint prints how long the binary's lint takes: the best of some runs, for whatever else the machine does only adds to it.
func (b *bench) lint(ctx context.Context, binary string) (err error) {
	dir, err := os.MkdirTemp("", "pillion-lint-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	write := func(format, text string, i int) error {
		return os.WriteFile(filepath.Join(dir, fmt.Sprintf(format, i)), fmt.Appendf(nil, text, i), 0o600)
	}
	for i := range lintProfiles {
		err = errors.Join(err, write("profile-%d.yaml", lintedProfile, i))
	}
	for i := range lintWorkloads {
		err = errors.Join(err, write("workload-%d.yaml", lintedWorkload, i))
	}
	if err != nil {
		return fmt.Errorf("write files to lint: %w", err)
	}
	best := time.Duration(0)
	for range 5 {
		out := &bytes.Buffer{}
		command := exec.CommandContext(ctx, binary, "lint", dir)
		command.Stdout, command.Stderr = out, out
		started := time.Now()
		if err := command.Run(); err != nil {
			return fmt.Errorf("lint: %w: %s", err, out)
		}
		if took := time.Since(started); best == 0 || took < best {
			best = took
		}
	}
	fmt.Printf("\nlint of %d workloads and %d profiles, a file each: %v\n", lintWorkloads, lintProfiles, best.Round(time.Millisecond))
	if best > maxLint {
		b.over = append(b.over, fmt.Sprintf("lint takes %v, at most %v", best, maxLint))
	}
	return nil
}

const lintedProfile = `apiVersion: pillion.dev/v1alpha1
kind: ClusterPatternProfile
metadata: {name: site-%[1]d}
spec:
  gitSync:
    repo: https://git.example.com/site-%[1]d.git
    ref: main
    mountPath: /srv/site-%[1]d
  overridable: [ref, period]
`

const lintedWorkload = `# An ordinary workload, and its Service.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-%[1]d
  labels: {app: app-%[1]d}
spec:
  replicas: 3
  selector:
    matchLabels: {app: app-%[1]d}
  template:
    metadata:
      labels: {app: app-%[1]d}
      annotations:
        pillion.dev/inject: site-7, site-42
        site-7.pillion.dev/ref: v%[1]d
        site-42.pillion.dev/period: 60s
    spec:
      containers:
      - name: app
        image: registry.example.com/app:v%[1]d
        ports:
        - {name: http, containerPort: 8080}
        env:
        - name: SECRET
          valueFrom:
            secretKeyRef: {name: s, key: k}
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 256Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: data, mountPath: /data}
      volumes:
      - name: data
        persistentVolumeClaim: {claimName: d}
---
apiVersion: v1
kind: Service
metadata: {name: app-%[1]d}
spec:
  selector: {app: app-%[1]d}
  ports: [{port: 80, targetPort: http}]
`
