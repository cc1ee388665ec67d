package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CacheAmbassador is the pattern of a cache on localhost. The app talks to 127.0.0.1 and finds the address in its environment;
// whether that is a cache of the Pod's own (local) or a proxy to remote servers (proxy) is the profile's to say and to change.
//
// +kubebuilder:validation:ExactlyOneOf=local;proxy
// +kubebuilder:validation:XValidation:rule="!has(self.local) || !has(self.protocol) || self.protocol == 'Redis' || self.local.eviction in ['LRU', 'None']",message="memcached knows the evictions LRU and None; for another one write protocol: Redis",fieldPath=".local.eviction"
type CacheAmbassador struct {
	ContainerSettings `json:",inline"`

	// protocol is what the app speaks: Memcached (the ASCII protocol, where a proxy is between) or Redis. It is required, and
	// may be left to the Pod by listing it in overridable.
	// +optional
	// +kubebuilder:validation:Enum=Memcached;Redis
	Protocol CacheProtocol `json:"protocol,omitempty"`

	// port is where the cache listens, on 127.0.0.1 only: nothing outside the Pod reaches it. Absent: 11211 for Memcached,
	// 6379 for Redis. A proxy also listens on 127.0.0.1 at port + 10000 (port - 10000 from 55536 on), where it tells its
	// statistics.
	// +optional
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// envPrefix starts the names of the variables that the app's containers get: PREFIX_HOST (127.0.0.1), PREFIX_PORT and
	// PREFIX_ADDRESS (127.0.0.1:PORT). A variable that the app sets itself is left as it is.
	// +optional
	// +default="CACHE"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	EnvPrefix string `json:"envPrefix,omitempty"`

	// containers names the containers of the app that get the variables. Absent or empty: all regular ones.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Containers []string `json:"containers,omitempty"`

	// local runs memcached or redis in the Pod. Its content is the Pod's own, lives in memory only and ends with the Pod.
	// +optional
	Local *LocalCache `json:"local,omitempty"`

	// proxy runs twemproxy, which shards the keys over remote servers. Servers that ask for a password are not supported:
	// twemproxy would want it in its configuration file, and Pillion writes no secret into one.
	// +optional
	Proxy *CacheProxy `json:"proxy,omitempty"`
}

// CacheProtocol is what an app speaks to its cache.
type CacheProtocol string

// The protocols of caches.
const (
	CacheProtocolMemcached CacheProtocol = "Memcached"
	CacheProtocolRedis     CacheProtocol = "Redis"
)

// LocalCache is a cache in the Pod.
type LocalCache struct {
	// memory is what the cache may fill with items, from 8Mi to 64Gi; memcached rounds it down to whole MiB. The container's
	// memory limit is half as much again plus 32Mi, unless resources says otherwise, for connections and bookkeeping.
	// +optional
	// +default="64Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('8Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Gi')) <= 0",message="must be from 8Mi to 64Gi, for example 256Mi"
	Memory *resource.Quantity `json:"memory,omitempty"`

	// eviction says what makes room when memory is full. LRU drops the least recently used keys, LFU the least frequently used,
	// Random any. VolatileLRU, VolatileLFU, VolatileRandom and VolatileTTL drop only keys with an expiry. None drops nothing:
	// writes fail instead. Memcached knows LRU and None.
	// +optional
	// +default="LRU"
	// +kubebuilder:validation:Enum=LRU;LFU;Random;VolatileLRU;VolatileLFU;VolatileRandom;VolatileTTL;None
	Eviction CacheEviction `json:"eviction,omitempty"`

	// maxConnections is how many connections the app may hold open at once. memcached does not start where the node allows a
	// container fewer open files, nor with fewer than it needs itself; redis makes do with what it gets.
	// +optional
	// +default=1024
	// +kubebuilder:validation:Minimum=64
	// +kubebuilder:validation:Maximum=65535
	MaxConnections int32 `json:"maxConnections,omitempty"`
}

// CacheEviction says what a full cache does.
type CacheEviction string

// The evictions.
const (
	CacheEvictionLRU            CacheEviction = "LRU"
	CacheEvictionLFU            CacheEviction = "LFU"
	CacheEvictionRandom         CacheEviction = "Random"
	CacheEvictionVolatileLRU    CacheEviction = "VolatileLRU"
	CacheEvictionVolatileLFU    CacheEviction = "VolatileLFU"
	CacheEvictionVolatileRandom CacheEviction = "VolatileRandom"
	CacheEvictionVolatileTTL    CacheEviction = "VolatileTTL"
	CacheEvictionNone           CacheEviction = "None"
)

