package injectors

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// siteContent returns a spec as the schema defaults it.
func siteContent(edits ...func(*v1alpha1.GitSync)) *v1alpha1.GitSync {
	spec := &v1alpha1.GitSync{
		Repo:        "https://git.example.com/site.git",
		Ref:         "HEAD",
		Mode:        v1alpha1.GitSyncContinuous,
		Period:      &metav1.Duration{Duration: 30 * time.Second},
		SyncTimeout: &metav1.Duration{Duration: 2 * time.Minute},
		Depth:       new(int32(1)),
		Submodules:  v1alpha1.GitSyncSubmodulesRecursive,
		MountPath:   "/srv/site",
		Link:        "current",
		ReadOnly:    new(true),
		SizeLimit:   new(resource.MustParse("1Gi")),
	}
	for _, edit := range edits {
		edit(spec)
	}
	return spec
}

func gitSyncFragmentOf(t *testing.T, spec *v1alpha1.GitSync) (weave.Fragment, corev1.Container) {
	t.Helper()
	fragment := gitSyncInjector().Fragment(Request{
		Profile: "site-content",
		Pattern: &v1alpha1.Pattern{GitSync: spec},
		Images:  DefaultImages(""),
	})
	if len(fragment.InitContainers) != 1 {
		t.Fatalf("%d init containers, want 1", len(fragment.InitContainers))
	}
	return fragment, fragment.InitContainers[0]
}

func TestGitSyncIsANativeSidecarThatTheAppWaitsFor(t *testing.T) {
	got, _ := gitSyncFragmentOf(t, siteContent())
	want := weave.Fragment{
		Profile: "site-content",
		InitContainers: []corev1.Container{{
			Name:  "pillion-site-content",
			Image: "registry.k8s.io/git-sync/git-sync:v4.7.1",
			Args: []string{
				"--repo=https://git.example.com/site.git",
				"--ref=HEAD",
				"--root=/git/.git-sync",
				"--link=/git/current",
				"--depth=1",
				"--submodules=recursive",
				"--sync-timeout=2m0s",
				"--period=30s",
				"--max-failures=-1",
				"--init-period=2s",
				"--error-file=/tmp/error.json",
				"--stale-worktree-timeout=60s",
			},
			Env: []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("32Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("256Mi")},
			},
			RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
			Lifecycle:     hook(firstSyncMain, 130*time.Second, "/git/current/", "/tmp/error.json"),
			VolumeMounts: []corev1.VolumeMount{
				{Name: "pillion-site-content", MountPath: "/git"},
				{Name: "pillion-site-content-tmp", MountPath: "/tmp"},
			},
		}},
		Volumes: []corev1.Volume{
			emptyDir("pillion-site-content", resource.MustParse("1Gi")),
			emptyDir("pillion-site-content-tmp", resource.MustParse("64Mi")),
		},
		Additions: []weave.Addition{{
			VolumeMounts: []corev1.VolumeMount{{Name: "pillion-site-content", MountPath: "/srv/site", ReadOnly: true}},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fragment (-want +got):\n%s", diff)
	}
}

func TestGitSyncOnceIsAnInitContainer(t *testing.T) {
	_, container := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) { spec.Mode = v1alpha1.GitSyncOnce }))
	want := []string{
		"--repo=https://git.example.com/site.git",
		"--ref=HEAD",
		"--root=/git/.git-sync",
		"--link=/git/current",
		"--depth=1",
		"--submodules=recursive",
		"--sync-timeout=2m0s",
		"--one-time",
	}
	if diff := cmp.Diff(want, container.Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	if container.RestartPolicy != nil || container.Lifecycle != nil {
		t.Errorf("restartPolicy %v and lifecycle %v, want neither", container.RestartPolicy, container.Lifecycle)
	}
}

func TestGitSyncArgs(t *testing.T) {
	tests := map[string]struct {
		edit func(*v1alpha1.GitSync)
		want []string
	}{
		"a $(VAR) in repo and ref is literal": {
			edit: func(spec *v1alpha1.GitSync) { spec.Repo, spec.Ref = "https://git.example.com/$(HOME).git", "$(HOME)" },
			want: []string{"--repo=https://git.example.com/$$(HOME).git", "--ref=$$(HOME)"},
		},
		"quotes, semicolons and backticks stay in one argument": {
			edit: func(spec *v1alpha1.GitSync) { spec.Repo, spec.Ref = "https://git.example.com/;`x`'\"", "a;rm -rf" },
			want: []string{"--repo=https://git.example.com/;`x`'\"", "--ref=a;rm -rf"},
		},
		"the whole history, and no submodules": {
			edit: func(spec *v1alpha1.GitSync) {
				spec.Depth, spec.Submodules = new(int32(0)), v1alpha1.GitSyncSubmodulesOff
			},
			want: []string{"--depth=0", "--submodules=off"},
		},
		"a webhook": {
			edit: func(spec *v1alpha1.GitSync) {
				spec.OnSync = &v1alpha1.GitSyncWebhook{
					URL: "http://localhost:8080/$(HOME)", Method: "PUT", SuccessStatus: new(int32(0)),
					Timeout: &metav1.Duration{Duration: time.Second}, Backoff: &metav1.Duration{Duration: 3 * time.Second},
				}
			},
			want: []string{
				"--webhook-url=http://localhost:8080/$$(HOME)",
				"--webhook-method=PUT",
				"--webhook-success-status=0",
				"--webhook-timeout=1s",
				"--webhook-backoff=3s",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, container := gitSyncFragmentOf(t, siteContent(test.edit))
			for _, want := range test.want {
				if !slices.Contains(container.Args, want) {
					t.Errorf("no %s in %q", want, container.Args)
				}
			}
		})
	}
}

