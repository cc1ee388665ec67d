package injectors

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

const (
	cacheHost = "127.0.0.1"

	memcachedPort = 11211
	redisPort     = 6379

	// cachePatience is how long a cache may take until it listens.
	cachePatience = 30 * time.Second

	proxyConfigPath = "/etc/pillion/twemproxy"
	proxyConfigFile = "nutcracker.yml"

	// cacheMain runs its arguments from the second on, and passes SIGTERM on as the signal that the first names. As PID 1 nutcracker
	// ignores SIGTERM, for it has no handler, and the Pod would take its whole grace period to end; memcached looks at its own
	// handler's word once a second. A preStop hook would be no cure: the kubelet runs a sidecar's hook when the Pod's end begins,
	// while the app still serves its last requests, and sends SIGTERM only after the app has ended.
	cacheMain = `s=$1; shift; trap 'kill -s "$s" "$pid" || exit' TERM; "$@" & pid=$!; wait "$pid"`
)

func cacheAmbassadorInjector() Injector {
	return Injector{
		Kind:     v1alpha1.KindCacheAmbassador,
		Field:    "cacheAmbassador",
		Required: []Required{{Field: "protocol", Path: "protocol", Example: string(v1alpha1.CacheProtocolMemcached)}},
		Validate: validateCacheAmbassador,
		Fragment: cacheAmbassadorFragment,
		Problems: cacheAmbassadorProblems,
		Pick:     pickCachePort,
		Configuration: func(pattern *v1alpha1.Pattern) string {
			if pattern.CacheAmbassador.Proxy == nil {
				return ""
			}
			return twemproxyConfig(pattern.CacheAmbassador)
		},
	}
}

// pickCachePort keeps the port of a proxy's statistics free as well, and the proxy off the servers that it forwards to.
func pickCachePort(pattern *v1alpha1.Pattern, taken Taken) *v1alpha1.Pattern {
	picked := pattern.DeepCopy()
	spec := picked.CacheAmbassador
	spec.Port = cachePort(spec)
	isFree := func(port int32) bool {
		if taken(port, corev1.ProtocolTCP) {
			return false
		}
		if spec.Proxy == nil {
			return true
		}
		isServer := slices.ContainsFunc(spec.Proxy.Servers, func(server v1alpha1.CacheServer) bool {
			return isItself(server.Address, port) || isItself(server.Address, loopbackPort(port))
		})
		return !isServer && !taken(loopbackPort(port), corev1.ProtocolTCP)
	}
	if !pickPort(&spec.Port, isFree) {
		return nil
	}
	return picked
}

func cacheAmbassadorProblems(request Request, pod *corev1.Pod) []Problem {
	if !pod.Spec.HostNetwork {
		return nil
	}
	return []Problem{{
		Reason: ReasonHostNetwork,
		Message: fmt.Sprintf("the cache of profile %q listens on 127.0.0.1 without a password, and this Pod's 127.0.0.1 is "+
			"the node's: whatever runs on the node could use it; remove hostNetwork from the Pod, or do not ask for the profile",
			request.Profile),
	}}
}

func cacheAmbassadorFragment(request Request) weave.Fragment {
	spec := request.Pattern.CacheAmbassador
	fragment := weave.Fragment{
		Profile:   request.Profile,
		Additions: []weave.Addition{{Containers: spec.Containers, Env: cacheEnv(spec)}},
	}
	var container corev1.Container
	switch {
	case spec.Proxy != nil:
		container = twemproxyContainer(request, &fragment)
	case spec.Protocol == v1alpha1.CacheProtocolRedis:
		container = redisContainer(request)
	default:
		container = memcachedContainer(request)
	}
	container.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	addEnv(&container, &spec.ContainerSettings)

	fragment.InitContainers = []corev1.Container{container}
	fragment.Ports = append(fragment.Ports, weave.Port{Container: container.Name, Port: cachePort(spec)})
	if spec.Proxy != nil {
		fragment.Ports = append(fragment.Ports, weave.Port{Container: container.Name, Port: loopbackPort(cachePort(spec))}) // its statistics cannot be switched off
	}
	return fragment
}

