{{- /* Rights: each rule says who needs it. Bound in the whole cluster, or in each watched namespace. */ -}}
{{- define "washlet.rules.agent" -}}
# Watching the Workloads of this node; `get` after a write that somebody else overtook.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloads]
  verbs: [get, list, watch]
# Reporting, by server-side apply.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloads/status]
  verbs: [patch]
# Telling what happened to a Workload, and counting repetitions.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "washlet.rules.references" -}}
# Pull secrets, and Secrets and ConfigMaps of `secretFrom` and `configFrom`: each by its name, when a Workload names it.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
# The pull secrets of a Workload's `serviceAccountName`.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
{{- end -}}

{{- define "washlet.rules.controller" -}}
# Placing Workloads, and making those of a WorkloadReplicaSet.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloads, workloadreplicasets]
  verbs: [get, list, watch, create, patch, delete]
# Rolling out; `patch` for annotations and for going back to an earlier revision.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloaddeployments]
  verbs: [get, list, watch, patch]
# Images that templates name by an Artifact.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [artifacts]
  verbs: [get, list, watch]
# Reporting, by server-side apply.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloads/status, workloadreplicasets/status, workloaddeployments/status]
  verbs: [patch]
# Owning what was made, where the cluster demands this right of who sets `blockOwnerDeletion`.
- apiGroups: [runtime.wasmcloud.dev]
  resources: [workloadreplicasets/finalizers, workloaddeployments/finalizers]
  verbs: [update]
# The ports of a Service that a Workload names.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
# Publishing Workloads behind it.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
# Telling what happened.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
