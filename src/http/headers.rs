//! Header names that the proxy knows, and header changes compiled from configuration. Heads are
//! parsed into ids by `http1/parse`; whoever looks for a header compares ids, never names.

/// Headers that code looks at. Everything else is `Other` and passes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderId {
    #[default]
    Other,
    B3,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    UberTraceId,
    Upgrade,
    UserAgent,
    Via,
    XB3Flags,
    XB3ParentSpanId,
    XB3Sampled,
    XB3SpanId,
    XB3TraceId,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XProxyId,
    XRealIp,
    XRequestId,
}

impl HeaderId {
    /// The id of a field name (a token, so without control bytes), in any case. The length and the
    /// first letter leave one candidate, so that an unknown name costs a jump and at most one
    /// compare.
    #[inline]
    pub fn of(name: &[u8]) -> HeaderId {
        let Some(first) = name.first() else {
            return HeaderId::Other;
        };
        let (candidate, known) = match (name.len(), first | 0x20) {
            (2, b'b') => (HeaderId::B3, is(name, b"b3")),
            (2, b't') => (HeaderId::Te, is(name, b"te")),
            (3, b'v') => (HeaderId::Via, is(name, b"via")),
            (4, b'h') => (HeaderId::Host, is(name, b"host")),
            (4, b'd') => (HeaderId::Date, is(name, b"date")),
            (6, b'e') => (HeaderId::Expect, is(name, b"expect")),
            (7, b'r') => (HeaderId::Referer, is(name, b"referer")),
            (7, b't') => (HeaderId::Trailer, is(name, b"trailer")),
            (7, b'u') => (HeaderId::Upgrade, is(name, b"upgrade")),
            (9, b'f') => (HeaderId::Forwarded, is(name, b"forwarded")),
            (9, b'x') => (HeaderId::XRealIp, is(name, b"x-real-ip")),
            (10, b'c') => (HeaderId::Connection, is(name, b"connection")),
            (10, b'k') => (HeaderId::KeepAlive, is(name, b"keep-alive")),
            (10, b't') => (HeaderId::Tracestate, is(name, b"tracestate")),
            (10, b'u') => (HeaderId::UserAgent, is(name, b"user-agent")),
            (10, b'x') if is(name, b"x-proxy-id") => (HeaderId::XProxyId, true),
            (10, b'x') => (HeaderId::XB3Flags, is(name, b"x-b3-flags")),
            (11, b't') => (HeaderId::Traceparent, is(name, b"traceparent")),
            (11, b'x') => (HeaderId::XB3SpanId, is(name, b"x-b3-spanid")),
            (12, b'x') if is(name, b"x-request-id") => (HeaderId::XRequestId, true),
            (12, b'x') if is(name, b"x-b3-traceid") => (HeaderId::XB3TraceId, true),
            (12, b'x') => (HeaderId::XB3Sampled, is(name, b"x-b3-sampled")),
            (13, b'u') => (HeaderId::UberTraceId, is(name, b"uber-trace-id")),
            (14, b'c') => (HeaderId::ContentLength, is(name, b"content-length")),
            (15, b'x') => (HeaderId::XForwardedFor, is(name, b"x-forwarded-for")),
            (16, b'p') => (HeaderId::ProxyConnection, is(name, b"proxy-connection")),
            (16, b'x') => (HeaderId::XForwardedHost, is(name, b"x-forwarded-host")),
            (17, b't') => (HeaderId::TransferEncoding, is(name, b"transfer-encoding")),
            (17, b'x') if is(name, b"x-forwarded-proto") => (HeaderId::XForwardedProto, true),
            (17, b'x') => (HeaderId::XB3ParentSpanId, is(name, b"x-b3-parentspanid")),
            (18, b'p') => (HeaderId::ProxyAuthenticate, is(name, b"proxy-authenticate")),
            (19, b'p') => (HeaderId::ProxyAuthorization, is(name, b"proxy-authorization")),
            _ => return HeaderId::Other,
        };
        if known { candidate } else { HeaderId::Other }
    }

