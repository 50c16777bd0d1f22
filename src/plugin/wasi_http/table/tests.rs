use super::*;
use crate::plugin::testing::config_entry;

fn route(host: &str, path: &str) -> Route {
    let mut config = vec![("path", path)];
    if !host.is_empty() {
        config.push(("host", host));
    }
    Route::of_entry(&config_entry("wasi:http", &["handler"], &config))
        .unwrap()
        .unwrap()
}

fn table(routes: &[(&str, &str)]) -> Table<String> {
    let table = Table::new();
    for (host, path) in routes {
        table.set(&route(host, path), vec![Arc::new(format!("{host}{path}"))]);
    }
    table
}

#[test]
fn the_most_specific_route_answers() {
    let table = table(&[
        ("", "/"),
        ("", "/any"),
        ("a.com", "/"),
        ("a.com", "/api"),
        ("a.com", "/api/v1"),
        ("*.a.com", "/"),
        ("*.b.a.com", "/"),
        ("only.com", "/api"),
    ]);
    let cases = [
        ("a.com", "/", "a.com/"),
        ("a.com", "/api", "a.com/api"),
        ("a.com", "/api/v1/x", "a.com/api/v1"),
        ("a.com", "/apis", "a.com/"),
        ("x.a.com", "/", "*.a.com/"),
        ("x.y.a.com", "/", "*.a.com/"),
        ("x.b.a.com", "/", "*.b.a.com/"),
        ("b.a.com", "/", "*.a.com/"),
        ("other.com", "/", "/"),
        ("other.com", "/any/x", "/any"),
        ("only.com", "/api/x", "only.com/api"),
        ("only.com", "/x", "/"),
        ("", "/", "/"),
    ];
    for (host, path, wanted) in cases {
        assert_eq!(
            table.find(host, path).unwrap().as_str(),
            wanted,
            "{host} {path}"
        );
    }
}

#[test]
fn what_is_gone_is_not_found() {
    let table = table(&[("a.com", "/"), ("*.a.com", "/"), ("", "/x")]);
    assert!(table.find("b.com", "/").is_none());
    for (host, path) in [("a.com", "/"), ("*.a.com", "/"), ("", "/x")] {
        table.set(&route(host, path), Vec::new());
    }
    assert!(table.find("a.com", "/").is_none());
    assert!(table.find("x.a.com", "/").is_none());
    assert!(table.find("b.com", "/x").is_none());
    assert_eq!(table.suffixes.load(Ordering::Relaxed), 0);
}

#[test]
fn targets_take_turns() {
    let table = Table::new();
    table.set(&route("a.com", "/"), vec![Arc::new(1), Arc::new(2)]);
    let mut got: Vec<i32> = (0..4).map(|_| *table.find("a.com", "/").unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, [1, 1, 2, 2]);
}
