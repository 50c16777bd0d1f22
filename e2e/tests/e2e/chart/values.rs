//! Every value does something, and a wrong one is refused by its name.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use washlet_e2e::chart::Helm;

use super::{defaults, render};

const NAMESPACE: &str = "washlet";

/// What has to be on for the rest to be seen.
fn everything_on() -> Value {
    json!({
        "service": {"enabled": true},
        "tls": {"secretName": "certificate"},
        "metrics": {"serviceMonitor": {"enabled": true}, "dashboard": {"enabled": true}},
        "updateStrategy": {"maxSurge": 0},
    })
}

/// Another value that is legal; by the end of the path, else by its type.
fn another(path: &str, value: &Value) -> Value {
    let by_name = match path {
        "image.repository" => json!("registry.test:5000/washlet"),
        "image.tag" => json!("v2"),
        "image.pullPolicy" => json!("Always"),
        "imagePullSecrets" => json!([{"name": "login"}]),
        "watchNamespaces" | "secrets.namespaces" => json!(["team-a"]),
        "registries" => json!({"registry.test:5000": {"plainHttp": true}}),
        "listenAddress" => json!("::"),
        "egress.blockNetworks" => json!(["private", "fd00::/8"]),
        "ports.http" => json!(8090),
        "memory" | "compileMemory" | "state.sizeLimit" | "state.compiled" | "state.volumes" => {
            json!("2Gi")
        }
        "state.hostPath" => json!("/srv/washlet"),
        "hostPathRoots" => json!(["/srv/models"]),
        "log.format" => json!("text"),
        "service.type" => json!("NodePort"),
        "extraEnv" => json!([{"name": "HTTPS_PROXY", "value": "http://proxy.test"}]),
        "securityContext.capabilities.drop" => json!(["NET_RAW"]),
        "controller.topologySpreadConstraints" => {
            json!([{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}])
        }
        "networkPolicy.from" | "networkPolicy.adminFrom" => json!([{"podSelector": {}}]),
        "networkPolicy.egress" => json!([{"ports": [{"port": 443}]}]),
        "metrics.serviceMonitor.interval" => json!("10s"),
        "tolerations" | "controller.tolerations" => json!([{"operator": "Exists"}]),
        "affinity" | "controller.affinity" => json!({"nodeAffinity": {}}),
        _ => Value::Null,
    };
    match value {
        _ if !by_name.is_null() => by_name,
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_i64().unwrap_or_default() + 1),
        Value::String(text) if text == "auto" => json!(false),
        Value::String(_) if path.ends_with(".cpu") || path.ends_with(".memory") => json!("7"),
        Value::String(_) => json!("other"),
        Value::Object(_) => json!({"a": "b"}),
        _ => Value::Null,
    }
}

/// The paths of all values: what has no parts, and what has none yet.
fn leaves(value: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                leaves(value, &[path, std::slice::from_ref(key)].concat(), found);
            }
        }
        _ => found.push(path.to_vec()),
    }
}

fn get<'a>(mut value: &'a Value, path: &[String]) -> &'a Value {
    for key in path {
        value = &value[key];
    }
    value
}

fn set(mut value: &mut Value, path: &[String], new: Value) {
    for key in path {
        if !value[key].is_object() {
            value[key] = json!({});
        }
        value = &mut value[key];
    }
    *value = new;
}

