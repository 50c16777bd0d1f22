use super::*;
use crate::plugin::{testing::config_entry, wasi_http::route::Route};

fn route(host: &str) -> Route {
    Route::of_entry(&config_entry("wasi:http", &["handler"], &[("host", host)]))
        .unwrap()
        .unwrap()
}

fn claim(id: &str, created: i64, owner: &str, hosts: &[&str]) -> Claim {
    Claim {
        workload: id.into(),
        created,
        owner: owner.into(),
        name: format!("default/{id}").into(),
        routes: hosts.iter().map(|host| route(host)).collect(),
    }
}

#[test]
fn the_older_workload_has_the_route() {
    let mut claims = Claims::default();
    let (young, _) = claims.insert(claim("young", 2, "young", &["a"]));
    assert_eq!(claims.standing(young), Some(&Standing::Holds));

    let (old, change) = claims.insert(claim("old", 1, "old", &["a"]));
    assert_eq!(change.routes, [(route("a"), vec![old])]);
    assert_eq!(change.standings.len(), 2);
    let waits = Standing::Waits {
        route: route("a"),
        holder: "default/old".into(),
    };
    assert_eq!(claims.standing(young), Some(&waits));

    let change = claims.remove(old);
    assert_eq!(change.routes, [(route("a"), vec![young])]);
    assert_eq!(change.standings, [young]);
    assert_eq!(claims.remove(young).routes, [(route("a"), vec![])]);
    assert!(claims.remove(young).routes.is_empty());
}

#[test]
fn ties_are_broken_by_name() {
    let named = |id: &str, name: &str| Claim {
        name: name.into(),
        ..claim(id, 1, id, &["x"])
    };
    let mut claims = Claims::default();
    let (second, _) = claims.insert(named("id-1", "default/b"));
    let (first, _) = claims.insert(named("id-2", "default/a"));
    assert_eq!(claims.standing(first), Some(&Standing::Holds));
    let waits = Standing::Waits {
        route: route("x"),
        holder: "default/a".into(),
    };
    assert_eq!(claims.standing(second), Some(&waits));
}

#[test]
fn replicas_share() {
    let mut claims = Claims::default();
    let (a, _) = claims.insert(claim("a", 1, "set", &["x"]));
    let (b, change) = claims.insert(claim("b", 2, "set", &["x"]));
    assert_eq!(change.routes, [(route("x"), vec![a, b])]);
    assert_eq!(claims.remove(a).routes, [(route("x"), vec![b])]);
}

#[test]
fn all_or_none() {
    let mut claims = Claims::default();
    let (a, _) = claims.insert(claim("a", 1, "a", &["x"]));
    let (b, change) = claims.insert(claim("b", 2, "b", &["x", "y"]));
    assert!(change.routes.is_empty());
    // What b cannot have is free for somebody younger.
    let (c, change) = claims.insert(claim("c", 3, "c", &["y"]));
    assert_eq!(change.routes, [(route("y"), vec![c])]);
    // Until b can have all.
    let change = claims.remove(a);
    assert_eq!(
        change.routes,
        [(route("x"), vec![b]), (route("y"), vec![b])]
    );
    assert!(matches!(claims.standing(c), Some(Standing::Waits { .. })));
}

#[test]
fn a_new_generation_takes_over_when_it_can_have_all() {
    let mut claims = Claims::default();
    let (first, _) = claims.insert(claim("a", 2, "a", &["x"]));
    let (other, _) = claims.insert(claim("b", 1, "b", &["y"]));
    let (second, change) = claims.insert(claim("a", 2, "a", &["x", "y"]));
    assert!(change.routes.is_empty());
    assert_eq!(claims.standing(first), Some(&Standing::Holds));
    assert!(matches!(
        claims.standing(second),
        Some(Standing::Waits { .. })
    ));

    let change = claims.remove(other);
    assert_eq!(
        change.routes,
        [(route("x"), vec![second]), (route("y"), vec![second])]
    );
    assert_eq!(claims.standing(first), Some(&Standing::Superseded));
    // The old one is not missed, and comes back if the new one goes first.
    assert!(
        claims
            .remove(second)
            .routes
            .contains(&(route("x"), vec![first]))
    );
}

