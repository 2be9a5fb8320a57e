//! `GET /admin/openapi.json`: the table of operations as an OpenAPI 3.1 document.

use serde_json::{Map, Value, json};

use crate::admin::Port;
use crate::admin::api::{Kind, OPERATIONS, Operation, Parameter};
use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::http::head::Method;
use crate::limits;

pub(super) const SHAPE: Shape = Shape::Anything;

const ERROR: Shape = Shape::Object(&[(
    "error",
    Shape::Object(&[
        ("code", Shape::Text),
        ("message", Shape::Text),
        ("request_id", Shape::Text),
        ("timestamp", Shape::Moment),
    ]),
)]);

pub(super) async fn page() -> Result<Answer, Refusal> {
    Ok(Answer::json(&document()))
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS.iter().filter(|one| one.ports.contains(&Port::Admin)) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[method(operation)] = described(operation);
        if operation.method == Method::Get {
            path["head"] = head(operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Corelane admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Changes are made by POST, PUT, PATCH and DELETE only. On loopback \
                without configured tokens no token is needed; with tokens every operation but \
                those of /health needs one of the role that it names.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Error": ERROR.schema() },
        },
    })
}

fn method(operation: &Operation) -> &'static str {
    match operation.method {
        Method::Get | Method::Head => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
        Method::Patch => "patch",
        Method::Options | Method::Connect | Method::Trace | Method::Other => {
            unreachable!("the table has no such operation")
        }
    }
}

fn described(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for gives in operation.gives {
        let response = responses
            .entry(gives.status.to_string())
            .or_insert_with(|| json!({ "description": operation.summary, "content": {} }));
        response["content"][gives.content_type] = json!({ "schema": gives.shape.schema() });
    }
    responses.insert("default".to_owned(), refusal());
    let mut value = json!({
        "operationId": id(operation, method(operation)),
        "summary": operation.summary,
        "parameters": parameters(operation),
        "security": security(operation),
        "responses": responses,
    });
    if let Some(role) = operation.role {
        value["x-role"] = json!(role.label());
    }
    if let Some(shape) = operation.takes {
        let required = operation.takes_configuration()
            || matches!(shape, Shape::Object(_) | Shape::Body { .. });
        value["requestBody"] = json!({ "required": required, "content": {} });
        for content_type in operation.types() {
            value["requestBody"]["content"][content_type] = json!({ "schema": shape.schema() });
        }
        if operation.takes_configuration() {
            let header = json!({
                "name": "If-Match", "in": "header", "required": false,
                "description": "The ETag of the version that is to be replaced.",
                "schema": { "type": "string" },
            });
            value["parameters"].as_array_mut().into_iter().for_each(|all| all.push(header.clone()));
        }
    }
    value
}

/// As GET, without its content.
fn head(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for gives in operation.gives {
        let response = json!({ "description": operation.summary });
        responses.insert(gives.status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({ "description": "Refused." }));
    json!({
        "operationId": id(operation, "head"),
        "summary": operation.summary,
        "parameters": parameters(operation),
        "security": security(operation),
        "responses": responses,
    })
}

fn id(operation: &Operation, method: &str) -> String {
    let mut id = method.to_owned();
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        id.push('_');
        id.push_str(word);
    }
    id
}

fn security(operation: &Operation) -> Value {
    // Without tokens in the configuration none is needed.
    if operation.role.is_some() { json!([{}, { "token": [] }]) } else { json!([]) }
}

fn refusal() -> Value {
    json!({
        "description": "Refused: what was wrong, and what was expected.",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let segments = operation.path.split('/').filter_map(|s| s.strip_prefix('{'));
    let named = segments.map(|segment| {
        json!({
            "name": segment.trim_end_matches('}'), "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1 },
        })
    });
    named.chain(operation.parameters.iter().map(parameter)).collect()
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Whole { max } => json!({ "type": "integer", "minimum": 0, "maximum": max }),
        Kind::Time => Shape::Time.schema(),
        Kind::Flag => Shape::Flag.schema(),
        Kind::Words(words) => {
            let words = words.join("|");
            json!({ "type": "string", "pattern": format!("^({words})(,({words}))*$") })
        }
        Kind::Text => {
            let most = limits::TAP_TEXT_BYTES_MAX;
            json!({ "type": "string", "minLength": 1, "maxLength": most })
        }
        Kind::Status => json!({ "type": "string", "pattern": "^([1-5][0-9]{2}|[1-5]xx|0)$" }),
        Kind::Address | Kind::Network => Shape::Network.schema(),
    };
    json!({
        "name": parameter.name, "in": "query", "required": false, "description": parameter.doc,
        "schema": schema,
    })
}