#[test]
fn every_value_is_observed() -> Result<()> {
    let helm = Helm::offline()?;
    let defaults = defaults()?;
    let mut paths = Vec::new();
    leaves(&defaults, &[], &mut paths);
    ensure!(paths.len() > 70, "{}", paths.len());
    let bases = [json!({}), everything_on()];
    let plain = bases
        .iter()
        .map(|base| render(&helm, NAMESPACE, base))
        .collect::<Result<Vec<_>>>()?;
    let mut dead = Vec::new();
    for path in &paths {
        let shown = path.join(".");
        let new = another(&shown, get(&defaults, path));
        ensure!(
            !new.is_null() && new != *get(&defaults, path),
            "the test knows no other value for {shown}"
        );
        let mut observed = false;
        for (base, plain) in bases.iter().zip(&plain) {
            let mut values = base.clone();
            set(&mut values, path, new.clone());
            let rendered = render(&helm, NAMESPACE, &values);
            if rendered.with_context(|| format!("{shown}: {new}"))? != *plain {
                observed = true;
                break;
            }
        }
        if !observed {
            dead.push(shown);
        }
    }
    ensure!(dead.is_empty(), "no template looks at {dead:?}");
    Ok(())
}

#[test]
fn wrong_values_are_refused_by_name() -> Result<()> {
    let helm = Helm::offline()?;
    let defaults = defaults()?;
    let mut paths = Vec::new();
    leaves(&defaults, &[], &mut paths);
    // What is handed to Kubernetes as it is has a schema there.
    paths.retain(|path| !["podSecurityContext", "securityContext"].contains(&path[0].as_str()));
    // All at once: each violation is told.
    let mut values = json!({});
    for path in &paths {
        let wrong = match get(&defaults, path) {
            Value::Array(_) | Value::Object(_) => json!("text"),
            Value::String(text) if text == "auto" => json!("maybe"),
            Value::String(_) => json!(["list"]),
            _ => json!("text"),
        };
        set(&mut values, path, wrong);
    }
    let said = refused(&helm, &values)?;
    for path in &paths {
        let pointer = path
            .join("/")
            .replace("kubernetes.io/os", "kubernetes.io~1os");
        ensure!(
            said.contains(&format!("'/{pointer}'")),
            "{pointer} is not in: {said}"
        );
    }

    let mut unknown = json!({});
    let mut parts: Vec<&[String]> = paths.iter().map(|path| &path[..path.len() - 1]).collect();
    let open = |part: &[String]| {
        let last = part.last().map_or("", String::as_str);
        ["nodeSelector", "labels", "requests", "limits"].contains(&last)
    };
    parts.retain(|part| !open(part));
    parts.sort();
    parts.dedup();
    for part in &parts {
        set(
            &mut unknown,
            &[part, ["mistyped".to_owned()].as_slice()].concat(),
            json!(1),
        );
    }
    let said = refused(&helm, &unknown)?;
    for part in &parts {
        let pointer: String = part.iter().map(|key| format!("/{key}")).collect();
        let line = format!("at '{pointer}': additional properties 'mistyped' not allowed");
        ensure!(said.contains(&line), "{line} is not in: {said}");
    }
    Ok(())
}

#[test]
fn values_that_only_look_right_are_refused_with_what_is_wrong() -> Result<()> {
    let helm = Helm::offline()?;
    let certificate = "-----BEGIN CERTIFICATE-----\nx\n";
    for (values, says) in [
        (json!({"image": {"tag": ""}}), "/image/tag"),
        (json!({"watchNamespaces": ["Team"]}), "/watchNamespaces/0"),
        (
            json!({"updateStrategy": {"maxSurge": "101%"}}),
            "/updateStrategy/maxSurge",
        ),
        (
            json!({"resources": {"limits": {"memory": "1GB"}}}),
            "/resources/limits/memory",
        ),
        (json!({"state": {"hostPath": "srv"}}), "/state/hostPath"),
        (json!({"hostPathRoots": ["srv"]}), "/hostPathRoots/0"),
        (
            json!({"controller": {"replicas": 0}}),
            "/controller/replicas",
        ),
        (
            json!({"registries": {"r.test/x": {}}}),
            "'r.test/x' does not match",
        ),
        (
            json!({"registries": {"r.test": {"ca": "x"}}}),
            "/registries/r.test/ca",
        ),
        (
            json!({"registries": {"r.test": {"mirrors": ["m.test"]}}}),
            "/registries/r.test/mirrors/0",
        ),
        (
            json!({"registries": {"r.test": {"ca": certificate, "plainHttp": true}}}),
            "leave one of them out",
        ),
        (
            json!({"terminationGracePeriodSeconds": 89}),
            "/terminationGracePeriodSeconds",
        ),
        (
            json!({"livenessProbe": {"successThreshold": 2}}),
            "/livenessProbe/successThreshold",
        ),
        (json!({"listenAddress": "10.0.0.256"}), "/listenAddress"),
        (json!({"listenAddress": ":::"}), "/listenAddress"),
        (
            json!({"watchNamespaces": ["a"], "secrets": {"namespaces": ["b"]}}),
            "\"b\" is not among watchNamespaces",
        ),
    ] {
        let said = refused(&helm, &values)?;
        ensure!(said.contains(says), "{says} is not in: {said}");
    }
    Ok(())
}