#[test]
fn a_claim_of_nothing_has_all_that_it_wants() {
    let mut claims = Claims::default();
    let (token, change) = claims.insert(claim("a", 1, "a", &[]));
    assert_eq!(claims.standing(token), Some(&Standing::Holds));
    assert_eq!(change.standings, [token]);
}

/// The rules, applied to everything from the beginning.
fn model(all: &BTreeMap<Token, Claim>) -> BTreeMap<Token, bool> {
    let mut order: Vec<_> = all.iter().collect();
    order.sort_by_key(|(token, claim)| (claim.created, claim.name.clone(), Reverse(**token)));
    let mut holds = BTreeMap::new();
    let mut served: BTreeSet<&WorkloadId> = BTreeSet::new();
    let mut owners: HashMap<&Route, &str> = HashMap::new();
    for (token, claim) in order {
        let free = claim
            .routes
            .iter()
            .all(|r| owners.get(r).is_none_or(|owner| *owner == &*claim.owner));
        let wins = free && served.insert(&claim.workload);
        if wins {
            owners.extend(claim.routes.iter().map(|r| (r, &*claim.owner)));
        }
        holds.insert(*token, wins);
    }
    holds
}

#[test]
fn step_by_step_is_the_same_as_from_the_beginning() {
    // A small generator of numbers, so that a failure can be repeated.
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let hosts = ["a", "b", "c", "d", "e"];
    for _ in 0..200 {
        let mut claims = Claims::default();
        let mut all: BTreeMap<Token, Claim> = BTreeMap::new();
        let mut table: BTreeMap<Route, Vec<Token>> = BTreeMap::new();
        for _ in 0..40 {
            let change = if random(3) == 0 && !all.is_empty() {
                let index = random(all.len() as u64) as usize;
                let token = *all.keys().nth(index).unwrap();
                all.remove(&token);
                claims.remove(token)
            } else {
                let id = random(8);
                let wanted: Vec<&str> = hosts.iter().copied().filter(|_| random(3) == 0).collect();
                let claim = claim(
                    &id.to_string(),
                    (id / 2) as i64,
                    &(id % 5).to_string(),
                    &wanted,
                );
                let (token, change) = claims.insert(claim.clone());
                all.insert(token, claim);
                change
            };
            for (route, holders) in change.routes {
                table.insert(route, holders);
            }
            table.retain(|_, holders| !holders.is_empty());

            let wanted = model(&all);
            for (token, holds) in &wanted {
                assert_eq!(claims.standing(*token) == Some(&Standing::Holds), *holds);
            }
            let mut expected: BTreeMap<Route, Vec<Token>> = BTreeMap::new();
            for (token, claim) in all.iter().filter(|(token, _)| wanted[token]) {
                for route in &claim.routes {
                    expected.entry(route.clone()).or_default().push(*token);
                }
            }
            assert_eq!(table, expected);
        }
    }
}

#[test]
fn who_leaves_has_what_nobody_else_wants() {
    let mut claims = Claims::default();
    let (old, _) = claims.insert(claim("old", 1, "old", &["x"]));
    // Nobody takes its place: it is still the one to ask.
    assert!(claims.leave(old).routes.is_empty());
    assert_eq!(claims.standing(old), Some(&Standing::Holds));
    // Somebody comes, however young.
    let (young, change) = claims.insert(claim("young", 2, "young", &["x"]));
    assert_eq!(change.routes, [(route("x"), vec![young])]);
    assert_eq!(claims.standing(old), Some(&Standing::Superseded));
    assert!(claims.remove(old).routes.is_empty());

    // Who waited is next, and a replica goes on alone.
    let (waits, _) = claims.insert(claim("waits", 3, "waits", &["x"]));
    assert_eq!(claims.leave(young).routes, [(route("x"), vec![waits])]);
    let (replica, _) = claims.insert(claim("replica", 4, "waits", &["x"]));
    assert_eq!(claims.leave(waits).routes, [(route("x"), vec![replica])]);
}

