package injectors

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// Where git-sync finds its things.
const (
	gitDirectory       = "/git"
	gitSecretDirectory = "/etc/git-secret"
	gitConfigDirectory = "/etc/git-sync"
	gitSparseFile      = "sparse-checkout"
	gitErrorFile       = "/tmp/error.json"
)

// syncSlack is how much longer than one sync the first one is waited for, so that git-sync itself says why it timed out.
const syncSlack = 10 * time.Second

// gitSyncInjector is the Sidecar pattern: a directory that follows a git ref, by git-sync v4.7.
func gitSyncInjector() Injector {
	return Injector{
		Kind:  v1alpha1.KindGitSync,
		Field: "gitSync",
		Required: []Required{
			{Field: "repo", Path: "repo", Example: "https://git.example.com/web/site.git"},
			{Field: "mountPath", Path: "mountPath", Example: "/srv/site"},
		},
		Validate: validateGitSync,
		Fragment: gitSyncFragment,
	}
}

func validateGitSync(pattern *v1alpha1.Pattern, path *field.Path) field.ErrorList {
	spec := pattern.GitSync
	errs := validateURL(spec.Repo, path.Child("repo"))
	if spec.OnSync != nil {
		errs = append(errs, validateURL(spec.OnSync.URL, path.Child("onSync", "url"))...)
	}
	return errs
}

// validateURL refuses what the schema's regular expressions let pass: wrong percent escapes and ports over 65535. It has nothing
// to say of user@host:path, which is no URL.
func validateURL(s string, path *field.Path) field.ErrorList {
	if !strings.Contains(s, "://") {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return field.ErrorList{field.Invalid(path, WithoutCredentials(s), "is not a URL; write a % as %25 and check the port")}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return field.ErrorList{field.Invalid(path, WithoutCredentials(s), "the port must be from 1 to 65535")}
		}
	}
	return nil
}

var (
	// userInURL is the user and password of a URL, up to the last @ of a word: a password that should have been escaped may hold anything.
	userInURL = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s"']*@`)
	// userAndPassword are those of what has no scheme.
	userAndPassword = regexp.MustCompile(`^[^\s/@:]+:[^\s@]*@`)
)

// WithoutCredentials returns a value for a message, in which URLs have no user and password: messages end up in statuses and logs.
func WithoutCredentials(value string) string {
	switch {
	case !strings.Contains(value, "@"):
		return value
	case !strings.Contains(value, "://"):
		return userAndPassword.ReplaceAllString(value, "…@")
	case strings.Count(value, "://") == 1 && !strings.ContainsAny(value, `"'`): // a password may hold a space, too
		scheme, rest, _ := strings.Cut(value, "://")
		return scheme + "://…" + rest[strings.LastIndex(rest, "@"):]
	default:
		return userInURL.ReplaceAllString(value, "${1}…@")
	}
}

func gitSyncFragment(request Request) weave.Fragment {
	spec := request.Pattern.GitSync
	fragment := weave.Fragment{Profile: request.Profile}

	container := newContainer(request, "", request.Images.GitSync, &spec.ContainerSettings, resources{
		cpuRequest: "10m", cpuLimit: "500m",
		memoryRequest: "32Mi", memoryLimit: "256Mi", // git unpacks what it fetches in memory
	})
	container.Args = gitSyncArgs(spec)
	container.Env = []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}} // git keeps its credential cache there
	addCheckout(&fragment, &container, spec)
	addCredentials(&fragment, &container, spec.Credentials)
	addSparseCheckout(&fragment, &container, spec.SparseCheckout)
	addWebhook(&container, spec.OnSync)
	addEnv(&container, &spec.ContainerSettings)
	if spec.Mode != v1alpha1.GitSyncOnce {
		container.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		container.Lifecycle = firstSync(spec)
	}

	fragment.InitContainers = []corev1.Container{container}
	return fragment
}

func gitSyncArgs(spec *v1alpha1.GitSync) []string {
	args := []string{
		"--repo=" + literal(spec.Repo),
		"--ref=" + literal(spec.Ref),
		// The mount itself belongs to root, and git would refuse it for ever ("dubious ownership").
		"--root=" + gitDirectory + "/.git-sync",
		"--link=" + gitDirectory + "/" + spec.Link,
		fmt.Sprintf("--depth=%d", *spec.Depth),
		"--submodules=" + strings.ToLower(string(spec.Submodules)),
		"--sync-timeout=" + spec.SyncTimeout.Duration.String(),
	}
	if spec.Mode == v1alpha1.GitSyncOnce {
		return append(args, "--one-time")
	}
	return append(args,
		"--period="+spec.Period.Duration.String(),
		// A server that is away must not end git-sync, which may have files from before: the Pod would not be ready, although the
		// app can serve. Where it has none the hook ends it, with the cause.
		"--max-failures=-1",
		"--init-period=2s",
		"--error-file="+gitErrorFile,
		// A process whose working directory is in the old commit's files keeps it for a while.
		"--stale-worktree-timeout=60s",
	)
}

// firstSyncMain waits for as many seconds as its first argument says until the second is there, and gives up when git-sync has
// failed five times, by the file of its third, which git-sync writes anew for each failure. What it says the Pod's status tells.
const firstSyncMain = `end=$(($(date +%s) + $1)); n=0; rm -f "$3"; until test -e "$2"; do ` +
	`if test -s "$3"; then cause=$(cat "$3"); rm -f "$3"; n=$((n + 1)); fi; ` +
	`if [ "$n" -ge 5 ] || [ "$(date +%s)" -ge "$end" ]; then echo "gave up after $n failures: $cause"; exit 1; fi; ` +
	`sleep 0.05 2>/dev/null || sleep 1; done`

