package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GitSync adds git-sync (https://github.com/kubernetes/git-sync, v4.7): a native sidecar that keeps a directory at a git ref.
//
// +kubebuilder:validation:XValidation:rule="!has(self.repo) || !(self.repo.startsWith('ssh://') || self.repo.matches('^[^/:]+@[^/:]+:')) || (has(self.credentials) && has(self.credentials.ssh))",message="a repo over ssh wants credentials.ssh: without a key ssh refuses every server"
// +kubebuilder:validation:XValidation:rule="!has(self.repo) || !has(self.credentials) || !has(self.credentials.ssh) || self.repo.startsWith('ssh://') || self.repo.matches('^[^/:]+@[^/:]+:')",message="credentials.ssh wants a repo of the form ssh://git@host/path or git@host:path",fieldPath=".credentials"
// +kubebuilder:validation:XValidation:rule="!has(self.repo) || !has(self.credentials) || has(self.credentials.ssh) || self.repo.startsWith('https://')",message="credentials.basic and credentials.token want a repo that starts with https://: anything else would send the password in the clear",fieldPath=".credentials"
// +kubebuilder:validation:XValidation:rule="!has(self.onSync) || !has(self.mode) || self.mode != 'Once'",message="onSync wants mode Continuous: with Once there is a single sync, and the app starts after it",fieldPath=".onSync"
type GitSync struct {
	ContainerSettings `json:",inline"`

	// repo is the URL of the git repository: https://host/path, http://host/path, ssh://user@host/path, user@host:path, or
	// file:///path for one that is baked into the image. It holds no password or token: those belong in credentials. It is
	// required, and may be left to the Pod by listing it in overridable.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(https?://([^/@]*@)?([A-Za-z0-9][A-Za-z0-9.-]*|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?/[!-~]+|ssh://([A-Za-z0-9_][A-Za-z0-9_.:-]*@)?([A-Za-z0-9][A-Za-z0-9.-]*|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?/[!-~]+|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[!-,.-~][!-~]*|file:///[!-~]+)$')",message="must be https://host/path, http://host/path, ssh://user@host/path, user@host:path or file:///path, without spaces"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^https?://[^/]*@') && !self.matches('^ssh://[^/]*:[^/]*@')",message="must hold no user or password: put them into a Secret and name it in credentials",reason=FieldValueForbidden
	Repo string `json:"repo,omitempty"`

	// ref is the branch, tag or commit hash to follow. HEAD is the repository's default branch.
	// +optional
	// +default="HEAD"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule=`self.matches(r'^[^-\x00-\x20~^:?*\[\\\x7f][^\x00-\x20~^:?*\[\\\x7f]*$')`,message="must be a branch, tag or commit, such as main or v2.1: without a leading '-', spaces and any of ~^:?*[\\"
	Ref string `json:"ref,omitempty"`

	// mode is Continuous, a sidecar that follows ref for as long as the Pod lives, or Once, an init container that fetches
	// ref and ends. With Once, period does not count.
	// +optional
	// +default="Continuous"
	// +kubebuilder:validation:Enum=Continuous;Once
	Mode GitSyncMode `json:"mode,omitempty"`

	// period is the time between looks at the repository, from 1s to 24h.
	// +optional
	// +default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be from 1s to 24h, for example 30s"
	Period *metav1.Duration `json:"period,omitempty"`

	// syncTimeout is the time that one sync may take, from 1s to 1h. The first one may take a large repository long: the app
	// waits for it.
	// +optional
	// +default="120s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be from 1s to 1h, for example 120s"
	SyncTimeout *metav1.Duration `json:"syncTimeout,omitempty"`

	// depth is the number of commits of history to fetch; 0 fetches all of it.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Depth *int32 `json:"depth,omitempty"`

	// submodules says whether submodules are fetched: Recursive (all, and theirs), Shallow (only the repository's own) or Off.
	// +optional
	// +default="Recursive"
	// +kubebuilder:validation:Enum=Recursive;Shallow;Off
	Submodules GitSyncSubmodules `json:"submodules,omitempty"`

	// sparseCheckout limits the files to those that match, by patterns as in .gitignore, in order: "/docs/" or "!*.png".
	// Absent: all files.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[^\x00-\x1f\x7f]+$`
	SparseCheckout []string `json:"sparseCheckout,omitempty"`

	// mountPath is the directory in the app's containers that holds link. The files are in mountPath/link, which is switched
	// to each new commit at once: open files by that path, and never mount it by subPath. It is required, and may be left to
	// the Pod by listing it in overridable.
	// +optional
	MountPath MountPath `json:"mountPath,omitempty"`

	// link is the name, in mountPath, of the symbolic link to the files.
	// +optional
	// +default="current"
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	Link string `json:"link,omitempty"`

	// containers names the containers and init containers of the app that see the files. Absent: every container, and no
	// init container.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Containers []string `json:"containers,omitempty"`

	// readOnly mounts the files read-only into the app's containers.
	// +optional
	// +default=true
	ReadOnly *bool `json:"readOnly,omitempty"`

	// sizeLimit is how large the volume of the files and the history may grow before the Pod is evicted. While a new commit
	// replaces an old one, both are there.
	// +optional
	// +default="1Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="must be more than 0, for example 1Gi"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`

	// credentials say how to log in to the repository. The Secrets are those of the Pod's namespace, and only git-sync's
	// container sees them.
	// +optional
	Credentials *GitSyncCredentials `json:"credentials,omitempty"`

	// onSync calls a URL after each new commit, until it answers with success.
	// +optional
	OnSync *GitSyncWebhook `json:"onSync,omitempty"`
}

// MountPath is a directory in the app's containers where files appear.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^(/[^/:\x00-\x1f\x7f]+)+$')`,message="must be an absolute path such as /srv/site: without ':' and a '/' at its end"
// +kubebuilder:validation:XValidation:rule="!self.matches('/[.][.]?(/|$)')",message="must not contain '.' or '..' as an element: write the path itself"
// +kubebuilder:validation:XValidation:rule="!self.matches('^/((proc|sys|dev)(/.*)?|bin|boot|etc|lib|lib64|sbin|usr|usr/bin|usr/lib|usr/sbin|var|run|var/run)$')",message="must not be a directory of the system: choose one of your own, such as /srv/site or /etc/myapp"
type MountPath string

// GitSyncMode says how long git-sync runs.
type GitSyncMode string

// The modes of git-sync.
const (
	GitSyncContinuous GitSyncMode = "Continuous"
	GitSyncOnce       GitSyncMode = "Once"
)

// GitSyncSubmodules says which submodules git-sync fetches.
type GitSyncSubmodules string

// What git-sync does with submodules.
const (
	GitSyncSubmodulesRecursive GitSyncSubmodules = "Recursive"
	GitSyncSubmodulesShallow   GitSyncSubmodules = "Shallow"
	GitSyncSubmodulesOff       GitSyncSubmodules = "Off"
)

// GitSyncCredentials say how to log in to a repository.
//
// +kubebuilder:validation:ExactlyOneOf=ssh;basic;token
type GitSyncCredentials struct {
	// ssh logs in with a private key.
	// +optional
	SSH *GitSyncSSH `json:"ssh,omitempty"`

	// basic logs in with a user name and password, the keys username and password of a Secret (type kubernetes.io/basic-auth).
	// +optional
	Basic *GitSyncBasic `json:"basic,omitempty"`

	// token logs in with an access token.
	// +optional
	Token *GitSyncToken `json:"token,omitempty"`
}

// GitSyncSSH is a private key for ssh.
type GitSyncSSH struct {
	// secretName names a Secret with the private key under key (type kubernetes.io/ssh-auth has it), and the server's public
	// keys under known_hosts, as ssh-keyscan prints them.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SecretName string `json:"secretName"`

	// key is the Secret's key that holds the private key.
	// +optional
	// +default="ssh-privatekey"
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$`
	Key string `json:"key,omitempty"`

	// knownHosts checks the server's key against the Secret's known_hosts. With false any server is believed, and whoever
	// sits on the way can serve other files.
	// +optional
	// +default=true
	KnownHosts *bool `json:"knownHosts,omitempty"`
}

// GitSyncBasic is a user name and a password.
type GitSyncBasic struct {
	// secretName names a Secret with the keys username and password (type kubernetes.io/basic-auth).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SecretName string `json:"secretName"`
}

// GitSyncToken is an access token.
type GitSyncToken struct {
	// secretName names the Secret that holds the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	SecretName string `json:"secretName"`

	// key is the Secret's key that holds the token.
	// +optional
	// +default="token"
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$`
	Key string `json:"key,omitempty"`

	// username goes with the token. The default suits GitHub and GitLab; Bitbucket wants x-token-auth, a deploy token the name
	// that was given to it.
	// +optional
	// +default="x-access-token"
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[!-~]+$`
	Username string `json:"username,omitempty"`
}

// GitSyncWebhook is a URL that git-sync calls after each new commit. The request has no body; its header Gitsync-Hash holds
// the commit.
type GitSyncWebhook struct {
	// url to call: http://localhost:8080/-/reload reaches a container of the Pod. It holds no password or token, for whoever
	// may read the Pod sees it.
	// +required
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://([A-Za-z0-9][A-Za-z0-9.-]*|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?(/[!-~]*)?$')",message="must be http://host:port/path or https://host:port/path, without user, password or spaces"
	URL string `json:"url"`

	// method is the HTTP method: POST, PUT or GET.
	// +optional
	// +default="POST"
	// +kubebuilder:validation:Enum=POST;PUT;GET
	Method string `json:"method,omitempty"`

	// successStatus is the HTTP status that means success; 0 takes any.
	// +optional
	// +default=200
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=599
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 200",message="must be 0, for any status, or from 200 to 599"
	SuccessStatus *int32 `json:"successStatus,omitempty"`

	// timeout of one call, from 1s to 10m.
	// +optional
	// +default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="must be from 1s to 10m, for example 5s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// backoff is the time after a failed call until the next, from 1s to 1h.
	// +optional
	// +default="3s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be from 1s to 1h, for example 10s"
	Backoff *metav1.Duration `json:"backoff,omitempty"`
}
