//! The shapes of JSON that the API takes and gives, as constants beside the code that writes them,
//! and as JSON Schema for the OpenAPI document.

use serde_json::{Map, Value, json};

use crate::limits;

#[derive(Clone, Copy)]
pub(super) enum Shape {
    Text,
    /// A point in time (RFC 3339).
    Moment,
    /// A duration, as the configuration writes it.
    Time,
    Whole,
    /// A whole number from, to.
    Between(u64, u64),
    /// An IP address or a CIDR block.
    Network,
    /// Of an endpoint.
    Weight,
    Number,
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    OrNull(&'static Shape),
    List(&'static Shape),
    /// Every member is there, and no other.
    Object(&'static [(&'static str, Shape)]),
    /// A body to send: every member may be left out.
    Optional(&'static [(&'static str, Shape)]),
    /// A body to send, of which only some members may be left out.
    Body {
        needed: &'static [(&'static str, Shape)],
        optional: &'static [(&'static str, Shape)],
    },
    /// Names that the operator or this process chooses.
    Map(&'static Shape),
    /// Text that is no JSON.
    Page,
    Anything,
}

impl Shape {
    pub(super) fn schema(self) -> Value {
        match self {
            Shape::Text | Shape::Page => json!({ "type": "string" }),
            Shape::Moment => json!({ "type": "string", "format": "date-time" }),
            Shape::Time => json!({ "type": "string", "pattern": TIME }),
            Shape::Whole => json!({ "type": "integer", "minimum": 0 }),
            Shape::Between(least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            // Less than is taken: no format knows blocks.
            Shape::Network => json!({
                "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }],
                "description": "An address, or a CIDR block such as 192.0.2.0/24 or 2001:db8::/32.",
            }),
            Shape::Weight => {
                json!({ "type": "integer", "minimum": 0, "maximum": limits::WEIGHT_MAX })
            }
            Shape::Number => json!({ "type": "number" }),
            Shape::Flag => json!({ "type": "boolean" }),
            Shape::Word(words) => json!({ "type": "string", "enum": words }),
            Shape::OrNull(shape) => json!({ "anyOf": [shape.schema(), { "type": "null" }] }),
            Shape::List(shape) => json!({ "type": "array", "items": shape.schema() }),
            Shape::Object(members) => {
                let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
                json!({
                    "type": "object", "properties": properties(members), "required": names,
                    "additionalProperties": false,
                })
            }
            Shape::Optional(members) => json!({
                "type": "object", "properties": properties(members),
                "additionalProperties": false,
            }),
            Shape::Body { needed, optional } => {
                let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
                let mut members = properties(needed);
                members.append(&mut properties(optional));
                json!({
                    "type": "object", "properties": members, "required": names,
                    "additionalProperties": false,
                })
            }
            Shape::Map(shape) => json!({
                "type": "object", "additionalProperties": shape.schema(),
            }),
            Shape::Anything => json!({ "type": "object" }),
        }
    }
}

/// A little less than is taken, so that all of it is: the limit is a day in every unit.
const TIME: &str = "^(0|[0-9]{1,4}(ms|s)|[0-9]{1,3}m|(1?[0-9]|2[0-4])h)$";

fn properties(members: &[(&str, Shape)]) -> Map<String, Value> {
    members.iter().map(|(name, shape)| ((*name).to_owned(), shape.schema())).collect()
}
