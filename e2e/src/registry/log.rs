//! What a registry was asked, from its access log.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// A request that the registry has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, `PUT`, …
    pub method: String,
    /// With the query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// What the client calls itself.
    pub agent: String,
}

impl Request {
    /// Whether it handed out a manifest or a blob of a repository.
    #[must_use]
    pub fn is_pull_of(&self, repository: &str) -> bool {
        let below = self
            .path
            .strip_prefix("/v2/")
            .and_then(|path| path.strip_prefix(repository));
        let is_content = below.is_some_and(|rest| {
            rest.starts_with("/manifests/") || rest.starts_with("/blobs/sha256:")
        });
        self.method == "GET" && self.status == 200 && is_content
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<Request>> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter_map(parse)
        .collect())
}

/// A line of Apache's combined format; the registry's own messages share the file and have no such line.
fn parse(line: &str) -> Option<Request> {
    let mut quoted = line.split('"');
    let address = quoted.next()?;
    if !address.ends_with("] ") {
        return None;
    }
    let mut request = quoted.next()?.split(' ');
    let (method, path) = (request.next()?, request.next()?);
    let status = quoted
        .next()?
        .trim_start()
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let agent = quoted.nth(2).unwrap_or_default().to_owned();
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        status,
        agent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_access_log_is_a_request() {
        let line = r#"127.0.0.1 - - [22/Nov/2025:15:00:00 +0000] "GET /v2/alice/a/manifests/v1 HTTP/1.1" 200 512 "" "oci/1""#;
        let request = parse(line).unwrap();
        assert_eq!(
            (
                request.method.as_str(),
                request.status,
                request.agent.as_str()
            ),
            ("GET", 200, "oci/1")
        );
        assert!(request.is_pull_of("alice/a") && !request.is_pull_of("alice"));
        assert_eq!(
            parse(r#"time="2025-11-22" level=warning msg="No HTTP secret""#),
            None
        );
    }
}
