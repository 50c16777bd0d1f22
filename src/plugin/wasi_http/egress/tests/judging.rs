//! Where calls may go, and what is told of those that may not.

use super::*;

#[tokio::test]
async fn names_are_looked_up_once_and_connected_to_where_they_were_judged() {
    // Closes each connection after its answer, so that each call needs a new one.
    let server = Server::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
    })
    .await;
    // The second answer is the owner's attempt.
    let names = Names::new(&[&["127.0.0.1"], &["::ffff:169.254.169.254"]]);
    let mut world = World::new(&Outside::new().resolver(names.clone()));
    let main = world.component(&["a.test", "127.0.0.1"]);
    assert_eq!(get(&main, &server.named()).await.unwrap(), "ok");
    assert_eq!(names.asked(), 1);
    assert!(world.told().is_empty());
    let failed = get(&main, &server.named()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    assert_eq!(names.asked(), 2);
    let counts = world.counters.snapshot();
    assert_eq!((counts.denied, counts.prohibited), (0, 1));
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "EgressDenied default/test: component \"main\"",
        &format!(
            "http://a.test:{}: ::ffff:169.254.169.254 is among the link-local addresses",
            server.port
        ),
        &format!("`http://169.254.169.254:{}`", server.port),
    ] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
}

#[tokio::test]
async fn addresses_that_no_rule_names_are_not_connected_to() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&["*"], &["127.0.0.1"], false),
        (&["a.test"], &["::ffff:127.0.0.1"], false),
        (
            &["a.test"],
            &["169.254.169.254", "fe80::1", "0.0.0.0", "::"],
            false,
        ),
        (&["a.test", "127.0.0.1"], &["127.0.0.1"], true),
        // The ones that are good are used, in their order, until one answers.
        (
            &["a.test", "127.0.0.0/8"],
            &["169.254.169.254", "127.0.0.9", "127.0.0.1"],
            true,
        ),
    ];
    for (rules, addresses, wanted) in cases {
        let world = World::new(&Outside::new().resolver(Names::new(&[addresses])));
        let main = world.component(rules);
        let before = server.connections();
        let answer = get(&main, &server.named()).await;
        match answer {
            Ok(text) => assert!(*wanted && text == "ok", "{rules:?} {addresses:?}"),
            Err(Error::DestinationIpProhibited) => {
                assert!(!wanted, "{rules:?} {addresses:?}");
                assert_eq!(server.connections(), before, "{rules:?} {addresses:?}");
            }
            Err(error) => panic!("{rules:?} {addresses:?}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn the_rules_of_one_component_are_not_its_neighbours() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let world = World::new(&Outside::new().resolver(Names::new(&[&["127.0.0.1"]])));
    let may = world.component(&["a.test", "127.0.0.1"]);
    let may_not = world.component(&["a.test"]);
    assert_eq!(get(&may, &server.named()).await.unwrap(), "ok");
    // There is an idle connection now, which leads to where this one may not.
    let failed = get(&may_not, &server.named()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    assert_eq!(get(&may, &server.named()).await.unwrap(), "ok");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_operators_networks_stay_closed() {
    let server = Server::http(|_| async { reply("ok") }).await;
    let mut outside = Outside::new();
    outside.networks = ["private".parse().unwrap()].into();
    let mut world = World::new(&outside);
    let main = world.component(&["127.0.0.1"]);
    let failed = get(&main, &server.url()).await.unwrap_err();
    assert!(
        matches!(failed, Error::DestinationIpProhibited),
        "{failed:?}"
    );
    let told = world.told();
    assert!(
        told[0].contains("`private`") && told[0].contains("--block-network"),
        "{told:?}"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn denials_are_told_once_for_each_destination_and_not_without_end() {
    let mut world = World::new(&Outside::new());
    let main = world.component(&["example.com"]);
    for _ in 0..3 {
        let failed = get(&main, "http://127.0.0.1:1/").await.unwrap_err();
        assert!(matches!(failed, Error::HttpRequestDenied), "{failed:?}");
    }
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("add `http://127.0.0.1:1` to its localResources.allowedHosts"),
        "{told:?}"
    );
    for port in 1..=200 {
        get(&main, &format!("https://other.test:{port}/"))
            .await
            .unwrap_err();
    }
    assert_eq!(world.told().len(), 9);
    assert_eq!(world.counters.snapshot().denied, 203);
    assert_eq!(world.pool.outside.totals.snapshot().denied, 203);
}
