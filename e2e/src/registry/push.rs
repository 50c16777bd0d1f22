//! Pushing and fetching over HTTP, by hand: ready-made clients refuse to push what is broken.

use anyhow::{Context, Result, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ALICE, Artifact, Auth, BOB, Platform, Registry, User, media_type};

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// Pushes an artifact, as the repository's owner, and gives the manifest's digest.
    ///
    /// # Errors
    /// When the registry refuses a part.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> Result<String> {
        self.push_blob(repository, &artifact.config.data).await?;
        for layer in &artifact.layers {
            self.push_blob(repository, &layer.data).await?;
        }
        self.push_manifest(repository, tag, &artifact.media_type, artifact.manifest())
            .await
    }

    /// Pushes an index of artifacts for several platforms, and gives the index' digest.
    ///
    /// # Errors
    /// When the registry refuses a part.
    pub async fn push_index(
        &self,
        repository: &str,
        tag: &str,
        parts: &[(Platform, Artifact)],
    ) -> Result<String> {
        let mut manifests = Vec::new();
        for (platform, artifact) in parts {
            let bytes = artifact.manifest();
            let pushed = self.push(repository, &digest(&bytes), artifact).await?;
            manifests.push(json!({
                "mediaType": artifact.media_type, "digest": pushed, "size": bytes.len(),
                "platform": {"os": platform.os, "architecture": platform.architecture},
            }));
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
        self.push_manifest(
            repository,
            tag,
            media_type::INDEX,
            index.to_string().into_bytes(),
        )
        .await
    }

    /// Pushes the bytes of a manifest as they are, and gives their digest.
    ///
    /// # Errors
    /// When the registry refuses them.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        kind: &str,
        bytes: Vec<u8>,
    ) -> Result<String> {
        let pushed = digest(&bytes);
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        let request = self
            .client()?
            .put(url)
            .header(header::CONTENT_TYPE, kind)
            .body(bytes);
        self.expect(StatusCode::CREATED, request, repository)
            .await?;
        Ok(pushed)
    }

    /// Pushes a blob and gives its digest.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let client = self.client()?;
        let digest = digest(bytes);
        let start = client.post(self.url(&format!("{repository}/blobs/uploads/")));
        let started = self.expect(StatusCode::ACCEPTED, start, repository).await?;
        let location = started
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let location = location.context("the registry names no place for an upload")?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let upload = client.put(format!("{location}{separator}digest={digest}"));
        let upload = upload
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(bytes.to_vec());
        self.expect(StatusCode::CREATED, upload, repository).await?;
        Ok(digest)
    }

    /// Asks for `path` below `/v2/` as `user`, or as nobody, going through the token server where there is one.
    ///
    /// # Errors
    /// When there is no answer. A refusal is an answer.
    pub async fn get(&self, path: &str, user: Option<User>) -> Result<Response> {
        let request = self.client()?.request(Method::GET, self.url(path));
        let repository = path
            .split_once("/manifests/")
            .or_else(|| path.split_once("/blobs/"))
            .map_or("", |split| split.0);
        let request = match user {
            Some(user) => self.log_in(request, user, repository, "pull").await?,
            None => request,
        };
        let every_manifest = [
            media_type::MANIFEST,
            media_type::INDEX,
            media_type::DOCKER_MANIFEST,
        ]
        .join(", ");
        request
            .header(header::ACCEPT, every_manifest)
            .send()
            .await
            .with_context(|| format!("getting {path}"))
    }

    /// Removes a tag's manifest, so that the next pull finds none.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<()> {
        let request = self
            .client()?
            .delete(self.url(&format!("{repository}/manifests/{digest}")));
        self.expect(StatusCode::ACCEPTED, request, repository)
            .await
            .map(drop)
    }

    async fn expect(
        &self,
        status: StatusCode,
        request: RequestBuilder,
        repository: &str,
    ) -> Result<Response> {
        let owner = if repository.starts_with("bob/") {
            BOB
        } else {
            ALICE
        };
        let request = self
            .log_in(request, owner, repository, "pull,push,delete")
            .await?;
        let response = request.send().await.context("asking the registry")?;
        if response.status() != status {
            let (url, status) = (response.url().clone(), response.status());
            bail!(
                "the registry answers {status} for {url}: {}",
                response.text().await.unwrap_or_default()
            );
        }
        Ok(response)
    }

    async fn log_in(
        &self,
        request: RequestBuilder,
        user: User,
        repository: &str,
        actions: &str,
    ) -> Result<RequestBuilder> {
        let Auth::Token(server) = &self.auth else {
            return Ok(request.basic_auth(user.name, Some(user.password)));
        };
        let url = format!(
            "{}?service={}&scope=repository:{repository}:{actions}",
            server.realm(),
            server.service()
        );
        let answer = self
            .client()?
            .get(url)
            .basic_auth(user.name, Some(user.password))
            .send()
            .await;
        let answer = answer
            .context("asking for a token")?
            .text()
            .await
            .context("reading a token")?;
        let answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("no token: {answer}"))?;
        let token = answer
            .get("token")
            .and_then(Value::as_str)
            .context("an answer without a token")?;
        Ok(request.bearer_auth(token))
    }
}
