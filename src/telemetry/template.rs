//! Access-log lines of the operator's own making: `{client_ip} {method} {path} {status}`. Compiled
//! once with the plan; a variable that does not exist is a mistake of the configuration.

use std::net::SocketAddr;

use crate::exchange::failure::{Failure, Side};
use crate::exchange::record::Record;
use crate::hexadecimal;
use crate::telemetry::access_log::{escaped_or_dash, ip, level, message, socket};
use crate::telemetry::client_tls::{ClientTls, DNS_NAMES, EMAILS, URIS};
use crate::telemetry::redact::{HIDDEN, Redact};
use crate::telemetry::{decimal, timestamp, trace};

/// The one human-readable format, `format = "text"`.
pub const TEXT: &str = "{timestamp} {level} {client_ip} \"{method} {url} {protocol}\" {status} \
                        {bytes_sent}B {duration_ms}ms route={route} backend={backend} \
                        reason={reason} id={request_id}";

/// A compiled template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Variable(Variable),
    RequestHeader(Box<[u8]>),
    ResponseHeader(Box<[u8]>),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    Empty,
    /// A control character: a line would not stay one line.
    Control,
    /// A brace without its other half.
    Brace,
    Unknown(String),
    /// Not a name that a header can have.
    HeaderName(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Attempts,
    Backend,
    BodyBytesSent,
    BytesReceived,
    BytesSent,
    ClientCn,
    ClientFingerprint,
    ClientIp,
    /// Alternative names.
    ClientNames(Names),
    ClientSpiffeId,
    ClientSubject,
    Cluster,
    DurationMs,
    EndedBy,
    GrpcStatus,
    Host,
    Level,
    Listener,
    Message,
    Method,
    Path,
    PeerIp,
    Phase,
    Protocol,
    Query,
    Reason,
    Referer,
    RequestId,
    Reused,
    Route,
    Scheme,
    /// An index of `Timings::micros`.
    Span(usize),
    SpeaksFor,
    Status,
    Timestamp,
    TimestampClf,
    TlsCipher,
    TlsResumed,
    TlsServerName,
    TlsVersion,
    TraceId,
    Url,
    UserAgent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Dns,
    Emails,
    Uris,
}

const VARIABLES: [(&str, Variable); 51] = [
    ("attempts", Variable::Attempts),
    ("backend", Variable::Backend),
    ("body_bytes_sent", Variable::BodyBytesSent),
    ("body_ms", Variable::Span(6)),
    ("bytes_received", Variable::BytesReceived),
    ("bytes_sent", Variable::BytesSent),
    ("client_cn", Variable::ClientCn),
    ("client_dns_names", Variable::ClientNames(Names::Dns)),
    ("client_emails", Variable::ClientNames(Names::Emails)),
    ("client_fingerprint", Variable::ClientFingerprint),
    ("client_ip", Variable::ClientIp),
    ("client_spiffe_id", Variable::ClientSpiffeId),
    ("client_subject", Variable::ClientSubject),
    ("client_uris", Variable::ClientNames(Names::Uris)),
    ("cluster", Variable::Cluster),
    ("connect_ms", Variable::Span(2)),
    ("duration_ms", Variable::DurationMs),
    ("ended_by", Variable::EndedBy),
    ("first_byte_ms", Variable::Span(5)),
    ("grpc_status", Variable::GrpcStatus),
    ("head_ms", Variable::Span(0)),
    ("host", Variable::Host),
    ("level", Variable::Level),
    ("listener", Variable::Listener),
    ("message", Variable::Message),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("peer_ip", Variable::PeerIp),
    ("phase", Variable::Phase),
    ("protocol", Variable::Protocol),
    ("query", Variable::Query),
    ("queue_ms", Variable::Span(1)),
    ("reason", Variable::Reason),
    ("referer", Variable::Referer),
    ("request_id", Variable::RequestId),
    ("reused", Variable::Reused),
    ("route", Variable::Route),
    ("scheme", Variable::Scheme),
    ("speaks_for", Variable::SpeaksFor),
    ("status", Variable::Status),
    ("timestamp", Variable::Timestamp),
    ("timestamp_clf", Variable::TimestampClf),
    ("tls_cipher", Variable::TlsCipher),
    ("tls_ms", Variable::Span(3)),
    ("tls_resumed", Variable::TlsResumed),
    ("tls_server_name", Variable::TlsServerName),
    ("tls_version", Variable::TlsVersion),
    ("trace_id", Variable::TraceId),
    ("upload_ms", Variable::Span(4)),
    ("url", Variable::Url),
    ("user_agent", Variable::UserAgent),
];

/// Every variable, for messages.
pub fn names() -> Vec<&'static str> {
    let headers = ["header.NAME", "response_header.NAME"];
    VARIABLES.iter().map(|(name, _)| *name).chain(headers).collect()
}

