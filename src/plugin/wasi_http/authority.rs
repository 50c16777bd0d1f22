//! Whom a request is for.

use std::{borrow::Cow, mem};

use http::{
    Request, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Makes the scheme of a request's target the one that it came by: most clients say none, and one could say another. No scheme
/// is that of plain HTTP. False if there would be no authority that a target with a scheme needs.
pub(super) fn set_scheme<B>(request: &mut Request<B>, secure: bool) -> bool {
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    match request.uri().scheme() {
        None if !secure => return true,
        Some(said) if *said == scheme => return true,
        _ => {}
    }
    let authority = of(request);
    let mut parts = mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = parts.authority.or(authority);
    parts
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    let uri = Uri::from_parts(parts);
    uri.map(|uri| *request.uri_mut() = uri).is_ok()
}

/// The authority that a request's header names, if its target has none.
pub(super) fn of<B>(request: &Request<B>) -> Option<Authority> {
    if request.uri().authority().is_some() {
        return None;
    }
    let host = request.headers().get(header::HOST)?;
    host.as_bytes().try_into().ok()
}

/// The host that a request is for: in lower case, without a port or a final dot.
pub(super) fn host<B>(request: &Request<B>) -> Option<Cow<'_, str>> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut all = request.headers().get_all(header::HOST).iter();
            let host = all.next()?.to_str().ok()?;
            // More than one would leave open who is meant.
            if all.next().is_some() || host.is_empty() {
                return None;
            }
            host
        }
    };
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split_once(']')?.0,
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _port)| host),
    };
    // Guests get the whole text as their authority, so it must be one: a name or an address, and a port.
    if !authority
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b))
    {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Some(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_the_one_that_the_request_came_by() {
        let cases = [
            ("/x?y", false, Some("/x?y")),
            ("/x?y", true, Some("https://a.com:1/x?y")),
            ("http://b.com/x", false, Some("http://b.com/x")),
            ("https://b.com/x", false, Some("http://b.com/x")),
            ("http://b.com/x", true, Some("https://b.com/x")),
            ("b.com:1", true, Some("https://b.com:1/")),
            ("*", true, Some("https://a.com:1*")),
        ];
        for (target, secure, wanted) in cases {
            let request = Request::builder()
                .uri(target)
                .header(header::HOST, "a.com:1");
            let mut request = request.body(()).unwrap();
            let set = set_scheme(&mut request, secure).then(|| request.uri().to_string());
            assert_eq!(set.as_deref(), wanted, "{target} {secure}");
        }
        let mut nobody = Request::builder().uri("/").body(()).unwrap();
        assert!(!set_scheme(&mut nobody, true));
    }

    fn of(target: &str, hosts: &[&str]) -> Option<String> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        host(&request.body(()).unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn hosts() {
        let cases: [(&str, &[&str], Option<&str>); 12] = [
            ("/", &["a.com"], Some("a.com")),
            ("/", &["A.com:8080"], Some("a.com")),
            ("/", &["a.com."], Some("a.com")),
            ("/", &["[::1]:80"], Some("::1")),
            ("http://b.com/x", &["a.com"], Some("b.com")),
            ("/", &[], None),
            ("/", &[""], None),
            ("/", &["a.com", "b.com"], None),
            ("/", &["a.com/x"], None),
            ("/", &["u@a.com"], None),
            ("/", &["a b"], None),
            ("/", &["[::1"], None),
        ];
        for (target, hosts, wanted) in cases {
            assert_eq!(of(target, hosts).as_deref(), wanted, "{target} {hosts:?}");
        }
    }
}
