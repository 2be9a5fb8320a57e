//! A part of a configuration over the whole: JSON Merge Patch (RFC 7396). Variables stay what they
//! are. TOML keeps its comments and its order; of YAML and JSON only the values come out, as JSON.

use serde_json::{Map, Value as Json};
use toml::{Table, Value};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, TableLike};

use super::read;
use super::syntax::Syntax;

/// `text` with `patch` over it: TOML as it was, of YAML and JSON the values as JSON. What comes out
/// may still be no configuration. The error is a sentence about the patch.
pub fn patched(syntax: Syntax, text: &str, patch: &[u8]) -> Result<(Syntax, String), String> {
    let patch: Json = serde_json::from_slice(patch).map_err(|error| {
        // It may quote the body: enough of it to recognise, and no more.
        error.to_string().chars().take(MESSAGE_CHARS_MAX).collect::<String>()
    })?;
    let Json::Object(patch) = patch else {
        return Err("expected an object, such as {\"limits\": {\"max_headers_count\": 50}}".into());
    };
    let mut whole = syntax.table(text);
    merge(&mut whole, &patch, "")?;
    match syntax {
        Syntax::Toml => edited(text, &patch, &whole).map(|text| (syntax, text)),
        Syntax::Yaml | Syntax::Json => {
            let no_form = |error: serde_json::Error| format!("it has no form in JSON: {error}");
            let text = serde_json::to_string_pretty(&whole).map_err(no_form)?;
            Ok((Syntax::Json, text + "\n"))
        }
    }
}

fn edited(text: &str, patch: &Map<String, Json>, whole: &Table) -> Result<String, String> {
    if let Ok(mut document) = text.parse::<DocumentMut>() {
        edit(document.as_table_mut(), patch, whole);
        let edited = document.to_string();
        if edited.parse::<Table>().is_ok_and(|found| found == *whole) {
            return Ok(edited);
        }
    }
    // No comments, but what was asked for.
    toml::to_string(whole).map_err(|error| format!("it has no form in TOML: {error}"))
}

const MESSAGE_CHARS_MAX: usize = 300;

fn merge(target: &mut Table, patch: &Map<String, Json>, path: &str) -> Result<(), String> {
    for (name, value) in patch {
        let path = read::join(path, name);
        match value {
            Json::Null => drop(target.remove(name)),
            Json::Object(below) => {
                let entry = target.entry(name.clone()).or_insert_with(|| Table::new().into());
                if !entry.is_table() {
                    *entry = Table::new().into();
                }
                merge(entry.as_table_mut().expect("it is one by now"), below, &path)?;
            }
            Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                target.insert(name.clone(), plain(value, &path)?);
            }
        }
    }
    Ok(())
}

/// A value that is put in whole.
fn plain(value: &Json, path: &str) -> Result<Value, String> {
    match value {
        Json::Null => Err(format!(
            "{path}: null in a list: there it removes nothing, and a configuration has none"
        )),
        Json::Bool(value) => Ok(Value::Boolean(*value)),
        Json::String(value) => Ok(Value::String(value.clone())),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Value::Integer(whole)),
            (None, Some(float)) if !number.is_u64() => Ok(Value::Float(float)),
            (None, _) => Err(format!("{path}: {number} is larger than any number of TOML")),
        },
        Json::Array(list) => {
            let at = |(index, value)| plain(value, &format!("{path}[{index}]"));
            list.iter().enumerate().map(at).collect::<Result<_, _>>().map(Value::Array)
        }
        Json::Object(members) => {
            let at = |(name, value): (&String, &Json)| {
                let path = read::join(path, name);
                Ok((name.clone(), plain(value, &path)?))
            };
            members.iter().map(at).collect::<Result<_, String>>().map(Value::Table)
        }
    }
}

/// The same in a text. `whole` is what this table is to be in the end.
fn edit(target: &mut dyn TableLike, patch: &Map<String, Json>, whole: &Table) {
    for (name, value) in patch {
        let Some(new) = whole.get(name) else {
            target.remove(name);
            continue;
        };
        let old = target.get_mut(name);
        if let (Json::Object(below), Value::Table(new)) = (value, new)
            && let Some(table) = old.and_then(Item::as_table_like_mut)
        {
            edit(table, below, new);
            continue;
        }
        let mut new = item(new);
        match target.get_mut(name) {
            // The key keeps the comment above it, the value the one behind it.
            Some(old) => {
                if let (Some(old), Some(new)) = (old.as_value(), new.as_value_mut()) {
                    *new.decor_mut() = old.decor().clone();
                }
                *old = new;
            }
            None => drop(target.insert(name, new)),
        }
    }
}

fn item(value: &Value) -> Item {
    match value {
        Value::Table(table) => Item::Table(section(table)),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_table) => {
            let tables = list.iter().filter_map(Value::as_table).map(section);
            Item::ArrayOfTables(ArrayOfTables::from_iter(tables))
        }
        Value::Array(_)
        | Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => Item::Value(inline(value)),
    }
}

fn section(table: &Table) -> toml_edit::Table {
    toml_edit::Table::from_iter(table.iter().map(|(name, value)| (name.clone(), item(value))))
}

