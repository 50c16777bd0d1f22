//! Pieces of schema that a derive cannot say: bounded maps, quantities, closed sets of words, rules.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Most entries of a map of texts, and most items of lists that nobody would write longer by hand.
const MAX_ENTRIES: u32 = 1024;

/// A map of texts: `config` and the like.
pub(super) fn texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        // A ConfigMap may hold 1 MiB in all; a value that long belongs into one.
        "additionalProperties": { "type": "string", "maxLength": 65536 },
    })
}

/// A map like that of a label selector.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 253 },
    })
}

/// A quantity of bytes, as a text with a unit or as a number.
pub(super) fn bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": r"^[0-9]+(\.[0-9]+)?([eE][0-9]+|[KMGTP]i|[kMGTP])?$",
        "maxLength": 32,
    })
}

/// A closed set of words, for a field that is a text here (see [`super`]).
pub(super) fn words(words: &[&str]) -> Value {
    json!(words)
}

/// One CEL rule and what to say when it is broken.
pub(super) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}
