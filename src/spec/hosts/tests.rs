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
        ("*", "http://127.0.0.1:80", false),
        ("*", "http://10.0.0.1:80", true),
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
        // Where Spin would allow port 443 alone, and wasmCloud allows every port.
        ("https://example.com", "https://example.com:8443", true),
        ("https://example.com:443", "https://example.com:8443", false),
        // Any scheme is one, with or without a port; wasmCloud's manifests may have some.
        ("redis://example.com", "redis://example.com:6379", true),
        ("redis://example.com", "http://example.com:80", false),
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
        ("0.0.0.0/0", "http://127.0.0.1:53", false),
        ("127.0.0.0/8", "http://127.0.0.1:53", true),
        ("[::ffff:10.0.0.0]/104", "http://10.1.2.3:80", true),
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
        (" ", "`*`"),
        ("http://", "no host"),
        ("https://", "no host"),
        ("https:///", "no host"),
        ("::1", "`[::1]`"),
        ("fd00::/8", "`[fd00::]/8`"),
        ("10.0.0.0/33", "network"),
        ("user@example.com", "user name"),
        ("{a,b}.example.com", "one entry for each"),
        ("{{ host }}", "templates"),
        ("http://self", "`self`"),
        ("http://self.alt", "`self`"),
        ("self", "`self`"),
        ("http://*.spin.internal", "the name of a Service"),
        ("http://back.spin.internal", "the name of a Service"),
        ("*.Spin.internal.:80", "the name of a Service"),
        ("https://{{ host }}", "templates"),
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

#[test]
fn blocked_ranges_are_known_in_every_spelling() {
    use BlockedRange::{LinkLocal, Loopback, Metadata, Multicast, Reserved, Unspecified};
    let cases = [
        (Some(Unspecified), "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0"),
        (
            Some(Loopback),
            "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 \
             64:ff9b:1::7f00:1 2002:7f00:1:: 2001:0:1::80ff:fffe",
        ),
        (
            Some(LinkLocal),
            "169.254.169.254 169.254.0.1 fe80::1 febf::1 ::ffff:169.254.169.254 ::169.254.169.254 \
             64:ff9b::169.254.169.254 64:ff9b:1:2::a9fe:a9fe 2002:a9fe:a9fe::1",
        ),
        (
            Some(Metadata),
            "100.100.100.200 168.63.129.16 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 ::ffff:168.63.129.16",
        ),
        (
            Some(Multicast),
            "224.0.0.1 239.255.255.255 ff02::1 ::ffff:224.0.0.1",
        ),
        (
            Some(Reserved),
            "240.0.0.1 255.255.255.255 64:ff9b::255.255.255.255",
        ),
        (
            None,
            "1.1.1.1 8.8.8.8 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 126.255.255.255 128.0.0.1 169.253.255.255 \
             169.255.0.1 223.255.255.255 2606:4700::1 fd12::1 fe7f::1 fec0::1 64:ff9b::8.8.8.8 2002:808:808:: \
             ::ffff:10.0.0.1",
        ),
    ];
    for (range, addresses) in cases {
        for address in addresses.split_whitespace() {
            assert_eq!(blocked(address.parse().unwrap()), range, "{address}");
        }
    }
}

