use super::*;

fn parse(text: &str) -> AllowedHost {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// `scheme://host:port`, taken apart naively.
fn allows(entry: &str, destination: &str) -> bool {
    let (scheme, rest) = destination.split_once("://").unwrap();
    let (host, port) = rest.rsplit_once(':').unwrap();
    parse(entry).allows(scheme, host, port.parse().unwrap())
}

#[test]
fn entries_allow_what_they_say() {
    let cases = [
        ("*", "https://example.com:443", true),
        ("*", "http://127.0.0.1:80", true),
        ("example.com", "https://example.com:8443", true),
        ("example.com", "https://EXAMPLE.com.:443", true),
        ("Example.COM.", "https://example.com:443", true),
        ("example.com", "https://www.example.com:443", false),
        ("example.com:8443", "https://example.com:8443", true),
        ("example.com:8443", "https://example.com:443", false),
        ("*.example.com", "https://a.b.example.com:443", true),
        ("*.example.com", "https://example.com:443", false),
        ("*.example.com", "https://evilexample.com:443", false),
        ("*.example.com:80", "https://a.example.com:443", false),
        ("https://example.com", "https://example.com:8443", true),
        ("https://example.com/", "https://example.com:443", true),
        ("https://example.com", "http://example.com:80", false),
        ("HTTPS://example.com", "https://example.com:443", true),
        (
            "https://*.example.com:443",
            "https://a.example.com:443",
            true,
        ),
        ("*://*:*", "http://example.com:80", true),
        ("http://*:80", "http://example.com:80", true),
        ("http://*:80", "http://example.com:81", false),
        (
            "*://example.com:8000..8010",
            "http://example.com:8009",
            true,
        ),
        (
            "*://example.com:8000..8010",
            "http://example.com:8010",
            false,
        ),
        ("example.com:1..65536", "http://example.com:65535", true),
        ("10.0.0.0/8", "http://10.1.2.3:80", true),
        ("10.0.0.0/8", "http://11.1.2.3:80", false),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3:8080", true),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3:80", false),
        ("0.0.0.0/0", "http://8.8.8.8:53", true),
        ("[fd00::]/8", "http://[fd12::1]:80", true),
        ("[fd00::]/8:443", "http://[fd12::1]:80", false),
        ("[::1]:80", "http://[::1]:80", true),
        ("127.0.0.1", "http://127.0.0.1:80", true),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:80", true),
        ("127.0.0.1", "http://2130706433:80", true),
        ("10.0.0.0/8", "http://ten.example.com:80", false),
        ("example.com", "http://10.0.0.1:80", false),
    ];
    for (entry, destination, wanted) in cases {
        assert_eq!(
            allows(entry, destination),
            wanted,
            "{entry} for {destination}"
        );
    }
}

#[test]
fn link_local_addresses_are_allowed_only_by_name() {
    let spellings = [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.0xfea9fe",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "169.254.169.254.",
    ];
    for host in spellings {
        for entry in ["*", "*://*:*", "0.0.0.0/0", "169.0.0.0/8"] {
            assert!(!parse(entry).allows("http", host, 80), "{entry} for {host}");
        }
        for entry in [
            "169.254.169.254",
            "169.254.0.0/16",
            "http://169.254.169.254:80",
        ] {
            assert!(parse(entry).allows("http", host, 80), "{entry} for {host}");
        }
    }
    assert!(!parse("*").allows("http", "[fe80::1]", 80));
    assert!(!parse("[::]/0").allows("http", "[fe80::1%eth0]", 80));
    assert!(parse("[fe80::]/10").allows("http", "[fe80::1]", 80));
}

#[test]
fn errors_name_the_fix() {
    let cases = [
        ("", "`*`"),
        ("https://example.com/v1", "path `/v1`"),
        ("https://example.com?q", "query"),
        ("example.com:port", "port from 1 to 65535"),
        ("example.com:0", "port from 1 to 65535"),
        ("example.com:70000", "port from 1 to 65535"),
        ("example.com:90..80", "empty"),
        ("*example.com", "`*.example.com`"),
        ("a.*.com", "`*.example.com`"),
        ("*.", "`*.example.com`"),
        ("ht tp://example.com", "scheme"),
        ("http://", "no host"),
        ("::1", "`[::1]`"),
        ("fd00::/8", "`[fd00::]/8`"),
        ("10.0.0.0/33", "network"),
        ("user@example.com", "user name"),
        ("{a,b}.example.com", "one entry for each"),
        ("{{ host }}", "templates"),
        ("http://self", "`self`"),
        ("exa mple.com", "host name"),
    ];
    for (entry, fix) in cases {
        let error = entry.parse::<AllowedHost>().expect_err(entry).to_string();
        assert!(error.contains(fix), "{entry}: {error}");
        assert!(error.contains(&format!("`{entry}`")), "{entry}: {error}");
    }
}

#[test]
fn what_is_shown_is_what_is_parsed() {
    for text in [
        "*",
        "example.com",
        "example.com:8080",
        "https://*.example.com:443",
        "10.0.0.0/8:80",
        "[fd00::]/8:1..10",
        "[::1]",
        "http://127.0.0.1",
    ] {
        assert_eq!(parse(text).to_string(), text);
        assert_eq!(parse(&parse(text).to_string()), parse(text));
    }
}
