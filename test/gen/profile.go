package gen

import (
	"maps"
	"slices"

	"pgregory.net/rapid"
)

const groupVersion = "pillion.dev/v1alpha1"

func profileNames() []string {
	return []string{"site", "cache", "metrics", "conf", "metrics-proxy", "x"}
}

// sortedKeys makes draws from a map repeatable.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// profileSet draws profiles of all patterns, each valid by itself, as decoded JSON.
func profileSet(t *rapid.T, namespace string) []map[string]any {
	var profiles []map[string]any
	for _, name := range some(t, profileNames(), 5, "profiles") {
		profiles = append(profiles, profile(t, name, ""))
	}
	for _, name := range some(t, profileNames(), 2, "namespaced profiles") {
		profiles = append(profiles, profile(t, name, rapid.SampledFrom([]string{namespace, namespace, "elsewhere"}).Draw(t, "home")))
	}
	return profiles
}

func profile(t *rapid.T, name, namespace string) map[string]any {
	field, pattern, overridable := pattern(t)
	spec := object{field: pattern}
	if paths := some(t, overridable, len(overridable), "overridable"); len(paths) > 0 {
		spec["overridable"] = toList(paths)
	}
	metadata := object{"name": name}
	kind := "ClusterPatternProfile"
	if namespace != "" {
		kind = "PatternProfile"
		metadata["namespace"] = namespace
	} else if oneIn(t, 5, "allowedNamespaces") {
		spec["allowedNamespaces"] = object{"matchLabels": object{"team": "web"}}
	}
	matches(t, spec, namespace == "")
	composes(t, name, spec)
	return object{"apiVersion": groupVersion, "kind": kind, "metadata": metadata, "spec": spec}
}

// matches draws who gets the profile without asking, and what becomes of them if it cannot be done.
func matches(t *rapid.T, spec object, cluster bool) {
	if oneIn(t, 2, "failurePolicy") {
		spec["failurePolicy"] = rapid.SampledFrom([]string{"Ignore", "Ignore", "Fail"}).Draw(t, "failurePolicy")
	}
	if !oneIn(t, 2, "match") {
		return
	}
	match := object{}
	if oneIn(t, 2, "podSelector") {
		match["podSelector"] = rapid.SampledFrom([]object{
			{},
			{"matchLabels": object{"app": "web"}},
			{"matchLabels": object{"app": ""}},
			{"matchExpressions": list{object{"key": "app", "operator": "In", "values": list{"web", "worker"}}}},
			{"matchExpressions": list{object{"key": "app", "operator": "NotIn", "values": list{"batch"}}}},
			{"matchExpressions": list{object{"key": "pillion.dev/injected", "operator": "DoesNotExist"}}},
			{"matchExpressions": list{object{"key": "pillion.dev/injected", "operator": "Exists"}}},
		}).Draw(t, "podSelector")
	}
	if cluster && (spec["failurePolicy"] == "Fail" || oneIn(t, 2, "namespaceSelector")) {
		match["namespaceSelector"] = rapid.SampledFrom([]object{
			{"matchLabels": object{"team": "web"}},
			{"matchExpressions": list{object{"key": "team", "operator": "Exists"}}},
			{"matchExpressions": list{object{"key": "env", "operator": "DoesNotExist"}}},
		}).Draw(t, "namespaceSelector")
	}
	if oneIn(t, 4, "conditions") {
		match["conditions"] = list{object{"name": "drawn", "expression": rapid.SampledFrom([]string{
			"!('batch' in object.metadata.?labels.orValue({}))",
			"object.spec.containers.exists(c, c.name.startsWith('a'))",
			"namespaceObject.metadata.labels.team == 'web'",
			"object.metadata.labels.app == 'web'",
			"request.userInfo.username != 'nobody'",
			"size(object.spec.?initContainers.orValue([])) < 2",
		}).Draw(t, "condition")}}
	}
	if cluster && oneIn(t, 5, "enforce") {
		match["enforce"] = true
	}
	spec["match"] = match
}

// composes draws how the profile stands to others.
func composes(t *rapid.T, name string, spec object) {
	if oneIn(t, 6, "after") {
		others := slices.DeleteFunc(profileNames(), func(other string) bool { return other == name })
		spec["after"] = toList(some(t, others, 2, "after"))
	}
	if oneIn(t, 2, "onPortConflict") {
		spec["onPortConflict"] = rapid.SampledFrom([]string{"Fail", "Pick"}).Draw(t, "onPortConflict")
	}
}

