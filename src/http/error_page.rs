//! Error pages of the operator's own making: a text with variables, compiled once with the plan,
//! and which page belongs to which status. What a client sent is escaped for the page's content
//! type, so that no request can write markup or members into it.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::http::reply;
use crate::limits;
use crate::telemetry::{access_log, decimal, json, timestamp, trace};

/// One page, for one or many statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    pub shows: Shows,
    /// Also instead of what the upstream answers with such a status.
    pub intercepts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shows {
    /// The JSON form that errors have where no page is configured.
    BuiltIn,
    Page {
        content_type: String,
        template: Template,
    },
}

/// Which of the plan's pages belongs to a status: an exact one before that of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTable {
    /// Few, in no order.
    pub exact: Box<[(u16, PageId)]>,
    pub client_errors: Option<PageId>,
    pub server_errors: Option<PageId>,
}

/// Index into `Plan::error_pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId(pub u32);

impl PageTable {
    pub fn find(&self, status: u16) -> Option<PageId> {
        let exact = self.exact.iter().find(|(known, _)| *known == status).map(|(_, id)| *id);
        exact.or(match status {
            400..500 => self.client_errors,
            500..600 => self.server_errors,
            _ => None,
        })
    }
}

/// How text is kept from being taken for syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// HTML and XML: for text and for attributes in quotes.
    Markup,
    /// For the inside of a JSON string.
    Json,
    /// Nothing has a meaning but control characters.
    Plain,
}

impl Escape {
    /// `None`: a type in which nothing can be escaped that we know of.
    pub fn of(content_type: &str) -> Option<Escape> {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "text/html" | "text/xml" | "application/xml" => Some(Escape::Markup),
            "application/json" => Some(Escape::Json),
            "text/plain" => Some(Escape::Plain),
            other if other.ends_with("+xml") => Some(Escape::Markup),
            other if other.ends_with("+json") => Some(Escape::Json),
            _ => None,
        }
    }

    fn write(self, bytes: &[u8], out: &mut Vec<u8>) {
        let bytes = &bytes[..bytes.len().min(limits::ERROR_PAGE_FIELD_BYTES_MAX)];
        if self == Escape::Json {
            return json::inside(bytes, out);
        }
        let mut plain = [0; 4];
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                let entity: &[u8] = match (self, character) {
                    (Escape::Markup, '&') => b"&amp;",
                    (Escape::Markup, '<') => b"&lt;",
                    (Escape::Markup, '>') => b"&gt;",
                    (Escape::Markup, '"') => b"&#34;",
                    (Escape::Markup, '\'') => b"&#39;",
                    (Escape::Markup, '`') => b"&#96;", // a quote to some old browsers
                    _ if json::must_be_hidden(character) => REPLACEMENT,
                    _ => character.encode_utf8(&mut plain).as_bytes(),
                };
                out.extend_from_slice(entity);
            }
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(REPLACEMENT);
            }
        }
    }
}

const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// A compiled page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    escape: Escape,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    ClientIp,
    Code,
    Host,
    Message,
    Method,
    Path,
    ProxyId,
    Reason,
    RequestId,
    Status,
    Timestamp,
    TraceId,
}

const VARIABLES: [(&str, Variable); 12] = [
    ("client_ip", Variable::ClientIp),
    ("code", Variable::Code),
    ("host", Variable::Host),
    ("message", Variable::Message),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("proxy_id", Variable::ProxyId),
    ("reason", Variable::Reason),
    ("request_id", Variable::RequestId),
    ("status", Variable::Status),
    ("timestamp", Variable::Timestamp),
    ("trace_id", Variable::TraceId),
];

/// Every variable, for messages.
pub fn names() -> Vec<&'static str> {
    VARIABLES.iter().map(|(name, _)| *name).collect()
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// There is no such variable; it stands at this byte.
    Unknown { name: String, at: usize },
    /// More than [`limits::ERROR_PAGE_VARIABLES_MAX`].
    TooMany,
    /// It has variables, and a type in which they cannot be made harmless.
    NoEscape,
}

