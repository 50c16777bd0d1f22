//! Rollouts in a random world: Workloads become Ready when they like, and the controllers act in any order.

use serde_json::json;

use super::{
    super::{model::Model, write::Kind},
    rollout::Limits,
};

/// Runs, each with its own seed.
const RUNS: u64 = 20;

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn share(&mut self) -> serde_json::Value {
        match self.below(2) {
            0 => json!(self.below(4)),
            _ => json!(format!("{}%", self.below(5) * 25)),
        }
    }
}

fn start(random: &mut Random) -> Model {
    let mut model = Model::new();
    let mut spec =
        json!({ "replicas": random.below(8) + 1, "template": { "spec": { "environment": "0" } } });
    if random.below(4) > 0 {
        spec["maxSurge"] = random.share();
        spec["maxUnavailable"] = random.share();
    }
    model.create(
        Kind::Deployment,
        json!({ "metadata": { "name": "hello" }, "spec": spec }),
    );
    model.roll();
    model
}

/// One thing that may happen at any time without anybody's doing.
fn stir(model: &mut Model, random: &mut Random) {
    model.pass(1);
    let pick = |names: Vec<String>, random: &mut Random| {
        let count = names.len() as u64;
        (count > 0).then(|| names[random.below(count) as usize].clone())
    };
    match random.below(4) {
        0 => {
            model.act(Kind::Deployment, "hello");
        }
        1 => {
            if let Some(name) = pick(model.names(Kind::ReplicaSet), random) {
                model.act(Kind::ReplicaSet, &name);
            }
        }
        2 => {
            if let Some(name) = pick(model.names(Kind::Workload), random) {
                model.ready(&name);
            }
        }
        _ => model.end(),
    }
}

fn counts(model: &Model) -> (i32, i32) {
    let workloads: Vec<crate::washlet::api::Workload> = model.all(Kind::Workload);
    let (count, _) = super::super::owned::count(&workloads, 0, model.now);
    (count.live, count.available)
}

#[test]
fn a_rollout_stays_within_its_limits_and_ends() {
    for seed in 1..=RUNS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut model = start(&mut random);
        model.linger = random.below(2) == 0;
        let limits = Limits::of(&model.deployment().spec);
        for change in 1..4 {
            // Also before the last rollout has ended.
            let template = json!({ "spec": { "environment": change.to_string() } });
            model.edit(
                Kind::Deployment,
                "hello",
                json!({ "spec": { "template": template } }),
            );
            for step in 0..random.below(400) {
                stir(&mut model, &mut random);
                let (live, available) = counts(&model);
                let what = format!(
                    "seed {seed}, change {change}, step {step}: {live} live, {available} available, {limits:?}"
                );
                assert!(live <= limits.most(), "{what}");
                assert!(available >= limits.fewest(), "{what}");
            }
        }
        model.linger = false;
        model.end();
        model.roll();
        let (live, available) = counts(&model);
        assert_eq!(
            (live, available),
            (limits.replicas, limits.replicas),
            "seed {seed}"
        );
        let last = model.sets().pop().unwrap();
        assert_eq!(
            (
                last.spec.replicas,
                last.spec.template.spec.environment.as_deref()
            ),
            (Some(limits.replicas), Some("3"))
        );
        model.pass(86_400);
        assert_eq!(model.decide_deployment("hello").writes, [], "seed {seed}");
        assert_eq!(
            model
                .condition(Kind::Deployment, "hello", "Ready")
                .unwrap()
                .0,
            "True"
        );
    }
}

#[test]
fn whatever_happens_it_ends_well() {
    for seed in 1..=RUNS {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut model = start(&mut random);
        for _ in 0..300 {
            stir(&mut model, &mut random);
            let spec = match random.below(24) {
                0 => json!({ "replicas": random.below(10) }),
                1 => {
                    json!({ "template": { "spec": { "environment": random.below(4).to_string() } } })
                }
                2 => json!({ "paused": random.below(2) == 0 }),
                3 => {
                    json!({ "deployPolicy": if random.below(2) == 0 { "Recreate" } else { "RollingUpdate" } })
                }
                4 => {
                    let names = model.names(Kind::Workload);
                    if let Some(name) = names.get(random.below(10) as usize) {
                        model.say(name, false, "Trapped", "unreachable");
                    }
                    continue;
                }
                5 => {
                    let names = model.names(Kind::Workload);
                    if let Some(name) = names.get(random.below(10) as usize) {
                        model.remove(Kind::Workload, name);
                    }
                    continue;
                }
                _ => continue,
            };
            model.edit(Kind::Deployment, "hello", json!({ "spec": spec }));
        }
        model.edit(
            Kind::Deployment,
            "hello",
            json!({ "spec": { "paused": null } }),
        );
        model.roll();
        let wanted = model.deployment().spec.replicas.unwrap();
        assert_eq!(counts(&model), (wanted, wanted), "seed {seed}");
        assert_eq!(
            model
                .condition(Kind::Deployment, "hello", "Ready")
                .unwrap()
                .0,
            "True",
            "seed {seed}"
        );
        assert_eq!(model.decide_deployment("hello").writes, [], "seed {seed}");
    }
}
