//! Zipkin's JSON, version 2: a list of spans (<https://zipkin.io/zipkin-api/#/default/post_spans>).

use std::net::{IpAddr, SocketAddr};

use crate::telemetry::trace::attributes::Value;
use crate::telemetry::trace::otlp::Service;
use crate::telemetry::trace::span::{Kind, Span};
use crate::telemetry::trace::{write_hex, write_short_trace_id};
use crate::telemetry::{decimal, json};

/// Appends the list of the spans that `spans` writes one by one.
pub fn request(
    out: &mut Vec<u8>,
    service: &Service,
    spans: impl FnOnce(&mut dyn FnMut(&Span<'_>)),
) {
    out.push(b'[');
    let mut first = true;
    spans(&mut |span| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        one(out, service, span);
    });
    out.push(b']');
}

fn one(out: &mut Vec<u8>, service: &Service, span: &Span<'_>) {
    out.extend_from_slice(b"{\"traceId\":\"");
    write_short_trace_id(out, span.trace_id);
    out.extend_from_slice(b"\",\"id\":\"");
    write_hex(out, u128::from(span.id), 16);
    if span.parent_id != 0 {
        out.extend_from_slice(b"\",\"parentId\":\"");
        write_hex(out, u128::from(span.parent_id), 16);
    }
    out.extend_from_slice(match span.kind {
        Kind::Server => b"\",\"kind\":\"SERVER\",\"name\":".as_slice(),
        Kind::Client => b"\",\"kind\":\"CLIENT\",\"name\":",
    });
    json::string(span.name.as_bytes(), out);
    out.extend_from_slice(b",\"timestamp\":");
    decimal::integer(span.begin_nanos / 1000, out);
    // 0 would be read as "unknown".
    out.extend_from_slice(b",\"duration\":");
    decimal::integer((span.end_nanos.saturating_sub(span.begin_nanos) / 1000).max(1), out);
    if span.debug {
        out.extend_from_slice(b",\"debug\":true");
    }
    out.extend_from_slice(b",\"localEndpoint\":{\"serviceName\":");
    json::string(service.name.as_bytes(), out);
    out.push(b'}');
    if let Some(remote) = span.remote {
        endpoint(out, remote);
    }
    tags(out, service, span);
    out.push(b'}');
}

fn endpoint(out: &mut Vec<u8>, address: SocketAddr) {
    out.extend_from_slice(match address.ip() {
        IpAddr::V4(_) => b",\"remoteEndpoint\":{\"ipv4\":".as_slice(),
        IpAddr::V6(_) => b",\"remoteEndpoint\":{\"ipv6\":",
    });
    json::string(address.ip().to_string().as_bytes(), out);
    out.extend_from_slice(b",\"port\":");
    decimal::integer(u64::from(address.port()), out);
    out.push(b'}');
}

/// Every value is a string here. `error` is what makes a span red.
fn tags(out: &mut Vec<u8>, service: &Service, span: &Span<'_>) {
    out.extend_from_slice(b",\"tags\":{");
    for (index, (name, value)) in span.attributes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::name(name, out);
        match value {
            Value::Text(text) => json::string(text.as_bytes(), out),
            Value::Flag(flag) => json::string(flag.to_string().as_bytes(), out),
            Value::Number(number) => json::string(number.to_string().as_bytes(), out),
        }
    }
    if let Some(id) = &service.id {
        out.extend_from_slice(b",\"service.instance.id\":");
        json::string(id.as_bytes(), out);
    }
    if let Some(error) = &span.error {
        out.extend_from_slice(b",\"error\":");
        json::string(error.as_bytes(), out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::json::check;
    use crate::telemetry::trace::span::{decode, tests::batch};

    #[test]
    fn the_list_is_valid_whatever_a_client_sent() {
        let (mut out, bytes) = (Vec::new(), batch());
        let service = Service { name: "a".to_owned(), id: None };
        let exchange = decode(&mut &bytes[..]).unwrap();
        request(&mut out, &service, |write| exchange.spans().iter().for_each(write));
        assert!(check::is_valid(&out), "{}", out.escape_ascii());
        let text = String::from_utf8(out).unwrap();
        let shape = "{\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"id\":\"00f067aa0ba902b7\",\
                     \"parentId\":\"0102030405060708\",\"kind\":\"SERVER\",\"name\":\"GET orders\",\
                     \"timestamp\":971186136041850,\"duration\":150,\
                     \"localEndpoint\":{\"serviceName\":\"a\"},\
                     \"remoteEndpoint\":{\"ipv4\":\"10.0.0.9\",\"port\":51234},\"tags\":{";
        assert!(text[1..].starts_with(shape), "{text}");
        assert!(text.contains(",\"error\":\"connect_refused\"}"), "{text}");
        request(&mut Vec::new(), &service, |_| ());
    }
}