func TestGitSyncCredentialsReachGitSyncAlone(t *testing.T) {
	tests := map[string]struct {
		credentials v1alpha1.GitSyncCredentials
		wantArgs    []string
		wantEnv     []corev1.EnvVar
		wantItems   []corev1.KeyToPath
	}{
		"a key for ssh and the servers that are known": {
			credentials: v1alpha1.GitSyncCredentials{SSH: &v1alpha1.GitSyncSSH{
				SecretName: "git-login", Key: "ssh-privatekey", KnownHosts: new(true),
			}},
			wantArgs:  []string{"--ssh-key-file=/etc/git-secret/ssh", "--ssh-known-hosts-file=/etc/git-secret/known_hosts"},
			wantItems: []corev1.KeyToPath{{Key: "ssh-privatekey", Path: "ssh"}, {Key: "known_hosts", Path: "known_hosts"}},
		},
		"a key for ssh and any server": {
			credentials: v1alpha1.GitSyncCredentials{SSH: &v1alpha1.GitSyncSSH{
				SecretName: "git-login", Key: "id", KnownHosts: new(false),
			}},
			wantArgs:  []string{"--ssh-key-file=/etc/git-secret/ssh", "--ssh-known-hosts=false"},
			wantItems: []corev1.KeyToPath{{Key: "id", Path: "ssh"}},
		},
		"a user name and password": {
			credentials: v1alpha1.GitSyncCredentials{Basic: &v1alpha1.GitSyncBasic{SecretName: "git-login"}},
			wantArgs:    []string{"--password-file=/etc/git-secret/password"},
			wantEnv: []corev1.EnvVar{{
				Name: "GITSYNC_USERNAME",
				ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: "git-login"}, Key: "username", Optional: new(true),
				}},
			}},
			wantItems: []corev1.KeyToPath{{Key: "password", Path: "password"}},
		},
		"a token": {
			credentials: v1alpha1.GitSyncCredentials{Token: &v1alpha1.GitSyncToken{
				SecretName: "git-login", Key: "pat", Username: "$(HOME)",
			}},
			wantArgs:  []string{"--username=$$(HOME)", "--password-file=/etc/git-secret/password"},
			wantItems: []corev1.KeyToPath{{Key: "pat", Path: "password"}},
		},
	}
	_, plain := gitSyncFragmentOf(t, siteContent())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fragment, container := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) {
				spec.Credentials = &test.credentials
			}))
			if diff := cmp.Diff(test.wantArgs, container.Args[len(plain.Args):]); diff != "" {
				t.Errorf("args after the plain ones (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(append(slices.Clone(plain.Env), test.wantEnv...), container.Env); diff != "" {
				t.Errorf("env (-want +got):\n%s", diff)
			}
			wantVolume := corev1.Volume{
				Name: "pillion-site-content-credentials",
				VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
					SecretName: "git-login", Items: test.wantItems, DefaultMode: new(int32(0o444)), Optional: new(true),
				}},
			}
			if diff := cmp.Diff(wantVolume, fragment.Volumes[2]); diff != "" {
				t.Errorf("volume (-want +got):\n%s", diff)
			}
			wantMount := corev1.VolumeMount{Name: wantVolume.Name, MountPath: "/etc/git-secret", ReadOnly: true}
			if diff := cmp.Diff(wantMount, container.VolumeMounts[2]); diff != "" {
				t.Errorf("mount (-want +got):\n%s", diff)
			}
			for _, mount := range fragment.Additions[0].VolumeMounts {
				if mount.Name == wantVolume.Name {
					t.Error("the app sees the credentials")
				}
			}
		})
	}
}

func TestGitSyncReadsSparseCheckoutPatternsFromAFile(t *testing.T) {
	fragment, container := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) {
		spec.SparseCheckout = []string{"/docs/", "!*.png"}
	}))
	if want := "--sparse-checkout-file=/etc/git-sync/sparse-checkout"; !slices.Contains(container.Args, want) {
		t.Errorf("no %s in %q", want, container.Args)
	}
	want := map[string]string{"pillion.dev/config.site-content": "/docs/\n!*.png\n"}
	if diff := cmp.Diff(want, fragment.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	wantMount := corev1.VolumeMount{Name: "pillion-site-content-config", MountPath: "/etc/git-sync", ReadOnly: true}
	if diff := cmp.Diff(wantMount, container.VolumeMounts[2]); diff != "" {
		t.Errorf("mount (-want +got):\n%s", diff)
	}
}