// cacheEnv tells the app where its cache is, in the same words whatever is there.
func cacheEnv(spec *v1alpha1.CacheAmbassador) []corev1.EnvVar {
	port := strconv.Itoa(int(cachePort(spec)))
	return []corev1.EnvVar{
		{Name: spec.EnvPrefix + "_HOST", Value: cacheHost},
		{Name: spec.EnvPrefix + "_PORT", Value: port},
		{Name: spec.EnvPrefix + "_ADDRESS", Value: net.JoinHostPort(cacheHost, port)},
	}
}

func cachePort(spec *v1alpha1.CacheAmbassador) int32 {
	switch {
	case spec.Port != 0:
		return spec.Port
	case spec.Protocol == v1alpha1.CacheProtocolRedis:
		return redisPort
	default:
		return memcachedPort
	}
}

func memcachedContainer(request Request) corev1.Container {
	spec := request.Pattern.CacheAmbassador
	container := newContainer(request, "", request.Images.Memcached, &spec.ContainerSettings, cacheResources(spec.Local))
	port := cachePort(spec)
	container.Command = cacheCommand("KILL") // there is nothing that it should save
	container.Args = []string{
		"memcached",
		"-l", cacheHost,
		"-p", strconv.Itoa(int(port)),
		"-U", "0",
		"-m", strconv.FormatInt(spec.Local.Memory.Value()>>20, 10),
		"-c", strconv.Itoa(int(spec.Local.MaxConnections)),
	}
	if spec.Local.Eviction == v1alpha1.CacheEvictionNone {
		container.Args = append(container.Args, "-M")
	}
	container.Lifecycle = listensOnTCP(port)
	return container
}

func redisContainer(request Request) corev1.Container {
	spec := request.Pattern.CacheAmbassador
	container := newContainer(request, "", request.Images.Redis, &spec.ContainerSettings, cacheResources(spec.Local))
	port := strconv.Itoa(int(cachePort(spec)))
	container.Command = []string{"redis-server"}
	container.Args = []string{
		"--bind", cacheHost,
		"--port", port,
		"--maxmemory", strconv.FormatInt(spec.Local.Memory.Value(), 10),
		"--maxmemory-policy", redisPolicy(spec.Local.Eviction),
		"--maxclients", strconv.Itoa(int(spec.Local.MaxConnections)),
		"--save", "",
		"--appendonly", "no",
		"--dir", "/tmp",
	}
	// redis-cli exits with 0 for an answer of any kind, LOADING too; there is nothing to load here.
	container.Lifecycle = awaited(cachePatience, "redis-cli", "-h", cacheHost, "-p", port, "ping")
	return container
}

func redisPolicy(eviction v1alpha1.CacheEviction) string {
	switch eviction {
	case v1alpha1.CacheEvictionLFU:
		return "allkeys-lfu"
	case v1alpha1.CacheEvictionRandom:
		return "allkeys-random"
	case v1alpha1.CacheEvictionVolatileLRU:
		return "volatile-lru"
	case v1alpha1.CacheEvictionVolatileLFU:
		return "volatile-lfu"
	case v1alpha1.CacheEvictionVolatileRandom:
		return "volatile-random"
	case v1alpha1.CacheEvictionVolatileTTL:
		return "volatile-ttl"
	case v1alpha1.CacheEvictionNone:
		return "noeviction"
	default:
		return "allkeys-lru"
	}
}

// cacheCommand is the command of a container whose arguments are the cache's command line.
func cacheCommand(signal string) []string {
	return []string{"sh", "-c", literal(cacheMain), "sh", signal}
}

// cacheResources reserves the memory that the cache will fill, and leaves room for connections and bookkeeping: of 64 MiB of
// items memcached was seen to make 73 MiB, redis 84.
func cacheResources(local *v1alpha1.LocalCache) resources {
	bytes := local.Memory.Value()
	limit := resource.NewQuantity(bytes+bytes/2+32<<20, resource.BinarySI).String()
	return resources{cpuRequest: "25m", cpuLimit: "500m", memoryRequest: limit, memoryLimit: limit}
}

