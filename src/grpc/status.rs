//! The codes of gRPC, and which of them a failure of ours, or an answer that is no gRPC, stands
//! for. A caller reads `grpc-status`, whatever the status of HTTP.

use crate::exchange::failure::Failure;
use crate::hexadecimal;

/// All there are. Their numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// By number.
    pub const ALL: [Code; Code::COUNT] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    pub const COUNT: usize = 17;

    pub fn number(self) -> u8 {
        self as u8
    }

    /// In metrics, logs and configuration.
    pub fn label(self) -> &'static str {
        match self {
            Code::Ok => "ok",
            Code::Cancelled => "cancelled",
            Code::Unknown => "unknown",
            Code::InvalidArgument => "invalid_argument",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::NotFound => "not_found",
            Code::AlreadyExists => "already_exists",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted => "resource_exhausted",
            Code::FailedPrecondition => "failed_precondition",
            Code::Aborted => "aborted",
            Code::OutOfRange => "out_of_range",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
            Code::Unavailable => "unavailable",
            Code::DataLoss => "data_loss",
            Code::Unauthenticated => "unauthenticated",
        }
    }

    /// The value of a `grpc-status`. A number that is none of ours is of a later protocol, and
    /// counts as unknown, as clients take it.
    pub fn parse(value: &[u8]) -> Code {
        let digits = value.trim_ascii();
        let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u8>().ok());
        let code = number.and_then(|number| Code::ALL.get(usize::from(number)));
        code.copied().unwrap_or(Code::Unknown)
    }

    /// The server's doing, as OpenTelemetry's conventions have it: worth a line in a log that
    /// samples.
    pub fn is_servers_fault(self) -> bool {
        matches!(
            self,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        )
    }

    /// What an answer of HTTP without a `grpc-status` stands for (the gRPC project's table).
    pub fn of_http(status: u16) -> Code {
        match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }

    /// What a failure of ours is to a caller. One that nobody can be answered any more has a code
    /// as well: it is counted.
    #[rustfmt::skip]
    pub fn of_failure(failure: Failure) -> Code {
        match failure {
            // The caller's mistakes, of which the client library makes the head.
            Failure::Malformed(_)
            | Failure::BodyMalformed
            | Failure::VersionUnsupported
            | Failure::ExpectationUnsupported
            | Failure::DeadlineMalformed
            | Failure::WebBodyMalformed
            | Failure::PlainHttpOnTls => Code::Internal,
            Failure::UrlTooLong
            | Failure::HeadTooLarge
            | Failure::TooManyHeaders
            | Failure::BodyTooLarge
            | Failure::MessageTooLarge
            | Failure::UpstreamMessageTooLarge
            | Failure::RateLimited => Code::ResourceExhausted,
            Failure::MethodRefused
            | Failure::BadPath
            | Failure::NoRoute
            | Failure::NotGrpc
            | Failure::GrpcWithoutTrailers => Code::Unimplemented,
            Failure::Blacklisted | Failure::OriginRefused => Code::PermissionDenied,
            Failure::HeaderTimeout
            | Failure::BodyTimeout
            | Failure::BodyTooSlow => Code::DeadlineExceeded,
            Failure::ClientClosed
            | Failure::ClientWriteTimeout
            | Failure::ClientTooSlow
            | Failure::IdleTimeout => Code::Cancelled,
            // Another try, on another connection, may go well.
            Failure::Misdirected
            | Failure::NoEndpoint
            | Failure::EndpointUnresolved
            | Failure::EndpointsDrained
            | Failure::CircuitOpen
            | Failure::ConnectRefused
            | Failure::ConnectFailed
            | Failure::ConnectTimeout
            | Failure::UpstreamTlsFailed
            | Failure::UpstreamTlsUntrusted
            | Failure::UpstreamTlsTimeout
            | Failure::UpstreamNotHttp2
            | Failure::UpstreamNoTunnel
            | Failure::UpstreamRefused
            | Failure::UpstreamClosed
            | Failure::UpstreamReset
            | Failure::UpstreamBodyCut
            | Failure::Draining
            | Failure::GenerationRetired
            | Failure::StreamIdleTimeout
            | Failure::GrpcStatus => Code::Unavailable,
            Failure::UpstreamMalformed
            | Failure::UpstreamHeadTooLarge
            | Failure::UpstreamBodyMalformed
            | Failure::Internal => Code::Internal,
            Failure::FirstByteTimeout
            | Failure::UpstreamReadTimeout
            | Failure::UpstreamWriteTimeout
            | Failure::DeadlineTimeout
            | Failure::ExchangeTimeout => Code::DeadlineExceeded,
            Failure::PoolFull
            | Failure::PoolTimeout
            | Failure::OutOfDescriptors
            | Failure::ConnectionLimit => Code::ResourceExhausted,
        }
    }
}

/// The value of a `grpc-message`: bytes that are no printable ASCII, and `%`, are escaped.
pub fn encode_message(message: &[u8], out: &mut Vec<u8>) {
    for &byte in message {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            out.push(b'%');
            out.extend_from_slice(&hexadecimal::upper(byte));
        }
    }
}

/// The lines that end a call: its trailers, or the end of a head that is all there is.
pub fn lines(code: Code, message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"grpc-status: ");
    crate::telemetry::decimal::integer(u64::from(code.number()), out);
    out.extend_from_slice(b"\r\n");
    if !message.is_empty() {
        out.extend_from_slice(b"grpc-message: ");
        encode_message(message, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// A set of codes, for configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes(u32);

impl Codes {
    pub fn with(self, code: Code) -> Codes {
        Codes(self.0 | 1 << code.number())
    }

    pub fn has(self, code: Code) -> bool {
        self.0 & 1 << code.number() != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;

    use super::*;
    use crate::telemetry::snapshot;

    #[test]
    fn codes_are_listed_by_their_numbers() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(Code::parse(number.to_string().as_bytes()), code);
        }
        let labels: HashSet<&str> = Code::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), Code::COUNT);
    }

    #[test]
    fn a_status_that_is_no_number_of_ours_is_unknown() {
        for odd in ["", "17", "-1", "256", "0x0", "ok", "1 2", "\u{663}"] {
            assert_eq!(Code::parse(odd.as_bytes()), Code::Unknown, "{odd}");
        }
        assert_eq!(Code::parse(b" 14"), Code::Unavailable);
    }

    #[test]
    fn what_a_failure_is_to_a_caller_is_as_reviewed() {
        let mut table = String::new();
        for failure in Failure::ALL {
            let code = Code::of_failure(failure);
            let (label, status) = (failure.label(), failure.status());
            writeln!(table, "{:2} {:18} {status:03} {label}", code.number(), code.label()).unwrap();
            assert_ne!(code, Code::Ok, "{label}");
        }
        snapshot::snapshot("telemetry/grpc_failure.txt", &table);
    }

    #[test]
    fn a_message_is_printable_ascii_whatever_it_says() {
        let encoded = |message: &str| {
            let mut out = Vec::new();
            encode_message(message.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(encoded("no route matches"), "no route matches");
        assert_eq!(encoded("100%\r\n\u{fc}~\x7f\0"), "100%25%0D%0A%C3%BC~%7F%00");
        assert_eq!(encoded(""), "");
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let codes = Codes::default().with(Code::Unavailable).with(Code::Ok);
        assert!(codes.has(Code::Unavailable) && codes.has(Code::Ok) && !codes.is_empty());
        assert!(!codes.has(Code::Internal) && Codes::default().is_empty());
    }
}
