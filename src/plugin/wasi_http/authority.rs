//! Whom a request is for.

use std::borrow::Cow;

use http::{Request, header};

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
