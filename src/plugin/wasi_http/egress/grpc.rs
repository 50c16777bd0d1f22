//! Which calls are gRPC's. It needs HTTP/2, which servers inside a cluster speak without TLS, so that nothing negotiates it; and
//! WASI has no word for the version. So it is taken from the content's type, as wasmCloud does.

use http::{HeaderMap, header};

const TYPE: &[u8] = b"application/grpc";

/// Whether a request is gRPC's by its headers. gRPC-Web, which is made for HTTP/1.1, is something else.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let Some((kind, rest)) = value.as_bytes().split_at_checked(TYPE.len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_type() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("Application/gRPC", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc ; a=b", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpc-web-text", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("text/plain; application/grpc", false),
            ("", false),
        ] {
            let value = (header::CONTENT_TYPE, value.parse().unwrap());
            let headers = HeaderMap::from_iter([value.clone()]);
            assert_eq!(is_grpc(&headers), wanted, "{value:?}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