func twemproxyContainer(request Request, fragment *weave.Fragment) corev1.Container {
	spec := request.Pattern.CacheAmbassador
	container := newContainer(request, "", request.Images.Twemproxy, &spec.ContainerSettings,
		resources{cpuRequest: "25m", cpuLimit: "500m", memoryRequest: "32Mi", memoryLimit: "128Mi"})
	port := cachePort(spec)
	container.Command = cacheCommand("TERM")
	container.Args = []string{
		"nutcracker",
		"-c", proxyConfigPath + "/" + proxyConfigFile,
		"-o", "/dev/stderr",
		"-a", cacheHost,
		"-s", strconv.Itoa(int(loopbackPort(port))),
	}
	container.VolumeMounts = []corev1.VolumeMount{
		addConfig(fragment, proxyConfigPath, configFile{path: proxyConfigFile, content: request.Configuration}),
	}
	container.Lifecycle = listensOnTCP(port)
	return container
}

// twemproxyPool is a pool of twemproxy's configuration, which is a map of such: see the README of github.com/twitter/twemproxy.
type twemproxyPool struct {
	Listen             string   `json:"listen"`
	Redis              bool     `json:"redis"`
	Hash               string   `json:"hash"`
	Distribution       string   `json:"distribution"`
	Timeout            int64    `json:"timeout"` // milliseconds
	Preconnect         bool     `json:"preconnect"`
	ServerConnections  int32    `json:"server_connections"`
	AutoEjectHosts     bool     `json:"auto_eject_hosts"`
	ServerFailureLimit int32    `json:"server_failure_limit"`
	ServerRetryTimeout int64    `json:"server_retry_timeout"` // milliseconds
	Servers            []string `json:"servers"`
}

// twemproxyConfig returns the configuration file, as YAML in block style: twemproxy refuses flow style, and so JSON.
func twemproxyConfig(spec *v1alpha1.CacheAmbassador) string {
	proxy := spec.Proxy
	pool := twemproxyPool{
		Listen:             net.JoinHostPort(cacheHost, strconv.Itoa(int(cachePort(spec)))),
		Redis:              spec.Protocol == v1alpha1.CacheProtocolRedis,
		Hash:               twemproxyHash(proxy.Hash),
		Distribution:       twemproxyDistribution(proxy.Distribution),
		Timeout:            proxy.Timeout.Milliseconds(),
		Preconnect:         proxy.Preconnect,
		ServerConnections:  proxy.ServerConnections,
		AutoEjectHosts:     proxy.Ejection.Enabled == nil || *proxy.Ejection.Enabled,
		ServerFailureLimit: proxy.Ejection.FailureLimit,
		ServerRetryTimeout: proxy.Ejection.RetryInterval.Milliseconds(),
	}
	for i := range proxy.Servers {
		pool.Servers = append(pool.Servers, twemproxyServer(&proxy.Servers[i]))
	}
	content, err := yaml.Marshal(map[string]twemproxyPool{"cache": pool})
	if err != nil {
		panic(fmt.Sprintf("marshal a struct of strings and numbers: %v", err)) // cannot happen
	}
	return string(content)
}

// twemproxyServer returns HOST:PORT:WEIGHT and the name, which follows a space. An IPv6 address has no brackets there.
func twemproxyServer(server *v1alpha1.CacheServer) string {
	host, port, _ := net.SplitHostPort(server.Address)
	line := fmt.Sprintf("%s:%s:%d", host, port, server.Weight)
	if server.Name != "" {
		line += " " + server.Name
	}
	return line
}

// twemproxyNode returns what stands for a server in the ring. As in libmemcached, memcached's port goes without saying.
func twemproxyNode(server *v1alpha1.CacheServer) string {
	host, port, _ := net.SplitHostPort(server.Address)
	switch {
	case server.Name != "":
		return server.Name
	case port == strconv.Itoa(memcachedPort):
		return host
	default:
		return host + ":" + port
	}
}

