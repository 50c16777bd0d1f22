mod cluster;
mod properties;

use super::*;
use cluster::{GIB, OwnedHost, OwnedWorkload, World, host, labels, need, on, workload};

#[test]
fn a_workload_that_fits_nowhere_says_why() {
    let with = |condition| OwnedHost {
        condition,
        ..host("x")
    };
    let wants = |f: fn(&mut OwnedWorkload)| {
        let mut wanting = workload("w");
        f(&mut wanting);
        wanting
    };
    let cases = [
        (
            vec![],
            workload("w"),
            "no hosts: is the agent's DaemonSet running?",
        ),
        (
            vec![
                with(Condition::Cordoned),
                with(Condition::Cordoned),
                host("a"),
            ],
            wants(|w| w.needs = vec![need("keyvalue", &["store"], None)]),
            "0/3 hosts are available: 2 cordoned, 1 lacks wasi:keyvalue",
        ),
        (
            vec![
                with(Condition::NotReady("shutting down")),
                with(Condition::Unproven),
                with(Condition::Lost {
                    since: Instant::now(),
                }),
            ],
            workload("w"),
            "0/3 hosts are available: 1 lost, 1 not yet seen alive, 1 shutting down",
        ),
        (
            vec![host("a"), host("b")],
            wants(|w| w.needs = vec![need("http", &["types", "handler"], Some("0.3.0"))]),
            "0/2 hosts are available: 2 lack wasi:http/types@0.3.0",
        ),
        (
            vec![host("a")],
            wants(|w| w.environment = Some("eu".into())),
            "0/1 hosts are available: 1 not in environment `eu`",
        ),
        (
            vec![host("a"), host("b")],
            wants(|w| w.selector = labels(&[("kubernetes.io/hostname", "a"), ("zone", "1")])),
            "0/2 hosts are available: 1 does not match hostSelector kubernetes.io/hostname=a, \
             1 does not match hostSelector zone=1",
        ),
        (
            // Its agent says so, and an administrator does not.
            vec![OwnedHost {
                own_labels: labels(&[("node-restriction.kubernetes.io/tenant", "t")]),
                ..host("a")
            }],
            wants(|w| w.selector = labels(&[("node-restriction.kubernetes.io/tenant", "t")])),
            "0/1 hosts are available: 1 does not match hostSelector node-restriction.kubernetes.io/tenant=t",
        ),
        (
            vec![host("a"), host("b")],
            wants(|w| w.memory = 3 << 29),
            "0/2 hosts are available: 2 with insufficient memory (1.5Gi wanted, at most 960Mi free)",
        ),
    ];
    for (hosts, wanting, message) in cases {
        let workloads = vec![wanting];
        assert_eq!(World { hosts, workloads }.place(), message);
    }
}

#[test]
fn a_host_that_passes_every_filter_is_found() {
    let mut other = host("b");
    other.environment = Some("eu".into());
    other.node_labels = labels(&[
        ("zone", "1"),
        ("node-restriction.kubernetes.io/tenant", "t"),
    ]);
    other.own_labels = labels(&[("zone", "2"), ("pool", "fast")]);
    let wants: [fn(&mut OwnedWorkload); 7] = [
        |w| w.environment = Some("eu".into()),
        |w| w.selector = labels(&[("node-restriction.kubernetes.io/tenant", "t")]),
        |w| w.selector = labels(&[("zone", "1"), ("pool", "fast")]),
        |w| w.environment = Some(String::new()),
        |w| w.needs = vec![need("http", &["handler"], None)],
        |w| {
            w.needs = vec![
                need("http", &["types"], Some("0.2.1")),
                need("config", &[], None),
            ]
        },
        |w| w.memory = GIB,
    ];
    for (case, f) in wants.iter().enumerate() {
        let mut wanting = workload("w");
        f(&mut wanting);
        let world = World {
            hosts: vec![other.clone()],
            workloads: vec![wanting],
        };
        assert_eq!(world.place(), "b", "case {case}");
    }
    let mut wanting = workload("w");
    wanting.selector = labels(&[("zone", "2")]);
    let world = World {
        hosts: vec![other],
        workloads: vec![wanting],
    };
    assert!(
        world.place().contains("zone=2"),
        "the Node's label comes first"
    );
}

#[test]
fn scores_are_siblings_then_room_then_images() {
    let sized = |uid: &str, memory| OwnedWorkload {
        memory,
        ..workload(uid)
    };
    let sibling = |uid: &str| OwnedWorkload {
        owner: Some("rs".into()),
        digests: vec!["sha256:1".into()],
        ..workload(uid)
    };
    let mut hosts = vec![host("a"), host("b"), host("c")];
    hosts[0].images = vec!["sha256:1".into()];
    let mut world = World {
        hosts,
        workloads: vec![
            on("b", sized("big", GIB / 2)),
            on("c", sibling("s1")),
            sibling("new"),
        ],
    };
    assert_eq!(world.place(), "a", "c has a sibling, b has less room");
    world.workloads.push(on("a", sibling("s2")));
    assert_eq!(world.place(), "b", "the only one without a sibling");
    world.workloads.push(on("b", sibling("s3")));
    assert_eq!(
        world.place(),
        "a",
        "one sibling each, and the image is there"
    );
    world.workloads.push(on("a", sized("small", GIB / 4)));
    assert_eq!(world.place(), "c", "more room");
    world.workloads.push(on("c", workload("nothing")));
    world.workloads.push(on("c", sized("quarter", GIB / 4)));
    assert_eq!(world.place(), "a", "as much memory, fewer workloads");
}

