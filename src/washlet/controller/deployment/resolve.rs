//! The template that Workloads are really made from: with the images of Artifacts, and with the deployment's Service. Pure.

use crate::washlet::api::{Artifact, ObjectRef, WorkloadDeployment, WorkloadTemplate};

/// Before the name of an Artifact in place of an image.
const SCHEME: &str = "artifact://";

/// Why there is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub reason: &'static str,
    pub message: String,
}

/// The template, or all that is wrong with its references.
pub(super) fn template<'a>(
    deployment: &WorkloadDeployment,
    artifacts: &dyn Fn(&str) -> Option<&'a Artifact>,
) -> Result<WorkloadTemplate, Unresolved> {
    let mut template = deployment.spec.template.clone();
    let mut problems = Vec::new();
    let components = template
        .spec
        .components
        .iter_mut()
        .map(|c| (&mut c.image, &mut c.image_pull_secret));
    let service = template
        .spec
        .service
        .iter_mut()
        .map(|s| (&mut s.image, &mut s.image_pull_secret));
    for (image, secret) in components.chain(service) {
        let Some(name) = image.strip_prefix(SCHEME) else {
            continue;
        };
        match find(deployment, name, artifacts) {
            Ok(artifact) => {
                *image = url(artifact).to_owned();
                if secret.as_ref().is_none_or(|secret| secret.name.is_empty()) {
                    *secret = artifact.spec.image_pull_secret.clone();
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(kubernetes) = &deployment.spec.kubernetes {
        template.spec.kubernetes = Some(kubernetes.clone());
    }
    match problems.first() {
        None => Ok(template),
        Some(first) => Err(Unresolved {
            reason: first.reason,
            message: problems
                .iter()
                .map(|p| p.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        }),
    }
}

fn find<'a>(
    deployment: &WorkloadDeployment,
    name: &str,
    artifacts: &dyn Fn(&str) -> Option<&'a Artifact>,
) -> Result<&'a Artifact, Unresolved> {
    let source = deployment
        .spec
        .artifacts
        .iter()
        .find(|source| source.name == name);
    let Some(source) = source else {
        return Err(Unresolved {
            reason: "InvalidSpec",
            message: format!("the image {SCHEME}{name} names no entry of spec.artifacts; add one"),
        });
    };
    let ObjectRef { name: object } = &source.artifact_from;
    artifacts(object).ok_or_else(|| Unresolved {
        reason: "ReferenceNotFound",
        message: format!(
            "the Artifact {object}, which spec.artifacts calls {name}, does not exist; create it"
        ),
    })
}

/// Where the image is: where it was published, if that is said of the present spec.
fn url(artifact: &Artifact) -> &str {
    let status = artifact.status.as_ref();
    let present = status.filter(|s| s.observed_generation == artifact.metadata.generation);
    let published = present.and_then(|s| s.artifact_url.as_deref());
    published
        .filter(|url| !url.is_empty())
        .unwrap_or(&artifact.spec.image)
}
