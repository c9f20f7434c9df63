{{/* Name of the objects of this release. */}}
{{- define "dualpool.fullname" -}}
{{- if contains "dualpool" .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- else -}}{{ printf "%s-dualpool" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "dualpool.selector" -}}
app.kubernetes.io/name: dualpool
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "dualpool.labels" -}}
{{ include "dualpool.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "dualpool.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings of the router that follow from other values, or from the chart's own ports. */}}
{{- define "dualpool.ownSettings" -}}
{{- $set := dict "drain_s" .Values.drainSeconds "admin" (dict "address" "127.0.0.1:9091" "probes_address" "[::]:9090") -}}
{{- if .Values.admin.tokenSecret -}}{{- $_ := set $set.admin "token_file" "/etc/dualpool-admin/token" -}}{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $tls := dict "certificate_file" "/etc/dualpool-tls/tls.crt" "private_key_file" "/etc/dualpool-tls/tls.key" -}}
{{- if .Values.tls.clientCa -}}{{- $_ := set $tls "client_ca_file" "/etc/dualpool-tls/ca.crt" -}}{{- end -}}
{{- $_ := set $set "listen" (dict "tls" $tls "health_address" "[::]:9099") -}}
{{- end -}}
{{- if .Values.store.passwordSecret -}}
{{- $_ := set $set "state" (dict "store" (dict "password_file" "/etc/dualpool-store/password")) -}}
{{- end -}}
{{- toYaml $set -}}
{{- end -}}

{{/* The router's configuration file: `config` of the values, and the chart's own settings. */}}
{{- define "dualpool.config" -}}
{{- mustMergeOverwrite (deepCopy .Values.config) (include "dualpool.ownSettings" . | fromYaml) | toYaml -}}
{{- end -}}

{{/* Refuses settings of `config` (`given`) that the chart's `own` would overwrite. */}}
{{- define "dualpool.checkOverwritten" -}}
{{- range $name, $own := .own -}}
{{- $path := printf "%s.%s" $.path $name -}}
{{- $given := get $.given $name -}}
{{- if kindIs "map" $own -}}
{{- include "dualpool.checkOverwritten" (dict "path" $path "own" $own "given" ($given | default dict)) -}}
{{- else if and (hasKey $.given $name) (not (kindIs "invalid" $given)) (ne (toString $own) (toString $given)) -}}
{{- $from := get (dict "config.drain_s" "drainSeconds" "config.admin.token_file" "admin.tokenSecret" "config.state.store.password_file" "store.passwordSecret") $path -}}
{{- if hasPrefix "config.listen." $path -}}{{- $from = "tls.secretName" -}}{{- end -}}
{{- fail (printf "%s: %v given; the chart sets %v%s: leave it out here" $path $given $own (ternary "" (printf ", from %s" $from) (empty $from))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of a worker's port, in at most 15 characters. */}}
{{- define "dualpool.portName" -}}
{{- if eq (int .) 0 -}}grpc-ext-proc{{- else -}}grpc-w{{ . }}{{- end -}}
{{- end -}}

{{- define "dualpool.workerPorts" -}}
{{- range $worker := until (int .Values.workers) }}
- {name: {{ include "dualpool.portName" $worker }}, port: {{ add 9002 $worker }}, targetPort: {{ include "dualpool.portName" $worker }}, appProtocol: grpc}
{{- end }}
{{- end -}}

{{/*
One of the tested files for a gateway, with the names of this release. Every name of the file becomes a mark before the
first new one is filled in, since a new name may contain another old one.

Several releases may serve one gateway, or share a namespace. So what each of them adds to a proxy (filter, routes,
cluster) and the objects of the file begin with the name of the release, unless that is dualpool. Not the EnvoyProxy: it
is the same for all, and the user's Gateway, which names it, would have no proxies while there is none of this name.
*/}}
{{- define "dualpool.provided" -}}
{{- $root := .root -}}
{{- $values := $root.Values.provider -}}
{{- $sidecar := $values.istio.sidecar -}}
{{- $ns := $root.Release.Namespace -}}
{{- $name := include "dualpool.fullname" $root -}}
{{- $own := ternary "" (printf "%s-" $name) (eq $name "dualpool") -}}
{{- $headers := $root.Values.config.headers | default dict -}}
{{- $gateway := quote $values.gateway.name -}}
{{- $logged := "kind: EnvoyProxy\nmetadata: {name: llm}" -}}
{{- $names := list
  (list "dualpool.dualpool.svc" (printf "%s.%s.svc" $name $ns))
  (list ".dualpool.svc" (printf ".%s.svc" $ns))
  (list "namespace: dualpool" (printf "namespace: %q" $ns))
  (list "name: dualpool/llm/" (printf "name: %s/%s/" $ns $values.gateway.name))
  (list "name: dualpool\n" (printf "name: %s\n" $name))
  (list "    dualpool:\n" (printf "    %s:\n" $name))
  (list "metadata: {name: dualpool" (printf "metadata: {name: %s" $name))
  (list "{name: dualpool, port: 9002}" (printf "{name: %s, port: 9002}" $name))
  (list $logged $logged)
  (list "metadata: {name: llm" (printf "metadata: {name: %sllm" $own))
  (list "kind: HTTPRoute, name: llm" (printf "kind: HTTPRoute, name: %sllm" $own))
  (list "- name: short\n" (printf "- name: %sshort\n" $own))
  (list "- name: long\n" (printf "- name: %slong\n" $own))
  (list "route: {name: short}" (printf "route: {name: %sshort}" $own))
  (list "route: {name: long}" (printf "route: {name: %slong}" $own))
  (list "short_then_long" (printf "%sshort_then_long" $own))
  (list "namespace: istio-system" (printf "namespace: %q" $values.gateway.namespace))
  (list "{istio: ingressgateway}" (toJson $values.gateway.selector))
  (list "namespace: callers" (printf "namespace: %q" $sidecar.namespace))
  (list "{llm: caller}" (toJson $sidecar.selector))
  (list "parentRefs: [{name: llm}]" (printf "parentRefs: [{name: %s}]" $gateway))
  (list "kind: Gateway, name: llm}" (printf "kind: Gateway, name: %s}" $gateway))
  (list "gateways: [llm]" (printf "gateways: [%s]" $gateway))
  (list "gateway-name: llm}" (printf "gateway-name: %s}" $gateway))
  (list "[llm.example.com]" (printf "[%q]" $values.host))
  (list "vllm-short" $values.pools.short)
  (list "vllm-long" $values.pools.long)
-}}
{{- range list "port: 8000" "number: 8000" "portNumber: 8000" "cluster.local:8000" "outbound|8000|" -}}
{{- $names = append $names (list . (replace "8000" (toString $values.pools.port) .)) -}}
{{- end -}}
{{- range $key, $default := dict "pool" "x-token-budget-pool" "estimate" "x-token-budget-estimate" "reason" "x-token-budget-reason" -}}
{{- $names = append $names (list $default (get $headers $key | default $default)) -}}
{{- end -}}
{{- $text := $root.Files.Get .file -}}
{{- range $number, $pair := $names -}}
{{- $text = $text | replace (first $pair) (printf "@%d@" $number) -}}
{{- end -}}
{{- range $number, $pair := $names -}}
{{- $text = $text | replace (printf "@%d@" $number) (last $pair) -}}
{{- end -}}
{{ $text }}
{{- end -}}

{{/* Checks that the values' schema cannot express. */}}
{{- define "dualpool.check" -}}
{{- if and .Values.store.passwordSecret (not (dig "state" "store" "url" "" .Values.config)) -}}{{- fail "store.passwordSecret: config.state.store.url is not set" -}}{{- end -}}
{{- if and .Values.tls.clientCa (not .Values.tls.secretName) -}}{{- fail "tls.clientCa: tls.secretName is not set, and without it there is no TLS" -}}{{- end -}}
{{- $address := dig "listen" "address" ":9002" .Values.config -}}
{{- if not (hasSuffix ":9002" $address) -}}{{- fail (printf "config.listen.address: %s given; allowed: port 9002, where the chart's Services and probes look for the router" $address) -}}{{- end -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\]:)" $address -}}{{- fail (printf "config.listen.address: %s given, which only the pod itself reaches; allowed: [::]:9002 or 0.0.0.0:9002" $address) -}}{{- end -}}
{{- include "dualpool.checkOverwritten" (dict "path" "config" "own" (include "dualpool.ownSettings" . | fromYaml) "given" .Values.config) -}}
{{- if and (dig "listen" "tls" "" .Values.config) (not .Values.tls.secretName) (eq (int .Values.workers) 1) -}}{{- fail "config.listen.tls: given, but the probe of a pod with one process speaks plain gRPC to its port; give tls.secretName instead, a Secret with these files" -}}{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}{{- fail (printf "autoscaling.minReplicas: %v given; allowed: at most maxReplicas, %v" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) -}}{{- end -}}
{{- if ne .Values.provider.name "none" -}}
{{- if gt (int .Values.workers) 1 -}}{{- fail "workers: with a provider each pod has one process; increase replicas instead" -}}{{- end -}}
{{- $names := list -}}
{{- range .Values.config.pools -}}{{- $names = append $names .name -}}{{- end -}}
{{- if ne (join "," $names) "short,long" -}}{{- fail (printf "config.pools: a provider's routes lead to two pools named short and long, not %s; use provider.name: none and write your own" (join ", " $names)) -}}{{- end -}}
{{- if and .Values.provider.istio.gatewayApi .Values.provider.istio.sidecar.namespace -}}{{- fail "provider.istio.sidecar.namespace: cannot be combined with provider.istio.gatewayApi; either sidecars or a Gateway ask the router" -}}{{- end -}}
{{- if .Values.tls.secretName -}}{{- fail "tls.secretName: a provider's resources speak plain gRPC to the router; use provider.name: none and write your own" -}}{{- end -}}
{{- end -}}
{{- end -}}