#[test]
fn values_that_contradict_the_chart_are_refused_by_path() -> Result<()> {
    let helm = Helm::offline()?;
    let name = json!({"app.kubernetes.io/name": "other"});
    for (values, says) in [
        (
            json!({"ports": {"http": 8081}}),
            "ports.http and ports.admin are both 8081",
        ),
        (
            json!({"ports": {"https": 8080}, "tls": {"secretName": "a"}}),
            "ports.https and ports.http are both 8080",
        ),
        (
            json!({"ports": {"http": 20000}}),
            "ports.http: 20000 is among",
        ),
        (
            json!({"ports": {"admin": 29999}}),
            "ports.admin: 29999 is among",
        ),
        (json!({"listenAddress": "127.0.0.1"}), "listenAddress: "),
        (json!({"listenAddress": "127.9.9.9"}), "listenAddress: "),
        (json!({"listenAddress": "::1"}), "listenAddress: "),
        (
            json!({"extraEnv": [{"name": "A"}, {"name": "RUST_LOG"}]}),
            "extraEnv[1].name: ",
        ),
        (
            json!({"extraEnv": [{"name": "NODE_NAME"}]}),
            "extraEnv[0].name: ",
        ),
        (
            json!({"extraEnv": [{"name": "WASHLET_ENVIRONMENT"}]}),
            "use environment",
        ),
        (
            json!({"podLabels": name}),
            "podLabels: the label app.kubernetes.io/name",
        ),
        (
            json!({"controller": {"podLabels": name}}),
            "controller.podLabels: the label",
        ),
        (json!({"commonLabels": name}), "commonLabels: the label"),
        (
            json!({"hostLabels": {"topology.kubernetes.io/zone": "a"}}),
            "hostLabels: topology",
        ),
        (
            json!({"hostLabels": {"node-restriction.kubernetes.io/t": "a"}}),
            "hostLabels: node-",
        ),
    ] {
        let said = refused(&helm, &values)?;
        ensure!(said.contains(says), "{says} is not in: {said}");
    }
    for values in [
        json!({"ports": {"http": 19999, "admin": 30000}, "listenAddress": "10.1.27.1"}),
        json!({"ports": {"http": 8443}}),
        json!({"listenAddress": "::11", "hostLabels": {"notkubernetes.io/zone": "a"}}),
    ] {
        render(&helm, NAMESPACE, &values).with_context(|| values.to_string())?;
    }
    Ok(())
}

fn refused(helm: &Helm, values: &Value) -> Result<String> {
    match render(helm, NAMESPACE, values) {
        Err(error) => Ok(format!("{error:#}")),
        Ok(_) => bail!("not refused: {values}"),
    }
}

#[test]
fn an_image_may_be_named_by_digest() -> Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let values = json!({"image": {"repository": "registry.test/washlet", "tag": digest}});
    let rendered = render(&Helm::offline()?, NAMESPACE, &values)?;
    let image = format!("image: \"registry.test/washlet@{digest}\"\n");
    // The agent, the controller, and the test.
    ensure!(rendered.matches(&image).count() == 3, "{rendered}");
    Ok(())
}
