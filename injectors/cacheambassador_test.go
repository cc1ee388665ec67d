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

// localCache returns a spec as the schema defaults it.
func localCache(protocol v1alpha1.CacheProtocol, edits ...func(*v1alpha1.CacheAmbassador)) *v1alpha1.CacheAmbassador {
	spec := &v1alpha1.CacheAmbassador{
		Protocol:  protocol,
		EnvPrefix: "CACHE",
		Local: &v1alpha1.LocalCache{
			Memory: new(resource.MustParse("64Mi")), Eviction: v1alpha1.CacheEvictionLRU, MaxConnections: 1024,
		},
	}
	for _, edit := range edits {
		edit(spec)
	}
	return spec
}

// cacheProxy returns a spec as the schema defaults it, for servers whose weight is 1 where it is not set.
func cacheProxy(servers ...v1alpha1.CacheServer) *v1alpha1.CacheAmbassador {
	for i := range servers {
		servers[i].Weight = max(servers[i].Weight, 1)
	}
	return &v1alpha1.CacheAmbassador{
		Protocol:  v1alpha1.CacheProtocolMemcached,
		EnvPrefix: "CACHE",
		Proxy: &v1alpha1.CacheProxy{
			Servers:           servers,
			Distribution:      v1alpha1.CacheDistributionKetama,
			Hash:              v1alpha1.CacheHashMD5,
			Timeout:           &metav1.Duration{Duration: 400 * time.Millisecond},
			ServerConnections: 1,
			Ejection: v1alpha1.CacheEjection{
				Enabled: new(true), FailureLimit: 2, RetryInterval: &metav1.Duration{Duration: 30 * time.Second},
			},
		},
	}
}

func cacheRequest(spec *v1alpha1.CacheAmbassador) Request {
	pattern := &v1alpha1.Pattern{CacheAmbassador: spec}
	return Request{
		Profile:       "page-cache",
		Pattern:       pattern,
		Configuration: cacheAmbassadorInjector().Configuration(pattern),
		Images:        DefaultImages(""),
	}
}

func cacheFragment(t *testing.T, spec *v1alpha1.CacheAmbassador) weave.Fragment {
	t.Helper()
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	if problems := cacheAmbassadorProblems(cacheRequest(spec), pod); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return cacheAmbassadorFragment(cacheRequest(spec))
}

// wantCacheFragment returns the Fragment that a memcached with defaults makes, with edits.
func wantCacheFragment(edit func(fragment *weave.Fragment, container *corev1.Container)) weave.Fragment {
	fragment := weave.Fragment{
		Profile: "page-cache",
		InitContainers: []corev1.Container{{
			Name:          "pillion-page-cache",
			Image:         DefaultImages("").Memcached,
			Command:       cacheCommand("KILL"),
			Args:          []string{"memcached", "-l", "127.0.0.1", "-p", "11211", "-U", "0", "-m", "64", "-c", "1024"},
			RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("25m"), "memory": resource.MustParse("128Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("128Mi")},
			},
			Lifecycle: awaited(30*time.Second, "grep", "-qE", "(0100007F|7F000001):2BCB 0+:0+ 0A", "/proc/net/tcp"),
		}},
		Additions: []weave.Addition{{Env: []corev1.EnvVar{
			{Name: "CACHE_HOST", Value: "127.0.0.1"},
			{Name: "CACHE_PORT", Value: "11211"},
			{Name: "CACHE_ADDRESS", Value: "127.0.0.1:11211"},
		}}},
		Ports: []weave.Port{{Container: "pillion-page-cache", Port: 11211}},
	}
	edit(&fragment, &fragment.InitContainers[0])
	return fragment
}

