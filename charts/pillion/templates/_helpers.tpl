{{/* The labels of every object. One of a component has the label component beside. */}}
{{- define "pillion.labels" -}}
app.kubernetes.io/name: pillion
{{- end }}

{{/* The image of Pillion, which its own Pods run, and injected containers of its. */}}
{{- define "pillion.image" -}}
{{- with .Values.image -}}
{{ $.Values.registry | default .registry | trimSuffix "/" }}/{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{/* A key of the configuration by its path, or the default that Pillion has for it: list . "webhook.listenAddress" ":9443". */}}
{{- define "pillion.key" -}}
{{- $value := (index . 0).Values.config -}}
{{- range splitList "." (index . 1) -}}
{{- if kindIs "map" $value -}}{{- $value = get $value . -}}{{- end -}}
{{- end -}}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") -}}{{ index . 2 }}{{- else -}}{{ $value }}{{- end -}}
{{- end }}

{{/* The port of an address of the configuration: what stands behind its last colon. Empty where the address is none. */}}
{{- define "pillion.port" -}}
{{- $address := include "pillion.key" . -}}
{{- if ne $address "none" -}}{{ regexFind "[0-9]+$" $address }}{{- end -}}
{{- end }}

{{- define "pillion.webhookConfiguration" -}}{{ include "pillion.key" (list . "webhookConfiguration" "pillion") }}{{- end }}
{{- define "pillion.servingSecret" -}}{{ include "pillion.key" (list . "webhook.certificateSecret" "pillion-webhook-tls") }}{{- end }}
{{- define "pillion.caSecret" -}}{{ include "pillion.key" (list . "certs.caSecret" "pillion-ca") }}{{- end }}
{{- define "pillion.service" -}}{{ include "pillion.key" (list . "controller.service" "pillion-webhook:443") }}{{- end }}
{{- define "pillion.serviceName" -}}{{ include "pillion.service" . | splitList ":" | first }}{{- end }}
{{- define "pillion.servicePort" -}}
{{- $parts := include "pillion.service" . | splitList ":" -}}
{{- if gt (len $parts) 1 -}}{{ last $parts }}{{- else -}}443{{- end -}}
{{- end }}

{{/* The configuration file. */}}
{{- define "pillion.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "namespace" .Release.Namespace -}}
{{- $images := get $config "images" | default dict -}}
{{- with .Values.registry -}}{{- $_ := set $images "registry" (get $images "registry" | default .) -}}{{- end -}}
{{- $_ := set $images "pillion" (get $images "pillion" | default (include "pillion.image" .)) -}}
{{- $_ := set $config "images" $images -}}
{{- toYaml $config -}}
{{- end }}

{{/* The seconds of a duration such as 1m30s, rounded up. */}}
{{- define "pillion.seconds" -}}
{{- $sum := 0.0 -}}
{{- $units := dict "ns" 0.000000001 "us" 0.000001 "µs" 0.000001 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- range regexFindAll "[0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h)" (toString .) -1 -}}
{{- $unit := regexFind "[a-zµ]+$" . -}}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) (get $units $unit)) -}}
{{- end -}}
{{ ceil $sum | int }}
{{- end }}

{{/* What the drain of the webhook takes at most, in seconds. */}}
{{- define "pillion.drainSeconds" -}}
{{- $delay := include "pillion.key" (list . "webhook.drainDelay" "5s") | include "pillion.seconds" | int -}}
{{- $timeout := include "pillion.key" (list . "webhook.shutdownTimeout" "10s") | include "pillion.seconds" | int -}}
{{ add $delay $timeout }}
{{- end }}

{{/* The bytes of a quantity of memory such as 128Mi. Empty if it cannot be read. */}}
{{- define "pillion.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := toString . -}}
{{- if kindIs "float64" . -}}{{- $text = printf "%.0f" . -}}{{- end -}}
{{- if regexMatch "^[0-9]+([.][0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$" $text -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{ mulf (float64 $number) (get $units (trimPrefix $number $text)) | floor | int64 }}
{{- end -}}
{{- end }}

{{/* GOMEMLIMIT of a component, by its memory limit: nine tenths of it. Empty without one. */}}
{{- define "pillion.goMemoryLimit" -}}
{{- with .resources }}{{- with .limits }}{{- with .memory }}
{{- div (mul 9 (include "pillion.bytes" . | int64)) 10 -}}
{{- end }}{{- end }}{{- end -}}
{{- end }}

{{/* What the Pods of both components have: dict "root" . "component" "webhook" "values" .Values.webhook "grace" 30. */}}
{{- define "pillion.podSpec" -}}
serviceAccountName: pillion-{{ .component }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with .values.topologySpreadConstraints }}
{{- toYaml . | nindent 0 }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway # two on one node are better than one
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "pillion.selector" $.component | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pillion.selector" -}}
app.kubernetes.io/name: pillion
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* The metadata of a component's Pods. The processes read their configuration once, so a changed one makes new Pods. */}}
{{- define "pillion.podMetadata" -}}
labels:
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "pillion.selector" .component | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
annotations:
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  pillion.dev/configuration: {{ include "pillion.config" .root | sha256sum | trunc 16 | quote }}
{{- end }}

{{/* What the containers of both components have. */}}
{{- define "pillion.container" -}}
name: {{ .component }}
image: {{ include "pillion.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .component }}, --config=/etc/pillion/config.yaml]
{{- $memory := include "pillion.goMemoryLimit" .values }}
{{- if or $memory .values.env }}
env:
{{- with $memory }}
- {name: GOMEMLIMIT, value: {{ . | quote }}}
{{- end }}
{{- with .values.env }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
- {name: configuration, mountPath: /etc/pillion, readOnly: true}
{{- with .values.volumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "pillion.volumes" -}}
volumes:
- name: configuration
  configMap: {name: pillion}
{{- with .values.volumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* Whether a component's Pods have a priority class that clusters may allow in namespaces with a ResourceQuota only. */}}
{{- define "pillion.hasCriticalPods" -}}
{{- range list .Values.webhook .Values.controller -}}
{{- if hasPrefix "system-" (.priorityClassName | default "") }}true{{ end -}}
{{- end -}}
{{- end }}

{{/* Whether the self-check is switched off. */}}
{{- define "pillion.selfCheckIsOff" -}}
{{- if has (include "pillion.key" (list . "controller.selfCheckInterval" "1m")) (list "none" "0" "0s") }}true{{ end -}}
{{- end }}
