package injectors

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pillion-dev/pillion/api/v1alpha1"
	"github.com/pillion-dev/pillion/weave"
)

// serverPorts are the usual ports of a server and of its exporter's metrics.
type serverPorts struct {
	port, metricsPort int32
}

func serverDefaults(server v1alpha1.ServerType) serverPorts {
	switch server {
	case v1alpha1.ServerRedis:
		return serverPorts{port: 6379, metricsPort: 9121}
	case v1alpha1.ServerMemcached:
		return serverPorts{port: 11211, metricsPort: 9150}
	case v1alpha1.ServerNginx:
		return serverPorts{port: 8080, metricsPort: 9113}
	case v1alpha1.ServerPostgres:
		return serverPorts{port: 5432, metricsPort: 9187}
	default:
		return serverPorts{port: 3306, metricsPort: 9104}
	}
}

// serverAddress is the server's, by the name localhost: it may listen on 127.0.0.1 or ::1 alone.
func serverAddress(server *v1alpha1.ServerSource) string {
	return listenAddress("localhost", serverPort(server))
}

func serverPort(server *v1alpha1.ServerSource) int32 {
	if server.Port != 0 {
		return server.Port
	}
	return serverDefaults(server.Type).port
}

// addServerExporter adds the exporter of the server. All but nginx's would ask any target that a request to them names, and log
// in there with the password that they hold, so they are fronted.
func addServerExporter(request Request, fragment *weave.Fragment) {
	spec := request.Pattern.PrometheusAdapter
	if spec.Server.Type == v1alpha1.ServerNginx {
		addExporter(request, fragment, nginxExporter(request))
		return
	}
	var container corev1.Container
	switch spec.Server.Type {
	case v1alpha1.ServerRedis:
		container = redisExporter(request)
	case v1alpha1.ServerMemcached:
		container = memcachedExporter(request)
	case v1alpha1.ServerPostgres:
		container = postgresExporter(request)
	default:
		container = mysqlExporter(request)
	}
	container.Args = append(container.Args, "--web.listen-address="+listenAddress(loopback, loopbackPort(metricsPort(spec))))
	addFrontedExporter(request, fragment, container, "/metrics")
}

func serverExporter(request Request, image string) corev1.Container {
	return newExporter(request, image, resources{
		cpuRequest: "10m", cpuLimit: "200m", memoryRequest: "32Mi", memoryLimit: "128Mi",
	})
}

func nginxExporter(request Request) corev1.Container {
	spec := request.Pattern.PrometheusAdapter
	path := "/stub_status"
	if spec.Server.Nginx != nil {
		path = spec.Server.Nginx.StatusPath
	}
	container := serverExporter(request, request.Images.NginxExporter)
	container.Args = []string{
		"--nginx.scrape-uri=http://" + serverAddress(spec.Server) + path,
		"--web.listen-address=" + listenAddress("", metricsPort(spec)),
		"--web.telemetry-path=" + metricsPath(spec),
	}
	return container
}

func redisExporter(request Request) corev1.Container {
	server := request.Pattern.PrometheusAdapter.Server
	container := serverExporter(request, request.Images.RedisExporter)
	container.Args = []string{"--redis.addr=redis://" + serverAddress(server)}
	container.Env = credentialsEnv(server.Credentials, "REDIS_USER", "REDIS_PASSWORD")
	return container
}

func memcachedExporter(request Request) corev1.Container {
	container := serverExporter(request, request.Images.MemcachedExporter)
	container.Args = []string{"--memcached.address=" + serverAddress(request.Pattern.PrometheusAdapter.Server)}
	return container
}

func postgresExporter(request Request) corev1.Container {
	server := request.Pattern.PrometheusAdapter.Server
	database, sslMode := "postgres", "disable"
	if server.Postgres != nil {
		database, sslMode = server.Postgres.Database, server.Postgres.SSLMode
	}
	container := serverExporter(request, request.Images.PostgresExporter)
	container.Env = append(credentialsEnv(server.Credentials, "DATA_SOURCE_USER", "DATA_SOURCE_PASS"), corev1.EnvVar{
		Name: "DATA_SOURCE_URI", Value: serverAddress(server) + "/" + database + "?sslmode=" + sslMode,
	})
	return container
}

// mysqlExporter takes the user by a flag alone, which the kubelet fills from the environment.
func mysqlExporter(request Request) corev1.Container {
	server := request.Pattern.PrometheusAdapter.Server
	container := serverExporter(request, request.Images.MySQLExporter)
	container.Env = credentialsEnv(server.Credentials, "MYSQLD_EXPORTER_USERNAME", "MYSQLD_EXPORTER_PASSWORD")
	container.Args = []string{
		"--mysqld.address=" + serverAddress(server),
		"--mysqld.username=$(MYSQLD_EXPORTER_USERNAME)",
	}
	return container
}

// credentialsEnv reads the user, if any, and the password from the Secret.
func credentialsEnv(credentials *v1alpha1.ServerCredentials, user, password string) (env []corev1.EnvVar) {
	if credentials == nil {
		return nil
	}
	fromSecret := func(name, key string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: credentials.SecretName}, Key: key,
		}}}
	}
	if credentials.UsernameKey != "" {
		env = append(env, fromSecret(user, credentials.UsernameKey))
	}
	return append(env, fromSecret(password, credentials.PasswordKey))
}

// validateServerSource keeps the exporter's ports off the server's own.
func validateServerSource(spec *v1alpha1.PrometheusAdapter, path *field.Path) field.ErrorList {
	port := serverPort(spec.Server)
	if port == metricsPort(spec) {
		return field.ErrorList{field.Invalid(path.Child("metricsPort"), port, "is the port of the server itself: choose another")}
	}
	if spec.Server.Type != v1alpha1.ServerNginx && port == loopbackPort(metricsPort(spec)) {
		return field.ErrorList{field.Invalid(path.Child("metricsPort"), metricsPort(spec),
			fmt.Sprintf("would make the exporter listen on %d, the port of the server itself: choose another", port))}
	}
	return nil
}