func TestCacheAmbassadorFragment(t *testing.T) {
	tests := map[string]struct {
		spec *v1alpha1.CacheAmbassador
		want weave.Fragment
	}{
		"memcached runs on loopback and the app gets its address": {
			spec: localCache(v1alpha1.CacheProtocolMemcached),
			want: wantCacheFragment(func(*weave.Fragment, *corev1.Container) {}),
		},
		"memcached takes port, size, connections and refuses writes when it may not evict": {
			spec: localCache(v1alpha1.CacheProtocolMemcached, func(spec *v1alpha1.CacheAmbassador) {
				spec.Port, spec.EnvPrefix, spec.Containers = 4660, "PAGES", []string{"app"}
				spec.Local = &v1alpha1.LocalCache{
					Memory: new(resource.MustParse("100M")), Eviction: v1alpha1.CacheEvictionNone, MaxConnections: 70,
				}
			}),
			want: wantCacheFragment(func(fragment *weave.Fragment, container *corev1.Container) {
				container.Args = []string{"memcached", "-l", "127.0.0.1", "-p", "4660", "-U", "0", "-m", "95", "-c", "70", "-M"}
				container.Lifecycle = awaited(30*time.Second, "grep", "-qE", "(0100007F|7F000001):1234 0+:0+ 0A", "/proc/net/tcp")
				container.Resources.Requests["memory"] = resource.MustParse("183554432")
				container.Resources.Limits["memory"] = resource.MustParse("183554432")
				fragment.Additions = []weave.Addition{{Containers: []string{"app"}, Env: []corev1.EnvVar{
					{Name: "PAGES_HOST", Value: "127.0.0.1"},
					{Name: "PAGES_PORT", Value: "4660"},
					{Name: "PAGES_ADDRESS", Value: "127.0.0.1:4660"},
				}}}
				fragment.Ports[0].Port = 4660
			}),
		},
		"redis keeps nothing on disk": {
			spec: localCache(v1alpha1.CacheProtocolRedis),
			want: wantCacheFragment(func(fragment *weave.Fragment, container *corev1.Container) {
				container.Image = DefaultImages("").Redis
				container.Command = []string{"redis-server"}
				container.Args = []string{
					"--bind", "127.0.0.1", "--port", "6379", "--maxmemory", "67108864", "--maxmemory-policy", "allkeys-lru",
					"--maxclients", "1024", "--save", "", "--appendonly", "no", "--dir", "/tmp",
				}
				container.Lifecycle = awaited(30*time.Second, "redis-cli", "-h", "127.0.0.1", "-p", "6379", "ping")
				fragment.Additions[0].Env[1].Value = "6379"
				fragment.Additions[0].Env[2].Value = "127.0.0.1:6379"
				fragment.Ports[0].Port = 6379
			}),
		},
		"the profile's image, resources and variables are the container's": {
			spec: localCache(v1alpha1.CacheProtocolMemcached, func(spec *v1alpha1.CacheAmbassador) {
				spec.Image = "registry.example.com/memcached:1"
				spec.ImagePullPolicy = corev1.PullAlways
				spec.Resources.Limits.Memory = new(resource.MustParse("96Mi"))
				spec.Env = []v1alpha1.EnvVar{{Name: "MEMCACHED_OPTION", Value: "$(HOME)"}}
			}),
			want: wantCacheFragment(func(_ *weave.Fragment, container *corev1.Container) {
				container.Image = "registry.example.com/memcached:1"
				container.ImagePullPolicy = corev1.PullAlways
				container.Resources.Requests["memory"] = resource.MustParse("96Mi")
				container.Resources.Limits["memory"] = resource.MustParse("96Mi")
				container.Env = []corev1.EnvVar{{Name: "MEMCACHED_OPTION", Value: "$$(HOME)"}}
			}),
		},
		"a proxy is at the same address, reads its configuration from an annotation and tells its statistics on loopback": {
			spec: cacheProxy(v1alpha1.CacheServer{Address: "cache-0.cache:11211"}),
			want: wantCacheFragment(func(fragment *weave.Fragment, container *corev1.Container) {
				container.Image = DefaultImages("").Twemproxy
				container.Command = cacheCommand("TERM")
				container.Args = []string{
					"nutcracker", "-c", "/etc/pillion/twemproxy/nutcracker.yml", "-o", "/dev/stderr", "-a", "127.0.0.1", "-s", "21211",
				}
				container.Resources.Requests["memory"] = resource.MustParse("32Mi")
				container.VolumeMounts = []corev1.VolumeMount{
					{Name: "pillion-page-cache-config", MountPath: "/etc/pillion/twemproxy", ReadOnly: true},
				}
				fragment.Volumes = []corev1.Volume{{
					Name: "pillion-page-cache-config",
					VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
						Items: []corev1.DownwardAPIVolumeFile{{
							Path:     "nutcracker.yml",
							FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['pillion.dev/config.page-cache']"},
						}},
					}},
				}}
				fragment.Annotations = map[string]string{"pillion.dev/config.page-cache": `cache:
  auto_eject_hosts: true
  distribution: ketama
  hash: md5
  listen: 127.0.0.1:11211
  preconnect: false
  redis: false
  server_connections: 1
  server_failure_limit: 2
  server_retry_timeout: 30000
  servers:
  - cache-0.cache:11211:1
  timeout: 400
`}
				fragment.Ports = append(fragment.Ports, weave.Port{Container: "pillion-page-cache", Port: 21211})
			}),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, cacheFragment(t, test.spec)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTwemproxyConfigSaysEveryField(t *testing.T) {
	spec := cacheProxy(
		v1alpha1.CacheServer{Address: "10.0.0.1:6379", Weight: 3, Name: "one:1"},
		v1alpha1.CacheServer{Address: "[2001:db8::1]:6379"},
		v1alpha1.CacheServer{Address: "1:2", Name: "true"},
	)
	spec.Protocol, spec.Port = v1alpha1.CacheProtocolRedis, 60000
	spec.Proxy.Distribution, spec.Proxy.Hash = v1alpha1.CacheDistributionRandom, v1alpha1.CacheHashOneAtATime
	spec.Proxy.Timeout.Duration = 1500 * time.Millisecond
	spec.Proxy.ServerConnections, spec.Proxy.Preconnect = 4, true
	spec.Proxy.Ejection.Enabled, spec.Proxy.Ejection.FailureLimit = new(false), 9
	spec.Proxy.Ejection.RetryInterval.Duration = time.Minute

	want := `cache:
  auto_eject_hosts: false
  distribution: random
  hash: one_at_a_time
  listen: 127.0.0.1:60000
  preconnect: true
  redis: true
  server_connections: 4
  server_failure_limit: 9
  server_retry_timeout: 60000
  servers:
  - 10.0.0.1:6379:3 one:1
  - 2001:db8::1:6379:1
  - 1:2:1 true
  timeout: 1500
`
	if diff := cmp.Diff(want, twemproxyConfig(spec)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatisticsPortIsAnotherPortThatExists(t *testing.T) {
	for port, want := range map[int32]int32{1024: 11024, 11211: 21211, 55535: 65535, 55536: 45536, 65535: 55535} {
		if got := loopbackPort(port); got != want {
			t.Errorf("loopbackPort(%d) = %d, want %d", port, got, want)
		}
	}
}

func TestRedisEvictions(t *testing.T) {
	want := map[v1alpha1.CacheEviction]string{
		v1alpha1.CacheEvictionLRU:            "allkeys-lru",
		v1alpha1.CacheEvictionLFU:            "allkeys-lfu",
		v1alpha1.CacheEvictionRandom:         "allkeys-random",
		v1alpha1.CacheEvictionVolatileLRU:    "volatile-lru",
		v1alpha1.CacheEvictionVolatileLFU:    "volatile-lfu",
		v1alpha1.CacheEvictionVolatileRandom: "volatile-random",
		v1alpha1.CacheEvictionVolatileTTL:    "volatile-ttl",
		v1alpha1.CacheEvictionNone:           "noeviction",
	}
	for eviction, policy := range want {
		spec := localCache(v1alpha1.CacheProtocolRedis)
		spec.Local.Eviction = eviction
		args := cacheFragment(t, spec).InitContainers[0].Args
		if at := slices.Index(args, "--maxmemory-policy"); args[at+1] != policy {
			t.Errorf("eviction %s is %q in %q, want %q", eviction, args[at+1], args, policy)
		}
	}
}

func TestTwemproxyHashesAndDistributions(t *testing.T) {
	hashes := map[v1alpha1.CacheHash]string{
		v1alpha1.CacheHashOneAtATime: "one_at_a_time", v1alpha1.CacheHashMD5: "md5", v1alpha1.CacheHashCRC16: "crc16",
		v1alpha1.CacheHashCRC32: "crc32", v1alpha1.CacheHashCRC32a: "crc32a", v1alpha1.CacheHashFNV164: "fnv1_64",
		v1alpha1.CacheHashFNV1a64: "fnv1a_64", v1alpha1.CacheHashFNV132: "fnv1_32", v1alpha1.CacheHashFNV1a32: "fnv1a_32",
		v1alpha1.CacheHashHsieh: "hsieh", v1alpha1.CacheHashMurmur: "murmur", v1alpha1.CacheHashJenkins: "jenkins",
	}
	for hash, want := range hashes {
		if got := twemproxyHash(hash); got != want {
			t.Errorf("hash %s is %q, want %q", hash, got, want)
		}
	}
	distributions := map[v1alpha1.CacheDistribution]string{
		v1alpha1.CacheDistributionKetama: "ketama", v1alpha1.CacheDistributionModula: "modula",
		v1alpha1.CacheDistributionRandom: "random",
	}
	for distribution, want := range distributions {
		if got := twemproxyDistribution(distribution); got != want {
			t.Errorf("distribution %s is %q, want %q", distribution, got, want)
		}
	}
}

func TestCacheAmbassadorRefusesHostNetwork(t *testing.T) {
	for _, spec := range []*v1alpha1.CacheAmbassador{
		localCache(v1alpha1.CacheProtocolRedis), cacheProxy(v1alpha1.CacheServer{Address: "a:1"}),
	} {
		problems := cacheAmbassadorInjector().Problems(cacheRequest(spec), &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}})
		if len(problems) != 1 || problems[0].Reason != ReasonHostNetwork || !strings.Contains(problems[0].Message, "page-cache") {
			t.Errorf("problems = %v, want one of reason %s that names the profile", problems, ReasonHostNetwork)
		}
	}
}

func TestValidateCacheAmbassador(t *testing.T) {
	path := field.NewPath("spec", "cacheAmbassador")
	servers := path.Child("proxy", "servers")
	tests := map[string]struct {
		spec *v1alpha1.CacheAmbassador
		want field.ErrorList
	}{
		"defaults are well": {spec: localCache(v1alpha1.CacheProtocolRedis)},
		"a memory limit of the cache's own size is the profile's to choose": {
			spec: localCache(v1alpha1.CacheProtocolMemcached, func(spec *v1alpha1.CacheAmbassador) {
				spec.Resources.Limits.Memory = new(resource.MustParse("64Mi"))
			}),
		},
		"a memory limit below what the cache may fill kills it": {
			spec: localCache(v1alpha1.CacheProtocolMemcached, func(spec *v1alpha1.CacheAmbassador) {
				spec.Resources.Limits.Memory = new(resource.MustParse("63Mi"))
			}),
			want: field.ErrorList{field.Invalid(path.Child("resources", "limits", "memory"), "63Mi",
				"is less than local.memory, 64Mi: the container would be killed as the cache fills; write 128Mi, or leave it out")},
		},
		"servers on different ports, hosts and under different names are well": {
			spec: cacheProxy(
				v1alpha1.CacheServer{Address: "a:1"}, v1alpha1.CacheServer{Address: "a:2"}, v1alpha1.CacheServer{Address: "b:1"},
				v1alpha1.CacheServer{Address: "c:1", Name: "one"}, v1alpha1.CacheServer{Address: "[::2]:1"},
				v1alpha1.CacheServer{Address: "d:11211"}, v1alpha1.CacheServer{Address: "e:1", Name: "d:11211"},
				v1alpha1.CacheServer{Address: "127.0.0.1:11212"},
			),
		},
		"two servers of one name, a name that is another's address, and one that is a host on memcached's port": {
			spec: cacheProxy(
				v1alpha1.CacheServer{Address: "a:1", Name: "one"}, v1alpha1.CacheServer{Address: "b:1", Name: "one"},
				v1alpha1.CacheServer{Address: "c:1"}, v1alpha1.CacheServer{Address: "d:1", Name: "c:1"},
				v1alpha1.CacheServer{Address: "e:11211"}, v1alpha1.CacheServer{Address: "f:1", Name: "e"},
			),
			want: field.ErrorList{
				field.Invalid(servers.Index(1), "one", "stands for spec.cacheAmbassador.proxy.servers[0] already "+
					"(the address does where there is no name, without port 11211); give each server a name of its own"),
				field.Invalid(servers.Index(3), "c:1", "stands for spec.cacheAmbassador.proxy.servers[2] already "+
					"(the address does where there is no name, without port 11211); give each server a name of its own"),
				field.Invalid(servers.Index(5), "e", "stands for spec.cacheAmbassador.proxy.servers[4] already "+
					"(the address does where there is no name, without port 11211); give each server a name of its own"),
			},
		},
		"a proxy to itself": {
			spec: cacheProxy(
				v1alpha1.CacheServer{Address: "127.0.0.1:11211"}, v1alpha1.CacheServer{Address: "localhost:11211"},
				v1alpha1.CacheServer{Address: "0.0.0.0:11211"}, v1alpha1.CacheServer{Address: "localhost:11212"},
			),
			want: field.ErrorList{
				field.Invalid(servers.Index(0).Child("address"), "127.0.0.1:11211",
					"is where the proxy itself listens; write the address of a remote server, or another port"),
				field.Invalid(servers.Index(1).Child("address"), "localhost:11211",
					"is where the proxy itself listens; write the address of a remote server, or another port"),
				field.Invalid(servers.Index(2).Child("address"), "0.0.0.0:11211",
					"is where the proxy itself listens; write the address of a remote server, or another port"),
			},
		},
		"brackets around what is no IPv6 address": {
			spec: cacheProxy(v1alpha1.CacheServer{Address: "[::1::2]:11211"}),
			want: field.ErrorList{field.Invalid(servers.Index(0).Child("address"), "[::1::2]:11211",
				"is no IPv6 address in its brackets; write for example [2001:db8::1]:11211")},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := validateCacheAmbassador(&v1alpha1.Pattern{CacheAmbassador: test.spec}, path)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