/// What a page can say of the request that it answers.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub status: u16,
    pub code: &'a str,
    pub message: &'a str,
    pub request_id: &'a [u8],
    pub at: SystemTime,
    pub method: &'a [u8],
    pub host: &'a [u8],
    /// Without the query, which may hold secrets.
    pub path: &'a [u8],
    pub client: IpAddr,
    pub proxy_id: &'a str,
    pub trace_id: Option<u128>,
}

impl Template {
    /// `{{ name }}` is a variable. Other braces are what they are: pages are full of them.
    pub fn parse(text: &[u8], content_type: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let (mut written, mut at, mut variables) = (0, 0, 0);
        while let Some(found) = text[at..].windows(2).position(|pair| pair == b"{{") {
            let start = at + found;
            let Some((name, end)) = name_at(text, start) else {
                at = start + 1;
                continue;
            };
            let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                return Err(TemplateError::Unknown { name: name.to_owned(), at: start });
            };
            if written < start {
                parts.push(Part::Text(text[written..start].into()));
            }
            parts.push(Part::Variable(*variable));
            variables += 1;
            (written, at) = (end, end);
        }
        if written < text.len() {
            parts.push(Part::Text(text[written..].into()));
        }
        let escape = match Escape::of(content_type) {
            Some(escape) => escape,
            None if variables == 0 => Escape::Plain,
            None => return Err(TemplateError::NoEscape),
        };
        if variables > limits::ERROR_PAGE_VARIABLES_MAX {
            return Err(TemplateError::TooMany);
        }
        Ok(Template { escape, parts })
    }

    /// A page without variables.
    pub fn fixed(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            [Part::Variable(_)] | [_, _, ..] => None,
        }
    }

    pub fn is_json(&self) -> bool {
        self.escape == Escape::Json
    }

    pub fn render(&self, facts: &Facts<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(ROOM_USUAL);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(variable) => variable.write(facts, self.escape, &mut out),
            }
        }
        out
    }
}

const ROOM_USUAL: usize = 4096;

/// A name in double braces that begin at `start`, and where they end.
fn name_at(text: &[u8], start: usize) -> Option<(&str, usize)> {
    let inside = &text[start + 2..];
    let most = inside.len().min(NAME_BYTES_MAX);
    let length = inside[..most].windows(2).position(|pair| pair == b"}}")?;
    let name = inside[..length].trim_ascii();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || !name.iter().all(is_name) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, start + 2 + length + 2))
}

/// Longer is no name of ours, nor a mistyped one.
const NAME_BYTES_MAX: usize = 64;

