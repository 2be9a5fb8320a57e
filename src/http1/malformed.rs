//! Why a head is refused: one variant per rule, and the cold search for the rule that was broken
//! once httparse has said no (it says that a head is bad, not where). Used by `parse` only.

use crate::http1::parse::HeadLimits;

/// Longest method. No registered one has more than 17 bytes (UPDATEREDIRECTREF).
pub(crate) const METHOD_BYTES_MAX: usize = 64;

/// One table: variant, label, message.
macro_rules! malformed {
    ($($variant:ident $label:literal $message:literal)*) => {
        /// Why a head is refused. The caller maps `UrlTooLong` to 414, `HeadTooLarge` and
        /// `TooManyHeaders` to 431, `ExpectationUnknown` to 417, `VersionUnsupported` to 505 and
        /// all others to 400; for a response every one of them is a 502.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Malformed { $($variant,)* }

        impl Malformed {
            pub const ALL: &[Malformed] = &[$(Malformed::$variant,)*];

            /// For metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(Malformed::$variant => $label,)* }
            }

            /// For the reply: what was wrong, and where that is written.
            pub fn message(self) -> &'static str {
                match self { $(Malformed::$variant => $message,)* }
            }
        }
    };
}

malformed! {
    UrlTooLong "url_too_long"
        "the request target is longer than this server accepts (RFC 9110 15.5.15)"
    HeadTooLarge "head_too_large"
        "the header section is larger than this server accepts (RFC 6585 5)"
    TooManyHeaders "too_many_headers"
        "there are more header lines than this server accepts (RFC 6585 5)"
    VersionUnsupported "version_unsupported"
        "only HTTP/1.0 and HTTP/1.1 are spoken here (RFC 9110 15.6.6)"
    ExpectationUnknown "expectation_unknown"
        "the only expectation that can be met is 100-continue (RFC 9110 10.1.1)"
    LeadingEmptyLine "leading_empty_line"
        "at most one empty line may stand before a request, none before a response (RFC 9112 2.2)"
    Method "method"
        "the method is not a token of at most 64 bytes (RFC 9110 9.1)"
    RequestLine "request_line"
        "the request line is not a method, a target and a version, one space between (RFC 9112 3)"
    StatusLine "status_line"
        "the status line is not a version, a status from 100 to 999 and a reason (RFC 9112 4)"
    Target "target"
        "the request target holds a control byte, a fragment or non-ASCII (RFC 9112 3.2)"
    TargetForm "target_form"
        "the form of the request target does not fit the method (RFC 9112 3.2)"
    TargetAuthority "target_authority"
        "the authority of the request target is not a host and an optional port (RFC 9112 3.2)"
    BareLf "bare_lf"
        "a line ends with LF and not with CRLF (RFC 9112 2.2)"
    BareCr "bare_cr"
        "a CR stands without its LF (RFC 9112 2.2)"
    ObsoleteFold "obsolete_fold"
        "a header line starts with white space (RFC 9112 5.2)"
    SpaceInName "space_in_name"
        "white space stands in a header name or before its colon (RFC 9112 5.1)"
    HeaderNameEmpty "header_name_empty"
        "a header line starts with its colon (RFC 9112 5)"
    HeaderName "header_name"
        "a header name holds a byte that no token may hold (RFC 9110 5.1)"
    HeaderColonMissing "header_colon_missing"
        "a header line has no colon (RFC 9112 5)"
    HeaderValue "header_value"
        "a header value holds a control byte (RFC 9110 5.5)"
    BlankAroundValue "blank_around_value"
        "a field value begins or ends with white space (RFC 9113 8.2.1)"
    Scheme "scheme"
        "the scheme is neither http nor https (RFC 9113 8.3.1)"
    UnderscoreTwin "underscore_twin"
        "a header name with an underscore stands for another header once it is read as a dash"
    HostMissing "host_missing"
        "an HTTP/1.1 request needs a Host header (RFC 9112 3.2)"
    HostRepeated "host_repeated"
        "there is more than one Host header (RFC 9112 3.2)"
    Host "host"
        "the Host header is not a host and an optional port (RFC 9112 3.2)"
    HostMismatch "host_mismatch"
        "the Host header names another authority than the request target (RFC 9112 3.2)"
    ContentLength "content_length"
        "Content-Length is not one decimal number (RFC 9112 6.3)"
    ContentLengthRepeated "content_length_repeated"
        "there is more than one Content-Length header (RFC 9112 6.3)"
    ContentLengthWithTransferEncoding "content_length_with_transfer_encoding"
        "Content-Length and Transfer-Encoding stand in one message (RFC 9112 6.1)"
    TransferEncoding "transfer_encoding"
        "Transfer-Encoding is something other than chunked (RFC 9112 6.1)"
    TransferEncodingRepeated "transfer_encoding_repeated"
        "there is more than one Transfer-Encoding header (RFC 9112 6.1)"
    TransferEncodingOnHttp10 "transfer_encoding_on_http10"
        "Transfer-Encoding stands in an HTTP/1.0 message (RFC 9112 6.1)"
    ConnectionOption "connection_option"
        "a Connection option is no token, an end-to-end header, or one too many (RFC 9110 7.6.1)"
}