// custom draws a custom pattern.
func custom(t *rapid.T) object {
	template := object{}
	optional(t, template, map[string][]any{
		"initContainers": {
			list{object{
				"image": "agent", "restartPolicy": "Always", "args": list{"--listen=:${params.port}", "--app=${params.text}", "$(POD_IP)"},
				"ports":        list{object{"containerPort": "${params.port}"}},
				"startupProbe": object{"tcpSocket": object{"port": "${params.port}"}},
			}},
			list{
				object{"name": "first", "image": "a", "env": list{object{"name": "TEAM", "value": "${namespace.metadata.?labels.?team.orValue('')}"}}},
				object{"name": "second", "image": "b:${profile.name}", "volumeMounts": list{object{"name": "work", "mountPath": "/work"}}},
			},
			list{object{"image": "c", "command": list{"c", "--for=${pod.metadata.labels.app}"}, "securityContext": object{"privileged": true}}},
		},
		"containers": {
			list{object{"name": "main", "image": "d", "env": list{object{"name": "N", "value": "${string(size(pod.spec.containers))}"}}}},
		},
		"volumes": {list{object{"name": "work", "emptyDir": object{"sizeLimit": "${params.size}"}}}},
		"app": {
			list{object{"env": list{object{"name": "AGENT_PORT", "value": "${string(params.port)}"}, object{"name": "HOME", "value": "/x"}}}},
			list{object{"containers": list{"app"}, "env": list{object{"name": "ONLY_APP", "value": "${params.text}"}}}},
		},
		"labels":           {object{"tier": "front"}, object{"app": "web"}, object{"team.example.com/of": "${profile.name}"}},
		"annotations":      {object{"example.com/agent": "${params.text} ${1 + params.port}"}},
		"imagePullSecrets": {list{object{"name": "mirror"}}, list{object{"name": "late"}}},
		"hostAliases":      {list{object{"ip": "10.0.0.1", "hostnames": list{"cache.example.com"}}}},
	})
	if len(template) == 0 {
		template["annotations"] = object{"example.com/marked": "yes"}
	}
	return object{
		"parameters": list{
			object{"name": "port", "type": "integer", "default": 8125, "minimum": 1, "maximum": 65535},
			object{"name": "text", "default": "plain", "maxLength": 64},
			object{"name": "size", "type": "quantity", "default": "1Gi"},
		},
		"template": template,
	}
}

// pattern draws one of the patterns: its field, a valid spec, and fields that Pods may be let override (see overrides).
func pattern(t *rapid.T) (field string, spec object, overridable []string) {
	common := []string{"resources", "env", "imagePullPolicy"}
	switch rapid.IntRange(0, 5).Draw(t, "pattern") {
	case 0:
		return "gitSync", gitSync(t), append(common, "ref", "period", "depth", "sparseCheckout", "mountPath", "readOnly")
	case 1:
		return "cacheAmbassador", cacheAmbassador(t), append(common, "port", "envPrefix", "containers")
	case 2:
		return "prometheusAdapter", prometheusAdapter(t), append(common, "metricsPort", "path", "scrapeAnnotations")
	case 3:
		return "templateProcessor", templateProcessor(t), append(common, "mountPath", "suffix", "parameters")
	default:
		return "custom", custom(t), []string{"port", "text", "size"}
	}
}

// optional sets fields of a spec, each in half of the cases.
func optional(t *rapid.T, spec object, fields map[string][]any) {
	for _, key := range sortedKeys(fields) {
		if oneIn(t, 2, key) {
			spec[key] = rapid.SampledFrom(fields[key]).Draw(t, key)
		}
	}
}