impl Template {
    /// `{{` and `}}` are braces that are meant.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            let doubled = [("{{", '{'), ("}}", '}')];
            if let Some((pair, brace)) = doubled.into_iter().find(|(two, _)| rest.starts_with(two))
            {
                plain.push(brace);
                rest = &rest[pair.len()..];
                continue;
            }
            let inside = rest.strip_prefix('{').and_then(|open| open.split_once('}'));
            let (name, after) = inside.ok_or(TemplateError::Brace)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into_bytes().into()));
            }
            parts.push(variable(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into_bytes().into()));
        }
        Ok(Template(parts))
    }

    /// Whether the response's head must be kept until the line is written.
    pub fn needs_response_head(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::ResponseHeader(_)))
    }

    /// Appends what the parts say of this exchange, without a newline.
    pub fn encode(
        &self,
        record: &Record<'_>,
        redact: &Redact,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(one) => one.encode(record, redact, scratch, out),
                Part::RequestHeader(name) if redact.hides_header(name) => {
                    hidden(record.request_header(name), out);
                }
                Part::RequestHeader(name) => {
                    escaped_or_dash(record.request_header(name).unwrap_or_default(), out);
                }
                Part::ResponseHeader(name) if redact.hides_header(name) => {
                    hidden(record.response_header(name), out);
                }
                Part::ResponseHeader(name) => {
                    escaped_or_dash(record.response_header(name).unwrap_or_default(), out);
                }
            }
        }
    }
}

fn variable(name: &str) -> Result<Part, TemplateError> {
    let header = |header: &str| -> Result<Box<[u8]>, TemplateError> {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if header.is_empty() || !header.bytes().all(is_plain) {
            return Err(TemplateError::HeaderName(header.to_owned()));
        }
        Ok(header.to_ascii_lowercase().into_bytes().into())
    };
    if let Some(name) = name.strip_prefix("header.") {
        return header(name).map(Part::RequestHeader);
    }
    if let Some(name) = name.strip_prefix("response_header.") {
        return header(name).map(Part::ResponseHeader);
    }
    let found = VARIABLES.iter().find(|(known, _)| *known == name);
    let (_, variable) = found.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
    Ok(Part::Variable(*variable))
}

/// That there was one is told, its value is not.
fn hidden(value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(if value.is_some() { HIDDEN } else { b"-" });
}

fn address(address: Option<SocketAddr>, out: &mut Vec<u8>) {
    match address {
        Some(address) => socket(address, out),
        None => out.push(b'-'),
    }
}

fn of_tls<'r>(
    record: &Record<'r>,
    part: impl FnOnce(&ClientTls<'r>) -> &'r str,
    out: &mut Vec<u8>,
) {
    escaped_or_dash(record.tls.as_ref().map_or("", part).as_bytes(), out);
}

/// With commas between them; a name's own is written as upstreams are told it.
fn client_names(record: &Record<'_>, names: Names, out: &mut Vec<u8>) {
    let begin = out.len();
    let of = match names {
        Names::Dns => DNS_NAMES,
        Names::Emails => EMAILS,
        Names::Uris => URIS,
    };
    for name in record.tls.iter().flat_map(|tls| tls.names(of)) {
        if out.len() > begin {
            out.push(b',');
        }
        escaped_or_dash(name.replace(',', "%2C").as_bytes(), out);
    }
    if out.len() == begin {
        out.push(b'-');
    }
}

fn fingerprint(record: &Record<'_>, out: &mut Vec<u8>) {
    match record.tls.and_then(|tls| tls.client) {
        Some(client) => hexadecimal::write(&client.fingerprint, out),
        None => out.push(b'-'),
    }
}

fn trace_id(record: &Record<'_>, out: &mut Vec<u8>) {
    match record.trace_id {
        Some(trace_id) => trace::write_hex(out, trace_id, 32),
        None => out.push(b'-'),
    }
}

fn resumed(record: &Record<'_>, out: &mut Vec<u8>) {
    let word = |tls: ClientTls<'_>| if tls.resumed { "true" } else { "false" };
    out.extend_from_slice(record.tls.map_or("-", word).as_bytes());
}

fn path(record: &Record<'_>, redact: &Redact, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    let path = record.target.split(|&byte| byte == b'?').next();
    escaped_or_dash(redact.url(path.unwrap_or_default(), scratch), out);
}

fn query(record: &Record<'_>, redact: &Redact, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
    let url = redact.url(record.target, scratch);
    let question = url.iter().position(|&byte| byte == b'?');
    escaped_or_dash(question.map_or(b"", |at| &url[at..]), out);
}

