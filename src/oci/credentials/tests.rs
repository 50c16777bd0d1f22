use super::*;

const ORIGIN: &str = "secret default/registry";

fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
        .collect()
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic {
        username: username.to_owned(),
        password: Secret::new(password),
    }
}

fn only(found: Result<Vec<RegistryCredential>, CredentialError>) -> Credential {
    let mut found = found.expect("a credential");
    assert_eq!(found.len(), 1);
    found.remove(0).credential
}

#[test]
fn entries_of_a_docker_configuration() {
    // `dTpwOndpdGg6Y29sb25z` is `u:p:with:colons`; `dTpw` and `dTpwYQ==` are `u:p` and `u:pa`.
    let cases = [
        (
            r#"{"auth":"dTpwOndpdGg6Y29sb25z"}"#,
            basic("u", "p:with:colons"),
        ),
        (r#"{"auth":"dTpwYQ=="}"#, basic("u", "pa")),
        (r#"{"auth":"dTpwYQ"}"#, basic("u", "pa")),
        (r#"{"auth":" dTpw\n"}"#, basic("u", "p")),
        (r#"{"auth":"dTpwAAA="}"#, basic("u", "p")),
        (
            r#"{"username":"u","password":"p","email":"e"}"#,
            basic("u", "p"),
        ),
        (
            r#"{"username":"x","password":"x","auth":"dTpw"}"#,
            basic("u", "p"),
        ),
        (
            r#"{"auth":"dTpw","identitytoken":"t"}"#,
            Credential::Identity(Secret::new("t")),
        ),
        (r#"{"auth":"dTpw","identitytoken":""}"#, basic("u", "p")),
        (
            r#"{"identitytoken":"i","registrytoken":"r"}"#,
            Credential::Bearer(Secret::new("r")),
        ),
    ];
    for (entry, expected) in cases {
        for json in [
            format!(r#"{{"auths":{{"r.io":{entry}}}}}"#),
            format!(r#"{{"r.io":{entry}}}"#),
        ] {
            assert_eq!(
                only(parse_docker_config(json.as_bytes(), ORIGIN)),
                expected,
                "{json}"
            );
        }
    }
}

#[test]
fn entries_come_in_reverse_lexical_order_and_empty_ones_are_passed_over() {
    let json = br#"{"auths":{"*.io":{"auth":"dTpw"},"r.io":{},"r.io/a":{"auth":"dTpw"},"r.io/b":null,"z.io":{"auth":"dTpw"}}}"#;
    let scopes: Vec<_> = parse_docker_config(json, ORIGIN)
        .expect("valid")
        .into_iter()
        .filter_map(|c| c.scope)
        .collect();
    assert_eq!(scopes, ["z.io", "r.io/a", "*.io"]);
}

#[test]
fn a_secret_is_read_by_its_content() {
    let config = r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#;
    for key in [".dockerconfigjson", "config.json", ".dockercfg"] {
        for kind in ["Opaque", "kubernetes.io/dockerconfigjson", "anything"] {
            assert_eq!(
                only(from_secret(kind, &secret(&[(key, config)]), ORIGIN)),
                basic("u", "p")
            );
        }
    }
    let data = secret(&[
        ("username", "u\n"),
        ("password", "p:q\r\n"),
        ("registry", "https://r.io/v2/\n"),
    ]);
    let found = from_secret("Opaque", &data, ORIGIN).expect("valid");
    assert_eq!(found[0].scope.as_deref(), Some("https://r.io/v2/"));
    assert_eq!(found[0].credential, basic("u", "p:q"));
    assert_eq!(found[0].origin, ORIGIN);

    let data = secret(&[("username", "u"), ("password", "p")]);
    assert_eq!(
        from_secret("kubernetes.io/basic-auth", &data, ORIGIN).expect("valid")[0].scope,
        None
    );
    let data = secret(&[("token", "t")]);
    assert_eq!(
        only(from_secret("Opaque", &data, ORIGIN)),
        Credential::Bearer(Secret::new("t"))
    );
}

#[test]
fn errors_name_the_secret_and_what_is_missing_but_no_value() {
    let cases = [
        (secret(&[]), "no key at all"),
        (secret(&[("pass", "HUSH")]), "found `pass`"),
        (
            secret(&[("username", "HUSH")]),
            "`username` but not `password`",
        ),
        (
            secret(&[("password", "HUSH"), ("token", "HUSH")]),
            "`password` but not `username`",
        ),
        (
            secret(&[("username", "u"), ("password", "\n")]),
            "`password` is empty",
        ),
        (secret(&[(".dockerconfigjson", "HUSH")]), "line 1, column 1"),
        (
            secret(&[(".dockerconfigjson", r#"{"auths":"HUSH"}"#)]),
            "line 1",
        ),
        (
            secret(&[(".dockerconfigjson", r#"{"auths":{"r.io":"HUSH"}}"#)]),
            "line 1",
        ),
        (
            secret(&[(
                ".dockerconfigjson",
                r#"{"auths":{"r.io":{"auth":["HUSH"]}}}"#,
            )]),
            "line 1",
        ),
        (
            secret(&[(
                ".dockerconfigjson",
                r#"{"auths":{"r.io":{"auth":"HUSH!"}}}"#,
            )]),
            "`auth` of `r.io`",
        ),
        // Base64 of `HUSH`, without a colon.
        (
            secret(&[(
                ".dockerconfigjson",
                r#"{"auths":{"r.io":{"auth":"SFVTSA=="}}}"#,
            )]),
            "`auth` of `r.io`",
        ),
        (
            secret(&[(".dockerconfigjson", r#"{"auths":{}}"#)]),
            "no entry",
        ),
        (secret(&[(".dockerconfigjson", "{}")]), "no entry"),
        (
            secret(&[(
                ".dockerconfigjson",
                r#"{"auths":{"r.io":{}},"credsStore":"x"}"#,
            )]),
            "never run",
        ),
        (
            secret(&[(".dockerconfigjson", r#"{"credHelpers":{"r.io":"x"}}"#)]),
            "never run",
        ),
    ];
    for (data, part) in cases {
        let text = from_secret("Opaque", &data, ORIGIN)
            .expect_err(part)
            .to_string();
        assert!(text.starts_with(ORIGIN) && text.contains(part), "{text}");
        assert!(!text.contains("HUSH"), "{text}");
    }
    let mut data = secret(&[("username", "u")]);
    data.insert("password".to_owned(), vec![0xff]);
    let text = from_secret("Opaque", &data, ORIGIN)
        .expect_err("not text")
        .to_string();
    assert!(text.contains("`password` is not UTF-8"), "{text}");
}

#[test]
fn a_service_accounts_token_never_leaves() {
    let data = secret(&[("token", "HUSH"), ("ca.crt", "x"), ("namespace", "default")]);
    let error = from_secret(SERVICE_ACCOUNT_TOKEN, &data, ORIGIN).expect_err("refused");
    assert_eq!(error.problem, CredentialProblem::ServiceAccountToken);
}
