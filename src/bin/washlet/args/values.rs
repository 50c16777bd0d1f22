//! Values of flags: what is taken, and what is said about the rest.

use std::{net::SocketAddr, time::Duration};

/// As a chart writes it, `:8081` is every address.
pub(super) fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let text = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    text.parse()
        .map_err(|e: std::net::AddrParseError| format!("{e}; write it as 127.0.0.1:8081 or :8081"))
}

/// A word: what a label's value may be, so that it can be compared with one.
pub(super) fn word(text: &str) -> Result<String, String> {
    if is_label_value(text) {
        Ok(text.to_owned())
    } else {
        Err("it is no word; use at most 63 letters, digits, `-`, `_` and `.`, with a letter or a digit at both ends".to_owned())
    }
}

/// A label, as Kubernetes takes it.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("there is no `=`; write it as KEY=VALUE, for example zone=a")?;
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let dns = |prefix: &str| {
        (1..=253).contains(&prefix.len())
            && prefix.split('.').all(|label| {
                is_label_value(label)
                    && !label.is_empty()
                    && label
                        .bytes()
                        .all(|b| b == b'-' || b.is_ascii_digit() || b.is_ascii_lowercase())
            })
    };
    if name.is_empty() || !is_label_value(name) || !prefix.is_none_or(dns) {
        return Err(format!(
            "`{key}` is no key of a label; write it as `zone` or `example.com/zone`"
        ));
    }
    if !is_label_value(value) {
        return Err(format!(
            "`{value}` is no value of a label; use at most 63 letters, digits, `-`, `_` and `.`, with a letter or a digit at both ends"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn is_label_value(text: &str) -> bool {
    let end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// A time: a whole number, in seconds or with a unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number
        .parse()
        .map_err(|_| "write it as `500ms`, `60s` or `2m`".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("`{unit}` is none of ms, s and m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_every_address() {
        assert_eq!(
            admin_address(":8081").map(|a| a.to_string()),
            Ok("0.0.0.0:8081".to_owned())
        );
        assert!(admin_address("8081").is_err());
    }

    #[test]
    fn labels_are_kubernetes_labels() {
        for (text, key, value) in [
            ("zone=a", "zone", "a"),
            ("example.com/zone=", "example.com/zone", ""),
            ("a_b.C=x-Y_z.1", "a_b.C", "x-Y_z.1"),
        ] {
            assert_eq!(label(text), Ok((key.to_owned(), value.to_owned())));
        }
        let cases = [
            ("zone", "KEY=VALUE"),
            ("=a", "no key"),
            ("a b=c", "no key"),
            ("A.com/x=c", "no key"),
            ("/x=c", "no key"),
            ("x=-", "no value"),
            ("x=a b", "no value"),
        ];
        for (text, expected) in cases {
            let error = label(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(label(&format!("x={}", "a".repeat(64))).is_err());
        assert!(word("eu-1").is_ok() && word("eu 1").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("5"), Ok(Duration::from_secs(5)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "1h", "-1"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
