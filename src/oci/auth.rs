//! How a registry wants to be asked: its challenge, the token server that this names, and the tokens that it gave.
//!
//! A first request goes out without a credential. Who answers with a challenge gets what it asks for: `Basic`, or a token
//! from the server that it names. A token is kept for its registry, repository and credential, and for nothing else: one
//! user's token never serves another user's request, and a token for one repository is not tried on the next.

mod tokens;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Client, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{
    failure::Failure,
    hosts::authority,
    request::{Patience, RequestError, Step, body, send},
};
use crate::spec::Credential;

pub(crate) use tokens::{Purpose, Tokens};

/// Longest answer of a token server, in bytes.
const MAX_TOKEN_BODY: u64 = 256 * 1024;

/// How long a token is good for if its server does not say: what the token specification has.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// A token is not used in the last part of its life, so that it does not end on the way.
const SLACK: Duration = Duration::from_secs(60);

/// An `Authorization` header, and for how long it may be used.
pub(crate) struct Grant {
    pub header: HeaderValue,
    pub lifetime: Duration,
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password.
    Basic,
    /// A token from this server.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads the challenge of a response, a token rather than a password if it offers both.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        for found in header
            .to_str()
            .ok()
            .and_then(|h| http_auth::parse_challenges(h).ok())
            .into_iter()
            .flatten()
        {
            let parameter = |name: &str| {
                let (_, value) = found
                    .params
                    .iter()
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if found.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let (service, scope) = (parameter("service"), parameter("scope"));
                return Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                });
            }
            if found.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// `Authorization` for a token that is sent as it is.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Texts of a credential that must not come back in a message.
pub(crate) fn secrets(credential: Option<&Credential>) -> Vec<String> {
    match credential {
        None => Vec::new(),
        Some(Credential::Basic { username, password }) => {
            let password = password.expose();
            vec![
                password.to_owned(),
                STANDARD.encode(format!("{username}:{password}")),
            ]
        }
        Some(Credential::Bearer(token) | Credential::Identity(token)) => {
            vec![token.expose().to_owned()]
        }
    }
}

/// Answers a challenge with a credential, or as a stranger. None if that cannot be done: a stranger has no password.
pub(crate) async fn answer(
    challenge: Challenge,
    credential: Option<&Credential>,
    base: &Url,
    repository: &str,
    client: &Client,
    patience: Patience,
) -> Result<Option<Grant>, Failure> {
    match (challenge, credential) {
        (Challenge::Basic, Some(Credential::Basic { username, password })) => {
            // Good until it is refused.
            let lifetime = Duration::from_secs(24 * 3600);
            Ok(basic(username, password.expose()).map(|header| Grant { header, lifetime }))
        }
        (Challenge::Basic, _) => Ok(None),
        (
            Challenge::Bearer {
                realm,
                service,
                scope,
            },
            credential,
        ) => {
            let realm = token_server(&realm, base)?;
            let host = authority(&realm);
            // A proxy knows the repository by another name than we do, and says so in its challenge.
            let scope = scope
                .filter(|s| s.starts_with("repository:") && s.ends_with(":pull"))
                .unwrap_or_else(|| format!("repository:{repository}:pull"));
            let parameters = [("service", service.unwrap_or_default()), ("scope", scope)];
            let request = token_request(client, realm, &parameters, credential, &host)?;
            let response = send(request, &host, Step::Token, patience).await?;
            if !response.status().is_success() {
                let secrets = secrets(credential);
                let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
                let error =
                    RequestError::from_response(&host, Step::Token, response, patience, &secrets);
                return Err(error.await.into());
            }
            grant(response, &host, patience).await.map(Some)
        }
    }
}

/// The token server's address. A registry that is reached by HTTPS cannot make us send a password in clear.
fn token_server(realm: &str, base: &Url) -> Result<Url, RequestError> {
    let host = authority(base);
    let bad = |what| RequestError::protocol(&host, Step::Token, what);
    let url = Url::parse(realm).map_err(|_| bad("a token server that is not a URL"))?;
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        _ => Err(bad("a token server that is not reached by HTTPS")),
    }
}

fn token_request(
    client: &Client,
    mut realm: Url,
    parameters: &[(&str, String)],
    credential: Option<&Credential>,
    host: &str,
) -> Result<reqwest::RequestBuilder, RequestError> {
    let parameters = parameters.iter().filter(|(_, value)| !value.is_empty());
    if let Some(Credential::Identity(token)) = credential {
        // A form is written like a query.
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .extend_pairs(parameters)
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "washlet")
            .append_pair("refresh_token", token.expose());
        let body = form.query().unwrap_or_default().to_owned();
        return Ok(client
            .post(realm)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body));
    }
    realm.query_pairs_mut().extend_pairs(parameters);
    let request = client.get(realm);
    match credential {
        Some(Credential::Basic { username, password }) => {
            let header = basic(username, password.expose());
            let bad = || {
                RequestError::protocol(
                    host,
                    Step::Token,
                    "a challenge that this credential cannot answer",
                )
            };
            Ok(request.header(AUTHORIZATION, header.ok_or_else(bad)?))
        }
        _ => Ok(request),
    }
}

async fn grant(response: Response, host: &str, patience: Patience) -> Result<Grant, Failure> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let bytes = body(response, Step::Token, MAX_TOKEN_BODY, patience).await?;
    let bad = || RequestError::protocol(host, Step::Token, "something that is not a token");
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let lifetime = token
        .expires_in
        .map_or(DEFAULT_LIFETIME, Duration::from_secs)
        .max(DEFAULT_LIFETIME);
    let lifetime = lifetime.min(Duration::from_secs(24 * 3600));
    let text = token
        .token
        .filter(|t| !t.is_empty())
        .or(token.access_token)
        .filter(|t| !t.is_empty());
    let header = text.as_deref().and_then(bearer).ok_or_else(bad)?;
    Ok(Grant {
        header,
        lifetime: lifetime.saturating_sub(SLACK).max(lifetime / 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let token = |service: Option<&str>, scope: Option<&str>| {
            let owned = |text: &str| text.to_owned();
            Some(Challenge::Bearer {
                realm: "https://a.io/t".to_owned(),
                service: service.map(owned),
                scope: scope.map(owned),
            })
        };
        assert_eq!(
            of(&[r#"Bearer realm="https://a.io/t",service="s",scope="repository:a/b:pull,push""#]),
            token(Some("s"), Some("repository:a/b:pull,push"))
        );
        assert_eq!(
            of(&["Basic realm=\"x\"", r#"bearer Realm="https://a.io/t""#]),
            token(None, None)
        );
        assert_eq!(of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(of(&["Bearer service=\"x\""]), None);
        assert_eq!(of(&["Negotiate"]), None);
        assert_eq!(of(&["=,=\""]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_password_is_not_sent_in_clear() {
        let base = |text| Url::parse(text).expect("a URL");
        assert!(token_server("https://t.io/x", &base("https://r.io/v2/")).is_ok());
        assert!(token_server("http://t.io/x", &base("https://r.io/v2/")).is_err());
        assert!(token_server("http://t.io/x", &base("http://r.io/v2/")).is_ok());
        assert!(token_server("/x", &base("https://r.io/v2/")).is_err());
        assert!(token_server("file:///x", &base("http://r.io/v2/")).is_err());
    }
}