#[test]
fn a_resolved_address_is_judged_by_itself() {
    // rules; scheme, host and port; address; whether it may be connected to
    type Case<'a> = (&'a [&'a str], (&'a str, &'a str, u16), &'a str, bool);
    let cases: &[Case<'_>] = &[
        (&["*"], ("http", "a.test", 80), "10.0.0.1", true),
        (&["*"], ("http", "a.test", 80), "127.0.0.1", false),
        (
            &["a.test"],
            ("http", "a.test", 80),
            "::ffff:169.254.169.254",
            false,
        ),
        (
            &["a.test"],
            ("http", "a.test", 80),
            "64:ff9b::a9fe:a9fe",
            false,
        ),
        (
            &["*.test", "0.0.0.0/0"],
            ("http", "a.test", 80),
            "127.0.0.1",
            false,
        ),
        // Opened by its address, by a network within the range; for that scheme and port only.
        (
            &["a.test", "127.0.0.1"],
            ("http", "a.test", 80),
            "127.0.0.1",
            true,
        ),
        (
            &["a.test", "127.0.0.0/8"],
            ("http", "a.test", 80),
            "127.3.2.1",
            true,
        ),
        (
            &["a.test", "127.0.0.1"],
            ("http", "a.test", 80),
            "::ffff:127.0.0.1",
            true,
        ),
        (
            &["a.test", "127.0.0.1"],
            ("http", "a.test", 80),
            "127.0.0.2",
            false,
        ),
        (
            &["a.test", "127.0.0.1:81"],
            ("http", "a.test", 80),
            "127.0.0.1",
            false,
        ),
        (
            &["a.test", "https://127.0.0.1"],
            ("http", "a.test", 80),
            "127.0.0.1",
            false,
        ),
        (
            &["a.test", "[fe80::]/10"],
            ("http", "a.test", 80),
            "fe80::1",
            true,
        ),
        (
            &["a.test", "[::]/0"],
            ("http", "a.test", 80),
            "fe80::1",
            false,
        ),
        // `localhost` is loopback, and nothing else is.
        (
            &["localhost:80"],
            ("http", "LocalHost.", 80),
            "127.0.0.1",
            true,
        ),
        (&["localhost"], ("http", "localhost", 80), "::1", true),
        (
            &["localhost"],
            ("http", "localhost", 80),
            "169.254.169.254",
            false,
        ),
        (
            &["localhost", "a.test"],
            ("http", "a.test", 80),
            "127.0.0.1",
            false,
        ),
        (&["*"], ("http", "localhost", 80), "127.0.0.1", false),
    ];
    for (rules, destination, address, wanted) in cases {
        let rules: Vec<AllowedHost> = rules.iter().map(|rule| parse(rule)).collect();
        let found = prohibited(&rules, &[], *destination, address.parse().unwrap());
        assert_eq!(
            found.is_none(),
            *wanted,
            "{rules:?} for {destination:?} at {address}: {found:?}"
        );
    }
}

#[test]
fn the_operators_networks_are_opened_by_no_rule() {
    let refused = |network: &str, address: &str| {
        let networks = [network.parse().unwrap()];
        let rules = [parse("*"), parse(address)];
        let found = prohibited(
            &rules,
            &networks,
            ("http", "a.test", 80),
            address.parse().unwrap(),
        );
        assert!(found.is_none() || found == Some(Prohibited::Network(networks[0].clone())));
        found.is_some()
    };
    let cases = [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("169.254.169.254", "169.254.169.254", true),
        ("private", "10.1.2.3", true),
        ("private", "172.31.0.1", true),
        ("private", "192.168.1.1", true),
        ("private", "100.64.0.1", true),
        ("private", "169.254.169.254", true),
        ("private", "127.0.0.1", true),
        ("private", "172.32.0.1", false),
        ("private", "100.128.0.1", false),
        ("private", "1.1.1.1", false),
    ];
    for (network, address, wanted) in cases {
        assert_eq!(refused(network, address), wanted, "{network} and {address}");
    }
    let contains = |network: &str, address: &str| {
        let network: BlockedNetwork = network.parse().unwrap();
        network.contains(address.parse().unwrap())
    };
    for address in [
        "fd00::1",
        "fec0::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:a00:1::",
    ] {
        assert!(contains("private", address), "{address}");
    }
    for address in [
        "2606:4700::1",
        "2a00::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
    ] {
        assert!(!contains("private", address), "{address}");
    }
    assert!(contains("10.0.0.0/8", "64:ff9b::10.0.0.1"));
    assert!(contains("::ffff:10.0.0.0/104", "10.0.0.1"));
    assert!(contains("[fd00::]/8", "fd12::1"));
    for wrong in [
        "",
        "public",
        "10.0.0.0/33",
        "10.0.0",
        "[fd00::/8",
        "example.com",
    ] {
        let error = wrong
            .parse::<BlockedNetwork>()
            .expect_err(wrong)
            .to_string();
        assert!(error.contains("`private`"), "{error}");
    }
    for text in ["private", "10.0.0.0/8", "[fd00::]/8"] {
        assert_eq!(text.parse::<BlockedNetwork>().unwrap().to_string(), text);
    }
}