impl Variable {
    fn encode(
        self,
        record: &Record<'_>,
        redact: &Redact,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Variable::Attempts => decimal::integer(u64::from(record.attempts), out),
            Variable::Backend => address(record.endpoint, out),
            Variable::BodyBytesSent => decimal::integer(record.body_bytes_sent, out),
            Variable::BytesReceived => decimal::integer(record.bytes_received, out),
            Variable::BytesSent => decimal::integer(record.bytes_sent, out),
            Variable::ClientCn => of_tls(record, ClientTls::common_name, out),
            Variable::ClientFingerprint => fingerprint(record, out),
            Variable::ClientIp => ip(record.client, out),
            Variable::ClientNames(names) => client_names(record, names, out),
            Variable::ClientSpiffeId => of_tls(record, ClientTls::spiffe_id, out),
            Variable::ClientSubject => of_tls(record, ClientTls::subject, out),
            Variable::Cluster => escaped_or_dash(record.cluster.as_bytes(), out),
            Variable::DurationMs => decimal::micros_as_millis(record.timings.micros().1, out),
            Variable::EndedBy => {
                let side = record.ended_by().map_or("none", Side::label);
                out.extend_from_slice(side.as_bytes());
            }
            Variable::Host => escaped_or_dash(record.host, out),
            Variable::Level => out.extend_from_slice(level(record.failure).as_bytes()),
            Variable::Listener => escaped_or_dash(record.listener.as_bytes(), out),
            Variable::Message => escaped_or_dash(message(record).as_bytes(), out),
            Variable::Method => escaped_or_dash(record.method, out),
            Variable::Path => path(record, redact, scratch, out),
            Variable::PeerIp => ip(record.peer.ip(), out),
            Variable::Phase => out.extend_from_slice(record.phase.label().as_bytes()),
            Variable::Protocol => escaped_or_dash(record.version.as_bytes(), out),
            Variable::Query => query(record, redact, scratch, out),
            Variable::Reason => {
                escaped_or_dash(record.failure.map_or("", Failure::label).as_bytes(), out);
            }
            Variable::Referer => escaped_or_dash(redact.url(record.referer, scratch), out),
            Variable::RequestId => escaped_or_dash(record.request_id, out),
            Variable::Reused => {
                out.extend_from_slice(if record.reused { b"true" } else { b"false" });
            }
            Variable::Route => escaped_or_dash(record.route.as_bytes(), out),
            Variable::Scheme => out.extend_from_slice(record.scheme.as_bytes()),
            Variable::Span(index) => {
                decimal::micros_as_millis(record.timings.micros().0[index], out);
            }
            Variable::SpeaksFor => address(record.speaks_for, out),
            Variable::Status => decimal::padded(u64::from(record.status), 3, out),
            Variable::GrpcStatus => match record.grpc_status {
                Some(code) => decimal::integer(u64::from(code.number()), out),
                None => out.push(b'-'),
            },
            Variable::Timestamp => timestamp::iso(record.at, out),
            Variable::TimestampClf => timestamp::common_log(record.at, out),
            Variable::TlsCipher => of_tls(record, |tls| tls.cipher, out),
            Variable::TlsResumed => resumed(record, out),
            Variable::TlsServerName => of_tls(record, |tls| tls.server_name, out),
            Variable::TlsVersion => of_tls(record, |tls| tls.version, out),
            Variable::TraceId => trace_id(record, out),
            Variable::Url => escaped_or_dash(redact.url(record.target, scratch), out),
            Variable::UserAgent => escaped_or_dash(record.user_agent, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_does_not_exist_is_named() {
        let parse = |text: &str| Template::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(parse("{clientip}"), TemplateError::Unknown("clientip".to_owned()));
        assert_eq!(parse("{}"), TemplateError::Unknown(String::new()));
        assert_eq!(parse("{header.}"), TemplateError::HeaderName(String::new()));
        assert_eq!(parse("{header.a b}"), TemplateError::HeaderName("a b".to_owned()));
        assert_eq!(parse("{status"), TemplateError::Brace);
        assert_eq!(parse("status}"), TemplateError::Brace);
        assert_eq!(parse("a\nb"), TemplateError::Control);
        assert_eq!(parse(""), TemplateError::Empty);
    }

    #[test]
    fn doubled_braces_are_braces() {
        let template = Template::parse("{{\"s\":{status}}}").unwrap();
        let text = |text: &str| Part::Text(text.as_bytes().into());
        let expected = [text("{\"s\":"), Part::Variable(Variable::Status), text("}")];
        assert_eq!(template.0, expected);
    }

    #[test]
    fn every_variable_has_one_name_in_order_and_the_text_format_compiles() {
        assert!(VARIABLES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, _) in VARIABLES {
            Template::parse(&format!("{{{name}}}")).unwrap();
        }
        assert!(!Template::parse(TEXT).unwrap().needs_response_head());
        assert!(Template::parse("{response_header.Age}").unwrap().needs_response_head());
    }
}