    /// Meant for one connection by definition, never forwarded (RFC 9110 section 7.6.1). `Trailer`
    /// is decided by the encoder: it stays with a body that stays chunked.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            HeaderId::Connection
                | HeaderId::KeepAlive
                | HeaderId::ProxyAuthenticate
                | HeaderId::ProxyAuthorization
                | HeaderId::ProxyConnection
                | HeaderId::Te
                | HeaderId::TransferEncoding
                | HeaderId::Upgrade
        )
    }

    /// `X-B3-…`: one trace context in several headers.
    pub fn is_b3_multi(self) -> bool {
        matches!(
            self,
            HeaderId::XB3Flags
                | HeaderId::XB3ParentSpanId
                | HeaderId::XB3Sampled
                | HeaderId::XB3SpanId
                | HeaderId::XB3TraceId
        )
    }

    /// Says which trace the message belongs to.
    pub fn is_of_a_trace(self) -> bool {
        matches!(
            self,
            HeaderId::B3
                | HeaderId::Traceparent
                | HeaderId::Tracestate
                | HeaderId::UberTraceId
                | HeaderId::XB3Flags
                | HeaderId::XB3ParentSpanId
                | HeaderId::XB3Sampled
                | HeaderId::XB3SpanId
                | HeaderId::XB3TraceId
        )
    }

    /// Frames the message or says who it is from. A peer may neither strip such a line with a
    /// `Connection` option nor smuggle a second spelling of it past us (`x_forwarded_for`).
    pub fn is_guarded(self) -> bool {
        matches!(
            self,
            HeaderId::ContentLength
                | HeaderId::Expect
                | HeaderId::Forwarded
                | HeaderId::Host
                | HeaderId::Via
                | HeaderId::XForwardedFor
                | HeaderId::XForwardedHost
                | HeaderId::XForwardedProto
                | HeaderId::XProxyId
                | HeaderId::XRealIp
                | HeaderId::XRequestId
        )
    }
}

/// Whether `name` is `lower`, a lower-case name of letters and dashes. `| 0x20` maps only a
/// letter's upper case onto it, and only a control byte onto the dash. The fixed length lets it be
/// a few wide compares.
#[inline]
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    let mut difference = 0;
    for at in 0..N {
        difference |= (name[at] | 0x20) ^ lower[at];
    }
    difference == 0
}

/// A name and a value.
pub type NewLine = (Box<[u8]>, Box<[u8]>);

/// Changes to a head: removals first, then sets (which replace every line of that name), then
/// additions. Compiled from `request_headers` and `response_headers` of a route; names and values
/// are valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Lower case.
    pub remove: Vec<Box<[u8]>>,
    pub set: Vec<NewLine>,
    pub add: Vec<NewLine>,
}

impl HeaderEdits {
    pub const NONE: HeaderEdits =
        HeaderEdits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };

    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether a line of this name, as it came or of our own, gives way to an edit.
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.remove.iter().any(|gone| gone.eq_ignore_ascii_case(name))
            || self.set.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }
}

/// `_` counts as `-`: applications read both as one.
pub(crate) fn same_with_dashes(one: &[u8], other: &[u8]) -> bool {
    let dashed = |byte: &u8| {
        if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
    };
    one.len() == other.len() && one.iter().map(dashed).eq(other.iter().map(dashed))
}

/// What upstreams are told of a client's certificate. Such lines of a client's own go, by whatever
/// listener it comes and with or without a certificate: nobody says who they are by themselves.
#[derive(Clone, Copy, Debug)]
pub struct IdentityLines<'a> {
    /// Of the whole plan.
    pub stripped: &'a [Box<[u8]>],
    pub lines: &'a [NewLine],
}

impl IdentityLines<'_> {
    pub const NONE: IdentityLines<'static> = IdentityLines { stripped: &[], lines: &[] };

    pub fn strips(&self, name: &[u8]) -> bool {
        is_one_of(self.stripped, name)
    }
}