impl Variable {
    fn write(self, facts: &Facts<'_>, escape: Escape, out: &mut Vec<u8>) {
        match self {
            Variable::ClientIp => access_log::ip(facts.client, out),
            Variable::Code => escape.write(facts.code.as_bytes(), out),
            Variable::Host => escape.write(facts.host, out),
            Variable::Message => escape.write(facts.message.as_bytes(), out),
            Variable::Method => escape.write(facts.method, out),
            Variable::Path => escape.write(facts.path, out),
            Variable::ProxyId => escape.write(facts.proxy_id.as_bytes(), out),
            Variable::Reason => escape.write(reply::reason(facts.status).as_bytes(), out),
            Variable::RequestId => escape.write(facts.request_id, out),
            Variable::Status => decimal::padded(u64::from(facts.status), 3, out),
            Variable::Timestamp => timestamp::iso(facts.at, out),
            Variable::TraceId => {
                if let Some(trace_id) = facts.trace_id {
                    trace::write_hex(out, trace_id, 32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn facts<'a>(host: &'a [u8], path: &'a [u8]) -> Facts<'a> {
        Facts {
            status: 404,
            code: "NO_ROUTE",
            message: "no route matches this host and path",
            request_id: b"0123456789abcdef",
            at: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            method: b"GET",
            host,
            path,
            client: IpAddr::from([192, 0, 2, 1]),
            proxy_id: "edge-1",
            trace_id: Some(0xabc),
        }
    }

    fn rendered(text: &str, content_type: &str, facts: &Facts<'_>) -> String {
        let template = Template::parse(text.as_bytes(), content_type).unwrap();
        String::from_utf8(template.render(facts)).unwrap()
    }

    #[test]
    fn every_variable_has_one_name_in_order_and_a_value() {
        assert!(VARIABLES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let text: Vec<String> = names().iter().map(|name| format!("{{{{ {name} }}}}")).collect();
        assert_eq!(
            rendered(&text.join("|"), "text/plain", &facts(b"a.example:80", b"/x")),
            "192.0.2.1|NO_ROUTE|a.example:80|no route matches this host and path|GET|/x|edge-1|\
             Not Found|0123456789abcdef|404|2026-01-02T03:04:05.678Z|\
             00000000000000000000000000000abc"
        );
    }

    #[test]
    fn braces_that_hold_no_name_are_what_they_are() {
        let page = "a{b:c}{{{{}}{{ }}{\"x\":{\"y\":1}}{{a b}}{{{status}}}{{status";
        let expected = "a{b:c}{{{{}}{{ }}{\"x\":{\"y\":1}}{{a b}}{404}{{status";
        assert_eq!(rendered(page, "text/html", &facts(b"", b"")), expected);
    }

    #[test]
    fn what_a_client_sent_becomes_neither_markup_nor_a_member() {
        let hostile = b"/<script>alert('1')</script>\"&`\r\n\x00\xff\xe2\x80\xa8";
        let facts = facts(b"a", hostile);
        assert_eq!(
            rendered("<p title=\"{{path}}\">", "text/html; charset=utf-8", &facts),
            "<p title=\"/&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;&#96;\
             \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\">"
        );
        let page = rendered("{\"p\":\"{{path}}\",\"s\":{{status}}}", "application/json", &facts);
        assert!(json::check::is_valid(page.as_bytes()), "{page}");
        assert!(page.starts_with("{\"p\":\"/<script>alert('1')</script>\\\"&`\\r\\n\\u0000"));
        let plain = rendered("{{path}}", "text/plain", &facts);
        assert!(!plain.contains(['\r', '\n', '\0']), "{plain:?}");
    }

    #[test]
    fn a_variable_that_does_not_exist_is_found_with_its_place() {
        let parse = |text: &str, kind: &str| Template::parse(text.as_bytes(), kind).unwrap_err();
        let unknown = TemplateError::Unknown { name: "request-id".to_owned(), at: 4 };
        assert_eq!(parse("<b> {{request-id}}", "text/html"), unknown);
        assert_eq!(parse("{{status}}", "text/css"), TemplateError::NoEscape);
        let many = "{{status}}".repeat(limits::ERROR_PAGE_VARIABLES_MAX + 1);
        assert_eq!(parse(&many, "text/html"), TemplateError::TooMany);
        let image = Template::parse(b"\x89PNG{", "image/png").unwrap();
        assert_eq!(image.fixed(), Some(&b"\x89PNG{"[..]));
    }

    #[test]
    fn a_long_value_is_cut_and_a_page_stays_bounded() {
        let long = vec![b'"'; 1 << 16];
        let page = "{{path}}".repeat(limits::ERROR_PAGE_VARIABLES_MAX);
        let page = rendered(&page, "text/html", &facts(b"", &long));
        let most = limits::ERROR_PAGE_VARIABLES_MAX * limits::ERROR_PAGE_FIELD_BYTES_MAX;
        assert_eq!(page.len(), most * "&#34;".len());
    }

    #[test]
    fn an_exact_status_comes_before_its_class() {
        let table = PageTable {
            exact: Box::new([(503, PageId(1))]),
            client_errors: None,
            server_errors: Some(PageId(2)),
        };
        let found = [503, 500, 599, 404, 200, 600].map(|status| table.find(status));
        let server = Some(PageId(2));
        assert_eq!(found, [Some(PageId(1)), server, server, None, None, None]);
    }
}