#[test]
fn a_claim_can_change_its_routes() {
    let mut claims = Claims::default();
    let (a, _) = claims.insert(claim("a", 1, "a", &["x"]));
    let (b, _) = claims.insert(claim("b", 2, "b", &["x"]));
    let change = claims.update(a, Vec::new());
    assert_eq!(change.routes, [(route("x"), vec![b])]);
    assert_eq!(claims.standing(a), Some(&Standing::Holds), "it wants none");
    let change = claims.update(a, vec![route("x"), route("y")]);
    assert_eq!(
        change.routes,
        [(route("x"), vec![a]), (route("y"), vec![a])]
    );
    assert!(matches!(claims.standing(b), Some(Standing::Waits { .. })));
    // What stays is not touched.
    let change = claims.update(a, vec![route("x")]);
    assert_eq!(change.routes, [(route("y"), vec![])]);
}

/// What all claims have, by the rules alone.
fn from_the_beginning(claims: &Claims) -> BTreeMap<Token, Standing> {
    let all = claims.claims.keys().copied().collect();
    claims.decide(&all).into_iter().collect()
}

#[test]
fn what_is_decided_quickly_is_what_the_rules_say() {
    let mut seed = 11_u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let hosts = ["a", "b", "c", "d"];
    for round in 0..600 {
        let mut claims = Claims::default();
        let mut live: Vec<Token> = Vec::new();
        let mut table: BTreeMap<Route, Vec<Token>> = BTreeMap::new();
        // From one owner, whose replicas share everything, to as many as there are workloads.
        let owners = 1 + round % 4;
        for step in 0..40 {
            let before: BTreeMap<Token, Standing> = claims
                .claims
                .iter()
                .map(|(token, (_, standing))| (*token, standing.clone()))
                .collect();
            let wanted: Vec<&str> = hosts.iter().copied().filter(|_| random(3) == 0).collect();
            let index = random(live.len().max(1) as u64) as usize;
            let change = match (random(6), live.get(index).copied()) {
                (0, Some(token)) => claims.leave(token),
                (1, Some(token)) => claims.update(token, wanted.into_iter().map(route).collect()),
                (2 | 3, Some(token)) => {
                    live.swap_remove(index);
                    claims.remove(token)
                }
                _ => {
                    let id = random(6);
                    let owner = (id % owners).to_string();
                    let claim = claim(&id.to_string(), (id / 2) as i64, &owner, &wanted);
                    let (token, change) = claims.insert(claim);
                    assert!(change.standings.contains(&token), "a new one is told");
                    live.push(token);
                    change
                }
            };
            for (route, holders) in change.routes {
                table.insert(route, holders);
            }
            table.retain(|_, holders| !holders.is_empty());

            let now = from_the_beginning(&claims);
            let mut expected: BTreeMap<Route, Vec<Token>> = BTreeMap::new();
            for (token, (claim, standing)) in &claims.claims {
                assert_eq!(standing, &now[token], "round {round}, step {step}");
                if before.get(token) != Some(standing) {
                    assert!(change.standings.contains(token), "{token:?} is not told");
                }
                for route in claim.routes.iter().filter(|_| *standing == Standing::Holds) {
                    expected.entry(route.clone()).or_default().push(*token);
                }
            }
            assert_eq!(table, expected, "round {round}, step {step}");
        }
    }
}

#[test]
fn many_replicas_of_one_owner_come_and_go() {
    let mut claims = Claims::default();
    let begun = std::time::Instant::now();
    let tokens: Vec<Token> = (0..5_000)
        .map(|n| claims.insert(claim(&n.to_string(), n, "set", &["x"])).0)
        .collect();
    println!("5,000 replicas on one route: {:?}", begun.elapsed());
    assert_eq!(claims.holders[&route("x")], tokens);
    let begun = std::time::Instant::now();
    for token in &tokens {
        claims.leave(*token);
        claims.remove(*token);
    }
    println!("and their end: {:?}", begun.elapsed());
    assert!(claims.holders.is_empty() && claims.claims.is_empty());
    // Somebody else's claim is why all of them have to be looked at, each once.
    claims.insert(claim("other", -1, "other", &["x"]));
    let begun = std::time::Instant::now();
    for n in 0..500 {
        claims.insert(claim(&n.to_string(), n, "set", &["x"]));
    }
    println!("500 that wait for another one: {:?}", begun.elapsed());
    assert_eq!(claims.holders[&route("x")].len(), 1);
}