/// Also those that CGI and its heirs take for the same, for which a dash is an underscore.
pub(crate) fn is_one_of(names: &[Box<[u8]>], name: &[u8]) -> bool {
    names.iter().any(|own| same_with_dashes(own, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, HeaderId); 32] = [
        ("b3", HeaderId::B3),
        ("Connection", HeaderId::Connection),
        ("Content-Length", HeaderId::ContentLength),
        ("Date", HeaderId::Date),
        ("Expect", HeaderId::Expect),
        ("Forwarded", HeaderId::Forwarded),
        ("Host", HeaderId::Host),
        ("Keep-Alive", HeaderId::KeepAlive),
        ("Proxy-Authenticate", HeaderId::ProxyAuthenticate),
        ("Proxy-Authorization", HeaderId::ProxyAuthorization),
        ("Proxy-Connection", HeaderId::ProxyConnection),
        ("Referer", HeaderId::Referer),
        ("TE", HeaderId::Te),
        ("traceparent", HeaderId::Traceparent),
        ("tracestate", HeaderId::Tracestate),
        ("Trailer", HeaderId::Trailer),
        ("Transfer-Encoding", HeaderId::TransferEncoding),
        ("uber-trace-id", HeaderId::UberTraceId),
        ("Upgrade", HeaderId::Upgrade),
        ("User-Agent", HeaderId::UserAgent),
        ("Via", HeaderId::Via),
        ("X-B3-Flags", HeaderId::XB3Flags),
        ("X-B3-ParentSpanId", HeaderId::XB3ParentSpanId),
        ("X-B3-Sampled", HeaderId::XB3Sampled),
        ("X-B3-SpanId", HeaderId::XB3SpanId),
        ("X-B3-TraceId", HeaderId::XB3TraceId),
        ("X-Forwarded-For", HeaderId::XForwardedFor),
        ("X-Forwarded-Host", HeaderId::XForwardedHost),
        ("X-Forwarded-Proto", HeaderId::XForwardedProto),
        ("X-Proxy-ID", HeaderId::XProxyId),
        ("X-Real-IP", HeaderId::XRealIp),
        ("x-request-id", HeaderId::XRequestId),
    ];

    #[test]
    fn known_names_are_found_in_any_case() {
        for (name, id) in KNOWN {
            assert_eq!(HeaderId::of(name.as_bytes()), id, "{name}");
            assert_eq!(HeaderId::of(name.to_ascii_lowercase().as_bytes()), id, "{name}");
            assert_eq!(HeaderId::of(name.to_ascii_uppercase().as_bytes()), id, "{name}");
        }
    }

    #[test]
    fn a_name_that_differs_in_one_byte_is_other() {
        for (name, id) in KNOWN {
            for at in 0..name.len() {
                for byte in (0x21..0x7f).filter(|byte: &u8| *byte != b':') {
                    let mut near = name.as_bytes().to_vec();
                    near[at] = byte;
                    let same = near.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(HeaderId::of(&near) == id, same, "{:?}", near.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn empty_and_longer_names_are_other() {
        assert_eq!(HeaderId::of(b""), HeaderId::Other);
        assert_eq!(HeaderId::of(b"Hos"), HeaderId::Other);
        assert_eq!(HeaderId::of(b"Hosts"), HeaderId::Other);
        assert_eq!(HeaderId::of(&[b'x'; 300]), HeaderId::Other);
    }

    #[test]
    fn edits_replace_what_they_remove_and_set_but_not_what_they_add() {
        let edits = HeaderEdits {
            remove: vec![b"x-drop".as_slice().into()],
            set: vec![(b"X-Env".as_slice().into(), b"prod".as_slice().into())],
            add: vec![(b"X-More".as_slice().into(), b"1".as_slice().into())],
        };
        assert!(edits.replaces(b"X-Drop"));
        assert!(edits.replaces(b"x-env"));
        assert!(!edits.replaces(b"X-More"));
    }
}
