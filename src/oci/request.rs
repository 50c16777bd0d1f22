//! One exchange with a registry: how long it may take, how large it may be, and what its headers and errors say.

mod error;

use std::{error::Error, time::Duration};

use reqwest::{
    Method, RequestBuilder, Response,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;

use super::{
    failure::{Failure, find},
    hosts::authority,
};
use crate::spec::Digest;

pub use error::{RequestError, RequestProblem, Step};

/// Longest body of an error that is read for its message, in bytes.
const MAX_ERROR_BODY: u64 = 16 * 1024;

/// Longest message of a registry that is passed on, in characters.
const MAX_DETAIL: usize = 160;

/// Longest wait that a registry can impose.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How long to wait for a registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the head of a response.
    pub head: Duration,
    /// For the next byte of a body.
    pub stall: Duration,
}

/// Sends a request and waits for the head of the response.
pub(crate) async fn send(
    request: RequestBuilder,
    host: &str,
    step: Step,
    patience: Patience,
) -> Result<Response, RequestError> {
    match tokio::time::timeout(patience.head, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(RequestError::from_reqwest(host, step, error)),
        Err(_) => Err(silent(host, step, patience.head)),
    }
}

/// The next piece of a body; none at its end.
pub(crate) async fn chunk(
    response: &mut Response,
    step: Step,
    patience: Patience,
) -> Result<Option<bytes::Bytes>, RequestError> {
    let host = authority(response.url());
    match tokio::time::timeout(patience.stall, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(RequestError::from_reqwest(&host, step, error)),
        Err(_) => Err(silent(&host, step, patience.stall)),
    }
}

/// A whole body of at most `limit` bytes.
pub(crate) async fn body(
    mut response: Response,
    step: Step,
    limit: u64,
    patience: Patience,
) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let announced = response.content_length().unwrap_or(0);
    let too_large = |size| Failure::TooLarge {
        what: "a manifest",
        size,
        limit,
    };
    if announced > limit {
        return Err(too_large(announced));
    }
    // A body of a HEAD's response is announced, but there is none.
    while let Some(chunk) = chunk(&mut response, step, patience).await? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(too_large(body.len() as u64));
        }
    }
    Ok(body)
}

/// Whether a body ended before its announced end although nothing went wrong with the connection.
pub(crate) fn ended_early(error: &RequestError) -> bool {
    let RequestProblem::Unreachable(error) = &error.problem else {
        return false;
    };
    let io = find::<std::io::Error>(error as &(dyn Error + 'static));
    io.is_none_or(|e| e.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// The method for a request whose body is or is not wanted.
pub(crate) fn method(head_only: bool) -> Method {
    if head_only { Method::HEAD } else { Method::GET }
}

/// The digest that a registry claims for a manifest.
pub(crate) fn claimed_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn silent(host: &str, step: Step, time: Duration) -> RequestError {
    RequestError {
        host: host.to_owned(),
        step,
        problem: RequestProblem::Silent(time),
    }
}

/// `Retry-After`, in seconds or as a date. A date is compared with the response's own, so no clock has to be right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let told = text(RETRY_AFTER)?;
    let wait = match told.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = httpdate::parse_http_date(told).ok()?;
            let now = httpdate::parse_http_date(text(DATE)?).ok()?;
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The first error of a registry's error body, made safe for a status: one short line.
fn detail(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Entry { code, message } = serde_json::from_slice::<Body>(body)
        .ok()?
        .errors
        .into_iter()
        .next()?;
    let text = if message.is_empty() {
        code
    } else {
        format!("{code}: {message}")
    };
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_DETAIL)
        .collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let wait = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            headers.insert(
                DATE,
                HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"),
            );
            retry_after(&headers)
        };
        let cases = [
            ("17", Some(17)),
            ("999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:29:30 GMT", Some(90)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("Tue, 21 Oct 2025 07:28:00 GMT", Some(3600)),
            ("soon", None),
            ("-1", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(wait(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_registrys_words_are_short_and_on_one_line() {
        let body = format!(
            r#"{{"errors":[{{"code":"DENIED","message":"a\nb{}"}}]}}"#,
            "x".repeat(500)
        );
        let text = detail(body.as_bytes()).expect("words");
        assert!(text.starts_with("DENIED: a b") && text.chars().count() == MAX_DETAIL);
        assert_eq!(
            detail(br#"{"errors":[{"code":"DENIED"}]}"#).as_deref(),
            Some("DENIED")
        );
        for none in ["", "<html>", r#"{"errors":[]}"#, r#"{"error":"x"}"#] {
            assert_eq!(detail(none.as_bytes()), None, "{none}");
        }
    }
}