// CacheProxy is a proxy that shards keys over remote servers.
type CacheProxy struct {
	// servers hold the keys. Each key has one server.
	// +required
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Servers []CacheServer `json:"servers"`

	// distribution says how a key's hash chooses its server. Ketama (consistent hashing) moves few keys when servers come or go,
	// Modula nearly all. Random takes any server for each request: for servers that all hold the same.
	// +optional
	// +default="Ketama"
	// +kubebuilder:validation:Enum=Ketama;Modula;Random
	Distribution CacheDistribution `json:"distribution,omitempty"`

	// hash is the function that hashes keys. Every client and proxy of the same servers must use the same. MD5 is what ketama
	// clients use. FNV1a64, which twemproxy uses if it is not told, puts keys that differ in their last characters alone on one
	// server: of a few hundred that are numbered a server may get none.
	// +optional
	// +default="MD5"
	// +kubebuilder:validation:Enum=OneAtATime;MD5;CRC16;CRC32;CRC32a;FNV164;FNV1a64;FNV132;FNV1a32;Hsieh;Murmur;Jenkins
	Hash CacheHash `json:"hash,omitempty"`

	// timeout is how long the proxy waits for a server to connect or answer, from 1ms to 1m. The app sees an error then.
	// +optional
	// +default="400ms"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms') && duration(self) <= duration('1m')",message="must be from 1ms to 1m, for example 400ms"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// serverConnections is how many connections the proxy opens to each server at most.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1024
	ServerConnections int32 `json:"serverConnections,omitempty"`

	// preconnect opens the connections at the start rather than at the first request.
	// +optional
	Preconnect bool `json:"preconnect,omitempty"`

	// ejection says what happens to a server that fails.
	// +optional
	// +default={}
	Ejection CacheEjection `json:"ejection,omitempty,omitzero"`
}

// CacheServer is a remote server of a proxy.
type CacheServer struct {
	// address is HOST:PORT of the server: a DNS name, an IPv4 address or an IPv6 address in brackets. A name is looked up when
	// the proxy connects.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=259
	// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')",message="must be HOST:PORT with a port from 1 to 65535, for example cache-0.cache:11211 or [2001:db8::1]:11211"
	Address string `json:"address"`

	// weight is the server's share of the keys in relation to the others.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Weight int32 `json:"weight,omitempty"`

	// name stands for the server in consistent hashing, so that its keys stay its own when its address changes. Absent: the
	// address stands for it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9._:-]*$`
	Name string `json:"name,omitempty"`
}

// CacheDistribution says how keys are spread over servers.
type CacheDistribution string

// The distributions.
const (
	CacheDistributionKetama CacheDistribution = "Ketama"
	CacheDistributionModula CacheDistribution = "Modula"
	CacheDistributionRandom CacheDistribution = "Random"
)

// CacheHash is a function that hashes keys.
type CacheHash string

// The hashes.
const (
	CacheHashOneAtATime CacheHash = "OneAtATime"
	CacheHashMD5        CacheHash = "MD5"
	CacheHashCRC16      CacheHash = "CRC16"
	CacheHashCRC32      CacheHash = "CRC32"
	CacheHashCRC32a     CacheHash = "CRC32a"
	CacheHashFNV164     CacheHash = "FNV164"
	CacheHashFNV1a64    CacheHash = "FNV1a64"
	CacheHashFNV132     CacheHash = "FNV132"
	CacheHashFNV1a32    CacheHash = "FNV1a32"
	CacheHashHsieh      CacheHash = "Hsieh"
	CacheHashMurmur     CacheHash = "Murmur"
	CacheHashJenkins    CacheHash = "Jenkins"
)

// CacheEjection says what a proxy does with a server that fails.
type CacheEjection struct {
	// enabled lets the proxy send a failing server's keys to the others for a while. Otherwise requests for its keys fail for
	// as long as it does.
	// +optional
	// +default=true
	Enabled *bool `json:"enabled,omitempty"`

	// failureLimit is how many failures in a row eject a server.
	// +optional
	// +default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	FailureLimit int32 `json:"failureLimit,omitempty"`

	// retryInterval is how long an ejected server is left out before it is tried again, from 100ms to 1h.
	// +optional
	// +default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="must be from 100ms to 1h, for example 30s"
	RetryInterval *metav1.Duration `json:"retryInterval,omitempty"`
}