func TestGitSyncShowsTheFilesToTheContainersThatAreNamed(t *testing.T) {
	fragment, _ := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) {
		spec.Containers, spec.ReadOnly = []string{"web"}, new(false)
	}))
	want := []weave.Addition{{
		Containers:   []string{"web"},
		VolumeMounts: []corev1.VolumeMount{{Name: "pillion-site-content", MountPath: "/srv/site"}},
	}}
	if diff := cmp.Diff(want, fragment.Additions); diff != "" {
		t.Errorf("additions (-want +got):\n%s", diff)
	}
}

func TestGitSyncIsWaitedForLongerThanOneSyncTakes(t *testing.T) {
	_, container := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) {
		spec.SyncTimeout = &metav1.Duration{Duration: 90*time.Second + time.Millisecond}
	}))
	want := hook(firstSyncMain, 100*time.Second, "/git/current/", "/tmp/error.json")
	if diff := cmp.Diff(want, container.Lifecycle); diff != "" {
		t.Errorf("lifecycle (-want +got):\n%s", diff)
	}
}

func TestGitSyncEnvIsTheProfilesToChange(t *testing.T) {
	_, container := gitSyncFragmentOf(t, siteContent(func(spec *v1alpha1.GitSync) {
		spec.Env = []v1alpha1.EnvVar{{Name: "HOME", Value: "/git"}, {Name: "HTTPS_PROXY", Value: "http://$(PROXY)"}}
	}))
	want := []corev1.EnvVar{{Name: "HOME", Value: "/git"}, {Name: "HTTPS_PROXY", Value: "http://$$(PROXY)"}}
	if diff := cmp.Diff(want, container.Env); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
}

func TestValidateGitSync(t *testing.T) {
	tests := map[string]struct {
		edit func(*v1alpha1.GitSync)
		want string
	}{
		"a plain repository is right":   {edit: func(*v1alpha1.GitSync) {}},
		"the short form of ssh is none": {edit: func(spec *v1alpha1.GitSync) { spec.Repo = "git@git.example.com:%zz.git" }},
		"a wrong percent escape": {
			edit: func(spec *v1alpha1.GitSync) { spec.Repo = "https://git.example.com/%zz.git" },
			want: `spec.gitSync.repo: Invalid value: "https://git.example.com/%zz.git": is not a URL`,
		},
		"a port over 65535": {
			edit: func(spec *v1alpha1.GitSync) { spec.Repo = "https://git.example.com:70000/site.git" },
			want: "the port must be from 1 to 65535",
		},
		"port 0 of the webhook": {
			edit: func(spec *v1alpha1.GitSync) { spec.OnSync = &v1alpha1.GitSyncWebhook{URL: "http://localhost:0/"} },
			want: "spec.gitSync.onSync.url",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pattern := &v1alpha1.Pattern{GitSync: siteContent(test.edit)}
			errs := gitSyncInjector().Validate(pattern, field.NewPath("spec", "gitSync"))
			if test.want == "" {
				if len(errs) > 0 {
					t.Errorf("errors %v, want none", errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), test.want) {
				t.Errorf("errors %v, want one with %q", errs, test.want)
			}
		})
	}
}

func TestWithoutCredentials(t *testing.T) {
	tests := map[string]struct{ value, want string }{
		"a user and a password":            {"https://u:hunter2@host/x", "https://…@host/x"},
		"a token alone":                    {"https://hunter2@host/x", "https://…@host/x"},
		"a password with what ends a host": {"https://u:hun/ter2@x@host/x", "https://…@host/x"},
		"in the middle of something else":  {`{"url": "ftp://u:hunter2@host"}`, `{"url": "ftp://…@host"}`},
		"a password with a space":          {"https://hun ter2@host/x", "https://…@host/x"},
		"two of them":                      {"http://u:hunter2@a http://hunter2@b", "http://…@a http://…@b"},
		"without a scheme":                 {"u:hunter2@host:path", "…@host:path"},
		"a user of ssh":                    {"git@host:path", "git@host:path"},
		"a URL without any":                {"https://host:80/x", "https://host:80/x"},
		"an address":                       {"a@example.com", "a@example.com"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := WithoutCredentials(test.value); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestGitSyncProblemsDoNotRepeatPasswords(t *testing.T) {
	for _, repo := range []string{"https://u:hunter2@host/%zz", "https://u:hunter2@host:99999/x"} {
		errs := validateGitSync(&v1alpha1.Pattern{GitSync: siteContent(func(spec *v1alpha1.GitSync) { spec.Repo = repo })}, field.NewPath("gitSync"))
		if len(errs) != 1 || strings.Contains(errs.ToAggregate().Error(), "hunter2") {
			t.Errorf("%s: %v", repo, errs)
		}
	}
}