#[test]
fn one_app_label_makes_siblings_and_pinned_ones_count() {
    let app = |uid: &str| OwnedWorkload {
        app: Some("shop".into()),
        ..workload(uid)
    };
    let mut first = on("a", app("first"));
    first.pinned = true;
    let mut world = World {
        hosts: vec![host("a"), host("b")],
        workloads: vec![
            first,
            on("b", workload("u1")),
            on("b", workload("u2")),
            app("second"),
        ],
    };
    assert_eq!(world.place(), "b", "a has a sibling, though it is emptier");
    world.workloads[0].app = None;
    assert_eq!(world.place(), "a");
}

#[test]
fn a_host_that_became_unsuitable_keeps_what_it_has() {
    let mut kept = on("a", workload("w"));
    kept.selector = labels(&[("zone", "gone")]);
    kept.memory = 5 * GIB;
    let mut world = World {
        hosts: vec![host("a"), host("b")],
        workloads: vec![kept],
    };
    let stay = [
        Condition::Ready,
        Condition::Cordoned,
        Condition::NotReady("shutting down"),
        Condition::Unproven,
    ];
    for condition in stay {
        world.hosts[0].condition = condition;
        assert_eq!(
            schedule(&world.snapshot(), 9),
            Plan::default(),
            "{condition:?}"
        );
    }
}

#[test]
fn workloads_leave_lost_hosts_in_turn() {
    let start = Instant::now();
    let lost = |id, seconds| OwnedHost {
        condition: Condition::Lost {
            since: start + std::time::Duration::from_secs(seconds),
        },
        ..host(id)
    };
    let aged = |uid: &str, at: &str, created| OwnedWorkload {
        created,
        ..on(at, workload(uid))
    };
    let mut pinned = aged("pinned", "early", 0);
    pinned.pinned = true;
    let mut world = World {
        hosts: vec![lost("late", 9), lost("early", 5), host("c")],
        workloads: vec![
            aged("l1", "late", 1),
            aged("e2", "early", 2),
            aged("e1", "early", 1),
            aged("g1", "gone", 7),
            pinned,
            workload("new"),
        ],
    };
    let order = |world: &World, moves| {
        let plan = schedule(&world.snapshot(), moves);
        let uids: Vec<_> = plan
            .decisions
            .iter()
            .map(|d| world.workloads[d.workload].uid.clone())
            .collect();
        (uids.join(" "), plan.moved, plan.waiting)
    };
    assert_eq!(order(&world, 0), ("new".into(), 0, 4));
    assert_eq!(order(&world, 2), ("g1 e1 new".into(), 2, 2));
    assert_eq!(order(&world, 9), ("g1 e1 e2 l1 new".into(), 4, 0));

    world.hosts[2].condition = Condition::Cordoned;
    assert_eq!(
        order(&world, 2),
        ("g1 e1 e2 l1 new".into(), 0, 0),
        "what cannot move costs nothing"
    );
    let told = world.run(9);
    assert_eq!(told["l1"], "0/3 hosts are available: 2 lost, 1 cordoned");
}

#[test]
fn the_older_one_gets_the_last_room() {
    let sized = |uid: &str, created| OwnedWorkload {
        memory: GIB,
        created,
        ..workload(uid)
    };
    let world = World {
        hosts: vec![host("a")],
        workloads: vec![sized("young", 2), sized("old", 1)],
    };
    let told = world.run(0);
    assert_eq!(told["old"], "a");
    assert_eq!(
        told["young"],
        "0/1 hosts are available: 1 with insufficient memory (1Gi wanted, at most 0 free)"
    );
}

#[test]
fn ten_thousand_on_a_thousand() {
    let mut world = World::default();
    for index in 0..1_000 {
        let mut host = host(&format!("node-{index:04}"));
        host.node_labels
            .insert("zone".into(), format!("z{}", index % 3));
        host.images = (0..50)
            .map(|i| format!("sha256:{:064}", (index + i) % 200))
            .collect();
        host.memory = Some(8 * GIB);
        world.hosts.push(host);
    }
    for index in 0..10_000 {
        let mut wanting = workload(&format!("uid-{index}"));
        wanting.created = index;
        wanting.memory = (64 + u64::try_from(index % 5).unwrap() * 64) << 20;
        wanting.owner = Some(format!("owner-{}", index / 20));
        wanting.digests = vec![format!("sha256:{:064}", index % 300)];
        wanting.needs = vec![need("http", &["incoming-handler"], None)];
        if index % 4 == 0 {
            wanting.selector = labels(&[("zone", &format!("z{}", index % 3))]);
        }
        world.workloads.push(wanting);
    }
    let snapshot = world.snapshot();
    let start = std::time::Instant::now();
    let plan = schedule(&snapshot, 0);
    println!("10,000 workloads on 1,000 hosts: {:?}", start.elapsed());
    let mut load = vec![0_u32; 1_000];
    for decision in &plan.decisions {
        let Verdict::Host(host) = decision.verdict else {
            panic!("{decision:?}");
        };
        load[host] += 1;
    }
    assert_eq!(plan.decisions.len(), 10_000);
    let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
    println!("workloads a host: {least} to {most}");
    assert!(*least >= 5 && *most <= 15, "{least} to {most}");

    // The same cluster with room for nobody: each says why.
    world
        .hosts
        .iter_mut()
        .for_each(|host| host.memory = Some(1 << 20));
    let snapshot = world.snapshot();
    let start = std::time::Instant::now();
    let plan = schedule(&snapshot, 0);
    println!("the same with no room: {:?}", start.elapsed());
    let nowhere = |d: &&Decision| matches!(d.verdict, Verdict::Nowhere(_));
    assert_eq!(plan.decisions.iter().filter(nowhere).count(), 10_000);
}
