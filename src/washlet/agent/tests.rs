//! What the agent makes of its configuration.

use super::*;

fn config(listen: &str, advertise: &[&str]) -> Config {
    Config {
        block_networks: Vec::new(),
        node_name: "node".to_owned(),
        system_namespace: None,
        kubeconfig: None,
        namespaces: Vec::new(),
        http: Http::new(listen.parse().expect("an address")),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        state_dir: PathBuf::new(),
        registry_certs_dir: None,
        cache_space: None,
        volume_space: None,
        host_path_roots: Vec::new(),
        allow_host_loopback: false,
        advertise_addresses: advertise
            .iter()
            .map(|a| a.parse().expect("an IP"))
            .collect(),
        environment: None,
        host_labels: BTreeMap::new(),
        memory: None,
        compiler: None,
        compile_memory: None,
    }
}

#[test]
fn addresses_are_those_given_or_where_it_listens() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("0.0.0.0:80", &[], &[]),
        ("10.0.0.1:80", &[], &["10.0.0.1"]),
        (
            "[::]:80",
            &["10.0.0.2", "fd00::2"],
            &["10.0.0.2", "fd00::2"],
        ),
        ("0.0.0.0:80", &["10.0.0.2", "fd00::2"], &["10.0.0.2"]),
        ("[fd00::1]:80", &["10.0.0.2", "fd00::2"], &["fd00::2"]),
        ("10.0.0.1:80", &["10.0.0.2"], &["10.0.0.2"]),
    ];
    for (listen, given, expected) in cases {
        let found = advertised(&config(listen, given)).expect("good");
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{listen} {given:?}");
    }
}

#[test]
fn addresses_that_make_no_sense_are_named() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["10.0.0.1", "10.0.0.2"],
            "10.0.0.2: is of the same family as 10.0.0.1",
        ),
        (
            &["fd00::1", "10.0.0.1", "fd00::2"],
            "fd00::2: is of the same family as fd00::1",
        ),
        (&["0.0.0.0"], "0.0.0.0: nobody can reach it"),
        (&["ff02::1"], "ff02::1: nobody can reach it"),
    ];
    for (given, expected) in cases {
        let error = advertised(&config("0.0.0.0:80", given)).expect_err("bad");
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("--advertise-address"),
            "{text}"
        );
    }
}
