//! A hash of a template, which names what is made from it. Pure.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::washlet::api::WorkloadTemplate;

/// Letters and digits that make no words by accident, as Kubernetes' own names have them.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// A hash of all that Workloads are made from. Equal templates have the same in all versions of this program: a changed hash
/// would replace every Workload of every replica set when the controller is upgraded.
pub(super) fn hash(template: &WorkloadTemplate) -> String {
    letters(&[&canonical(&json!(template))], 8)
}

/// As [`hash`], but another one after each collision.
pub(super) fn hash_after(template: &WorkloadTemplate, collisions: i32) -> String {
    if collisions == 0 {
        return hash(template);
    }
    letters(&[&canonical(&json!(template)), &collisions.to_string()], 8)
}

/// `count` letters that depend on all of the texts.
pub(super) fn letters(texts: &[&str], count: usize) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        // With its length, so that where one text ends and the next begins counts.
        hasher.update(text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let bytes = hasher.finalize();
    let letter = |byte: u8| {
        LETTERS
            .get(usize::from(byte) % LETTERS.len())
            .copied()
            .unwrap_or(b'x')
    };
    bytes
        .iter()
        .take(count)
        .map(|byte| char::from(letter(*byte)))
        .collect()
}

/// `BASE-SUFFIX`, with the base cut where it would be too long for a name.
pub(super) fn name(base: &str, suffix: &str) -> String {
    let room = MAX_NAME.saturating_sub(suffix.len() + 1);
    let base = base
        .get(..room)
        .unwrap_or(base)
        .trim_end_matches(['-', '.']);
    format!("{base}-{suffix}")
}

/// JSON with sorted keys, whatever order the type has its fields in.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let field =
                |(name, value): &(&String, &Value)| format!("{}:{}", json!(name), canonical(value));
            format!(
                "{{{}}}",
                fields.iter().map(field).collect::<Vec<_>>().join(",")
            )
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(value: Value) -> WorkloadTemplate {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_hash_of_a_template_never_changes() {
        let one = template(json!({
            "labels": { "app": "hello" },
            "spec": { "components": [{ "name": "hello", "image": "ghcr.io/acme/hello:v1" }] },
        }));
        assert_eq!(hash(&one), "fs6pzvcv");
    }

    #[test]
    fn any_part_of_a_template_changes_its_hash() {
        let base = json!({ "labels": { "a": "b" }, "spec": { "hostId": "x" } });
        let mut seen = vec![hash(&template(base.clone()))];
        for (at, value) in [
            ("/labels/a", json!("c")),
            ("/spec/hostId", json!("y")),
            (
                "/annotations",
                json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" }),
            ),
        ] {
            let mut other = base.clone();
            match other.pointer_mut(at) {
                Some(field) => *field = value,
                None => other[at.trim_start_matches('/')] = value,
            }
            seen.push(hash(&template(other)));
        }
        seen.push(hash_after(&template(base), 1));
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn a_name_fits() {
        assert_eq!(name("hello", "abc"), "hello-abc");
        assert_eq!(name(&"x".repeat(253), "abc").len(), 253);
        let cut = format!("{}.{}", "x".repeat(248), "y".repeat(4));
        assert_eq!(name(&cut, "abc"), format!("{}-abc", "x".repeat(248)));
    }
}
