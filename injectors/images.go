package injectors

import "strings"

// Images are the default images of the patterns' programs. They are public, kept by the programs' own projects where those
// publish any, and pinned.
type Images struct {
	GitSync           string
	Gomplate          string
	JSONExporter      string
	StatsDExporter    string
	Mtail             string
	RedisExporter     string
	MemcachedExporter string
	NginxExporter     string
	PostgresExporter  string
	MySQLExporter     string
	Memcached         string
	Redis             string
	Twemproxy         string
	// Pillion is Pillion's own image, which fronts exporters that would fetch any URL for whoever reaches them.
	Pillion string
}

// DefaultImages returns the default images. A registry that is not empty ("registry.example.com/mirror") replaces the host of
// every one, for clusters that pull from a mirror.
func DefaultImages(registry string) Images {
	at := func(host, repository string) string {
		if registry != "" {
			host = strings.TrimSuffix(registry, "/")
		}
		return host + "/" + repository
	}
	return Images{
		GitSync:           at("registry.k8s.io", "git-sync/git-sync:v4.7.1"),
		Gomplate:          at("docker.io", "hairyhenderson/gomplate:v4.3.3"),
		JSONExporter:      at("quay.io", "prometheuscommunity/json-exporter:v0.7.0"),
		StatsDExporter:    at("quay.io", "prometheus/statsd-exporter:v0.31.0"),
		Mtail:             at("ghcr.io", "pillion-dev/mtail:3.0.9"),
		RedisExporter:     at("docker.io", "oliver006/redis_exporter:v1.80.1"),
		MemcachedExporter: at("quay.io", "prometheus/memcached-exporter:v0.15.3"),
		NginxExporter:     at("docker.io", "nginx/nginx-prometheus-exporter:1.5.1"),
		PostgresExporter:  at("quay.io", "prometheuscommunity/postgres-exporter:v0.18.1"),
		MySQLExporter:     at("quay.io", "prometheus/mysqld-exporter:v0.18.0"),
		Memcached:         at("docker.io", "library/memcached:1.6.39-alpine3.22"),
		Redis:             at("docker.io", "library/redis:7.4.6-alpine3.21"),
		Twemproxy:         at("ghcr.io", "pillion-dev/twemproxy:0.5.0"),
		Pillion:           at("ghcr.io", "pillion-dev/pillion:v0.1.0"),
	}
}