/// Bounds that must hold before the request line has ended. `text` starts with the method.
pub(crate) fn request_line_limits(text: &[u8], limits: &HeadLimits) -> Result<(), Malformed> {
    let token = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
    if token > METHOD_BYTES_MAX {
        return Err(Malformed::Method);
    }
    if text.get(token) != Some(&b' ') {
        return Ok(());
    }
    let target = &text[token + 1..];
    let longest = &target[..target.len().min(limits.url_bytes_max + 1)];
    let ended = longest.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
    if longest.len() > limits.url_bytes_max && !ended {
        return Err(Malformed::UrlTooLong);
    }
    Ok(())
}

/// The rule that a request breaks which httparse refused: the same for every prefix it refuses.
#[cold]
pub(crate) fn request_fault(
    text: &[u8],
    limits: &HeadLimits,
    found: &httparse::Request<'_, '_>,
    error: httparse::Error,
) -> Malformed {
    if let Err(malformed) = request_line_limits(text, limits) {
        return malformed;
    }
    let (Some(method), target) = (found.method, found.path) else {
        return Malformed::Method;
    };
    let Some(target) = target else {
        let after = &text[method.len() + 1..];
        let end = after.iter().position(|byte| *byte <= b' ' || *byte == 0x7f);
        let (target, rest) = after.split_at(end.unwrap_or(after.len()));
        let at_fault = matches!(rest, [b' ' | b'\r' | b'\n', ..]) && target.is_ascii();
        return if at_fault { Malformed::RequestLine } else { Malformed::Target };
    };
    let version_at = method.len() + target.len() + 2;
    if found.version.is_none() {
        return version_fault(&text[version_at..], Malformed::RequestLine);
    }
    match &text[version_at + 8..] {
        [b'\r', b'\n', section @ ..] if error != httparse::Error::TooManyHeaders => {
            header_fault(section)
        }
        [b'\r', b'\n', ..] => Malformed::TooManyHeaders,
        [b'\r', ..] => Malformed::BareCr,
        [b'\n', ..] => Malformed::BareLf,
        _ => Malformed::RequestLine,
    }
}

/// The same for a response.
#[cold]
pub(crate) fn response_fault(
    text: &[u8],
    found: &httparse::Response<'_, '_>,
    error: httparse::Error,
) -> Malformed {
    if found.version.is_none() {
        return version_fault(text, Malformed::StatusLine);
    }
    let line_end = text.iter().position(|byte| *byte == b'\n');
    let (Some(_), Some(line_end)) = (found.reason, line_end) else {
        return Malformed::StatusLine;
    };
    if text.get(line_end.wrapping_sub(1)) != Some(&b'\r') {
        return Malformed::BareLf;
    }
    if error == httparse::Error::TooManyHeaders {
        return Malformed::TooManyHeaders;
    }
    header_fault(&text[line_end + 1..])
}

/// What a version that is not 1.0 or 1.1 is: another version, or nothing of the kind. Decided at
/// the first byte that differs, so that more bytes never change the answer.
#[cold]
fn version_fault(version: &[u8], otherwise: Malformed) -> Malformed {
    for (at, expected) in b"HTTP/1.".iter().enumerate() {
        match version.get(at) {
            Some(byte) if byte == expected => {}
            Some(byte) if at == 5 && byte.is_ascii_digit() => return Malformed::VersionUnsupported,
            Some(_) | None => return otherwise,
        }
    }
    match version.get(7) {
        Some(b'2'..=b'9') => Malformed::VersionUnsupported,
        Some(_) | None => otherwise,
    }
}

/// The first rule that these header lines break.
#[cold]
fn header_fault(lines: &[u8]) -> Malformed {
    let mut rest = lines;
    loop {
        match rest {
            [b'\r', b'\n', ..] => return Malformed::HeaderName, // not reached: a whole section
            [b'\r', ..] => return Malformed::BareCr,
            [b'\n', ..] => return Malformed::BareLf,
            [b' ' | b'\t', ..] => return Malformed::ObsoleteFold,
            [b':', ..] => return Malformed::HeaderNameEmpty,
            _ => {}
        }
        let Some(end) = rest.iter().position(|byte| !is_token_byte(*byte)) else {
            return Malformed::HeaderName;
        };
        match rest[end] {
            b':' => {}
            b' ' | b'\t' => return Malformed::SpaceInName,
            b'\r' | b'\n' => return Malformed::HeaderColonMissing,
            _ => return Malformed::HeaderName,
        }
        rest = &rest[end + 1..];
        let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
        let Some(end) = rest.iter().position(control) else {
            return Malformed::HeaderValue;
        };
        rest = match &rest[end..] {
            [b'\r', b'\n', after @ ..] => after,
            [b'\r', ..] => return Malformed::BareCr,
            [b'\n', ..] => return Malformed::BareLf,
            _ => return Malformed::HeaderValue,
        };
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case_and_differ() {
        for (at, malformed) in Malformed::ALL.iter().enumerate() {
            let label = malformed.label();
            assert!(
                label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
            );
            assert!(Malformed::ALL[..at].iter().all(|other| other.label() != label));
            assert!(!malformed.message().ends_with('.'));
        }
    }
}
