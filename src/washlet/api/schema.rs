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

/// Annotations of an object. The API server checks their names and their size when they are used.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "additionalProperties": { "type": "string", "maxLength": 262_144 },
    })
}

/// Labels of an object, refused here already where the API server would refuse the object later.
pub(super) fn object_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
    })
}

/// A number, or a share of another number, which may be more than all of it.
pub(super) fn count_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "pattern": "^[0-9]+%$",
        "maxLength": 8,
    })
}

/// A number, or a share of another number, which is not more than all of it.
pub(super) fn count_or_share(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "pattern": "^(100|[0-9]{1,2})%$",
        "maxLength": 4,
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
