//! Texts to entries. Every error says what to write instead.

use std::str::FromStr;

use super::{
    AllowedHost, Host, ParseHostError, Port,
    address::{self, Network},
};

impl FromStr for AllowedHost {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        entry(text.trim()).map_err(|why| ParseHostError {
            text: text.to_owned(),
            why,
        })
    }
}

type Parsed<T> = Result<T, String>;

fn entry(text: &str) -> Parsed<AllowedHost> {
    if text.is_empty() {
        return Err("it is empty; remove the entry, or write `*` to allow every host".to_owned());
    }
    if text.contains("{{") {
        return Err("templates are not supported; write the host itself".to_owned());
    }
    if text.contains(['{', '}']) {
        return Err("lists in braces are not supported; write one entry for each".to_owned());
    }
    if text == "*" {
        return Ok(AllowedHost::any());
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (self::scheme(scheme)?, rest),
        None => (None, text),
    };
    if matches!(rest, "self" | "self.alt") {
        return Err("there is no `self`: name the host that the component is called by".to_owned());
    }
    let (host, port) = split(rest)?;
    if is_of_spin(host) {
        return Err(
            "there are no names in `spin.internal`: components of a workload call each other by what they import and export, \
             others by the name of a Service"
                .to_owned(),
        );
    }
    Ok(AllowedHost {
        scheme,
        host: self::host(host)?,
        port: port.map_or(Ok(Port::Any), self::port)?,
    })
}

fn scheme(text: &str) -> Parsed<Option<String>> {
    if text == "*" {
        return Ok(None);
    }
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    if first
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        Ok(Some(text.to_ascii_lowercase()))
    } else {
        Err(format!(
            "`{text}` is not a scheme; write `http`, `https` or `*` before `://`"
        ))
    }
}

/// Host and port, without what may not follow them.
fn split(rest: &str) -> Parsed<(&str, Option<&str>)> {
    let (bare, path) = match rest.split_once(['/', '?', '#']) {
        // A network, unless it is a path that happens to follow an address: `10.0.0.0/8`, `10.0.0.0/8:443`.
        Some((host, tail))
            if address::literal(host).is_some()
                && tail.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            (rest, "")
        }
        Some((host, tail)) if rest.get(host.len()..).is_some_and(|t| t.starts_with('/')) => {
            (host, tail)
        }
        Some(_) => {
            return Err(
                "it has a query or a fragment; only a host is compared, leave them out".to_owned(),
            );
        }
        None => (rest, ""),
    };
    if !path.is_empty() {
        return Err(format!(
            "it has the path `/{path}`; only a host is compared, leave the path out"
        ));
    }
    if bare.contains('@') {
        return Err("it has a user name; leave it out".to_owned());
    }
    if let Some(end) = bare.find(']') {
        let (host, tail) = bare.split_at(end + 1);
        // `[fd00::]/8:443`: the bits belong to the host.
        let (bits, port) = tail
            .split_once(':')
            .map_or((tail, None), |(bits, port)| (bits, Some(port)));
        let host = if bits.is_empty() {
            host
        } else {
            bare.get(..host.len() + bits.len()).unwrap_or(host)
        };
        return Ok((host, port));
    }
    match bare.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => {
            let (address, bits) = bare
                .split_once('/')
                .map_or((bare, String::new()), |(a, bits)| (a, format!("/{bits}")));
            Err(format!(
                "an IPv6 address or network needs brackets: write `[{address}]{bits}`"
            ))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((bare, None)),
    }
}

fn host(text: &str) -> Parsed<Host> {
    if text == "*" {
        return Ok(Host::Any);
    }
    if let Some((address, bits)) = text.split_once('/') {
        return network(address, bits);
    }
    if text.starts_with('[') {
        return address::literal(text)
            .map(|address| Host::Network(Network::of(address)))
            .ok_or_else(|| format!("`{text}` is not an IPv6 address"));
    }
    if let Some(address) = address::literal(text) {
        return Ok(Host::Network(Network::of(address)));
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    match lower.strip_prefix('*') {
        Some(suffix) => match suffix.strip_prefix('.') {
            Some(name) if is_name(name) => Ok(Host::Below(suffix.to_owned())),
            _ => Err(
                "a wildcard stands for whole labels at the beginning: write `*.example.com`"
                    .to_owned(),
            ),
        },
        None if lower.contains('*') => Err(
            "a wildcard stands for whole labels at the beginning: write `*.example.com`".to_owned(),
        ),
        None if lower.is_empty() => Err("it has no host; write `*` for every host".to_owned()),
        None if is_name(lower) => Ok(Host::Name(lower.to_owned())),
        None => Err(format!("`{text}` is not a host name")),
    }
}

fn network(address: &str, bits: &str) -> Parsed<Host> {
    let wrong = || {
        format!(
            "`{address}/{bits}` is not a network; write for example `10.0.0.0/8` or `[fd00::]/8`"
        )
    };
    Network::parse(&format!("{address}/{bits}"))
        .map(Host::Network)
        .ok_or_else(wrong)
}

fn port(text: &str) -> Parsed<Port> {
    let one = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
    };
    if text == "*" {
        return Ok(Port::Any);
    }
    let Some((from, to)) = text.split_once("..") else {
        let port = u32::from(one(text)?);
        return Ok(Port::Range(port..port + 1));
    };
    let from = u32::from(one(from)?);
    // The end is not in the range, so that 65536 is one.
    let to: u32 = if to == "65536" {
        65536
    } else {
        one(to)?.into()
    };
    if from < to {
        Ok(Port::Range(from..to))
    } else {
        Err(format!(
            "the range `{text}` is empty: it ends before its second number"
        ))
    }
}

/// Whether a host is one of those by which components of a Spin application call each other. No resolver knows them.
fn is_of_spin(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    host.ends_with(".spin.internal")
}

/// A host name: labels of letters, digits, `-` and (outside DNS, but in use) `_`.
fn is_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        })
}