// firstSync holds the app until the link is there. It looks for the files and not at git-sync's HTTP endpoint, which turns the Pod
// unready when git-sync restarts while the server is away.
func firstSync(spec *v1alpha1.GitSync) *corev1.Lifecycle {
	return hook(firstSyncMain, spec.SyncTimeout.Duration+syncSlack, gitDirectory+"/"+spec.Link+"/", gitErrorFile)
}

// addCheckout adds the volume of the files to git-sync and the app, and a /tmp, without which git-sync does not start.
func addCheckout(fragment *weave.Fragment, container *corev1.Container, spec *v1alpha1.GitSync) {
	checkout := emptyDir(v1alpha1.ReservedName(fragment.Profile, ""), spec.SizeLimit.DeepCopy())
	tmp := emptyDir(v1alpha1.ReservedName(fragment.Profile, "tmp"), resource.MustParse("64Mi"))
	fragment.Volumes = append(fragment.Volumes, checkout, tmp)
	container.VolumeMounts = append(container.VolumeMounts,
		corev1.VolumeMount{Name: checkout.Name, MountPath: gitDirectory},
		corev1.VolumeMount{Name: tmp.Name, MountPath: "/tmp"},
	)
	fragment.Additions = append(fragment.Additions, weave.Addition{
		Containers: spec.Containers,
		VolumeMounts: []corev1.VolumeMount{{
			Name: checkout.Name, MountPath: string(spec.MountPath), ReadOnly: *spec.ReadOnly,
		}},
	})
}

// addCredentials shows git-sync, and nobody else, the keys of the Secret that it needs.
func addCredentials(fragment *weave.Fragment, container *corev1.Container, credentials *v1alpha1.GitSyncCredentials) {
	const key, knownHosts, password = "ssh", "known_hosts", "password"
	switch {
	case credentials == nil:

	case credentials.SSH != nil:
		ssh := credentials.SSH
		items := []corev1.KeyToPath{{Key: ssh.Key, Path: key}}
		container.Args = append(container.Args, "--ssh-key-file="+gitSecretDirectory+"/"+key)
		if *ssh.KnownHosts {
			items = append(items, corev1.KeyToPath{Key: knownHosts, Path: knownHosts})
			container.Args = append(container.Args, "--ssh-known-hosts-file="+gitSecretDirectory+"/"+knownHosts)
		} else {
			container.Args = append(container.Args, "--ssh-known-hosts=false")
		}
		addGitSecret(fragment, container, ssh.SecretName, items...)

	case credentials.Basic != nil:
		container.Env = append(container.Env, corev1.EnvVar{
			Name: "GITSYNC_USERNAME",
			ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: credentials.Basic.SecretName},
				Key:                  corev1.BasicAuthUsernameKey,
				Optional:             new(true), // as the Secret's volume is
			}},
		})
		container.Args = append(container.Args, "--password-file="+gitSecretDirectory+"/"+password)
		addGitSecret(fragment, container, credentials.Basic.SecretName,
			corev1.KeyToPath{Key: corev1.BasicAuthPasswordKey, Path: password})

	case credentials.Token != nil:
		token := credentials.Token
		container.Args = append(container.Args,
			"--username="+literal(token.Username),
			"--password-file="+gitSecretDirectory+"/"+password)
		addGitSecret(fragment, container, token.SecretName, corev1.KeyToPath{Key: token.Key, Path: password})
	}
}

// addGitSecret mounts keys of a Secret. Its files belong to root, so that they must be readable by all: ssh looks only at the mode
// of files of its own uid. It is optional, so that the Pod's status says in git's or ssh's words what is missing; the kubelet would
// wait for it without end.
func addGitSecret(fragment *weave.Fragment, container *corev1.Container, secret string, items ...corev1.KeyToPath) {
	volume := corev1.Volume{
		Name: v1alpha1.ReservedName(fragment.Profile, "credentials"),
		VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: secret, Items: items, DefaultMode: new(int32(0o444)), Optional: new(true),
		}},
	}
	fragment.Volumes = append(fragment.Volumes, volume)
	container.VolumeMounts = append(container.VolumeMounts,
		corev1.VolumeMount{Name: volume.Name, MountPath: gitSecretDirectory, ReadOnly: true})
}

func addSparseCheckout(fragment *weave.Fragment, container *corev1.Container, patterns []string) {
	if len(patterns) == 0 {
		return
	}
	mount := addConfig(fragment, gitConfigDirectory, configFile{
		path: gitSparseFile, content: strings.Join(patterns, "\n") + "\n",
	})
	container.VolumeMounts = append(container.VolumeMounts, mount)
	container.Args = append(container.Args, "--sparse-checkout-file="+gitConfigDirectory+"/"+gitSparseFile)
}

func addWebhook(container *corev1.Container, webhook *v1alpha1.GitSyncWebhook) {
	if webhook == nil {
		return
	}
	container.Args = append(container.Args,
		"--webhook-url="+literal(webhook.URL),
		"--webhook-method="+webhook.Method,
		fmt.Sprintf("--webhook-success-status=%d", *webhook.SuccessStatus),
		"--webhook-timeout="+webhook.Timeout.Duration.String(),
		"--webhook-backoff="+webhook.Backoff.Duration.String(),
	)
}
