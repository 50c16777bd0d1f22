//! Images of components, and the credentials to pull them with.

use std::path::PathBuf;

use super::{Converter, Outcome, ReferenceKind, Referenced};
use crate::{
    fault::{Reason, Stage},
    oci::credentials,
    spec::{Image, ImageRef, ParseImageError, PullPolicy, RegistryCredential, Source},
    washlet::api,
};

/// Begins the name of an image that is a file.
const FILE: &str = "file:";

/// Pull secrets, read.
#[derive(Debug, Clone, Default)]
pub(super) struct PullSecrets {
    credentials: Vec<RegistryCredential>,
    /// Why others could not be used.
    unusable: Vec<String>,
    /// Those that are in here already, whatever came of them.
    names: Vec<String>,
}

impl Converter<'_> {
    /// The pull secrets of the workload, then those of its ServiceAccount.
    pub(super) fn shared_pull_secrets(&mut self, workload: &api::WorkloadSpec) -> PullSecrets {
        let mut secrets = PullSecrets::default();
        for (index, reference) in workload.image_pull_secrets.iter().enumerate() {
            self.add_pull_secret(
                &format!("spec.imagePullSecrets[{index}]"),
                &reference.name,
                &mut secrets,
            );
        }
        if let Some(name) = workload
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty())
        {
            let path = "spec.serviceAccountName";
            let key = self.key(ReferenceKind::ServiceAccount, name);
            if let Some(Referenced::ServiceAccount { pull_secrets }) = self.found(path, &key) {
                for name in pull_secrets {
                    self.add_pull_secret(path, name, &mut secrets);
                }
            }
        }
        secrets
    }

    /// Reads one pull secret. One that is missing or broken does not stop the pull, as in a Pod: the image may be public, or
    /// another secret may do. One that may not be read does: the operator has to know.
    fn add_pull_secret(&mut self, path: &str, name: &str, to: &mut PullSecrets) {
        if name.is_empty() || to.names.iter().any(|n| n == name) {
            return;
        }
        to.names.push(name.to_owned());
        let key = self.key(ReferenceKind::Secret, name);
        let origin = format!("secret {}/{name}", self.namespace);
        match self.resolved.outcomes.get(&key) {
            Some(Outcome::Found(Referenced::Secret { kind, data })) => {
                match credentials::from_secret(kind, data, &origin) {
                    Ok(credentials) => to.credentials.extend(credentials),
                    Err(error) => to.unusable.push(error.to_string()),
                }
            }
            Some(Outcome::Forbidden(text)) => self.forbidden(path, &key, text),
            Some(Outcome::Missing | Outcome::Found(_)) | None => {
                to.unusable.push(format!("{origin}: not found"))
            }
        }
    }

    /// Where a component's bytes come from. Its own pull secret is tried before the shared ones.
    pub(super) fn source(
        &mut self,
        path: &str,
        component: &api::Component,
        shared: &PullSecrets,
    ) -> Source {
        if let Some(file) = component.image.strip_prefix(FILE) {
            return self.file(path, file);
        }
        let mut secrets = PullSecrets::default();
        if let Some(own) = &component.image_pull_secret {
            self.add_pull_secret(&format!("{path}.imagePullSecret"), &own.name, &mut secrets);
        }
        let policy = self.policy(
            path,
            component.image_pull_policy.as_deref().unwrap_or_default(),
        );
        let reference: ImageRef = match component.image.parse() {
            Ok(reference) => reference,
            Err(error) => {
                self.invalid_name(path, name_error(&component.image, &error));
                return Source::default();
            }
        };
        secrets
            .credentials
            .extend(shared.credentials.iter().cloned());
        secrets.unusable.extend(
            shared
                .unusable
                .iter()
                .filter(|u| !secrets.unusable.contains(u))
                .cloned()
                .collect::<Vec<_>>(),
        );
        Source::Image(Image {
            policy: policy.unwrap_or_else(|| PullPolicy::default_for(&reference)),
            reference,
            credentials: secrets.credentials,
            unusable_secrets: secrets.unusable,
        })
    }

    fn file(&mut self, path: &str, file: &str) -> Source {
        // `file:///srv/x.wasm` is an absolute path in a URL's clothes.
        let file = file.strip_prefix("//").unwrap_or(file);
        match &self.resolved.base_dir {
            Some(base) if !file.is_empty() => Source::File(base.join(PathBuf::from(file))),
            Some(_) => {
                self.invalid_name(
                    path,
                    "`file:` names no file; write `file:./hello.wasm`".to_owned(),
                );
                Source::default()
            }
            None => {
                let text = format!(
                    "`{FILE}{file}` is a file, which only `washlet run` reads; push it to a registry and name the image"
                );
                self.invalid_name(path, text);
                Source::default()
            }
        }
    }

    fn policy(&mut self, path: &str, word: &str) -> Option<PullPolicy> {
        match word {
            "" => None,
            "Always" => Some(PullPolicy::Always),
            "IfNotPresent" => Some(PullPolicy::IfNotPresent),
            "Never" => Some(PullPolicy::Never),
            other => {
                let text = format!("`{other}` is none of Always, IfNotPresent and Never");
                self.problems
                    .invalid(format!("{path}.imagePullPolicy"), text);
                None
            }
        }
    }

    fn invalid_name(&mut self, path: &str, text: String) {
        self.problems.add(
            Stage::Accept,
            Reason::InvalidImageName,
            format!("{path}.image"),
            text,
        );
    }
}

/// What is wrong with the name of an image; a path is told how to be one.
fn name_error(image: &str, error: &ParseImageError) -> String {
    if image.starts_with(['.', '/', '~']) || image.ends_with(".wasm") {
        format!("{error}; a file is written `file:{image}`, and only `washlet run` reads files")
    } else {
        error.to_string()
    }
}