// settings are the fields that every pattern has.
func settings() map[string][]any {
	return map[string][]any{
		"image": {
			"mirror.example.com:5000/tool:v1",
			"tool@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		},
		"imagePullPolicy": {"Always", "IfNotPresent"},
		"resources": {
			object{"requests": object{"cpu": "1"}},
			object{"limits": object{"memory": "8Gi", "ephemeral-storage": "1Gi"}},
			object{"requests": object{"cpu": 2, "memory": "1Gi"}, "limits": object{"cpu": "2500m"}},
		},
		"env": {list{object{"name": "TZ", "value": "UTC"}, object{"name": "LITERAL", "value": "$(HOME) {{x}} `id`; rm -rf /"}}},
	}
}

func withSettings(fields map[string][]any) map[string][]any {
	maps.Copy(fields, settings())
	return fields
}

func gitSync(t *rapid.T) object {
	spec := object{
		"repo": rapid.SampledFrom([]string{
			"https://git.example.com/site.git",
			"https://git.example.com/$(X)/'a';b.git",
		}).Draw(t, "repo"),
		"mountPath": rapid.SampledFrom([]string{"/srv/site", "/srv/other", "/opt/git", "/data/site"}).Draw(t, "mountPath"),
	}
	optional(t, spec, withSettings(map[string][]any{
		"ref":            {"main", "v1.2.3", "$(REF)"},
		"mode":           {"Continuous", "Once"},
		"period":         {"10s", "1h30m"},
		"depth":          {0, 3},
		"submodules":     {"Off", "Shallow"},
		"sparseCheckout": {list{"/docs/", "!*.png"}},
		"link":           {"latest"},
		"readOnly":       {false, true},
		"sizeLimit":      {"2Gi", 1 << 30, "100000000000000000000"},
		"credentials": {
			object{"basic": object{"secretName": "git"}},
			object{"token": object{"secretName": "git", "username": "x$(Y)"}},
		},
	}))
	if oneIn(t, 6, "containers") {
		spec["containers"] = toList([]string{rapid.SampledFrom(append(containerNames(), initNames()...)).Draw(t, "container")})
	}
	return spec
}

func cacheAmbassador(t *rapid.T) object {
	spec := object{"protocol": rapid.SampledFrom([]string{"Memcached", "Redis"}).Draw(t, "protocol")}
	if oneIn(t, 2, "proxy") {
		proxy := object{"servers": list{
			object{"address": "cache-0.cache:11211", "weight": 2},
			object{"address": "[2001:db8::1]:11212", "name": "one"},
		}}
		optional(t, proxy, map[string][]any{
			"distribution": {"Modula", "Random"}, "hash": {"Murmur"}, "timeout": {"1s"}, "preconnect": {true},
			"ejection": {object{"enabled": false}, object{"failureLimit": 3, "retryInterval": "5s"}},
		})
		spec["proxy"] = proxy
	} else {
		spec["local"] = rapid.SampledFrom([]object{{}, {"memory": "256Mi"}, {"eviction": "None", "maxConnections": 200}}).Draw(t,
			"local")
	}
	fields := withSettings(map[string][]any{"port": {11311, 60000}, "envPrefix": {"SESSIONS", "A"}})
	fields["resources"] = fields["resources"][:2] // the others' memory is less than some caches'
	optional(t, spec, fields)
	if oneIn(t, 6, "containers") {
		spec["containers"] = toList([]string{rapid.SampledFrom(containerNames()).Draw(t, "container")})
	}
	return spec
}

func prometheusAdapter(t *rapid.T) object {
	spec := object{}
	fields := withSettings(map[string][]any{"metricsPort": {9200, 60001}, "scrapeAnnotations": {false, false, true}})
	switch rapid.IntRange(0, 3).Draw(t, "source") {
	case 0:
		spec["json"] = rapid.SampledFrom([]object{
			{"url": "http://localhost:8080/status?a=b&c", "metrics": list{object{"name": "queue_length", "path": "{.queue.length}"}}},
			{
				"url": "http://127.0.0.1/", "headers": list{object{"name": "Accept", "value": "application/json"}},
				"metrics": list{object{
					"name": "worker", "type": "Object", "path": "{.workers[*]}", "help": "one: two",
					"values": object{"busy": "{.busy}", "idle": "{.idle}"}, "labels": object{"id": "{.id}", "zone": "a"},
				}},
			},
		}).Draw(t, "json")
		fields["path"] = []any{"/stats"}
	case 1:
		spec["statsd"] = rapid.SampledFrom([]object{
			{},
			{"port": 9225, "mappings": list{object{
				"match": "app.*.requests", "name": "requests_total",
				"labels": object{"route": "${1}"},
			}}},
		}).Draw(t, "statsd")
		fields["path"] = []any{"/stats"}
	case 2:
		spec["logs"] = object{
			"directory": rapid.SampledFrom([]string{"/var/log/app", "/logs"}).Draw(t, "directory"),
			"programs":  list{object{"name": "lines", "program": "counter lines_total\n/$/ {\n  lines_total++\n}\n"}},
			"sizeLimit": rapid.SampledFrom([]any{"1Gi", 1 << 30, "100000000000000000000"}).Draw(t, "sizeLimit"),
		}
	default:
		spec["server"] = rapid.SampledFrom([]object{
			{"type": "Redis"},
			{"type": "Memcached", "port": 11311},
			{"type": "Nginx", "nginx": object{"statusPath": "/status"}},
			{"type": "Postgres", "credentials": object{"secretName": "db", "usernameKey": "username"}},
			{"type": "MySQL", "credentials": object{"secretName": "db", "usernameKey": "username"}},
		}).Draw(t, "server")
	}
	optional(t, spec, fields)
	return spec
}

func templateProcessor(t *rapid.T) object {
	spec := object{
		"mountPath": rapid.SampledFrom([]string{"/etc/app", "/etc/rendered", "/conf"}).Draw(t, "mountPath"),
		"templates": rapid.SampledFrom([]object{
			{"configMap": object{"name": "templates"}},
			{"configMap": object{"name": "templates", "keys": list{"app.conf.tmpl", "other"}}},
			{"volume": object{"name": "templates", "path": "conf/app"}},
			{"gitSync": object{"profile": "site", "path": "templates"}},
			{"image": object{"path": "/tmpl"}},
		}).Draw(t, "templates"),
	}
	fields := withSettings(map[string][]any{
		"parameters": {list{
			object{"name": "values", "values": object{"a": "1", "b": "$(B) {{ .x }}\n"}},
			object{"name": "more", "configMap": object{"name": "c", "key": "more.yaml"}},
			object{"name": "secret", "secret": object{"name": "s", "key": "k"}, "format": "Text"},
		}},
		"delimiters": {object{"left": "[[", "right": "]]"}},
		"suffix":     {".tpl"},
		"fileMode":   {"0755"},
		"sizeLimit":  {"1Mi"},
		"readOnly":   {false},
	})
	if _, inImage := spec["templates"].(object)["image"]; inImage {
		spec["image"] = "templates.example.com/app:1"
		delete(fields, "image")
	}
	optional(t, spec, fields)
	if oneIn(t, 6, "containers") {
		spec["containers"] = toList([]string{rapid.SampledFrom(append(containerNames(), initNames()...)).Draw(t, "container")})
	}
	return spec
}

// overrides are values for annotations that override fields, most of them valid.
func overrides() map[string][]string {
	return map[string][]string{
		"ref":                     {"v2.1", "feature/x", "$(X)", "-flag", "a b"},
		"period":                  {"1m", "5s", "-1s"},
		"depth":                   {"0", "7", "1e999999", "1.5", "many"},
		"sparseCheckout":          {`["/a/"]`, `[]`, `"/a/"`},
		"mountPath":               {"/over/ride", "/etc", "relative"},
		"readOnly":                {"true", "false", "maybe"},
		"port":                    {"12345", "11211", "70000"},
		"envPrefix":               {"OVER", "A-B"},
		"containers":              {`["app"]`, `["nosuch"]`},
		"metricsPort":             {"9999", "1"},
		"path":                    {"/over", "?x"},
		"scrapeAnnotations":       {"false", "true"},
		"suffix":                  {".over", "over"},
		"parameters":              {`[{"name":"p","values":{"k":"v"}}]`, `[{"name":"Env"}]`},
		"resources":               {`{"limits":{"cpu":"3"}}`, `{}`},
		"resources.limits.memory": {"3Gi", "1e999999", "-1"},
		"env":                     {`[{"name":"OVER","value":"$(RIDE)\n"}]`, `[{"name":"0"}]`},
		"imagePullPolicy":         {"Never", "Sometimes"},
		"repo":                    {"https://evil.example.com/x.git"},
		"text":                    {"$(HOME) ${params.port} {{x}}", "-x", "`id`; rm -rf /\n", "a\x00"},
		"size":                    {"2Gi", "1e999999", "lots"},
		"nosuch":                  {"1"},
	}
}

func toList(names []string) list {
	l := make(list, len(names))
	for i, name := range names {
		l[i] = name
	}
	return l
}
