//! The columns of `kubectl get`. A derive could hold them too, but a table shows them as a table.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;

/// One column.
pub(super) struct Column {
    name: &'static str,
    type_: &'static str,
    path: &'static str,
    description: &'static str,
    /// Shown only with `-o wide`.
    wide: bool,
}

/// Columns of Workloads.
pub(super) const WORKLOAD: &[Column] = &[
    column(
        "READY",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].status",
        "Whether it answers through its host now.",
    ),
    column(
        "REASON",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].reason",
        "Why it does, or does not.",
    ),
    column(
        "HOST",
        "string",
        ".status.hostId",
        "The host that it is on.",
    ),
    column(
        "IMAGE",
        "string",
        // Of an array the elements come before what is in them, so this is the first one's.
        ".spec['components','service']..image",
        "Image of the first component, or of the service if there is none.",
    ),
    column(
        "RESTARTS",
        "integer",
        // The service is the last one.
        ".status.components[-1:].restartCount",
        "How often its service, or its last job, was started again.",
    ),
    column(
        "AGE",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was created.",
    ),
    column(
        "START",
        "string",
        ".status.timings.total",
        "From the agent's first sight of it until it answered.",
    )
    .wide(),
    column(
        "ENVIRONMENT",
        "string",
        ".status.environment",
        "Environment of the host.",
    )
    .wide(),
    column(
        "MESSAGE",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].message",
        "The reason, in a sentence.",
    )
    .wide(),
];

/// Columns of WorkloadReplicaSets.
pub(super) const REPLICA_SET: &[Column] = &[
    column(
        "REPLICAS",
        "integer",
        ".spec.replicas",
        "Workloads that there shall be.",
    ),
    column(
        "READY",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].status",
        "Whether all are available.",
    ),
    column(
        "REASON",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].reason",
        "Why it is, or is not.",
    ),
    column(
        "AVAILABLE",
        "integer",
        ".status.availableReplicas",
        "Workloads that are available.",
    ),
    column(
        "REVISION",
        "string",
        ".metadata.annotations.washlet\\.dev/revision",
        "Which revision of its deployment it is.",
    ),
    column(
        "AGE",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was created.",
    ),
    column(
        "IMAGE",
        "string",
        ".spec.template.spec['components','service']..image",
        "Image of the first component, or of the service if there is none.",
    )
    .wide(),
    column(
        "MESSAGE",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].message",
        "The reason, in a sentence.",
    )
    .wide(),
];

/// Columns of WorkloadDeployments.
pub(super) const DEPLOYMENT: &[Column] = &[
    column(
        "REPLICAS",
        "integer",
        ".spec.replicas",
        "Workloads that there shall be.",
    ),
    column(
        "READY",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].status",
        "Whether all are of the newest revision and available.",
    ),
    column(
        "REASON",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].reason",
        "Why it is, or is not.",
    ),
    column(
        "UPDATED",
        "integer",
        ".status.updatedReplicas",
        "Workloads of the newest revision.",
    ),
    column(
        "AVAILABLE",
        "integer",
        ".status.availableReplicas",
        "Workloads that are available, of any revision.",
    ),
    column(
        "AGE",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was created.",
    ),
    column(
        "REVISION",
        "string",
        ".metadata.annotations.washlet\\.dev/revision",
        "The newest revision.",
    )
    .wide(),
    column(
        "IMAGE",
        "string",
        ".spec.template.spec['components','service']..image",
        "Image of the first component, or of the service if there is none.",
    )
    .wide(),
    column(
        "MESSAGE",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].message",
        "The reason, in a sentence.",
    )
    .wide(),
];

/// Columns of Artifacts.
pub(super) const ARTIFACT: &[Column] = &[
    column("IMAGE", "string", ".spec.image", "The image."),
    column(
        "AGE",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was created.",
    ),
];

/// Columns of Hosts.
pub(super) const HOST: &[Column] = &[
    column(
        "READY",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].status",
        "Whether it takes workloads.",
    ),
    column(
        "WORKLOADS",
        "integer",
        ".status.workloadCount",
        "Workloads on it.",
    ),
    column("ENVIRONMENT", "string", ".environment", "Its environment."),
    column(
        "VERSION",
        "string",
        ".status.version",
        "Version of the agent.",
    ),
    column(
        "AGE",
        "date",
        ".metadata.creationTimestamp",
        "Time since it was created.",
    ),
    column(
        "HOSTID",
        "string",
        ".hostId",
        "The id that spec.hostId of a Workload names.",
    )
    .wide(),
    column(
        "HTTPPORT",
        "integer",
        ".httpPort",
        "Port that serves workloads by Host header.",
    )
    .wide(),
    column(
        "HOSTGROUP",
        "string",
        ".metadata.labels.hostgroup",
        "Its label hostgroup.",
    )
    .wide(),
];

const fn column(
    name: &'static str,
    type_: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        type_,
        path,
        description,
        wide: false,
    }
}

impl Column {
    const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    pub fn definition(&self) -> CustomResourceColumnDefinition {
        CustomResourceColumnDefinition {
            name: self.name.to_owned(),
            type_: self.type_.to_owned(),
            json_path: self.path.to_owned(),
            description: Some(self.description.to_owned()),
            priority: self.wide.then_some(1),
            format: None,
        }
    }
}