fn inline(value: &Value) -> toml_edit::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Datetime(moment) => (*moment).into(),
        Value::Array(list) => toml_edit::Array::from_iter(list.iter().map(inline)).into(),
        Value::Table(table) => {
            let members = table.iter().map(|(name, value)| (name.clone(), inline(value)));
            InlineTable::from_iter(members).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# The edge.
cores = 2 # as many as CPUs
proxy_id = "${NAME:-edge}"
hot_reload.watch = false

[limits] # small
# longest
max_url_length = "8k"   # bytes
max_headers_count = 100

[[routes]]
name = "all" # of them
respond = { status = 200, body = "one" }

[clusters.a]
endpoints = [{ address = "10.0.0.1:80" }] # one
"#;

    fn over(text: &str, patch: &str) -> String {
        let patched = patched(Syntax::Toml, text, patch.as_bytes());
        patched.unwrap_or_else(|error| panic!("{patch}: {error}")).1
    }

    #[test]
    fn what_the_patch_does_not_name_is_left_as_it_was_written() {
        assert_eq!(over(FILE, "{}"), FILE);
        let changed = over(FILE, r#"{"cores": 4, "limits": {"max_url_length": "16k"}}"#);
        let expected = FILE.replace("cores = 2", "cores = 4").replace("8k", "16k");
        assert_eq!(changed, expected);
        let removed = over(FILE, r#"{"limits": {"max_headers_count": null, "none": null}}"#);
        assert_eq!(removed, FILE.replace("max_headers_count = 100\n", ""));
    }

    #[test]
    fn new_sections_and_lists_are_written_as_an_operator_would() {
        let patch = r#"{"clusters": {"b": {"endpoints": [{"address": "10.0.0.2:80"}]}},
                        "hot_reload": {"max_age": "1h"}, "trusted_proxies": ["10.0.0.0/8"],
                        "routes": [{"name": "b", "cluster": "b"}]}"#;
        let text = over(FILE, patch);
        for part in [
            "cores = 2 # as many as CPUs\n",
            "hot_reload.max_age = \"1h\"\n",
            "trusted_proxies = [\"10.0.0.0/8\"]\n",
            "[[routes]]\ncluster = \"b\"\nname = \"b\"\n",
            "\n[[clusters.b.endpoints]]\naddress = \"10.0.0.2:80\"\n",
            "endpoints = [{ address = \"10.0.0.1:80\" }] # one\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    /// RFC 7396, appendix A: those whose outcome is an object that TOML knows.
    #[test]
    fn the_examples_of_the_rfc_come_out_as_there() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (
                r#"{"a":1}"#,
                r#"{"a":{"b":{"c":2.5}},"d":[{"e":[]}]}"#,
                r#"{"a":{"b":{"c":2.5}},"d":[{"e":[]}]}"#,
            ),
        ];
        for (before, patch, after) in cases {
            let tree = |text: &str| serde_json::from_str::<Table>(text).unwrap();
            let written = toml::to_string(&tree(before)).unwrap();
            let table: Table = over(&written, patch).parse().unwrap();
            assert_eq!(table, tree(after), "{before} {patch}");
        }
    }

    #[test]
    fn tables_however_they_are_written_can_be_patched() {
        let patch = r#"{"a": {"b": {"c": 2, "d": {"e": [{"f": true}]}}, "x": [{"y": 1}]}}"#;
        let expected = over("", patch).parse::<Table>().unwrap();
        for text in [
            "a = { b = { c = 1 } }",
            "a.b.c = 1",
            "[a.b]\nc = 1",
            "[a]\nb.c = 1",
            "[a]\nb = { c = 1 } # c",
            "[[a]]\nc = 1",
            "a = 1 # one",
        ] {
            assert_eq!(over(text, patch).parse::<Table>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn yaml_and_json_come_out_as_json() {
        let patch = br#"{"cores": 3, "limits": {"max_headers_count": null}}"#;
        for (syntax, text) in [
            (Syntax::Yaml, "cores: 1 # one\nlimits:\n  max_headers_count: 9\nproxy_id: ${A}\n"),
            (Syntax::Json, r#"{"cores":1,"limits":{"max_headers_count":9},"proxy_id":"${A}"}"#),
        ] {
            let (syntax, text) = patched(syntax, text, patch).unwrap();
            assert_eq!(syntax, Syntax::Json);
            let tree: Json = serde_json::from_str(&text).unwrap();
            let expected = serde_json::json!({ "cores": 3, "limits": {}, "proxy_id": "${A}" });
            assert_eq!(tree, expected);
        }
    }

    #[test]
    fn what_is_no_patch_is_refused_with_its_place() {
        let big = "9".repeat(30);
        for (patch, says) in [
            ("", "EOF"),
            ("[]", "expected an object"),
            ("null", "expected an object"),
            (r#"{"a": [1, null]}"#, "a[1]: null in a list"),
            (r#"{"a": {"b": [{"c": null}]}}"#, "a.b[0].c: null in a list"),
            (r#"{"a": 18446744073709551615}"#, "a: 18446744073709551615 is larger"),
        ] {
            let error = patched(Syntax::Toml, FILE, patch.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{patch}: {error}");
        }
        assert!(
            patched(Syntax::Toml, FILE, format!("{{\"a\": {big}}}").as_bytes()).is_ok(),
            "a float"
        );
        let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
        assert!(patched(Syntax::Toml, FILE, deep.as_bytes()).is_err());
        assert!(patched(Syntax::Toml, FILE, b"{\"a\": \"\xff\"}").is_err());
    }
}
