{{- define "washlet.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The name of what is outside the release's namespace, where releases of one name in several namespaces meet. */ -}}
{{- define "washlet.outside" -}}
{{- $fullname := include "washlet.fullname" .root -}}
{{- printf "%s-%s" $fullname .name -}}
{{- if ne $fullname .root.Release.Namespace -}}.{{ .root.Release.Namespace }}{{- end -}}
{{- end -}}

{{- define "washlet.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "washlet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "washlet.image" -}}
{{- $separator := ternary "@" ":" (hasPrefix "sha256:" .Values.image.tag) -}}
{{- printf "%s%s%s" .Values.image.repository $separator .Values.image.tag -}}
{{- end -}}

{{- /* Whether something that can be `auto` is made: text for yes, none for no. */ -}}
{{- define "washlet.made" -}}
{{- if eq (toString .wanted) "auto" -}}
{{- if not .root.Values.watchNamespaces -}}yes{{- end -}}
{{- else if .wanted -}}yes{{- end -}}
{{- end -}}

{{- define "washlet.priorityClassName" -}}
{{- $class := .root.Values.priorityClass -}}
{{- if .wanted -}}
{{- .wanted -}}
{{- else if include "washlet.made" (dict "root" .root "wanted" $class.create) -}}
{{- include "washlet.outside" (dict "root" .root "name" (toString (int64 $class.value))) -}}
{{- end -}}
{{- end -}}

{{- define "washlet.listen" -}}
{{- if contains ":" .Values.listenAddress -}}[{{ .Values.listenAddress }}]{{- else -}}{{ .Values.listenAddress }}{{- end -}}
{{- end -}}

{{- /* The namespaces that the right to read Secrets is bound in, as a comma list; none is the whole cluster. */ -}}
{{- define "washlet.secretNamespaces" -}}
{{- $watched := .Values.watchNamespaces -}}
{{- $listed := .Values.secrets.namespaces -}}
{{- if and $watched $listed -}}
{{- range $listed -}}
{{- if not (has . $watched) -}}
{{- fail (printf "secrets.namespaces: %q is not among watchNamespaces: no Workload of it runs here, so agents have nothing to read there" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," (default $watched $listed) -}}
{{- end -}}

{{- /* What all pods have in common. */ -}}
{{- define "washlet.pod" -}}
# Services of the namespace are nothing that the environment should be filled with.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What all containers have in common. */ -}}
{{- define "washlet.container" -}}
image: {{ include "washlet.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the schema can't say: values that contradict each other, or what the chart sets itself. */ -}}
{{- define "washlet.check" -}}
{{- $ports := .Values.ports -}}
{{- if eq (int64 $ports.http) (int64 $ports.admin) -}}
{{- fail (printf "ports.http and ports.admin are both %d: give each a port of its own" (int64 $ports.http)) -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- range $other := list "http" "admin" -}}
{{- if eq (int64 $ports.https) (int64 (get $ports $other)) -}}
{{- fail (printf "ports.https and ports.%s are both %d: give each a port of its own" $other (int64 $ports.https)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $port := $ports -}}
{{- if and (ge (int64 $port) 20000) (le (int64 $port) 29999) -}}
{{- fail (printf "ports.%s: %d is among the ports of Services, 20000 to 29999: choose another" $name (int64 $port)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(127\\..*|[0:]+:0*1)$" .Values.listenAddress -}}
{{- fail (printf "listenAddress: only its own pod reaches %s, and no probe does: use 0.0.0.0 or ::" .Values.listenAddress) -}}
{{- end -}}
{{- range $key, $value := .Values.hostLabels -}}
{{- if regexMatch "^([^/]*\\.)?(kubernetes|k8s)\\.io/" $key -}}
{{- fail (printf "hostLabels: %s is for Nodes, and counts there: label the Node, or choose a key outside kubernetes.io and k8s.io" $key) -}}
{{- end -}}
{{- end -}}
{{- $taken := dict "NODE_NAME" "it is the pod's node" "POD_NAMESPACE" "it is the release's" "POD_IPS" "they are the pod's" "RUST_LOG" "use log.level" "WASHLET_ENVIRONMENT" "use environment" "WASHLET_MEMORY" "use memory" "WASHLET_COMPILE_MEMORY" "use compileMemory" "WASHLET_CACHE_SPACE" "use state.compiled" "WASHLET_VOLUME_SPACE" "use state.volumes" "WASHLET_HTTPS_LISTEN" "use tls.secretName" "WASHLET_TLS_CERT" "use tls.secretName" "WASHLET_TLS_KEY" "use tls.secretName" "KUBECONFIG" "the pod's ServiceAccount is used" -}}
{{- range $index, $variable := .Values.extraEnv -}}
{{- with get $taken $variable.name -}}
{{- fail (printf "extraEnv[%d].name: the chart decides on %s: %s" $index $variable.name .) -}}
{{- end -}}
{{- end -}}
{{- $own := list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" -}}
{{- range $path, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "controller.podLabels" .Values.controller.podLabels -}}
{{- range $key, $value := $labels -}}
{{- if has $key $own -}}
{{- fail (printf "%s: the label %s is the chart's own, which objects are found by: leave it out" $path $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A number or a share of nodes; numbers from a file are floats, which are not printed as integers from a million on. */ -}}
{{- define "washlet.nodes" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{- define "washlet.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: admin
{{- toYaml .Values.startupProbe | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
{{- toYaml .Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
{{- toYaml .Values.readinessProbe | nindent 2 }}
{{- end -}}

{{- define "washlet.subject" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "washlet.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace | quote }}
{{- end -}}