func twemproxyDistribution(distribution v1alpha1.CacheDistribution) string {
	switch distribution {
	case v1alpha1.CacheDistributionModula:
		return "modula"
	case v1alpha1.CacheDistributionRandom:
		return "random"
	default:
		return "ketama"
	}
}

func twemproxyHash(hash v1alpha1.CacheHash) string {
	switch hash {
	case v1alpha1.CacheHashOneAtATime:
		return "one_at_a_time"
	case v1alpha1.CacheHashMD5:
		return "md5"
	case v1alpha1.CacheHashCRC16:
		return "crc16"
	case v1alpha1.CacheHashCRC32:
		return "crc32"
	case v1alpha1.CacheHashCRC32a:
		return "crc32a"
	case v1alpha1.CacheHashFNV164:
		return "fnv1_64"
	case v1alpha1.CacheHashFNV132:
		return "fnv1_32"
	case v1alpha1.CacheHashFNV1a32:
		return "fnv1a_32"
	case v1alpha1.CacheHashHsieh:
		return "hsieh"
	case v1alpha1.CacheHashMurmur:
		return "murmur"
	case v1alpha1.CacheHashJenkins:
		return "jenkins"
	default:
		return "fnv1a_64"
	}
}

// listensOnTCP waits until the container listens on the port of 127.0.0.1. It opens no connection, which a proxy would count.
// /proc/net/tcp writes an address as the machine's byte order has it, a port in hexadecimal digits and the state LISTEN as 0A.
func listensOnTCP(port int32) *corev1.Lifecycle {
	return awaited(cachePatience, "grep", "-qE", fmt.Sprintf("(0100007F|7F000001):%04X 0+:0+ 0A", port), "/proc/net/tcp")
}

func validateCacheAmbassador(pattern *v1alpha1.Pattern, path *field.Path) field.ErrorList {
	spec := pattern.CacheAmbassador
	if spec.Proxy != nil {
		return validateCacheServers(spec, path.Child("proxy", "servers"))
	}
	return validateCacheMemory(spec, path)
}

func validateCacheMemory(spec *v1alpha1.CacheAmbassador, path *field.Path) field.ErrorList {
	limit, memory := spec.Resources.Limits.Memory, spec.Local.Memory
	if limit == nil || limit.Cmp(*memory) >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("resources", "limits", "memory"), limit.String(), fmt.Sprintf(
		"is less than local.memory, %s: the container would be killed as the cache fills; write %s, or leave it out",
		memory.String(), cacheResources(spec.Local).memoryLimit))}
}

// validateCacheServers finds what twemproxy would not start with, two servers of one name, and what would forward to itself.
func validateCacheServers(spec *v1alpha1.CacheAmbassador, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	byNode := map[string]int{}
	for i := range spec.Proxy.Servers {
		server := &spec.Proxy.Servers[i]
		if host, _, _ := net.SplitHostPort(server.Address); strings.HasPrefix(server.Address, "[") && net.ParseIP(host) == nil {
			problems = append(problems, field.Invalid(path.Index(i).Child("address"), server.Address,
				"is no IPv6 address in its brackets; write for example [2001:db8::1]:11211"))
		}
		if isItself(server.Address, cachePort(spec)) {
			problems = append(problems, field.Invalid(path.Index(i).Child("address"), server.Address,
				"is where the proxy itself listens; write the address of a remote server, or another port"))
		}
		node := twemproxyNode(server)
		first, taken := byNode[node]
		if !taken {
			byNode[node] = i
			continue
		}
		problems = append(problems, field.Invalid(path.Index(i), node, fmt.Sprintf(
			"stands for %s already (the address does where there is no name, without port %d); give each server a name of its own",
			path.Index(first), memcachedPort)))
	}
	return problems
}

// isItself tells whether an address leads back to the port that the proxy listens on.
func isItself(address string, port int32) bool {
	host, p, err := net.SplitHostPort(address)
	if err != nil || p != strconv.Itoa(int(port)) {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip.IsLoopback() || ip.IsUnspecified()
}
