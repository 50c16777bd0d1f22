//! Labels and annotations by which the controller finds what belongs together: wasmCloud's where it has them.

/// Labels.
pub mod label {
    /// On WorkloadReplicaSets and Workloads: the WorkloadDeployment that they are of, as [`label_value`](super::label_value) writes
    /// its name.
    pub const DEPLOYMENT: &str = "runtime.wasmcloud.dev/workload-deployment";
    /// On Workloads: the WorkloadReplicaSet that they are of, as [`label_value`](super::label_value) writes its name.
    pub const REPLICA_SET: &str = "washlet.dev/replica-set";
    /// On WorkloadReplicaSets of a WorkloadDeployment, and on their Workloads: tells its revisions apart.
    pub const TEMPLATE_HASH: &str = "washlet.dev/template-hash";
}

/// Annotations.
pub mod annotation {
    /// On WorkloadDeployments and their WorkloadReplicaSets: the number of the revision, which grows.
    pub const REVISION: &str = "washlet.dev/revision";
    /// On WorkloadReplicaSets of a WorkloadDeployment: its `replicas` when the set was last scaled.
    pub const DESIRED_REPLICAS: &str = "washlet.dev/desired-replicas";
    /// On WorkloadReplicaSets of a WorkloadDeployment: its `replicas` and surge when the set was last scaled.
    pub const MAX_REPLICAS: &str = "washlet.dev/max-replicas";
    /// On Workloads: a hash of the template that they were made from.
    pub const TEMPLATE: &str = "runtime.wasmcloud.dev/workload-replica-set-generation";
}

/// Most characters of a label's value.
const MAX_VALUE: usize = 63;

/// A name as the value of a label: the name itself, or, where it is too long for one, its beginning and a hash.
#[must_use]
pub fn label_value(name: &str) -> String {
    if name.len() <= MAX_VALUE {
        return name.to_owned();
    }
    let hash = crc32fast::hash(name.as_bytes());
    // Names are of ASCII characters; what is no name gets the hash alone.
    let start = name.get(..MAX_VALUE - 9).unwrap_or("x");
    format!("{start}-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::label_value;

    #[test]
    fn a_long_name_keeps_its_beginning_and_stays_unlike_others() {
        assert_eq!(label_value("hello"), "hello");
        let (one, other) = (
            label_value(&format!("{}a", "x".repeat(200))),
            label_value(&format!("{}b", "x".repeat(200))),
        );
        assert_eq!((one.len(), other.len()), (63, 63));
        assert_ne!(one, other);
    }
}
